"""The card of an adapter: it says what was measured, the hub accepts it, its code runs, and no stranger's text acts."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.fake_hub import invalid
from helpers.label_sets import applies
from helpers.pushed import change_bundle, finished_run

from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config
from loraft.data.dataset import SplitSummary
from loraft.evaluation.classification_report import ProbabilityScores
from loraft.evaluation.multilabel import label_set_report
from loraft.models.calibration import Calibration
from loraft.runs.environment import Environment
from loraft.runs.records import read_record
from loraft.runs.run import Run
from loraft.training.model_card import model_card
from loraft.training.results import RunResult
from loraft.visible import visible

HOSTILE = "\x1b[31m<script>alert(1)</script> ![x](http://a.b/c) | `em` --- \u202eđược"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return finished_run(tmp_path / "chạy")


def card_of(run: Run, config: Config | None = None, repository: str = "", **changes: Any) -> str:
    """The run's card, with other results than it has."""
    return model_card(run, config or load_config(run.config_path), replace(RunResult.of(run), **changes), repository)


def test_probabilities_stand_as_scored_and_calibrated(run: Run) -> None:
    assert "Probabilities are as scored: nothing calibrated them." in card_of(run)
    before = ProbabilityScores(0.25, (0.125, 0.5), 0.75, 0.5, accuracy=0.5, macro_f1=0.25, changed=2)
    after = replace(RunResult.of(run).after, calibration=Calibration(1.5, (0.5, 0.0, -0.5), 60, 60),
                    before_calibration=before)  # fmt: skip
    card = card_of(run, after=after)
    for expected in (
        "| probabilities | as scored | calibrated |",
        f"| log loss, nats | 0.7500 | {after.log_loss:.4f} |",
        f"| accuracy | 0.5000 | {after.accuracy:.4f} |",
        "Calibrated: temperature 1.500, biases +0.50, +0.00, -0.50, fitted on 60 validation rows; 60 more are set",
        f"Biases change labels: 2 of {after.n} here.",
    ):
        assert expected in card


def test_a_card_says_where_the_calibration_is(run: Run) -> None:
    config, result, one = load_config(run.config_path), RunResult.of(run), {"temperature": 1.5}
    for kind, made, told in (
        ("merged", {"calibration": one}, "a server that generates the answer does not"),
        ("onnx", {"calibration": one}, "The logits hold the calibration."),
        ("classifier", {"calibration": None}, "The logits hold no calibration."),
    ):
        assert told in model_card(run, config, result, "ai/gop-y", kind, made=made)


def metadata(card: str) -> dict[str, Any]:
    assert invalid(card) == []
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def code(card: str) -> list[str]:
    """The code blocks of a card; a fence ends at one that is as long or longer."""
    return [block for _, block in re.findall(r"^(`{3,})[a-z]*\n(.*?)\n\1`*$", card, flags=re.MULTILINE | re.DOTALL)]


def test_its_values_are_those_of_the_runs_files(run: Run) -> None:
    card, result = card_of(run, repository="ai/gop-y"), RunResult.of(run)
    after = result.after
    found = metadata(card)
    assert found["license"] == "cc-by-sa-4.0"
    assert (found["library_name"], found["language"], found["pipeline_tag"]) == ("peft", "vi", "text-generation")
    (measured,) = found["model-index"]
    assert measured["name"] == "ai/gop-y"
    values = {one["name"]: one["value"] for one in measured["results"][0]["metrics"]}
    assert values == {"accuracy": round(after.accuracy, 4), "macro F1": round(after.macro_f1, 4)}
    low, high = after.intervals["macro_f1"]
    bundle = json.loads((run.adapter / "loraft.json").read_text(encoding="utf-8"))
    machine = read_record(run.environment_path, Environment, "")
    for expected in (
        f"Macro F1 {after.macro_f1:.3f} (95% interval {low:.3f} to {high:.3f})",
        f"| {bundle['data']['fingerprints']['train'][:16]} |",
        f"| seconds | {result.train.seconds:,.4g} |",
        f"| peak memory MiB | {result.train.peak_memory_mib:,} |",
        f"| parameters trainable | {result.train.parameters.trainable:,} |",
        f"| system | {machine.platform} |",
        f"| torch | {bundle['versions']['torch']} |",
        "loraft measured neither energy nor carbon",
        "| backbone | loraft-vi-tiny | cc-by-sa-4.0 |",
        "| data | feedback | cc-by-4.0 |",
        f"| alpha | {result.train.alpha_policy} |",
        "| init lora weights | default |",
        "| use dora | no |",
        f"| validation macro f1 | {result.train.validation_macro_f1:,.4g} |",
    ):
        assert expected in card
    for warning in result.warnings:
        assert warning.partition(";")[0] in card
    config = load_config(run.config_path)
    assert {config.prompt.system, config.prompt.template, config.prompt.answer_prefix} <= set(code(card))


def test_what_says_how_it_was_trained_stands_there_once_and_in_words(run: Run) -> None:
    config, train = load_config(run.config_path), RunResult.of(run).train
    lora = config.lora.model_copy(update={"use_dora": True, "modules_to_save": ["lm_head"]})
    same = replace(train, cut=0.25, validation_score=train.validation_macro_f1)
    card = card_of(run, config.model_copy(update={"lora": lora}), train=same)
    assert "| use dora | yes |" in card
    assert "| modules to save | lm_head |" in card
    assert "| share of the rows' tokens left out | 0.25 |" in card
    assert not [name for name in ("alpha policy", "validation score", "cut") if f"| {name} |" in card]
    assert "| validation score | 0.5 |" in card_of(run, train=replace(same, validation_score=0.5))


