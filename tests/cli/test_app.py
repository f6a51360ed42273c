"""The command line against doubles of `loraft.api`: what is parsed, printed where, and which exit code comes back."""

import inspect
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import loraft
from loraft.cli.app import main
from loraft.config.diagnostics import known_keys
from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.config.yaml_io import dump_yaml
from loraft.data.records import BadRow
from loraft.errors import BackboneError
from loraft.evaluation import classification_report
from loraft.evaluation import evaluate as evaluation
from loraft.evaluation import predict as prediction
from loraft.training import pipeline

LABELS = ["negative", "neutral", "positive"]


def numbers(predictions: list[int]) -> dict[str, Any]:
    return classification_report.full(
        [0, 0, 1, 2], None, predictions, LABELS, bootstrap_samples=100, confidence=0.95, seed=0
    )  # fmt: skip


@dataclass
class Double:
    """Stands in for `loraft.api`; keeps how it was called."""

    config: Config | None = None
    given: dict[str, Any] = field(default_factory=dict)

    def train(
        self, config: Config, *, force: bool = False, resume: bool = False, quiet: bool = False
    ) -> dict[str, Any]:
        self.config, self.given = config, {"force": force, "resume": resume}
        before, after = numbers([0, -1, 2, 2]), numbers([0, 0, 1, 2])
        return {"run": "runs/của tôi", "labels": LABELS, "before": before, "after": after}

    def evaluate(
        self, *, config: Config | None = None, run: Path | None = None, split: str = "test", zero_shot: bool = False
    ) -> dict[str, Any]:  # fmt: skip
        self.config, self.given = config, {"run": run, "split": split, "zero_shot": zero_shot}
        return {**numbers([0, 0, 2, 2]), "labels": LABELS, "split": split, "source": "feedback", "rows": [{"row": 1}]}

    def predict(
        self, inputs: Any, *, run: Path, min_confidence: float | None = None, config: Config | None = None,
        wait: float | None = None,
    ) -> Iterator[Any]:  # fmt: skip
        self.config, self.given = config, {"run": run, "min_confidence": min_confidence, "wait": wait}
        for item in inputs:
            if isinstance(item, BadRow):
                yield SimpleNamespace(row=item.row, text="", label=None, probs={}, extra={}, error=item.reason)
                continue
            share = 0.9 if "hay" in item.text else 0.5
            label = "positive" if min_confidence is None or share >= min_confidence else None
            probs = {"negative": 1 - share, "positive": share}
            yield SimpleNamespace(row=item.row, text=item.text, label=label, probs=probs, extra=item.extra, error=None)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Double:
    double = Double()
    for module, name in ((pipeline, "train"), (evaluation, "evaluate"), (prediction, "predict")):
        monkeypatch.setattr(module, name, lambda *given, name=name, **named: getattr(double, name)(*given, **named))
    return double


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_dir(here: Path) -> Path:
    return finished(here / "runs" / "one")


def finished(folder: Path, **given: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_yaml(resolve(**given)), encoding="utf-8")
    (folder / "metrics.json").write_text("{}", encoding="utf-8")
    return folder.relative_to(folder.parents[1])


