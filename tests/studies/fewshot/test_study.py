"""The few-shot study on a tiny random backbone: what is asked, what is refused, what is kept."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fewshots import config, rows_file
from helpers.tiny import backbone, tokenizer

from loraft.config.resolve import load_config
from loraft.config.schema import Config, LoraSection
from loraft.data.dataset import load_data
from loraft.errors import RunError
from loraft.evaluation import evaluate, metrics
from loraft.models.adapter import add_adapter
from loraft.models.calibration import NONE, Calibration
from loraft.models.load import build_encoder
from loraft.runs.run import Run, newest_finished
from loraft.runs.study_folders import FewshotFolder
from loraft.studies.fewshot import study as fewshot_study
from loraft.studies.fewshot.records import FewshotResult
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, BASELINE
from loraft.studies.fewshot.tables import fewshot

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture
def adapted(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose adapter changes answers."""

    def load_run(run: Any, config: Config) -> Any:
        model = add_adapter(backbone(), LoraSection(r=4), seed=0)
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.3)
        return build_encoder(config), model.eval()

    monkeypatch.setattr(fewshot_study, "load_run", load_run)
    monkeypatch.setattr(Run, "open", lambda path: path)
    return Path("runs/của em")


def scores(study: FewshotResult, model: str, shots: int) -> list[float | None]:
    return [draw.report.log_loss for draw in study.draws if (draw.model, draw.shots) == (model, shots)]


def test_every_prompt_holds_the_draws_rows_in_their_order(tmp_path: Path, asked: list[list[str]]) -> None:
    settings = config(tmp_path)
    study = fewshot_study.fewshot(settings, quiet=True)
    train = {example.row: example for example in load_data(settings, "train").examples}
    test = load_data(settings, "test").texts
    assert [(draw.shots, draw.draw) for draw in study.draws] == [(0, 0), (1, 0), (1, 1), (4, 0), (4, 1)]
    assert study.draws[0].train_rows == ()
    for draw, prompts in list(zip(study.draws, asked, strict=True))[1:]:
        words = ["negative", "neutral", "positive"]
        shown = [train[row] for row in draw.train_rows or ()]
        examples = "\n".join(f"Sentence: {e.text}\nSentiment: {words[e.label]}\n" for e in shown)
        for prompt, sentence in zip(prompts, test, strict=True):
            assert f"Here are a few examples:\n\n{examples}\nSentence: {sentence}<|eot_id|>" in prompt


def test_nearest_gives_each_row_its_own_demonstrations(tmp_path: Path, asked: list[list[str]]) -> None:
    study = fewshot_study.fewshot(config(tmp_path, "fewshot.selection=nearest", "fewshot.shots=[2]"), quiet=True)
    heads = [prompt.rpartition("Sentence: ")[0] for prompt in asked[1]]
    assert len(set(heads)) == 8
    assert all(head.count("Sentence: ") == 2 for head in heads)
    assert [draw.train_rows for draw in study.draws] == [(), None, None]
    # The second draw shows the same sentences to the same row, in the other order or the same.
    again = [prompt.rpartition("Sentence: ")[0] for prompt in asked[2]]
    assert [sorted(a.split("\n")) for a in heads] == [sorted(b.split("\n")) for b in again]


def test_what_leaves_nothing_to_draw_is_asked_once(tmp_path: Path) -> None:
    settings = config(tmp_path, "fewshot.selection=nearest", "fewshot.shots=[1,2]")
    asked = [(job.shots, job.draw) for job in fewshot_study.plan(settings.fewshot, [0, 1, 2], adapter=False,
                                                            adapter_shots=False) if job.shots is not None]  # fmt: skip
    assert asked == [(0, 0), (1, 0), (2, 0), (2, 1)]


def test_nothing_is_planned_twice_and_the_adapter_as_trained_comes_before_the_models(tmp_path: Path) -> None:
    jobs = list(fewshot_study.plan(config(tmp_path).fewshot, [0, 1], adapter=True, adapter_shots=True))
    assert [(job.model, job.shots, job.draw) for job in jobs[2:]] == [
        (ADAPTER, 0, 0), (BACKBONE, 0, 0), (BACKBONE, 1, 0), (BACKBONE, 1, 1), (ADAPTER, 1, 0), (ADAPTER, 1, 1)
    ]  # fmt: skip