@pytest.mark.parametrize(
    ("source", "told", "expected"),
    [
        ("/data", "/data/a.csv: 2 rows of /data repeat; see /data.", "data/a.csv: 2 rows of data repeat; see data."),
        ("/data", "tokens/data, ai/data-gop-y and /data-2", "tokens/data, ai/data-gop-y and /data-2"),
        ("/", "1/2 of a/b", "1/2 of a/b"),
    ],
)
def test_only_a_whole_path_of_this_machine_is_shortened_and_only_in_warnings(
    run: Run, source: str, told: str, expected: str
) -> None:
    config = load_config(run.config_path)
    prompt = config.prompt.model_copy(update={"system": "đọc /data"})
    data = {"data": config.data.model_copy(update={"source": source})}
    train = {"train": config.train.model_copy(update={"from_run": source})}
    for section in (data, train):
        changed = config.model_copy(update={**section, "prompt": prompt})
        card = card_of(run, changed, "ai/data-gop-y", warnings=(told,))
        assert f"\n\n{expected}\n" in card
        assert "hf:ai/data-gop-y" in card
        assert "đọc /data" in code(card)


def test_its_code_runs_in_the_adapters_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use, by_peft = code(card_of(run))[:2]
    monkeypatch.chdir(run.adapter)
    exec(use, {})
    assert "  positive  " in capsys.readouterr().out
    names: dict[str, Any] = {}
    exec(by_peft, names)
    assert names["model"].peft_config["default"].r == load_config(run.config_path).lora.r


def test_what_lies_on_the_hub_is_named_by_its_id_and_what_lies_here_by_nothing_but_its_name(
    run: Run, tmp_path: Path
) -> None:
    rows = {"test": SplitSummary("hub ai/gop-y/vi at a1, split test", 9, {})}
    config = resolve(base=load_config(run.config_path), overrides=["model.name=ai/co-ma", "data.source=ai/gop-y"])
    card = card_of(run, config, data=rows)
    found = metadata(card)
    assert (found["base_model"], found["datasets"], found.get("license")) == ("ai/co-ma", ["ai/gop-y"], None)
    assert found["model-index"][0]["results"][0]["dataset"]["type"] == "ai/gop-y"
    assert "| backbone | ai/co-ma | see its own page; loraft does not know it |" in card
    (tmp_path / "của tôi").mkdir()
    places = [f"model.name={tmp_path / 'của tôi'}", f"data.source={tmp_path / 'góp ý'}/"]
    config = resolve(base=load_config(run.config_path), overrides=places)
    rows = {"test": SplitSummary(f"{tmp_path}/góp ý/test.csv", 9, {})}
    card = card_of(run, config, data=rows, warnings=(f"{tmp_path}/góp ý/test.csv: few rows",))
    assert str(tmp_path) not in card
    assert {"base_model", "datasets", "license"}.isdisjoint(metadata(card))
    assert "PeftModel" not in card
    assert "| data | góp ý |" in card
    assert "\n\ngóp ý/test.csv: few rows\n" in card


def test_a_strangers_text_is_shown_and_acts_on_nothing(run: Run) -> None:
    result = RunResult.of(run)
    labels = (HOSTILE, *result.labels[1:])
    per_class = (replace(result.after.per_class[0], label=HOSTILE), *result.after.per_class[1:])
    config = load_config(run.config_path)
    prompt = config.prompt.model_copy(update={"labels": [*labels], "system": "một\n````\nhai", "task": HOSTILE})
    data = config.data.model_copy(update={"source": HOSTILE})
    config = config.model_copy(update={"prompt": prompt, "data": data, "name": HOSTILE})
    rows = {HOSTILE: SplitSummary(HOSTILE, 9, {HOSTILE: 1})}
    card = card_of(
        run, config, labels=labels, after=replace(result.after, per_class=per_class), warnings=(HOSTILE,), data=rows
    )
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", card)
    found = metadata(card)
    assert found["model-index"][0]["results"][0]["dataset"]["name"] == visible(HOSTILE.rpartition("/")[2])
    text = card.split("---\n", 2)[2]
    for block in code(card):
        text = text.replace(block, "")
    text = re.sub("^`{3,}.*$", "", text, flags=re.MULTILINE)
    assert not re.search(r"(?<!\\)([<`&]|\](?=[(\[:]))", text)
    assert text.count(r"\x1b[31m\<script>") >= 6
    assert "một\n````\nhai" in code(card)


def test_of_several_labels_a_row_it_has_the_scores_of_label_sets(run: Run) -> None:
    config = load_config(run.config_path)
    prompt = config.prompt.model_copy(update={"kind": "multilabel"})
    train = config.train.model_copy(update={"metric": "micro_f1"})
    truth_NK = applies()
    after = label_set_report(
        truth_NK, truth_NK * 0.8 + 0.1, [0.5] * 3, config.prompt.labels or [], bootstrap_samples=100, confidence=0.95,
        seed=0,
    )  # fmt: skip
    change_bundle(run.adapter, data={"source": "x", "fingerprints": {}, "train_labels": {}})
    card = card_of(run, config.model_copy(update={"prompt": prompt, "train": train}), before=None, after=after)
    assert {one["name"] for one in metadata(card)["model-index"][0]["results"][0]["metrics"]} >= {"micro F1"}
    assert "gives a text any of 3 labels" in card
    assert "subset accuracy" in card
