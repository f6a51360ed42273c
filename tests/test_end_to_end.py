"""End to end on the bundled backbone and data: a run that was trained, evaluated and used for prediction."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.config import config
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from loraft.bundled import bundled_backbones, bundled_data
from loraft.config.resolve import load_config, resolve
from loraft.data.records import BadRow, Example
from loraft.engine import scorer
from loraft.errors import RunError
from loraft.evaluation.evaluate import evaluate
from loraft.evaluation.predict import predict
from loraft.models.load import load_run
from loraft.runs.run import Run
from loraft.training.pipeline import train
from loraft.training.results import RunResult

TEXTS = ["thầy dạy hay , dễ hiểu .", "phòng nóng quá , cần sửa quạt .", "bình thường ."]


@pytest.fixture(scope="module", params=["none", "nf4"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run of the bundled backbone, as it is and in 4 bits."""
    return train(config(tmp_path_factory.mktemp(request.param), f"quant.method={request.param}"), quiet=True)


def test_a_run_holds_everything_that_the_design_names(trained: RunResult) -> None:
    run = Run.open(Path(trained.run))
    files = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert {
        "config.yaml", "environment.json", "log.jsonl", "predictions.jsonl", "metrics.json", "adapter/loraft.json",
        "adapter/README.md", "adapter/adapter_model.safetensors", "plots/learning_curve.png",
        "plots/confusion_matrix.png", "explanations.json",
    } <= files  # fmt: skip
    assert not [name for name in files if "tmp" in name]
    bundle = json.loads((run.adapter / "loraft.json").read_text(encoding="utf-8"))
    assert bundle["labels"] == ["negative", "neutral", "positive"]
    assert bundle["scores"]["macro_f1"] == trained.after.macro_f1
    assert trained.before is not None
    assert trained.after.n == trained.before.n == 40
    assert RunResult.of(run) == trained
    card = (run.adapter / "README.md").read_text(encoding="utf-8")
    assert f"accuracy {trained.after.accuracy:.3f} on 40 test rows" in card
    assert str(run.path.parent) not in card


def test_training_changed_the_answers_and_kept_the_best_checkpoint(trained: RunResult) -> None:
    run = Run.open(Path(trained.run))
    assert trained.after.log_loss != trained.before.log_loss
    evaluations = {row["step"]: row["eval_macro_f1"] for row in run.read_log() if "eval_macro_f1" in row}
    assert set(evaluations) == {2, 4}
    assert evaluations[trained.train.best_step] == max(evaluations.values())
    checkpoint = run.checkpoints / f"checkpoint-{trained.train.best_step}" / "adapter_model.safetensors"
    best, saved = load_file(checkpoint), load_file(run.adapter / "adapter_model.safetensors")
    assert all((best[name] == saved[name]).all() for name in best)


def test_eval_gives_the_numbers_of_the_end_of_training_to_the_last_digit(trained: RunResult) -> None:
    result = evaluate(run=Path(trained.run))
    assert replace(result.report, seconds=0.0) == replace(trained.after, seconds=0.0)
    saved = Run.open(Path(trained.run)).predictions_path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in saved] == [row.to_json() for row in result.rows]


def test_zero_shot_eval_gives_the_numbers_before_training(trained: RunResult) -> None:
    section = load_config(Run.open(Path(trained.run)).config_path)
    result = evaluate(config=section, zero_shot=True)
    assert result.report.log_loss == trained.before.log_loss
    assert result.report.accuracy == trained.before.accuracy


def test_generation_judges_the_same_rows(trained: RunResult) -> None:
    section = resolve(config_file=Run.open(Path(trained.run)).config_path, overrides=["eval.decode=generate"])
    result = evaluate(config=section, run=Path(trained.run))
    assert result.report.decode == "generate"
    # The bundled backbone always answers with the prefix and a label word: that word is the label.
    assert [row.answer for row in result.rows] == [f"Sentiment: {row.predicted}" for row in result.rows]
    assert result.report.no_label == 0
    assert result.report.accuracy == np.mean([row.predicted == row.label for row in result.rows])
    scored = evaluate(run=Path(trained.run))
    assert [(row.row, row.text, row.label) for row in result.rows] == [
        (row.row, row.text, row.label) for row in scored.rows
    ]
    # Greedy decoding takes the best first token of a label word, scoring the best whole word: nearly always the same.
    same = [own.predicted == other.predicted for own, other in zip(result.rows, scored.rows, strict=True)]
    assert sum(same) >= 36  # of 40 rows; 40 when this was written


def test_predictions_keep_order_extras_and_bad_rows(trained: RunResult) -> None:
    rows: list[Example | BadRow] = [Example(text, None, i, {"id": f"câu {i}"}) for i, text in enumerate(TEXTS, 1)]
    rows.insert(1, BadRow(7, "no text"))
    found = list(predict(rows, run=Path(trained.run)))
    assert [row.text for row in found] == [TEXTS[0], "", *TEXTS[1:]]
    assert found[1].error == "no text"
    assert [row.extra for row in found if row.error is None] == [{"id": f"câu {i}"} for i in (1, 2, 3)]
    for row in (row for row in found if row.error is None):
        assert sum(row.probs.values()) == pytest.approx(1)
        assert row.label == max(row.probs, key=lambda label: row.probs[label])