@pytest.mark.parametrize("shots", ["[0]", "[2]"])
def test_the_prompt_of_training_without_demonstrations_is_always_asked_once(
    tmp_path: Path, asked: list[list[str]], shots: str
) -> None:
    settings = config(tmp_path, f"fewshot.shots={shots}")
    study = fewshot_study.fewshot(settings, quiet=True)
    plain = build_encoder(settings).encode(load_data(settings, "test").texts)
    assert asked[0] == tokenizer().batch_decode([prompt.ids for prompt in plain])
    assert [row.draws for row in study.rows if row.model == BACKBONE] == [1, 2][: len(asked)]


def test_the_table_has_baselines_and_the_same_test_rows_everywhere(tmp_path: Path) -> None:
    study = fewshot_study.fewshot(config(tmp_path), quiet=True)
    assert [row.name for row in study.rows] == [
        "majority label", "TF-IDF + linear SVM", "backbone, 0 shots", "backbone, 1 shot", "backbone, 4 shots"
    ]  # fmt: skip
    assert {draw.report.n for draw in study.draws} == {8}
    assert study.rows[0].scores["macro_f1"].mean > 0
    assert (tmp_path / Path(study.path).name / "plots" / "fewshot.png").stat().st_size > 0
    assert fewshot(study).row_count == 5


def test_the_adapter_joins_as_it_was_trained_and_leaves_the_backbone_bare(tmp_path: Path, adapted: Path) -> None:
    alone = fewshot_study.fewshot(config(tmp_path, "name=không-adapter"), quiet=True)
    study = fewshot_study.fewshot(config(tmp_path), run=adapted, quiet=True)
    assert [(row.model, row.shots) for row in study.rows if row.model != BASELINE] == [
        (ADAPTER, 0), (BACKBONE, 0), (BACKBONE, 1), (BACKBONE, 4)
    ]  # fmt: skip
    for shots in (0, 1, 4):
        assert scores(study, BACKBONE, shots) == pytest.approx(scores(alone, BACKBONE, shots), abs=1e-6)
    assert scores(study, ADAPTER, 0) != pytest.approx(scores(study, BACKBONE, 0), abs=1e-3)
    assert [one.of for one in study.compared] == ["adapter, 0 shots"] * 2


