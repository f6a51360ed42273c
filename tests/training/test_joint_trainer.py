"""Adapters trained together equal those trained alone: losses, clipping, learning rates, best checkpoints."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import LABELS, SENTENCES, backbone, encoder, prompts, tokenizer
from helpers.training import SECTIONS, split
from peft import PeftModel

from loraft.config.resolve import resolve
from loraft.config.schema import LoraSection, ModelConfig, QuantConfig, TrainConfig
from loraft.engine import ranged_rows, scorer
from loraft.engine.collator import TrainingRow, make_rows
from loraft.engine.loss import BatchMethod
from loraft.engine.probabilities import to_probs
from loraft.errors import BackboneError
from loraft.evaluation.choosing import Metric
from loraft.models.adapter import add_adapter, add_adapters, remove_adapter
from loraft.models.backbone import load_backbone, weights_hash
from loraft.models.quantization import check_nf4
from loraft.training import memory
from loraft.training.checkpoints import BestStep, best_weights, read_best
from loraft.training.dataset import TrainingData, prepare
from loraft.training.joint_adapters import JointAdapters
from loraft.training.joint_trainer import JointTrainer
from loraft.training.trainer import LabelTrainer

RATES = [1e-2, 2e-3, 5e-3]


def rows(class_weights: str = "balanced") -> list[TrainingRow]:
    return make_rows(prompts(SENTENCES), LABELS, encoder().completions_K, class_weights)


def training(**changes: Any) -> TrainConfig:
    given = {
        "max_steps": 20,
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "eval_steps": 5,
        "max_grad_norm": 0.3,
        "weight_decay": 0.1,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 3,
        **changes,
    }
    return TrainConfig(**given)


def judged(model: Any) -> dict[str, float]:
    """A number that tells adapters and steps apart, so that best checkpoints differ."""
    model.eval()
    score = scorer.score(model, prompts(SENTENCES[:3]), encoder().completions_K)
    return {"macro_f1": float(to_probs(score)[:, 0].mean())}


DATA = TrainingData(rows(), tokenizer(), judged)


def alone(folder: Path, section: LoraSection, rate: float, base: Any, **train: Any) -> tuple[PeftModel, list[float]]:
    model = add_adapter(base, section, seed=5)
    section = training(learning_rate=rate, **train)
    trainer = LabelTrainer.build(model, DATA, section, output_dir=str(folder), seed=3)
    trainer.train()
    return model, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def together(
    folder: Path, base: Any, *, resume: bool = False, data: TrainingData | None = None, **train: Any
) -> tuple[PeftModel, list[str], list[list[dict[str, Any]]]]:
    model, names = add_adapters(base, SECTIONS, seed=5)
    logs: list[list[dict[str, Any]]] = [[] for _ in names]
    joint = JointAdapters(names, RATES, folder / "best", lambda number, line: logs[number].append(line))
    output = str(folder / "checkpoints")
    trainer = JointTrainer.build(model, data or DATA, training(**train), output_dir=output, seed=3, joint=joint)
    (folder / "best").mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=resume or None)
    return model, names, logs


def assert_equal(joint: dict[str, torch.Tensor], single: dict[str, torch.Tensor], tolerance: float) -> None:
    assert joint
    assert joint.keys() == single.keys()
    for key, weight in single.items():
        difference = torch.linalg.norm(joint[key].float() - weight.float())
        assert difference <= tolerance * torch.linalg.norm(weight.float()), key


def adapter_weights(model: PeftModel, name: str) -> dict[str, torch.Tensor]:
    return {
        key.replace(f".{name}.", "."): parameter.detach().clone()
        for key, parameter in model.named_parameters()
        if f".{name}." in key
    }


def model_with(folder: Path, base: Any) -> dict[str, torch.Tensor]:
    return adapter_weights(PeftModel.from_pretrained(base, str(folder), is_trainable=True), "default")


def assert_equal_to_alone(
    folder: Path, made: Any, backbones: Callable[[], Any], tolerance: float = 1e-4, **train: Any
) -> None:
    _, names, logs = made
    for number, (section, rate) in enumerate(zip(SECTIONS, RATES, strict=True)):
        single, losses = alone(folder / str(number), section, rate, backbones(), **train)
        joint = torch.tensor([line["loss"] for line in logs[number] if "loss" in line])
        assert_equal({"losses": joint}, {"losses": torch.tensor(losses)}, tolerance)
        best = model_with(best_weights(folder / "joint" / "best", names[number]), backbones())
        assert_equal(best, adapter_weights(single, "default"), tolerance)


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"shared_prefix": "off"},
        {"gradient_accumulation_steps": 2, "shared_prefix": "off", "sampling": "by_length", "keep": "last"},
        {"gradient_checkpointing": True, "sampling": "balanced", "class_weights": "none"},
    ],
)
def test_each_adapter_equals_the_one_trained_alone(tmp_path: Path, train: dict[str, Any]) -> None:
    train = {"max_steps": 10, **train}
    made = together(tmp_path / "joint", backbone(), **train)
    assert_equal_to_alone(tmp_path, made, backbone, **train)


def in_nf4() -> Any:
    """The bundled backbone in NF4, products and everything else in fp32."""
    quant = QuantConfig(method="nf4", compute_dtype="fp32")
    return load_backbone(ModelConfig(dtype="fp32"), quant)


def test_each_adapter_equals_the_one_trained_alone_over_nf4(tmp_path: Path) -> None:
    base = in_nf4()
    made = together(tmp_path / "joint", base, max_steps=6)
    check_nf4(base, double_quant=True)
    # Adam magnifies rounding: 1.1e-4 was seen after 20 steps on a processor without bf16, less on one with it.
    assert_equal_to_alone(tmp_path, made, in_nf4, tolerance=5e-4, max_steps=6)


def test_the_adapters_differ_and_have_best_steps_of_their_own(tmp_path: Path) -> None:
    _, names, logs = together(tmp_path / "joint", backbone())
    best = read_best(tmp_path / "joint" / "best")
    for number, name in enumerate(names):
        scores = {line["step"]: line["eval_macro_f1"] for line in logs[number] if "eval_macro_f1" in line}
        assert list(scores) == [5, 10, 15, 20]
        top = max(scores.values())
        assert best[name] == BestStep(max(scores, key=scores.__getitem__), top, top)
    assert len({tuple(line["loss"] for line in log if "loss" in line) for log in logs}) == len(names)
    # In the middle of the schedule (at its end all rates are 0): a cosine from step 3, after the warmup, to step 20.
    factor = (1 + math.cos(math.pi * (10 - 3) / (20 - 3))) / 2
    rates = [line["learning_rate"] for log in logs for line in log if line["step"] == 10 and "learning_rate" in line]
    assert rates == pytest.approx([factor * rate for rate in RATES])
    assert len(set(rates)) == len(names)  # so none of them is another adapter's


def test_where_the_last_step_is_kept_it_is_each_adapters_whatever_its_scores(tmp_path: Path) -> None:
    scores = iter([0.9, 0.8, 0.7, 0.1, 0.2, 0.3])  # of three adapters, after steps 2 and 4
    data = replace(DATA, evaluate_with=lambda model: {"macro_f1": next(scores)})
    model, names, _ = together(tmp_path, backbone(), data=data, max_steps=4, eval_steps=2, keep="last")
    assert [read_best(tmp_path / "best")[name].score for name in names] == [0.1, 0.2, 0.3]
    for name in names:
        assert read_best(tmp_path / "best")[name].step == 4
        kept = model_with(best_weights(tmp_path / "best", name), backbone())
        assert_equal(kept, adapter_weights(model, name), 0.0)


def test_adapters_scored_together_have_the_scores_and_best_steps_of_those_scored_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = split("validation", SENTENCES[:3], LABELS[:3])
    data = prepare(resolve(), encoder(), split("train", SENTENCES, LABELS), validation)
    _, names, logs = together(tmp_path / "alone", backbone(), data=data, max_steps=6, eval_steps=3)
    monkeypatch.setattr(ranged_rows, "suits", lambda model: True)
    monkeypatch.setattr(scorer, "score", None)
    _, _, found = together(tmp_path / "joint", backbone(), data=data, max_steps=6, eval_steps=3)
    best = tmp_path / "joint" / "best"
    assert read_best(best) == read_best(tmp_path / "alone" / "best")
    for mine, theirs, name in zip(found, logs, names, strict=True):
        for line, other in zip(mine, theirs, strict=True):
            assert line == pytest.approx(other, abs=1e-5)
        assert sum("eval_loss" in line for line in mine) == 2
        single = model_with(best_weights(tmp_path / "alone" / "best", name), backbone())
        assert_equal(model_with(best_weights(best, name), backbone()), single, 1e-6)


def test_an_interrupted_pass_goes_on_to_the_same_adapters(tmp_path: Path) -> None:
    whole, names, logs = together(tmp_path / "a", backbone())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in (tmp_path / "b" / "checkpoints").glob("checkpoint-20"):
        shutil.rmtree(path)
    best = tmp_path / "b" / "best" / "best.json"
    best.write_text(json.dumps({**json.loads(best.read_text()), names[0]: {"step": 10, "macro_f1": 9.0}}))
    resumed, _, later = together(tmp_path / "b", backbone(), resume=True)
    assert read_best(best.parent) == {**read_best(tmp_path / "a" / "best"), names[0]: BestStep(10, 9.0)}
    for number, name in enumerate(names):
        assert_equal(adapter_weights(resumed, name), adapter_weights(whole, name), 1e-6)
        expected = [line["loss"] for line in logs[number] if "loss" in line and line["step"] > 15]
        assert [line["loss"] for line in later[number] if "loss" in line] == pytest.approx(expected)


def test_layers_that_cannot_keep_adapters_apart_are_refused(tmp_path: Path) -> None:
    sections = [LoraSection(r=r, target_modules="default") for r in (1, 4)]
    with pytest.warns(UserWarning, match="fan_in_fan_out"):  # peft sees that gpt2 keeps its weights transposed
        model, names = add_adapters(backbone("gpt2"), sections, seed=5)
    joint = JointAdapters(names, RATES[:2], tmp_path, lambda number, line: None)
    trainer = JointTrainer.build(model, DATA, training(), output_dir=str(tmp_path), seed=3, joint=joint)
    with pytest.raises(BackboneError, match=r"an adapter layer is not a plain LoRA linear layer .*--joint off"):
        trainer.train()


def test_memory_is_planned_for_all_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[int], int]] = []
    monkeypatch.setattr(
        memory, "largest_fit", lambda m, r, sizes, adapters, **named: asked.append((sizes, adapters)) or 6
    )
    model, names = add_adapters(backbone(), SECTIONS, seed=5)
    joint = JointAdapters(names, RATES, tmp_path, lambda number, line: None)
    section = training(gradient_accumulation_steps=3)
    JointTrainer.build(model, DATA, section, output_dir=str(tmp_path), seed=3, joint=joint)
    assert asked == [([6, 3, 2, 1], 3)]  # 3 batches of 2 rows


def test_the_backbone_is_bit_identical_and_bare_afterwards(tmp_path: Path) -> None:
    base = backbone()
    before = weights_hash(base)
    model, _, _ = together(tmp_path, base, max_steps=2)
    assert weights_hash(remove_adapter(model)) == before


def test_an_adapter_that_diverges_is_left_behind_and_the_others_go_on(tmp_path: Path) -> None:
    model, names = add_adapters(backbone(), SECTIONS, seed=5)
    logs: list[list[dict[str, Any]]] = [[] for _ in names]
    joint = JointAdapters(names, [1e-2, 1e30, 5e-3], tmp_path / "best", lambda number, line: logs[number].append(line))
    (tmp_path / "best").mkdir()
    section = training(max_steps=4, eval_steps=2, warmup_steps=0, lr_scheduler_type="constant")
    trainer = JointTrainer.build(model, DATA, section, output_dir=str(tmp_path), seed=3, joint=joint)
    trainer.train()
    assert trainer.diverged == {names[1]}
    assert (
        trainer.args.load_best_model_at_end is False
    )  # of the mean over the adapters; each has a best step of its own
    assert [len([line for line in log if "loss" in line]) for log in logs] == [4, 1, 4]  # its first step had a loss
    assert set(read_best(tmp_path / "best")) == {names[0], names[2]}
    # What the trainer logs stays finite: the mean of the losses that are, and that of the scores.
    logged = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert logged[-1] == pytest.approx(sum(log[-2]["loss"] for log in (logs[0], logs[2])) / 2)
    scores = [line["eval_macro_f1"] for line in trainer.state.log_history if "eval_macro_f1" in line]
    assert scores[-1] == pytest.approx(sum(log[-1]["eval_macro_f1"] for log in (logs[0], logs[2])) / 3)
    assert [line["grad_norm"] for line in trainer.state.log_history if "loss" in line][-1] == pytest.approx(
        max(log[-2]["grad_norm"] for log in (logs[0], logs[2]))
    )

    shutil.rmtree(tmp_path / "checkpoint-4")
    model, names = add_adapters(backbone(), SECTIONS, seed=5)
    later: list[list[dict[str, Any]]] = [[] for _ in names]
    joint = JointAdapters(names, joint.learning_rates, joint.best, lambda number, line: later[number].append(line))
    resumed = JointTrainer.build(model, DATA, section, output_dir=str(tmp_path), seed=3, joint=joint)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.diverged == trainer.diverged
    assert resumed.method is trainer.method is BatchMethod.FUSED
    for was, line in zip([*logs[0][-3:], *logs[2][-3:]], [*later[0], *later[2]], strict=True):
        assert line == pytest.approx(was)
    assert later[1] == []


@pytest.mark.parametrize(("key", "best"), [("mean_absolute_error", 6), ("mcc", 2)])
def test_alone_and_together_the_metric_picks_the_step(tmp_path: Path, key: str, best: int) -> None:
    def scores() -> Any:
        by_step = [(0.4, 0.9, -0.1), (0.6, 0.7, -0.2), (0.5, 0.2, -0.3)]  # best at step 4, 6 (the least error), 2
        each = iter([dict(zip(("macro_f1", "mean_absolute_error", "mcc"), one, strict=True)) for one in by_step])
        return lambda model: next(each)

    metric = Metric(key, key, key)
    section = training(metric=key, max_steps=6, eval_steps=2, learning_rate=1e-3)
    trainer = LabelTrainer.build(
        add_adapter(backbone(), SECTIONS[0], seed=5), TrainingData(rows(), tokenizer(), scores(), metric=metric),
        section, output_dir=str(tmp_path / "alone"), seed=3,
    )  # fmt: skip
    trainer.train()
    assert str(trainer.state.best_model_checkpoint).endswith(f"checkpoint-{best}")

    model, names = add_adapters(backbone(), SECTIONS[:1], seed=5)
    joint = JointAdapters(names, [1e-3], tmp_path / "best", lambda number, line: None)
    (tmp_path / "best").mkdir()
    data = TrainingData(rows(), tokenizer(), scores(), metric=metric)
    JointTrainer.build(model, data, section, output_dir=str(tmp_path / "joint"), seed=3, joint=joint).train()
    (found,) = read_best(tmp_path / "best").values()
    assert (found.step, found.score) == (best, trainer.state.best_metric)
