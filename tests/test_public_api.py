"""The public names, their signatures, and the examples in their docstrings."""

import doctest
import inspect
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import get_origin, get_type_hints

import pytest
from helpers import sweeps
from helpers.compared_runs import GOLD, make_run, wrong_on

import loraft
from loraft.display.tabled import Tabled
from loraft.evaluation.explanation import ExplanationList
from loraft.evaluation.prediction_table import Predictions

NAMES = [
    "BackboneError", "BadRow", "Classifier", "Config", "ConfigError", "DataError", "Example", "LoraftError",
    "Prediction", "Run", "RunError", "__version__", "compare", "describe", "dump_config", "evaluate", "fewshot", "load",
    "load_config", "predict", "resolve", "sweep", "train",
]  # fmt: skip
ERRORS = [name for name in NAMES if name.endswith("Error")]

SIGNATURES = {
    "compare": "(runs: collections.abc.Sequence[str | pathlib.Path]) -> loraft.studies.compare.compare.Comparison",
    "describe": "(config: loraft.config.schema.Config, *, by: str | None = None, tokens: bool = True,"
    " near: bool = True, force: bool = False) -> loraft.studies.dataset.records.DatasetStatistics",
    "dump_config": "(config: loraft.config.schema.Config) -> str",
    "evaluate": "(*, config: loraft.config.schema.Config | None = None, run: str | pathlib.Path | None = None,"
    " adapter: str | pathlib.Path | None = None, split: str = 'test', zero_shot: bool = False)"
    " -> loraft.evaluation.evaluate.Evaluation",
    "fewshot": "(config: loraft.config.schema.Config, *, run: str | pathlib.Path | None = None,"
    " adapter_shots: bool = False, force: bool = False, resume: bool = False, quiet: bool = False,"
    " tell: collections.abc.Callable[[str], None]) -> loraft.studies.fewshot.records.FewshotResult",
    "load": "(run: str | pathlib.Path, *, config: loraft.config.schema.Config | None = None)"
    " -> loraft.evaluation.classifier.Classifier",
    "load_config": "(path: str | pathlib.Path) -> loraft.config.schema.Config",
    "predict": "(inputs: str | loraft.data.records.Example |"
    " collections.abc.Iterable[str | loraft.data.records.Example | loraft.data.records.BadRow],"
    " *, run: str | pathlib.Path | None = None, adapter: str | pathlib.Path | None = None,"
    " min_confidence: float | None = None, max_error: float | None = None, sets: float | None = None,"
    " sets_by_label: bool = False, prior: collections.abc.Mapping[str, float] |"
    " collections.abc.Iterable[str | loraft.data.records.Example | loraft.data.records.BadRow] | None = None,"
    " config: loraft.config.schema.Config | None = None, wait: float | None = None,"
    " progress: loraft.evaluation.shift.Progress | None = None)"
    " -> collections.abc.Iterator[loraft.evaluation.predict.Prediction]",
    "resolve": "(*, preset: str | None = None, config_file: str | pathlib.Path | None = None,"
    " overrides: collections.abc.Sequence[str] = (), flags: collections.abc.Mapping[str, typing.Any] | None = None,"
    " base: loraft.config.schema.Config | None = None)"
    " -> loraft.config.schema.Config",
    "sweep": "(config: loraft.config.schema.Config, *, force: bool = False, quiet: bool = False,"
    " tell: collections.abc.Callable[[str], None]) -> loraft.studies.sweep.records.SweepResult",
    "train": "(config: loraft.config.schema.Config, *, force: bool = False, resume: bool = False, quiet: bool = False)"
    " -> loraft.training.results.RunResult",
    "Classifier": "(loaded: loraft.evaluation.predict.Loaded, lock: 'threading.Lock | None' = None) -> None",
    "Example": "(text: str, label: int | tuple[int, ...] | None = None, row: int = 0,"
    " extra: dict[str, typing.Any] = ...) -> None",
    "BadRow": "(row: int, reason: str, hint: str = '') -> None",
    "Prediction": "(row: int, text: str, label: str | tuple[str, ...] | None, probs: dict[str, float] = ...,"
    " extra: dict[str, typing.Any] = ..., error: str | None = None, set: tuple[str, ...] | None = None) -> None",
    "Run": "(path: pathlib.Path) -> None",
}


