"""`loraft.train`: what it leaves behind, goes on with, takes back after an error, and refuses."""

import json
import shutil
import signal
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.config import config
from helpers.records import report
from helpers.tiny import HEADS, SMALL, random_model, tokenizer
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaConfig

from loraft.config.resolve import load_config
from loraft.data.dataset import training_splits
from loraft.display.progress import Bars
from loraft.engine import scorer
from loraft.errors import BackboneError, ConfigError, Note, RunError, StorageError
from loraft.evaluation import validation
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.classifier import Classifier
from loraft.evaluation.evaluate import evaluate
from loraft.evaluation.predict import predict
from loraft.models import manifest
from loraft.models.adapter import weights_of
from loraft.models.backbone import fingerprint, weights_hash
from loraft.models.load import build
from loraft.progress import installed
from loraft.runs.records import read_record
from loraft.runs.run import Run, WorkerRun, run_of
from loraft.training import outcome, pipeline, trainer
from loraft.training.callbacks import ProgressCallback
from loraft.training.dataset import TrainingData
from loraft.training.pipeline import TrainingInputs, _print_settings, run_training, start_run, train
from loraft.training.results import ParameterCounts, RunResult, TrainReport
from loraft.training.trainer import LabelTrainer
from loraft.training.whole_checkpoints import write_hashes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run of the bundled backbone; on a terminal its bar is drawn while it trains."""
    drawn: list[bool] = []
    step_end = ProgressCallback.on_step_end

    def watched(self: ProgressCallback, *given: Any, **named: Any) -> None:
        listener = installed.get()
        drawn.append(isinstance(listener, Bars) and listener.live.is_started and self.stage in listener.stages)
        step_end(self, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProgressCallback, "on_step_end", watched)
        patch.setattr("sys.stderr.isatty", lambda: True)
        result = train(config(tmp_path_factory.mktemp("whole")))
    assert drawn == [True] * 4
    return result


def test_a_finished_run_is_returned_again_and_not_overwritten_without_force(
    whole: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = load_config(Run.open(Path(whole.run)).config_path)
    monkeypatch.setattr(pipeline, "build", lambda *given: pytest.fail("a backbone was loaded"))
    for resume in (False, True):
        with pytest.warns(Note, match="is finished, with this config and these rows; --force"):
            assert train(section, resume=resume, quiet=True) == whole
    other = section.model_copy(update={"data": section.data.model_copy(update={"max_train_rows": 47})})
    with pytest.raises(RunError, match=r"data\.max_train_rows: 48 then, 47 now\n.*--force"):
        train(other, quiet=True)


def test_an_interrupted_run_resumes_to_the_uninterrupted_result(
    whole: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = scorer.score
    calls = 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:  # the backbone's test rows, and then the validation rows after step 2
            signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr("loraft.engine.scorer.score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path), quiet=True)
    run = Run.open(next(tmp_path.iterdir()))
    assert [path.name for path in run.checkpoints.glob("checkpoint-*")] == ["checkpoint-2"]
    assert not run.finished
    with pytest.raises(RunError, match="--resume"):
        evaluate(run=run.path)
    with pytest.raises(RunError, match="--resume"):
        train(config(tmp_path), quiet=True)
    with pytest.raises(RunError, match=r"lora\.lora_dropout: 0\.0 then, 0\.1 now"):
        train(config(tmp_path, "lora.lora_dropout=0.1"), resume=True, quiet=True)
    calls = 100
    resumed = train(config(tmp_path), resume=True, quiet=True)
    assert calls == 103  # validation after step 4 and at the end, and test rows; the backbone's scores are known
    assert resumed.before == read_record(run.before_path, EvaluationReport, "")
    assert replace(resumed.before, seconds=0.0) == replace(whole.before, seconds=0.0)
    for key in ("accuracy", "macro_f1", "log_loss"):
        assert getattr(resumed.after, key) == pytest.approx(getattr(whole.after, key), rel=1e-6)
    assert (whole.train.resumed_from_step, resumed.train.resumed_from_step) == (None, 2)
    assert resumed.train.tokens_computed == whole.train.tokens_computed > 0
    assert resumed.train.steps == whole.train.steps == 4


def test_a_training_whose_steps_are_all_done_is_only_judged(
    whole: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(shutil.copytree(whole.run, tmp_path / Path(whole.run).name))
    run.results_path.unlink()
    shutil.rmtree(run.adapter)
    path = run.checkpoints / "checkpoint-4" / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state["stateful_callbacks"]["TrainingClock"]["attributes"]["seconds"] = 5000.0
    path.write_text(json.dumps(state), encoding="utf-8")
    write_hashes(path.parent)
    monkeypatch.setattr(LabelTrainer, "train", lambda *given, **named: pytest.fail("it trained"))
    modes: list[set[bool]] = []
    original = pipeline.judge

    def judge(model: PeftModel, *given: Any) -> Any:
        modes.append({module.training for module in model.modules()})
        return original(model, *given)

    monkeypatch.setattr(pipeline, "judge", judge)
    found = train(config(tmp_path), resume=True, quiet=True)
    assert modes == [{False}]  # no dropout
    peak, seconds = found.train.peak_memory_mib, found.after.seconds
    expected = replace(whole.train, seconds=5000.0, resumed_from_step=4, peak_memory_mib=peak)
    assert found == replace(whole, run=str(run.path), after=replace(whole.after, seconds=seconds), train=expected)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_of_the_best_or_of_the_last_step_are_kept(
    keep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, original = iter([0.9, 0.2]), pipeline.prepare

    def prepare(*given: Any) -> TrainingData:
        return replace(original(*given), evaluate_with=lambda model: {"macro_f1": next(scores), "loss": 1.0})

    monkeypatch.setattr(pipeline, "prepare", prepare)
    result = train(config(tmp_path, f"train.keep={keep}"), quiet=True)
    run, step, score = Run(Path(result.run)), *{"best": (2, 0.9), "last": (4, 0.2)}[keep]
    assert (result.train.kept, result.train.best_step, result.train.validation_score) == (keep, step, score)
    weights = load_file(run.adapter / "adapter_model.safetensors")

    def are_those_of(checkpoint: int) -> bool:
        there = load_file(run.checkpoints / f"checkpoint-{checkpoint}" / "adapter_model.safetensors")
        return all(torch.equal(there[name], weight) for name, weight in weights.items())

    assert [are_those_of(checkpoint) for checkpoint in (2, 4)] == [step == 2, step == 4]
    assert f"| keep | {keep} |" in (run.adapter / "README.md").read_text(encoding="utf-8")
    run.results_path.unlink()  # killed between the last step and the results
    shutil.rmtree(run.adapter)
    monkeypatch.setattr(LabelTrainer, "train", lambda *given, **named: pytest.fail("it trained"))
    again = train(config(tmp_path, f"train.keep={keep}"), resume=True, quiet=True)
    assert replace(again.train, resumed_from_step=None, peak_memory_mib=0, seconds=0) == replace(
        result.train, peak_memory_mib=0, seconds=0
    )
    weights = load_file(run.adapter / "adapter_model.safetensors")
    assert are_those_of(step)


# --- a training in parts ----------------------------------------------------------------------------------------------

REPORT = TrainReport(1.0, None, 4, 2, 0.5, 100, 0, True, None, ParameterCounts(1, 2), "fixed, alpha 32")


def loaded(output: Path, *overrides: str, baseline: EvaluationReport | None = None) -> TrainingInputs:
    section = config(output, "data.max_test_rows=8", *overrides)
    return TrainingInputs(section, training_splits(section), *build(section), baseline)


def filled(run: Run, model: PeftModel) -> TrainReport:
    """A `fit` for an adapter without weights."""
    empty = {name: torch.zeros(weight.shape) for name, weight in model.named_parameters() if weight.is_meta}
    assert len(empty) in (0, len(weights_of(model, "default")))  # none with pissa
    model.load_state_dict(empty, strict=False, assign=True)
    return REPORT


@pytest.mark.parametrize("init", ["default", "pissa"])  # pissa moves weights out of the backbone
def test_weights_that_were_trained_elsewhere_are_judged_beside_a_known_baseline(
    init: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = report(0.25, labels=("negative", "neutral", "positive"))
    inputs = loaded(tmp_path, f"lora.init_lora_weights={init}", baseline=baseline)
    before, whole_weights = fingerprint(inputs.base), weights_hash(inputs.base)
    scored: list[bool] = []
    original = scorer.score
    monkeypatch.setattr(
        scorer, "score", lambda *a, **k: scored.append(hasattr(a[0], "peft_config")) or original(*a, **k)
    )
    run = start_run(inputs.config, force=False, resume=False)
    result = run_training(run, inputs, fit=filled, figures=False)
    assert (result.before, result.train) == (baseline, REPORT)
    assert (run.adapter / "README.md").read_text(encoding="utf-8").startswith("---\nlanguage: vi\n")
    assert scored == [True, True]  # the validation rows and the test rows, with the adapter
    assert result.backbone_fingerprint == manifest.read(run.adapter).backbone.fingerprint == before
    assert not run.plots.exists()
    assert not hasattr(inputs.base, "peft_config")
    assert (weights_hash(inputs.base) == whole_weights) == (init == "default")


@pytest.mark.parametrize(("error", "left"), [(BackboneError("it diverged"), 0), (KeyboardInterrupt(), 1)])
def test_an_error_takes_the_directory_away_and_an_interrupt_leaves_it(
    error: BaseException, left: int, tmp_path: Path
) -> None:
    def fit(run: Run, model: PeftModel) -> TrainReport:
        raise error

    inputs = loaded(tmp_path, baseline=report(0.25))
    before = weights_hash(inputs.base)
    with pytest.raises(type(error)):
        run_training(start_run(inputs.config, force=False, resume=False), inputs, fit=fit)
    assert len(list(tmp_path.iterdir())) == left
    assert weights_hash(inputs.base) == before
    assert not hasattr(inputs.base, "peft_config")


def test_what_fails_at_the_end_costs_neither_adapter_nor_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **named: Any) -> None:
        raise PackageNotFoundError("matplotlib")

    inputs = loaded(tmp_path, baseline=report(0.25))
    run = start_run(inputs.config, force=False, resume=False)
    monkeypatch.setattr(pipeline, "draw_run_figures", broken)
    monkeypatch.setattr(validation, "fit", broken)
    monkeypatch.setattr(Classifier, "_explained", broken)
    monkeypatch.setattr(outcome, "compared_with", broken)
    monkeypatch.setattr(pipeline.advice, "of_evaluation", broken)
    monkeypatch.setattr(pipeline, "model_card", broken)
    monkeypatch.setattr(manifest, "package_versions", broken)  # read at the start
    with pytest.warns(UserWarning, match="left out") as told:
        result = run_training(run, inputs, fit=filled)
    said = [str(one.message) for one in told if "left out" in str(one.message)]
    assert [one.partition(":")[0] for one in said] == [
        "the calibration", "the words behind its mistakes", "the warnings about the scores", "the baselines",
        "the model card", "the figures",
    ]  # fmt: skip
    assert f"loraft train --force --config {run.config_path}" in said[0]  # a finished run cannot be resumed
    assert f"loraft report {run.path}" in said[-1]
    assert RunResult.of(run).after == result.after
    assert manifest.read(run.adapter).versions["torch"]


def test_a_full_disk_at_the_end_keeps_the_adapter_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(run: Run, rows: Any, **named: Any) -> None:
        (run.checkpoints / "checkpoint-4").mkdir(parents=True)
        raise OSError(28, "No space left on device", str(run.predictions_path))

    inputs = loaded(tmp_path, baseline=report(0.25))
    monkeypatch.setattr(pipeline, "write_rows", full)
    run = start_run(inputs.config, force=False, resume=False)
    said = r"predictions\.jsonl: cannot be used \(No space left on device\); .*then loraft train --resume --config"
    with pytest.raises(StorageError, match=said):
        run_training(run, inputs, fit=filled, figures=False)
    assert manifest.read(run.adapter).labels
    assert not run.finished


def test_processes_beside_the_main_one_write_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, kind in (("1", WorkerRun), ("0", Run)):
        monkeypatch.setenv("RANK", rank)
        run = start_run(config(tmp_path / "runs"), force=False, resume=False)
        assert type(run) is kind
        assert run.checkpoints == run_of(config(tmp_path / "runs")).checkpoints
        assert (tmp_path / "runs").exists() == (kind is Run)


def test_the_settings_of_the_adapter_are_printed_as_peft_prints_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = ParameterCounts(1234, 49360)
    _print_settings(config(tmp_path, "lora.r=4", "train.learning_rate=2e-3"), counts, 2e-3)
    assert capsys.readouterr() == (
        "",
        "trainable params: 1,234 || all params: 49,360 || trainable%: 2.5000; rank 4, fixed, alpha 32; "
        "learning rate 0.002, linear\n",
    )
    _print_settings(config(tmp_path, "train.learning_rate=null"), ParameterCounts(0, 6_294_784), 2e-3)
    assert "; learning rate 0.002 (by size: 6.3 M weights), linear" in capsys.readouterr().err


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning")  # peft's; a copy is meant
def test_a_run_with_a_head_of_its_own_predicts_as_it_was_judged(tied: bool, tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    random_model(LlamaConfig(**SMALL, **HEADS, tie_word_embeddings=tied)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    section = config(tmp_path / "runs", f"model.name={folder}", "lora.modules_to_save=[lm_head]", "lora.r=2")
    result = train(section, quiet=True)
    run = Run.open(Path(result.run))
    weights = load_file(run.adapter / "adapter_model.safetensors")
    head = build(section)[1].lm_head.weight
    assert abs(weights["base_model.model.lm_head.weight"] - head.float()).max() > 1e-3
    assert result.train.parameters.trainable > head.numel()
    rows = [json.loads(line) for line in run.predictions_path.read_text(encoding="utf-8").splitlines()]
    found = list(predict([row["text"] for row in rows], run=run.path))
    assert [row.label for row in found] == [row["predicted"] for row in rows]
    assert [list(row.probs.values()) for row in found] == [
        pytest.approx(list(row["probs"].values()), rel=1e-2) for row in rows
    ]


def test_cut_text_is_told_once_before_the_training_and_stays_in_the_results(tmp_path: Path) -> None:
    few = [
        "train.max_steps=1",
        "train.eval_steps=1",
        *(f"data.max_{name}_rows=6" for name in ("train", "eval", "test")),
    ]
    with pytest.warns(UserWarning, match="6 of 6 test sentences were shortened") as told:
        result = train(config(tmp_path, "prompt.max_length=110", *few), quiet=True)
    assert result.after.cut > 0.5
    assert sum("was cut away" in sentence for sentence in result.warnings) == 1
    messages = [str(one.message) for one in told]
    assert sum("test sentences" in one or "was cut away" in one for one in messages) == 1
    assert set(messages) > {sentence for sentence in result.warnings if "was cut away" not in sentence}


# --- failures ---------------------------------------------------------------------------------------------------------


def test_force_keeps_the_old_run_until_the_new_one_finishes(whole: RunResult, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(whole.run, tmp_path / Path(whole.run).name))
    first = RunResult.of(run)
    with pytest.raises(BackboneError, match="target_modules"):
        train(config(tmp_path, "lora.target_modules=[không_có]"), force=True, quiet=True)
    assert RunResult.of(run) == first
    second = train(config(tmp_path, "train.learning_rate=null"), force=True, quiet=True)
    assert (first.train.learning_rate, second.train.learning_rate) == (5e-3, 2e-3)  # given; by the backbone's size
    assert RunResult.of(run).after == second.after != first.after
    assert {path.name for path in tmp_path.iterdir()} == {run.name, ".rows"}


def test_a_training_that_diverges_is_an_error_and_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "learning_rate", lambda section, model: 1e30)  # no config has it
    with pytest.raises(BackboneError, match=r"(not finite|no score).*train\.learning_rate"):
        train(config(tmp_path), quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_metric_that_no_validation_row_measures_is_refused_before_a_backbone_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "build", lambda *given: pytest.fail("a backbone was loaded"))
    with pytest.raises(ConfigError, match=r"no validation row has the label .*raise data\.max_eval_rows \(now 1\)"):
        train(config(tmp_path, "train.metric=f1:neutral", "data.max_eval_rows=1"), quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_backbone_that_cannot_be_loaded_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="cannot load"):
        train(config(tmp_path, "model.name=ai/khong-co"), quiet=True)
    assert list(tmp_path.iterdir()) == []
