"""The few-shot study on a tiny random backbone: what is asked, what is refused, what is kept."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import backbone, tokenizer

from loraft import api, fewshots
from loraft.backbone import add_adapter
from loraft.config import Config, LoraSection
from loraft.encoding import Encoder
from loraft.errors import DataError, RunError
from loraft.resolving import load_resolved, resolve
from loraft.runs import newest_finished
from loraft.spreads import ADAPTER, BACKBONE, BASELINE
from loraft.studytables import fewshot as table

SMALL = ["data.max_train_rows=60", "data.max_test_rows=8", "eval.bootstrap_samples=100", "fewshot.repeats=2",
         "fewshot.shots=[1,4]"]  # fmt: skip


def config(output: Path, *overrides: str) -> Config:
    return resolve(overrides=[*SMALL, f"output={output}", *overrides])


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "build", lambda config: (api.build_encoder(config), backbone()))


@pytest.fixture
def adapted(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose adapter changes answers."""

    def load_run(run: Any, config: Config) -> Any:
        model = add_adapter(backbone(), LoraSection(r=4), seed=0)
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.3)
        return api.build_encoder(config), model.eval()

    monkeypatch.setattr(api, "load_run", load_run)
    monkeypatch.setattr(fewshots.Run, "open", lambda path: path)
    return Path("runs/của em")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The prompts of each evaluation, as text."""
    prompts: list[list[str]] = []
    score = api.scoring.score

    def keep(model: Any, ids: Any, *args: Any, **kwargs: Any) -> Any:
        prompts.append(tokenizer().batch_decode(ids))
        return score(model, ids, *args, **kwargs)

    monkeypatch.setattr(api.scoring, "score", keep)
    return prompts


def scores(study: dict[str, Any], model: str, shots: int) -> list[float]:
    return [draw["log_loss"] for draw in study["draws"] if (draw["model"], draw["shots"]) == (model, shots)]


def test_every_prompt_holds_the_draws_rows_in_their_order(tmp_path: Path, asked: list[list[str]]) -> None:
    settings = config(tmp_path)
    study = fewshots.fewshot(settings, quiet=True)
    train = {example.row: example for example in api.load_data(settings, "train").examples}
    test = api.load_data(settings, "test").texts
    assert [(draw["shots"], draw["draw"]) for draw in study["draws"]] == [(1, 0), (1, 1), (4, 0), (4, 1)]
    for draw, prompts in zip(study["draws"], asked, strict=True):
        words = ["negative", "neutral", "positive"]
        shown = [train[row] for row in draw["train_rows"]]
        examples = "\n".join(f"Sentence: {e.text}\nSentiment: {words[e.label]}\n" for e in shown)
        for prompt, sentence in zip(prompts, test, strict=True):
            assert f"Here are a few examples:\n\n{examples}\nSentence: {sentence}<|eot_id|>" in prompt


def test_nearest_gives_each_row_its_own_demonstrations(tmp_path: Path, asked: list[list[str]]) -> None:
    study = fewshots.fewshot(config(tmp_path, "fewshot.selection=nearest", "fewshot.shots=[2]"), quiet=True)
    heads = [prompt.rpartition("Sentence: ")[0] for prompt in asked[0]]
    assert len(set(heads)) == 8
    assert all(head.count("Sentence: ") == 2 for head in heads)
    assert study["draws"][0]["train_rows"] is None
    # The second draw shows the same sentences to the same row, in the other order or the same.
    again = [prompt.rpartition("Sentence: ")[0] for prompt in asked[1]]
    assert [sorted(a.split("\n")) for a in heads] == [sorted(b.split("\n")) for b in again]


def test_no_shots_ask_once_with_the_prompt_of_training(tmp_path: Path, asked: list[list[str]]) -> None:
    settings = config(tmp_path, "fewshot.shots=[0]")
    study = fewshots.fewshot(settings, quiet=True)
    plain = api.build_encoder(settings).encode(api.load_data(settings, "test").texts)
    assert asked == [tokenizer().batch_decode([prompt.ids for prompt in plain])]
    assert [row["draws"] for row in study["rows"] if row["model"] == BACKBONE] == [1]


def test_the_table_has_baselines_and_the_same_test_rows_everywhere(tmp_path: Path) -> None:
    study = fewshots.fewshot(config(tmp_path), quiet=True)
    assert [row["name"] for row in study["rows"]] == [
        "majority label", "TF-IDF + linear SVM", "backbone, 1 shot", "backbone, 4 shots"
    ]  # fmt: skip
    assert {draw["n"] for draw in study["draws"]} == {8}
    assert study["rows"][0]["macro_f1"]["mean"] > 0
    assert (tmp_path / Path(study["path"]).name / "plots" / "fewshot.png").stat().st_size > 0
    assert len(list(table(study).rows)) == 4


def test_the_adapter_joins_as_it_was_trained_and_leaves_the_backbone_bare(tmp_path: Path, adapted: Path) -> None:
    alone = fewshots.fewshot(config(tmp_path, "name=không-adapter"), quiet=True)
    study = fewshots.fewshot(config(tmp_path), run=adapted, quiet=True)
    assert [(row["model"], row["shots"]) for row in study["rows"] if row["model"] != BASELINE] == [
        (ADAPTER, 0), (BACKBONE, 1), (BACKBONE, 4)
    ]  # fmt: skip
    for shots in (1, 4):
        assert scores(study, BACKBONE, shots) == pytest.approx(scores(alone, BACKBONE, shots), abs=1e-6)


def test_demonstrations_come_before_the_adapter_on_request_only(tmp_path: Path, adapted: Path) -> None:
    study = fewshots.fewshot(config(tmp_path), run=adapted, adapter_shots=True, quiet=True)
    for shots in (1, 4):
        assert len(scores(study, ADAPTER, shots)) == 2
        assert scores(study, ADAPTER, shots) != pytest.approx(scores(study, BACKBONE, shots), abs=1e-3)


def test_a_prompt_that_does_not_fit_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "build", lambda config: pytest.fail("weights were loaded"))
    with pytest.raises(DataError) as refused:
        fewshots.fewshot(config(tmp_path, "prompt.max_length=200", "fewshot.shots=[1,16]"), quiet=True)
    message = str(refused.value)
    assert "prompt with 16 shots takes" in message
    assert "(got prompt.max_length=200)" in message
    assert message.endswith("or --shots 1")
    assert not list(tmp_path.iterdir())

    tokens = int(message.split("takes ")[1].split()[0])
    enough = f"prompt.max_length={tokens}"
    monkeypatch.setattr(api, "build", lambda config: (api.build_encoder(config), backbone()))
    study = fewshots.fewshot(config(tmp_path, enough, "fewshot.shots=[1,16]"), quiet=True)
    assert max(row["tokens"] or 0 for row in study["rows"]) == tokens
    assert [draw["truncated"] for draw in study["draws"]] == [0] * 4


@pytest.mark.parametrize("selection", ["random", "balanced", "nearest"])
def test_the_longest_prompt_is_measured_exactly(
    tmp_path: Path, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, selection: str
) -> None:
    lengths: list[int] = []
    encode = Encoder.encode

    def measure(self: Encoder, texts: Any, demonstrations: Any = ()) -> Any:
        prompts = encode(self, texts, demonstrations)
        if demonstrations and self.max_length == 1024:  # the encoder of the evaluation
            answer = max(map(len, self.completions_K))
            lengths.extend(len(prompt.ids) + answer for prompt in prompts)
        return prompts

    monkeypatch.setattr(Encoder, "encode", measure)
    overrides = (f"fewshot.selection={selection}", "fewshot.shots=[6]", "data.max_test_rows=30")
    study = fewshots.fewshot(config(tmp_path, *overrides), quiet=True)
    assert len(lengths) == 60
    assert study["rows"][-1]["tokens"] == max(lengths)


def test_the_backbones_context_counts_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"takes \d+ tokens .*; the backbone's context is 2048, choose another --model"):
        fewshots.fewshot(
            config(tmp_path, "prompt.max_length=9000", "fewshot.shots=[150]", "data.max_train_rows=400"), quiet=True
        )


def test_a_sentence_that_is_shortened_anyway_refuses_nothing(tmp_path: Path) -> None:
    rows = [{"sentence": "thầy dạy rất hay , dễ hiểu " * 60, "sentiment": 2}, {"sentence": "tốt", "sentiment": 2}]
    (tmp_path / "dài.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    overrides = (f"data.test_split={tmp_path / 'dài.jsonl'}", "prompt.max_length=256", "fewshot.shots=[1]")
    with pytest.warns(UserWarning, match="shortened"):
        study = fewshots.fewshot(config(tmp_path, *overrides), quiet=True)
    assert [draw["truncated"] for draw in study["draws"]] == [1, 1]


def test_generated_answers_that_are_no_label_are_counted(tmp_path: Path) -> None:
    settings = config(tmp_path, "eval.decode=generate", "eval.max_new_tokens=2", "fewshot.shots=[1]")
    study = fewshots.fewshot(settings, quiet=True)
    row = study["rows"][-1]
    assert (row["no_label"], row["accuracy"]["mean"]) == (1.0, 0.0)  # two tokens are too few for an answer
    assert "no label" in [str(column.header) for column in table(study).columns]


@contextmanager
def interrupted_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Lets so many draws be measured, then interrupts; tells how many were measured."""
    judge, count = api.judge, [0]

    def some(*args: Any, **kwargs: Any) -> Any:
        if count[0] == calls:
            raise KeyboardInterrupt
        count[0] += 1
        return judge(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(api, "judge", some)
        yield count


def test_an_interrupted_study_goes_on_with_the_draws_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fewshots.fewshot(config(tmp_path, "name=một-mạch"), quiet=True)
    with interrupted_after(3, monkeypatch), pytest.raises(KeyboardInterrupt):
        fewshots.fewshot(config(tmp_path, "name=gián-đoạn"), quiet=True)
    folder = tmp_path / "gián-đoạn"
    assert not (folder / "fewshot.json").exists()
    with pytest.raises(RunError, match="with --resume continues"):
        fewshots.fewshot(config(tmp_path, "name=gián-đoạn"), quiet=True)
    with pytest.raises(RunError, match=r"another config \(got a different fewshot\)"):
        fewshots.fewshot(config(tmp_path, "name=gián-đoạn", "fewshot.repeats=9"), resume=True, quiet=True)
    with (folder / "draws.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"model": "backbone", "sho')  # half a line, as a killed process leaves it
    with interrupted_after(9, monkeypatch) as count:
        resumed = fewshots.fewshot(config(tmp_path, "name=gián-đoạn"), resume=True, quiet=True)
    assert count == [1]
    for model, shots in ((BACKBONE, 1), (BACKBONE, 4)):
        assert scores(resumed, model, shots) == scores(whole, model, shots)
    assert [row["macro_f1"] for row in resumed["rows"]] == [row["macro_f1"] for row in whole["rows"]]


def test_a_finished_study_is_kept_unless_forced_and_is_no_run(tmp_path: Path) -> None:
    first = fewshots.fewshot(config(tmp_path), quiet=True)
    with pytest.raises(RunError, match="--force deletes it"):
        fewshots.fewshot(config(tmp_path), quiet=True)
    again = fewshots.fewshot(config(tmp_path), force=True, quiet=True)
    assert again["path"] == first["path"]
    assert [d["log_loss"] for d in again["draws"]] == [d["log_loss"] for d in first["draws"]]
    with pytest.raises(RunError, match="no finished run"):
        newest_finished(tmp_path)


def test_the_folder_holds_config_and_results_that_read_back_equal(tmp_path: Path) -> None:
    settings = config(tmp_path)
    study = fewshots.fewshot(settings, quiet=True)
    folder = Path(study["path"])
    assert load_resolved(folder / "fewshot.yaml") == settings
    assert json.loads((folder / "fewshot.json").read_text(encoding="utf-8")) == json.loads(json.dumps(study))
    assert folder.name == "fewshot-loraft-vi-tiny-feedback-sentiment-random-s42"