def test_the_adapter_is_calibrated_with_the_prompt_that_it_was_trained_with(
    tmp_path: Path, adapted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, given = Calibration(2.0, (0.5, 0.0, -0.5), 60), []

    def judged(*args: Any, calibration: Calibration) -> Any:
        given.append(calibration)
        return judge(*args, calibration=calibration)

    judge = fewshot_study.judge
    monkeypatch.setattr(fewshot_study, "judge", judged)
    monkeypatch.setattr(fewshot_study.manifest, "calibration", lambda adapter, _: NONE if adapter is None else one)
    study = fewshot_study.fewshot(config(tmp_path, "fewshot.shots=[1]"), run=adapted, adapter_shots=True, quiet=True)
    (found,) = (draw.report for draw in study.draws if (draw.model, draw.shots) == (ADAPTER, 0))
    assert (found.calibration, given.count(one)) == (one, 1)
    assert {draw.report.calibration for draw in study.draws} == {one, None}


def test_the_backbone_is_the_one_without_an_adapter_that_took_weights_out_of_it(
    tmp_path: Path, adapted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = fewshot_study.fewshot(config(tmp_path, "name=không-adapter"), quiet=True)
    load_run = fewshot_study.load_run

    def moved(run: Any, config: Config) -> Any:
        encoder, model = load_run(run, config)
        for name, parameter in model.named_parameters():
            if "base_layer" in name:
                parameter.data *= 0.5
        return encoder, model

    monkeypatch.setattr(fewshot_study, "load_run", moved)
    study = fewshot_study.fewshot(config(tmp_path, "lora.init_lora_weights=pissa"), run=adapted, quiet=True)
    for shots in (0, 1, 4):
        assert scores(study, BACKBONE, shots) == pytest.approx(scores(alone, BACKBONE, shots), abs=1e-6)


def test_demonstrations_come_before_the_adapter_on_request_only(tmp_path: Path, adapted: Path) -> None:
    study = fewshot_study.fewshot(config(tmp_path), run=adapted, adapter_shots=True, quiet=True)
    for shots in (1, 4):
        assert len(scores(study, ADAPTER, shots)) == 2
        assert scores(study, ADAPTER, shots) != pytest.approx(scores(study, BACKBONE, shots), abs=1e-3)


def test_generated_answers_that_are_no_label_are_counted(tmp_path: Path) -> None:
    settings = config(tmp_path, "eval.decode=generate", "eval.max_new_tokens=2", "fewshot.shots=[1]")
    study = fewshot_study.fewshot(settings, quiet=True)
    written = json.loads((Path(study.path) / "fewshot.json").read_text(encoding="utf-8"))
    row = written["rows"][-1]
    assert (row["no_label"], row["accuracy"]["mean"]) == (1.0, 0.0)  # two tokens are too few for an answer
    assert [draw["no_label"] for draw in written["draws"]] == [1.0] * 3
    log = FewshotFolder(Path(study.path)).read_log()
    assert [line["predictions"] for line in log if line["model"] == BACKBONE] == [[-1] * 8] * 3
    shares = next(column for column in fewshot(study).columns if str(column.header).split() == ["no", "label"])
    assert [str(cell) for cell in shares.cells] == ["0.0%", "0.0%", "100.0%", "100.0%"]


@contextmanager
def interrupted_after(
    calls: int, monkeypatch: pytest.MonkeyPatch, by: type[BaseException] = KeyboardInterrupt
) -> Iterator[list[int]]:
    """Lets so many draws be measured, then raises an error; yields the number of those that were measured."""
    judge, count = evaluate.judge, [0]

    def some(*args: Any, **kwargs: Any) -> Any:
        if count[0] == calls:
            raise by
        count[0] += 1
        return judge(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(fewshot_study, "judge", some)
        yield count


def test_an_interrupted_study_goes_on_with_the_draws_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fewshot_study.fewshot(config(tmp_path, "name=một-mạch"), quiet=True)
    said: list[str] = []
    with interrupted_after(4, monkeypatch), pytest.raises(KeyboardInterrupt) as stop:
        fewshot_study.fewshot(config(tmp_path, "name=gián-đoạn"), quiet=True, tell=said.append)
    assert stop.value.__notes__ == ["6 of 7 measurements are saved; the same command with --resume continues"]
    folder = tmp_path / "gián-đoạn"
    assert not (folder / "fewshot.json").exists()
    with pytest.raises(RunError, match=r"an unfinished study of feedback is there; .* --resume continues it, --force"):
        fewshot_study.fewshot(config(tmp_path, "name=gián-đoạn"), quiet=True)
    with (folder / "draws.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"model": "backbone", "sho')  # half a line, as a killed process leaves it
    with interrupted_after(9, monkeypatch) as count:
        resumed = fewshot_study.fewshot(config(tmp_path, "name=gián-đoạn"), resume=True, quiet=True)
    assert count == [1]
    assert (resumed.compared, resumed.verdict) == (whole.compared, whole.verdict)
    for score in ("accuracy", "macro_f1"):
        assert [row.scores[score] for row in resumed.rows] == [row.scores[score] for row in whole.rows]


@pytest.mark.parametrize("selection", ["random", "balanced", "nearest"])
def test_a_study_grows_by_the_draws_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selection: str
) -> None:
    larger = ("fewshot.repeats=3", "fewshot.shots=[2,4,8]", f"fewshot.selection={selection}")
    whole = fewshot_study.fewshot(config(tmp_path, *larger, "name=một-mạch"), quiet=True)
    smaller = config(tmp_path, f"fewshot.selection={selection}", "fewshot.shots=[2,4]", "name=lớn-dần")
    fewshot_study.fewshot(smaller, quiet=True)
    with interrupted_after(99, monkeypatch) as count:
        grown = fewshot_study.fewshot(config(tmp_path, *larger, "name=lớn-dần"), resume=True, quiet=True)
    assert count == [2 + 3]  # the third draw of 2 and 4 shots, and 8 shots
    drawn, expected = (
        [(draw.model, draw.shots, draw.draw, draw.train_rows, draw.report.confusion) for draw in study.draws]
        for study in (grown, whole)
    )
    assert drawn == expected
    assert (grown.compared, grown.verdict) == (whole.compared, whole.verdict)
    assert load_config(tmp_path / "lớn-dần" / "fewshot.yaml").fewshot.shots == [2, 4, 8]


def test_a_study_with_nothing_left_to_measure_loads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fewshot_study.fewshot(config(tmp_path), quiet=True)
    monkeypatch.setattr(fewshot_study, "build", lambda config: pytest.fail("weights were loaded"))
    again = fewshot_study.fewshot(config(tmp_path), resume=True, quiet=True)
    assert again == first


def test_an_interrupted_growth_leaves_the_finished_study_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(fewshot_study.fewshot(config(tmp_path), quiet=True).path)
    before = [(folder / name).read_bytes() for name in ("fewshot.yaml", "fewshot.json")]
    with interrupted_after(1, monkeypatch), pytest.raises(KeyboardInterrupt):
        fewshot_study.fewshot(config(tmp_path, "fewshot.repeats=4"), resume=True, quiet=True)
    assert [(folder / name).read_bytes() for name in ("fewshot.yaml", "fewshot.json")] == before
    with interrupted_after(99, monkeypatch) as count:
        fewshot_study.fewshot(config(tmp_path, "fewshot.repeats=4"), resume=True, quiet=True)
    assert count == [3]


def test_another_config_is_not_resumed_and_the_keys_are_named(tmp_path: Path) -> None:
    fewshot_study.fewshot(config(tmp_path), quiet=True)
    folder = "fewshot-loraft-vi-tiny-feedback-sentiment-random-s42"
    with pytest.raises(RunError, match=r"another config:\n  data.max_test_rows: 8 then, 9 now\n--resume"):
        fewshot_study.fewshot(config(tmp_path, "data.max_test_rows=9"), resume=True, quiet=True)
    with pytest.raises(RunError, match=r"fewshot.selection: random then, balanced now"):
        fewshot_study.fewshot(config(tmp_path, "fewshot.selection=balanced", f"name={folder}"), resume=True, quiet=True)
    with pytest.raises(RunError, match=r"--resume: there is no study in .*mới; leave --resume out"):
        fewshot_study.fewshot(config(tmp_path, "name=mới"), resume=True, quiet=True)


def test_draws_over_other_rows_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = rows_file(tmp_path, "test.jsonl", "tốt", "dở")
    settings = config(tmp_path, f"data.test_split={test}")
    fewshot_study.fewshot(settings, quiet=True)
    rows_file(tmp_path, "test.jsonl", "tốt", "dở", "rất hay")
    with interrupted_after(99, monkeypatch) as count:
        again = fewshot_study.fewshot(settings, resume=True, quiet=True)
    assert count == [5]
    assert {draw.report.n for draw in again.draws} == {3}


def test_draws_from_other_training_rows_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, texts = tmp_path / "train.jsonl", ["tốt lắm", "dở quá", "hay", "chán"]
    settings = config(tmp_path, f"data.train_split={train}", "fewshot.shots=[1]", "fewshot.repeats=1")
    for resume in (False, True):
        lines = [
            json.dumps({"sentence": text, "sentiment": ("negative", "positive")[n % 2]}) for n, text in enumerate(texts)
        ]
        train.write_text("\n".join(lines), encoding="utf-8")
        with interrupted_after(99, monkeypatch) as count:
            fewshot_study.fewshot(settings, resume=resume, quiet=True)
        assert count == [2]  # without demonstrations, and with one
        texts.append("rất hay")


def test_only_a_retrained_adapter_is_measured_again(
    tmp_path: Path, adapted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "chạy"
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"a")
    fewshot_study.fewshot(config(tmp_path), run=run, quiet=True)
    for content, expected in ((b"a", 0), (b"b", 1)):
        (run / "adapter" / "adapter_model.safetensors").write_bytes(content)
        with interrupted_after(99, monkeypatch) as count:
            fewshot_study.fewshot(config(tmp_path), run=run, resume=True, quiet=True)
        assert count == [expected]


def test_answers_are_kept_row_by_row_and_score_what_the_table_says(tmp_path: Path, adapted: Path) -> None:
    settings = config(tmp_path)
    study = fewshot_study.fewshot(settings, run=adapted, quiet=True)
    test = load_data(settings, "test")
    log = [json.loads(line) for line in (Path(study.path) / "draws.jsonl").read_text("utf-8").splitlines()]
    assert [(row["model"], row["shots"]) for row in log[:4]] == [
        ("majority label", None), ("TF-IDF + linear SVM", None), (ADAPTER, 0), (BACKBONE, 0)
    ]  # fmt: skip
    assert len(log) == 2 + 1 + 1 + 2 + 2
    for row in log:
        assert metrics.core(test.labels, row["predictions"], 3)["macro_f1"] == row["macro_f1"]
    assert not any(draw.predictions for draw in study.draws)
    written = json.loads((Path(study.path) / "fewshot.json").read_text(encoding="utf-8"))
    assert not any({"predictions", "sources"} & draw.keys() for draw in written["draws"])


def test_a_study_that_fails_before_its_first_draw_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fewshot_study.fewshot(config(tmp_path), quiet=True)
    monkeypatch.setattr(fewshot_study, "BASELINES", {"majority label": lambda train, test: 1 / 0})
    with pytest.raises(ZeroDivisionError):
        fewshot_study.fewshot(config(tmp_path), force=True, quiet=True)
    assert FewshotResult.of(FewshotFolder(Path(first.path))) == first
    assert len(list(tmp_path.iterdir())) == 1


def test_a_study_that_fails_later_keeps_the_draws_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with interrupted_after(2, monkeypatch, by=MemoryError), pytest.raises(MemoryError):
        fewshot_study.fewshot(config(tmp_path), quiet=True)
    with interrupted_after(99, monkeypatch) as count:
        fewshot_study.fewshot(config(tmp_path), resume=True, quiet=True)
    assert count == [3]  # of 5


def test_a_finished_study_is_kept_unless_forced_and_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fewshot_study.fewshot(config(tmp_path), quiet=True)
    said = (
        "a finished study of feedback is there; the same command with --resume adds .*, --force deletes it, --set name"
    )
    with monkeypatch.context() as patch:
        patch.setattr(fewshot_study, "build", lambda config: pytest.fail("weights were loaded"))
        with pytest.raises(RunError, match=said):
            fewshot_study.fewshot(config(tmp_path), quiet=True)
    again = fewshot_study.fewshot(config(tmp_path), force=True, quiet=True)
    assert again.path == first.path
    assert [d.report.log_loss for d in again.draws] == [d.report.log_loss for d in first.draws]
    with pytest.raises(RunError, match="no finished run"):
        newest_finished(tmp_path)


def test_the_refusal_names_the_data_where_two_sources_of_one_name_meet(tmp_path: Path) -> None:
    data = load_data(config(tmp_path), "train").examples
    for folder in ("một", "hai"):
        (tmp_path / folder / "góp-ý").mkdir(parents=True)
        for split in ("train", "validation", "test"):
            lines = [json.dumps({"sentence": e.text, "sentiment": e.label, "topic": 0}) for e in data[:30]]
            (tmp_path / folder / "góp-ý" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    fewshot_study.fewshot(config(tmp_path, f"data.source={tmp_path / 'một' / 'góp-ý'}"), quiet=True)
    other = config(tmp_path, f"data.source={tmp_path / 'hai' / 'góp-ý'}")
    with pytest.raises(RunError, match=r"a finished study of .*/một/góp-ý is there; .*--set name=NAME keeps both"):
        fewshot_study.fewshot(other, quiet=True)
    with pytest.raises(RunError, match=r"data.source: .*/một/góp-ý then, .*/hai/góp-ý now"):
        fewshot_study.fewshot(other, resume=True, quiet=True)


def test_the_folder_holds_config_and_results_that_read_back_equal(tmp_path: Path) -> None:
    settings = config(tmp_path)
    study = fewshot_study.fewshot(settings, quiet=True)
    folder = Path(study.path)
    assert load_config(folder / "fewshot.yaml") == settings
    assert FewshotResult.of(FewshotFolder(folder)) == study
    assert folder.name == "fewshot-loraft-vi-tiny-feedback-sentiment-random-s42"


def test_the_folder_is_named_by_what_studies_differ_in(tmp_path: Path) -> None:
    name, run = fewshot_study.fewshot_name, Run(tmp_path / "chạy")
    base = "fewshot-loraft-vi-tiny-feedback-sentiment"
    assert name(config(tmp_path), None) == f"{base}-random-s42"
    other = config(tmp_path, "eval.decode=generate", "quant.method=nf4", "seed=3", "fewshot.selection=nearest")
    assert name(other, run) == f"{base}-nearest-generate-nf4-s3-with-chạy"
    assert name(config(tmp_path, "name=mới"), run) == "mới"