def test_min_confidence_leaves_a_row_undecided(trained: RunResult) -> None:
    rows = [Example(text, None, i) for i, text in enumerate(TEXTS, 1)]
    plain = list(predict(rows, run=Path(trained.run)))
    middle = sorted(max(row.probs.values()) for row in plain)[1]
    some = list(predict(rows, run=Path(trained.run), min_confidence=middle))
    assert [row.label is None for row in some] == [max(row.probs.values()) < middle for row in plain]
    assert sum(row.label is None for row in some) == 1


def test_plain_sentences_can_be_given(trained: RunResult) -> None:
    plain = list(predict(TEXTS, run=Path(trained.run)))
    assert [(row.row, row.text) for row in plain] == list(enumerate(TEXTS, start=1))


def test_a_bare_string_is_one_sentence(trained: RunResult) -> None:
    (found,) = predict(TEXTS[0], run=trained.run)
    (expected,) = predict([TEXTS[0]], run=trained.run)
    assert (found.text, found.label) == (TEXTS[0], expected.label)


def test_the_adapter_gives_the_same_scores_in_plain_peft(trained: RunResult) -> None:
    run = Run.open(Path(trained.run))
    section = load_config(run.config_path)
    if section.quant.method == "nf4":
        pytest.skip("plain transformers would need the quantisation config; the full-precision run shows it")
    encoder, switchable = load_run(run, section)
    _, fixed = load_run(run, section, switchable=False)
    base = AutoModelForCausalLM.from_pretrained(bundled_backbones()["loraft-vi-tiny"], dtype=fixed.dtype)
    plain = PeftModel.from_pretrained(base.to(fixed.device), str(run.adapter)).eval()
    assert isinstance(switchable, PeftModel)
    assert not isinstance(fixed, PeftModel)
    ids = [prompt.ids for prompt in encoder.encode(TEXTS)]
    expected = scorer.score(plain, ids, encoder.completions_K)
    for ours in (switchable, fixed):
        np.testing.assert_array_equal(scorer.score(ours, ids, encoder.completions_K), expected)


def test_the_saved_adapter_names_its_backbone_and_no_local_folder(trained: RunResult) -> None:
    adapter = Path(trained.run) / "adapter"
    saved = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["base_model_name_or_path"] == "loraft-vi-tiny"
    for path in adapter.glob("*.*"):
        assert str(bundled_backbones()["loraft-vi-tiny"]).encode() not in path.read_bytes()


def edit_bundle(run: Run, change: Callable[[dict[str, Any]], None]) -> None:
    path = run.adapter / "loraft.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("labels", ["chê", "trung tính", "khen"], "labels"),
        ("chat_template_sha256", "0" * 64, "chat template"),
        ("date_string", "01 Jan 2030", "date in the prompt"),
        ("prompt_sha256", "0" * 64, "system message, template, answer prefix"),
        (
            "backbone",
            {"name": "khác", "revision": None, "fingerprint": "0" * 64, "quant": {}},
            "weights of the backbone",
        ),
    ],
)
def test_another_backbone_template_date_or_label_set_is_refused(
    trained: RunResult, key: str, value: Any, reason: str
) -> None:
    run = Run.open(Path(trained.run))
    path = run.adapter / "loraft.json"
    saved = path.read_text(encoding="utf-8")
    try:
        edit_bundle(run, lambda content: content.__setitem__(key, value))
        with pytest.raises(RunError, match=reason):
            evaluate(run=run.path)
    finally:
        path.write_text(saved, encoding="utf-8")


def test_a_file_is_judged_whole_whatever_the_run_was_limited_to(trained: RunResult, tmp_path: Path) -> None:
    file = tmp_path / "test.jsonl"
    rows = (bundled_data()["feedback"] / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(rows[:45]), encoding="utf-8")
    assert evaluate(run=Path(trained.run), split=str(file)).report.n == 45  # the run's limit is 40 rows


def test_a_run_and_zero_shot_are_two_things(trained: RunResult) -> None:
    with pytest.raises(RunError, match="give one of --run, --adapter, --zero-shot"):
        evaluate(run=Path(trained.run), zero_shot=True)


def test_another_task_is_a_yaml_of_labels_and_prompt(tmp_path: Path) -> None:
    rows = [
        {"review": text, "khen_che": word} for text, word in zip(TEXTS * 3, ["khen", "chê", "khen"] * 3, strict=True)
    ]
    for split in ("train", "validation", "test"):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    task = tmp_path / "khen-che.yaml"
    task.write_text(
        "labels: [chê, khen]\nlabel_column: khen_che\nsystem: Bạn là trợ lý.\n"
        "template: 'Câu sau khen hay chê? {input}'\n"
        "few_shot_template: '{few_shot_examples} Câu: {input}'\nexample_template: '{input} {label}'\n"
        "answer_prefix: 'Nhãn: '\n",
        encoding="utf-8",
    )
    overrides = [f"prompt.task={task}", f"data.source={tmp_path}", "data.text_column=review"]
    with pytest.warns(UserWarning, match="6 duplicate rows"):  # 9 rows of 3 sentences in each split
        result = train(config(tmp_path / "runs", *overrides), quiet=True)
    assert result.labels == ("chê", "khen")
    first = next(predict([Example("hay", None, 1)], run=Path(result.run)))
    assert first.label in ("chê", "khen")
