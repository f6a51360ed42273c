"""Training that goes on from a finished run's adapter: what it begins with, keeps, resumes and refuses."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.data import write_rows
from helpers.finished_runs import NAMES, finished_run
from peft import PeftModel
from safetensors.torch import load_file, save_file

from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import training_splits
from loraft.engine import scorer
from loraft.errors import ConfigError, LoraftError, Note, RunError
from loraft.evaluation.evaluate import evaluate
from loraft.models import manifest
from loraft.models.load import build, load_run
from loraft.runs.run import Run, run_of
from loraft.studies.sweep.folds import train_folds
from loraft.studies.sweep.runner import sweep
from loraft.training import pipeline
from loraft.training.pipeline import TrainingInputs, run_training, start_run, train
from loraft.training.results import ParameterCounts, RunResult, TrainReport
from loraft.training.starting_point import starting_point

REPORT = TrainReport(1.0, None, 4, 2, 0.5, 100, 0, True, None, ParameterCounts(1, 2), "fixed, alpha 32")
SHORT = (
    "train.max_steps=4", "train.eval_steps=2", "train.logging_steps=1", "train.learning_rate=0.01",
    "train.per_device_train_batch_size=2", "eval.bootstrap_samples=100", "eval.baselines=off", "eval.calibrate=false",
)  # fmt: skip
KINDS = {
    "LoRA": (),
    "DoRA": ("lora.use_dora=true",),
    "rsLoRA with dropout": ("lora.use_rslora=true", "lora.lora_dropout=0.5"),
    "PiSSA": ("lora.init_lora_weights=pissa",),
    "whole modules": ("lora.modules_to_save=[lm_head]",),
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::loraft.errors.Note")


def onward(run: Run, *overrides: str) -> Config:
    """The config of a training that goes on from a run, with a folder of its own."""
    given = ["name=tiếp", f"output={run.path.parent}", f"train.from_run={run.path}", *SHORT, *overrides]
    return resolve(base=load_config(run.config_path), overrides=given)


@pytest.mark.parametrize("kind", KINDS)
def test_before_its_first_step_the_adapter_is_the_finished_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = finished_run(tmp_path, *KINDS[kind])
    section = onward(made)
    splits, (encoder, base) = training_splits(section), build(section)
    ids = [prompt.ids for prompt in encoder.encode(splits["test"].texts)]

    def scores(model: Any) -> Any:
        return scorer.score(model, ids, encoder.completions_K, unscored=encoder.unscored)

    seen: list[Any] = []

    def fit(*given: Any) -> TrainReport:
        model: PeftModel = given[-1]
        seen.append(scores(model))
        model.train()
        assert any(parameter.requires_grad for parameter in model.parameters())
        model.eval()
        return REPORT

    inputs = TrainingInputs(section, splits, encoder, base, start=starting_point(section))
    monkeypatch.setattr(pipeline, "fit_adapter", fit)
    result = run_training(start_run(section, force=False, resume=False), inputs, figures=False)
    assert (seen[0] == scores(load_run(made, load_config(made.config_path))[1])).all()
    # Nothing was trained: the scores before and after are those of the earlier run, and so are the weights.
    earlier = evaluate(run=made.path, config=load_config(made.config_path)).report
    assert result.before is not None
    assert (result.before.scores, result.after.scores) == (earlier.scores, earlier.scores)
    weights = load_file(made.adapter / "adapter_model.safetensors")
    after = load_file(run_of(section).adapter / "adapter_model.safetensors")
    assert weights.keys() == after.keys()
    assert all(torch.equal(weights[name], after[name]) for name in weights)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(tmp_path_factory.mktemp("made"))


@pytest.fixture
def copied(made: Run, tmp_path: Path) -> Run:
    return Run(shutil.copytree(made.path, tmp_path / made.path.name))


def test_the_run_says_what_it_started_from(copied: Run) -> None:
    folder = shutil.copytree(load_config(copied.config_path).data.source, copied.path.with_name("khác"))
    result = train(onward(copied, "train.max_steps=1", f"data.source={folder}"), quiet=True)
    run = Run(Path(result.run))
    assert result.warnings[1].startswith(f"6 of 6 test rows are training rows of {copied.path}")
    record = {
        "run": str(copied.path),
        "adapter_sha256": manifest.adapter_hash(copied.adapter, manifest.read(copied.adapter)),
    }
    assert run.read_results()["started_from"] == record == manifest.read(run.adapter).started_from
    assert RunResult.of(run).before_is == copied.path.name


@pytest.mark.integration
def test_the_config_of_the_run_does_it_again(copied: Run, tmp_path: Path) -> None:
    result = train(onward(copied), quiet=True)
    again = train(load_config(Run(Path(result.run)).config_path), force=True, quiet=True)
    assert replace(again.after, seconds=0.0) == replace(result.after, seconds=0.0)
    fresh = train(resolve(base=onward(copied), overrides=["name=mới", "train.from_run=null"]), quiet=True)
    assert (fresh.before_is, fresh.started_from) == ("zero-shot", None)
    assert fresh.after.log_loss != result.after.log_loss  # the start matters
    run = Run(Path(result.run))
    with pytest.warns(Note, match="is finished, with this config and these rows"):
        assert train(load_config(run.config_path), quiet=True) == again
    shutil.copytree(copied.path, tmp_path / "nơi khác")
    config = load_config(run.config_path)
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"from_run": str(tmp_path / "nơi khác")})}
    )
    with pytest.warns(Note, match="is finished, with this config and these rows"):  # the same adapter, elsewhere
        assert train(config, quiet=True) == again
    assert again.started_from is not None
    kept = run.results_path.read_text(encoding="utf-8")
    run.results_path.write_text(kept.replace(again.started_from.adapter_sha256, "0" * 64), encoding="utf-8")
    with pytest.raises(RunError, match=r"was begun from another adapter than .* holds now; .*--force"):
        train(load_config(run.config_path), quiet=True)


@pytest.mark.integration
def test_an_interrupted_training_resumes_from_its_own_checkpoint(copied: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(onward(copied, "name=liền"), quiet=True)
    original, calls = scorer.score, 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:  # the test rows before, and then the validation rows after step 2
            signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr("loraft.engine.scorer.score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(onward(copied), quiet=True)
    resumed = train(load_config(run_of(onward(copied)).config_path), resume=True, quiet=True)
    assert resumed.train.resumed_from_step == 2
    assert resumed.after.scores == pytest.approx(whole.after.scores, rel=1e-6)
    assert resumed.before is not None
    assert whole.before is not None
    assert resumed.before.scores == whole.before.scores
    # Begun from one adapter, not resumed from another.
    path = Path(resumed.run)
    (path / "metrics.json").unlink()
    weights = load_file(copied.adapter / "adapter_model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, copied.adapter / "adapter_model.safetensors")
    manifest.write(copied.adapter, manifest.read(copied.adapter))
    with pytest.raises(RunError, match=r"is not the adapter that .* was begun from"):
        train(onward(copied), resume=True, quiet=True)


def test_rows_that_were_added_meanwhile_are_not_mixed_into_a_resumed_training(
    copied: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = copied.path.with_name("thêm.csv")
    added.write_text("sentence,sentiment\nlớp đông,negative\n", encoding="utf-8")
    config = onward(copied, f"data.extra_train=[{added}]")

    def stopped(*given: Any) -> TrainReport:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "fit_adapter", stopped)
        train(config, quiet=True)
    added.write_text("sentence,sentiment\nlớp đông,negative\nphòng nóng,negative\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"was begun with other rows \(got another train split\); put its data back"):
        train(config, resume=True, quiet=True)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["lora.r=4"], r"the same form only \(got lora\.r 2 then, 4 now\)"),
        (["lora.lora_alpha=7", "lora.use_dora=true"], r"use_dora False then, True now; lora\.lora_alpha 32\.0 then"),
        (["quant.method=nf4"], r"quant\.method none then, nf4 now"),
        (["train.from_run=không-có"], r"train\.from_run: no such run \(got không-có\); put its folder back there"),
        (["name=của em"], r"train\.from_run: is the new run's own folder"),
        (["prompt.labels=[a, b, c]", "prompt.template='{input} {label_words}'",
          "prompt.few_shot_template='{few_shot_examples} {input}'"], "labels"),
        (["prompt.answer_prefix='nhãn:'"], "prompt"),
    ],
)  # fmt: skip
def test_another_form_of_adapter_and_another_prompt_are_refused(overrides: list[str], says: str, made: Run) -> None:
    with pytest.raises(LoraftError, match=says):
        train(onward(made, *overrides), force=True, quiet=True)
    assert made.finished
    assert not (made.path.parent / "tiếp").exists()


def test_runs_that_are_no_start_are_refused(copied: Run) -> None:
    content = manifest.read(copied.adapter)
    manifest.write(copied.adapter, replace(content, merged={"to": "hf"}))
    with pytest.raises(RunError, match="holds merged weights"):
        starting_point(onward(copied))
    manifest.write(copied.adapter, content)
    (copied.adapter / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match="adapter_model"):
        starting_point(onward(copied))
    copied.results_path.unlink()
    with pytest.raises(RunError, match="not finished"):
        starting_point(onward(copied))


def test_rows_of_the_earlier_training_are_not_measured_on(copied: Run) -> None:
    content = manifest.read(copied.adapter)
    rows = [{"sentence": f"câu {i}", "sentiment": NAMES[i % 3]} for i in range(30)]
    source = write_rows(copied.path.with_name("rows.jsonl"), rows)
    drawn = ["data.split=[0.4, 0.3, 0.3]", f"data.source={source}"]
    config = resolve(base=load_config(copied.config_path), overrides=drawn)
    pool = training_splits(config)["test"].pool
    copied.config_path.write_text(dump_config(config), encoding="utf-8")
    manifest.write(copied.adapter, replace(content, data=replace(content.data, pool=pool)))
    with pytest.raises(RunError, match=r"data\.split_seed 42 then, 7 now"):
        train(onward(copied, "data.split_seed=7"), quiet=True)


def test_rows_of_the_earlier_training_are_counted_where_others_are_measured_on(
    copied: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(load_config(copied.config_path).data.source, copied.path.with_name("khác")))
    write_rows(folder / "test.jsonl", [{"sentence": "câu mới", "sentiment": "neutral"}])
    with (folder / "test.jsonl").open("a", encoding="utf-8") as file:
        file.write((folder / "train.jsonl").read_text(encoding="utf-8").partition("\n")[0] + "\n")
    write_rows(folder / "validation.jsonl", [{"sentence": "câu khác", "sentiment": "neutral"}])
    config = onward(copied, f"data.source={folder}")
    said = f"1 of 2 test rows are training rows of {copied.path}, so that their scores are too good"
    monkeypatch.delattr(pipeline, "build")
    with pytest.warns(UserWarning, match=said), pytest.raises(NameError):
        train(config, quiet=True)  # before the backbone is loaded
    start = starting_point(onward(copied, f"data.extra_train=[{folder}/train.jsonl]"))
    assert start is not None
    assert start.known_rows(start.config, training_splits(config)) == ()  # its own data: nothing new to tell
    bundle = starting_point(onward(copied, f"train.from_run={copied.adapter}"))
    assert bundle is not None
    assert "cannot be told" in bundle.known_rows(config, training_splits(config))[0]


def test_studies_of_several_adapters_start_afresh(made: Run) -> None:
    with pytest.raises(ConfigError, match=r"train\.from_run: loraft sweep trains fresh adapters"):
        sweep(onward(made))
    with pytest.raises(ConfigError, match="loraft sweep trains fresh adapters"):
        sweep(
            resolve(
                base=onward(made), overrides=["train.from_run=null", f"sweep.grid={{train.from_run: [{made.path}]}}"]
            )
        )
    with pytest.raises(ConfigError, match=r"train\.from_run: train --folds trains fresh adapters"):
        train_folds(onward(made), 2)