@pytest.fixture
def loraft_says(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        captured = capsys.readouterr()
        code = end.value.code
        return int(code or 0), captured.out, captured.err

    return call


Says = Callable[..., tuple[int, str, str]]


def test_the_real_functions_can_be_called_like_the_doubles() -> None:
    for name in ("train", "evaluate", "predict"):
        real = inspect.signature(getattr(loraft, name)).parameters
        double = inspect.signature(getattr(Double(), name)).parameters
        assert {key: (real[key].kind, real[key].default) for key in double} == {
            key: (double[key].kind, double[key].default) for key in double
        }
        assert all(real[key].default is not inspect.Parameter.empty for key in real if key not in double)


# --- train ------------------------------------------------------------------------------------------------------------


def test_train_resolves_the_short_flags(api: Double, here: Path, loraft_says: Says) -> None:
    code, _, err = loraft_says(
        "train", "--preset", "tutorial", "--quant", "nf4", "--rank", "4", "--model", "mô-hình", "--data", "dữ-liệu.csv",
        "--task", "topic", "--output", "kết quả", "--seed", "7", "--set", "train.learning_rate=1e-4", "--force",
    )  # fmt: skip
    config = api.config
    assert code == 0
    assert config is not None
    assert (config.preset, config.quant.method, config.lora.r) == ("tutorial", "nf4", 4)
    assert (config.model.name, config.data.source, config.prompt.task) == ("mô-hình", "dữ-liệu.csv", "topic")
    assert (config.output, config.seed, config.train.learning_rate) == ("kết quả", 7, 1e-4)
    assert api.given == {"force": True, "resume": False}
    assert err.splitlines()[0] == "backbone mô-hình (nf4), data dữ-liệu.csv"


def test_train_prints_before_and_after_and_then_the_next_command(api: Double, here: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("train")
    rows = {line.split("  ")[0].strip(): line.split() for line in out.splitlines() if line.strip()}
    # Counted by hand: 2 of 4 right before, 4 of 4 after; negative before: precision 1, recall 1/2, so F1 2/3.
    assert code == 0
    assert rows["accuracy"][1:3] == ["0.5000", "1.0000"]
    assert rows["accuracy"][-1] == "+50.0"
    assert rows["F1 negative (n=2)"][-3:] == ["0.6667", "1.0000", "+33.3"]
    assert rows["answers that are no label"][-2:] == ["0.2500", "0.0000"]
    assert err.splitlines()[-1].startswith("next: loraft predict --run 'runs/của tôi' '")
    assert "\x1b" not in out


def test_train_prints_json_on_request(api: Double, here: Path, loraft_says: Says) -> None:
    _, out, _ = loraft_says("train", "--json")
    assert json.loads(out)["after"]["accuracy"] == 1.0


def test_all_config_mistakes_come_at_once_with_exit_code_2(api: Double, here: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("train", "--rank", "x", "--quant", "int8", "--set", "lora.rank=1", "--seed", "-1")
    assert (code, out) == (2, "")
    assert err.startswith("error:\n")
    assert {line.split(":")[0].strip() for line in err.splitlines()[1:]} == {
        "lora.r",
        "quant.method",
        "lora.rank",
        "seed",
    }
    assert api.config is None


def test_force_and_resume_exclude_each_other(api: Double, here: Path, loraft_says: Says) -> None:
    code, _, err = loraft_says("train", "--force", "--resume")
    assert code == 2
    assert "--force and --resume" in err


def test_several_processes_are_for_training_only(
    api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, out, err = loraft_says("eval", "--zero-shot")
    assert (code, out) == (1, "")
    assert "loraft train alone works with a launcher" in err
    assert api.config is None
    assert loraft_says("train")[0] == 0
    assert api.config is not None


def test_resume_without_a_run_is_refused(api: Double, here: Path, loraft_says: Says) -> None:
    code, _, err = loraft_says("train", "--resume")
    assert code == 1
    assert "no run was begun" in err
    assert api.config is None


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_error_is_one_message_and_no_traceback(
    api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **named: Any) -> None:
        raise BackboneError("mô-hình: not there (got nothing); loraft models")

    monkeypatch.setattr(api, "train", broken)
    code, out, err = loraft_says("train")
    assert (code, out) == (1, "")
    assert err.splitlines()[1:] == ["error: mô-hình: not there (got nothing); loraft models"]
    monkeypatch.setenv("LORAFT_DEBUG", "1")
    with pytest.raises(BackboneError):
        main(["train"])


def test_an_interrupt_ends_with_130(
    api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "train", interrupted)
    assert loraft_says("train")[0] == 130


def test_an_unknown_flag_is_a_usage_error(loraft_says: Says) -> None:
    code, out, err = loraft_says("train", "--rnak", "4")
    assert (code, out) == (2, "")
    assert "--rank" in err


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    command = f"{shlex.quote(sys.executable)} -m loraft config | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


# --- eval -------------------------------------------------------------------------------------------------------------


def test_eval_judges_the_newest_finished_run(api: Double, run_dir: Path, here: Path, loraft_says: Says) -> None:
    newest = finished(here / "runs" / "mới", flags={"model.name": "mô-hình", "quant.method": "nf4"})
    later = os.stat(here / run_dir / "metrics.json").st_mtime + 10
    os.utime(here / newest / "metrics.json", (later, later))
    (here / "runs" / "dở dang").mkdir()
    code, out, err = loraft_says("eval")
    assert code == 0
    assert api.given == {"run": newest, "split": "test", "zero_shot": False}
    assert err.splitlines()[0] == f"backbone mô-hình (nf4), adapter {newest}, data feedback"
    assert "true / predicted" in out


def test_eval_prints_the_confusion_by_true_label(api: Double, run_dir: Path, loraft_says: Says) -> None:
    _, out, _ = loraft_says("eval", "--run", "one")
    table = out[out.index("true / predicted") :].splitlines()
    assert table[0].split()[3:] == LABELS
    assert [line.split() for line in table[1:4]] == [
        ["negative", "2", "0", "0"],
        ["neutral", "0", "0", "1"],
        ["positive", "0", "0", "1"],
    ]


def test_eval_json_holds_the_metrics_without_the_rows(api: Double, run_dir: Path, loraft_says: Says) -> None:
    _, out, _ = loraft_says("eval", "--json", "--split", "validation")
    result = json.loads(out)
    assert (result["accuracy"], result["split"]) == (0.75, "validation")
    assert "rows" not in result


def test_eval_zero_shot_judges_the_backbone_of_the_config(api: Double, here: Path, loraft_says: Says) -> None:
    code, _, err = loraft_says("eval", "--zero-shot", "--model", "mô-hình", "--decode", "generate")
    assert code == 0
    assert api.given == {"run": None, "split": "test", "zero_shot": True}
    assert api.config is not None
    assert api.config.eval.decode == "generate"
    assert err.splitlines()[0] == "backbone mô-hình, data feedback"


def test_eval_of_a_run_may_change_data_and_scoring_only(api: Double, run_dir: Path, loraft_says: Says) -> None:
    code, _, _ = loraft_says("eval", "--data", "khác.csv", "--decode", "generate", "--set", "eval.max_new_tokens=8")
    assert code == 0
    assert api.config == resolve(
        overrides=["eval.max_new_tokens=8"], flags={"data.source": "khác.csv", "eval.decode": "generate"}
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--run", "one", "--zero-shot"], "--run and --zero-shot"),
        (["--run", "one", "--model", "x"], "--model"),
        (["--preset", "tutorial", "--task", "topic"], "--preset, --task"),
        (["--quant", "nf4"], "--quant"),
        (["--set", "lora.r=8"], "--set lora.r=8"),
    ],
)
def test_eval_refuses_flags_that_the_run_decides(
    arguments: list[str], named: str, api: Double, run_dir: Path, loraft_says: Says
) -> None:
    code, out, err = loraft_says("eval", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {named}: ")
    assert api.given == {}


def test_without_a_run_the_next_command_is_told(api: Double, here: Path, loraft_says: Says) -> None:
    for command in ("eval", "predict"):
        code, _, err = loraft_says(command, *(["câu"] if command == "predict" else []))
        assert code == 1
        assert "loraft train" in err


# --- predict ----------------------------------------------------------------------------------------------------------


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))


def test_predict_prints_one_label_a_line_and_nothing_else(api: Double, run_dir: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("predict", "thầy giảng hay", "phòng học nóng")
    assert (code, out) == (0, "positive\npositive\n")
    assert err == f"backbone loraft-vi-tiny, adapter {run_dir}, data 2 sentences\n"


def test_predict_leaves_unsure_rows_empty(api: Double, run_dir: Path, loraft_says: Says) -> None:
    _, out, _ = loraft_says("predict", "--min-confidence", "0.8", "phòng học nóng", "thầy giảng hay")
    assert out == "\npositive\n"
    assert loraft_says("predict", "--min-confidence", "1.5", "câu")[0] == 2
    assert loraft_says("predict", "--min-confidence", "nan", "câu")[0] == 2


def test_predict_gives_probabilities_and_the_other_columns_as_json(
    api: Double, run_dir: Path, here: Path, loraft_says: Says
) -> None:
    (here / "câu.csv").write_text("mã,câu\na1,thầy giảng hay\n", encoding="utf-8")
    code, out, _ = loraft_says("predict", "--file", "câu.csv", "--text-column", "câu", "--json")
    row = json.loads(out)
    assert code == 0
    assert (row["text"], row["label"], row["confidence"]) == ("thầy giảng hay", "positive", 0.9)
    assert row["probs"]["positive"] == 0.9
    assert row["extra"] == {"mã": "a1"}
    assert api.given["wait"] is None  # a file's groups do not depend on the clock
    assert "thầy giảng hay" in out  # readable, not escaped


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_predict_reads_stdin(
    arguments: list[str], api: Double, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, "thầy giảng hay\r\nphòng học nóng\n")
    code, out, err = loraft_says("predict", *arguments)
    assert (code, out) == (0, "positive\npositive\n")
    assert err.endswith("data stdin\n")
    assert 0 < api.given["wait"] < 1  # second: a pipe may stay open


def test_a_bad_row_is_reported_with_its_number_and_the_rest_goes_on(
    api: Double, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, '{"sentence": "thầy giảng hay"}\n{"sentence": 3}\n{"sentence": "lớp đông"}\n')
    code, out, err = loraft_says("predict", "--format", "jsonl", "-")
    assert (code, out) == (1, "positive\n\npositive\n")
    assert "stdin row 2: " in err
    assert err.splitlines()[-1] == "1 row could not be read"
    code, out, err = loraft_says("predict", "--json", "  ", "lớp đông")
    assert code == 1
    assert [json.loads(line)["label"] for line in out.splitlines()] == [None, "positive"]
    assert "2 sentences row 1: no text" in err


def test_a_sentence_is_composed_once(api: Double, run_dir: Path, loraft_says: Says) -> None:
    _, out, _ = loraft_says("predict", "--json", "tha\u0302\u0300y")  # decomposed, as macOS types it
    assert json.loads(out)["text"] == "thầy"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["câu", "--file", "câu.csv"], "--file and sentences"),
        (["câu", "-"], "-: stdin and sentences"),
        (["--file", "câu.csv", "--format", "xml"], "--format"),
        (["--set", "lora.r=3", "câu"], "--set lora.r=3"),
    ],
)
def test_predict_refuses_conflicting_flags(
    arguments: list[str], named: str, api: Double, run_dir: Path, loraft_says: Says
) -> None:
    code, out, err = loraft_says("predict", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {named}")


def test_a_missing_file_is_told_before_a_backbone_is_named(api: Double, run_dir: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("predict", "--file", "không-có.csv")
    assert (code, out) == (1, "")
    assert err.startswith("error: không-có.csv")
    assert api.given == {}


def test_predict_without_anything_at_a_terminal_explains_itself(
    api: Double, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    code, _, err = loraft_says("predict")
    assert code == 2
    assert "nothing to label" in err


# --- config, models, completion ---------------------------------------------------------------------------------------


def test_config_prints_what_a_run_would_use(here: Path, loraft_says: Says) -> None:
    code, out, _ = loraft_says("config", "--rank", "4")
    (here / "mine.yaml").write_text(out, encoding="utf-8")
    assert code == 0
    assert resolve(config_file=here / "mine.yaml") == resolve(flags={"lora.r": 4})
    assert Config.model_validate_json(loraft_says("config", "--json", "--rank", "4")[1]) == resolve(flags={"lora.r": 4})


def test_models_lists_what_ships_with_its_licence(loraft_says: Says) -> None:
    rows = json.loads(loraft_says("models", "--json")[1])
    assert {row["name"]: row["kind"] for row in rows} == {
        "loraft-vi-tiny": "backbone",
        "feedback": "data",
        "app-reviews": "task",
        "sentiment": "task",
        "topic": "task",
        "quickstart": "preset",
        "tutorial": "preset",
    }
    assert {row["licence"] for row in rows if row["kind"] in ("task", "preset")} == {"Apache-2.0"}
    assert "loraft-vi-tiny" in loraft_says("models")[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("loraft train --quant ", ["none", "nf4"]),
        ("loraft train --preset ", ["quickstart", "tutorial"]),
        ("loraft eval --task ", ["app-reviews", "sentiment", "topic"]),
        ("loraft train --set quant.", [f"{key}=" for key in known_keys() if key.startswith("quant.")]),
    ],
)
def test_the_shell_completes_values(words: str, expected: list[str]) -> None:
    asked = {"_LORAFT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "loraft"], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == expected