def signature(name: str) -> str:
    """The signature as Python writes it; defaults that are made anew or are functions are left out."""
    found = inspect.signature(getattr(loraft, name))
    shown = []
    for parameter in found.parameters.values():
        default = parameter.default
        if callable(default) and default is not inspect.Parameter.empty:
            parameter = parameter.replace(default=inspect.Parameter.empty)
        shown.append(parameter)
    return str(found.replace(parameters=shown)).replace("<factory>", "...")


def test_the_public_names_are_these() -> None:
    assert sorted(loraft.__all__) == NAMES
    assert dir(loraft) == NAMES


@pytest.mark.parametrize("name", loraft.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(loraft, name)
    assert name == "__version__" or (callable(value) and value.__name__ == name and value.__doc__)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_these(name: str) -> None:
    assert signature(name) == SIGNATURES[name]


def test_only_errors_and_the_config_have_no_signature_here() -> None:
    assert set(NAMES) - set(SIGNATURES) - set(ERRORS) == {"Config", "__version__"}


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'finetune'; public names: .*train"):
        loraft.finetune  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    script = "import sys, loraft; print([name for name in sys.modules if name.startswith('loraft')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['loraft']"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The names that the examples use: a folder for new runs, a finished run, two runs to compare."""
    folder = tmp_path_factory.mktemp("ví-dụ")
    run = shutil.copytree(Path(__file__).parent / "fixtures" / "first_layout" / "run", folder / "phản-hồi")
    first, second = make_run(folder / "a", wrong_on(1, 2)), make_run(folder / "b", GOLD)
    return {"folder": folder, "run": run, "first": first, "second": second}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ERRORS and name != "__version__"])
def test_the_example_in_the_docstring_prints_what_it_says(name: str, examples: dict[str, object]) -> None:
    text = inspect.getdoc(getattr(loraft, name)) or ""
    example = doctest.DocTestParser().get_doctest(text, dict(examples), name, None, None)
    assert example.examples, "the docstring has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner.run(example)
    assert runner.failures == 0


def test_what_a_public_function_returns_shows_itself_shortly() -> None:
    results = {get_type_hints(getattr(loraft, name))["return"] for name in SIGNATURES if name.islower()}
    named = {one.__name__ for one in results if issubclass(get_origin(one) or one, Tabled)}
    assert named == {"Comparison", "DatasetStatistics", "Evaluation", "FewshotResult", "RunResult", "SweepResult"}
    assert {one.__name__ for one in results} - named == {"Classifier", "Config", "Iterator", "str"}
    assert get_origin(get_type_hints(loraft.Classifier.predict)["return"]) is Predictions
    assert get_type_hints(loraft.Classifier.explain)["return"] is ExplanationList


def test_a_sweep_in_python_is_its_trials() -> None:
    found = sweeps.result(failed=["r4"])
    assert repr(found).splitlines()[0] == "SweepResult: runs/quét; best r2, by macro F1 on validation"
    frame = found.to_pandas()
    assert frame["lora.r"].tolist() == [1, 2, 4]
    measured = [trial.measured for trial in found.trials[:2]]
    assert frame["macro_f1"][:2].tolist() == [one.scores["macro_f1"] for one in measured if one]
    assert frame["accuracy_low"][:2].tolist() == [one.intervals["accuracy"][0] for one in measured if one]
    assert frame["status"].tolist() == ["finished", "finished", "failed"]


def test_a_comparison_in_python_is_a_row_for_each_run_and_score(examples: dict[str, object]) -> None:
    found = loraft.compare([examples["first"], examples["second"]])  # type: ignore[list-item]
    frame = found.to_pandas()
    assert frame[["run", "score"]].to_numpy().tolist() == [
        [str(examples[run]), score] for run in ("first", "second") for score in found.first.scores
    ]
    gap = found.others[0].difference["accuracy"]
    assert frame.loc[2, ["difference", "difference_low", "difference_high"]].tolist() == [gap.difference, *gap.interval]
    assert sum(line.startswith(str(examples["folder"])) for line in repr(found).splitlines()) == len(frame)


def test_runs_and_classifiers_say_what_they_are(examples: dict[str, object]) -> None:
    run = loraft.Run.open(str(examples["run"]))
    assert repr(run) == f"Run({str(run.path)!r}: finished)"
    assert repr(loraft.load("demo")).endswith("demo over loraft-vi-tiny; labels negative, neutral, positive")
