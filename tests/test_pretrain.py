"""The scripts that make the backbone: token files, batches, optimizer, resuming, one command from text to weights."""

import inspect
import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "pretrain"))  # scripts, no package

import corpus
import optimizers
import pretrain
import run
import tokens
import trade
from opinions import load_material, sample_opinion

CPU = torch.device("cpu")
MATERIAL = load_material(Path(pretrain.__file__).parent / "opinions")
SMALL = {**run.SMOKE_SHAPE, **run.SMOKE, "length": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the one command makes of sixty documents of twelve opinions each."""
    folder = tmp_path_factory.mktemp("backbone")
    rng = random.Random(1)
    documents = ("\n".join(sample_opinion(MATERIAL, rng).text for _ in range(12)) for _ in range(60))
    (folder / "corpus.txt").write_text("\n\n".join(documents), encoding="utf-8")
    run.main(folder / "corpus.txt", folder, device="cpu", smoke=True)
    return folder


def test_one_command_goes_from_text_to_bf16_weights_that_are_evaluated(made: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(made / "weights")
    trained = AutoModelForCausalLM.from_pretrained(made / "stage2/model", dtype=torch.float32).state_dict()
    assert weights.dtype == torch.bfloat16
    assert weights.state_dict().keys() == trained.keys()
    assert all(torch.equal(p, trained[name].bfloat16()) for name, p in weights.state_dict().items())
    assert AutoTokenizer.from_pretrained(made / "weights").get_vocab() == tokenizer().get_vocab()
    log = json.loads((made / "weights/log.json").read_text(encoding="utf-8"))
    assert [rows[-1]["step"] for rows in log.values()] == [run.SMOKE["steps"]] * 2
    assert all(0 < rows[-1]["held_out_loss"] < 1.1 * math.log(8192) for rows in log.values())
    assert list((made / "weights").glob("*.pt")) == []


def test_held_out_documents_are_in_no_stage_and_all_others_are_in_the_first(made: Path) -> None:
    def read(name: str) -> list[str]:
        texts = tokenizer().decode(np.load(made / "tokens" / name).astype(int)).split("<|begin_of_text|>")[1:]
        return [corpus.feedback_style(text.removesuffix("<|end_of_text|>")) for text in texts]

    documents = corpus.keep_best(list(corpus.read_documents(made / "corpus.txt")), 1.0)
    seen, held_out = read("stage1.npy"), read("held_out.npy")
    assert len(held_out) == 1
    assert sorted(seen + held_out) == sorted(map(corpus.feedback_style, documents))


def test_windows_of_stage_2_are_a_function_of_seed_and_part_with_answers_marked(made: Path) -> None:
    stored = np.load(made / "tokens/stage2.npy")
    dense = json.loads((made / "tokens/tokens.json").read_text(encoding="utf-8"))["dense_tokens"]
    assert np.array_equal(tokens.stage2_part(made / "tokens", dense, [], 1, 0, 4), stored)
    assert not np.array_equal(tokens.stage2_part(made / "tokens", dense, [], 1, 1, 4), stored)
    marked = stored >= 0x8000
    words = tokenizer().decode((stored & 0x7FFF)[marked].astype(int)).split()
    assert {"positive", "negative", "neutral"} <= set(words)
    assert 0.005 < marked.mean() < 0.2


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    np.save(tmp_path / "stream.npy", np.arange(1000, dtype=np.uint16))
    return tmp_path / "stream.npy"


def test_a_pass_sees_every_window_once_and_the_next_one_cuts_the_stream_elsewhere(stream: Path) -> None:
    windows = pretrain.Windows(stream, length=10, batch=7, seed=1, device=CPU)
    assert windows.batches == 14  # 98 of the 98 windows that every offset leaves room for
    passes = [torch.cat([windows.at(step) for step in range(first, first + 14)]) for first in (0, 14)]
    for rows in passes:
        starts = rows[:, 0]
        assert torch.equal(rows, starts[:, None] + torch.arange(11))
        assert torch.equal(starts.sort().values, starts.min() + 10 * torch.arange(98))
        assert not torch.equal(starts.sort().values, starts)
    assert passes[0].min() != passes[1].min()
    again = pretrain.Windows(stream, length=10, batch=7, seed=1, device=CPU)
    assert torch.equal(again.at(20), windows.at(20))  # whatever was drawn before


def test_a_file_without_one_batch_is_refused(stream: Path) -> None:
    with pytest.raises(SystemExit, match=r"stream.npy: too few tokens for one batch \(got 1,000\)"):
        pretrain.Windows(stream, length=100, batch=9, seed=1, device=CPU)


def test_batched_muon_is_torchs_muon() -> None:
    torch.manual_seed(0)
    shapes = [(16, 24), (24, 16), (16, 24), (16, 16)]
    start = [torch.randn(shape) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    batched = optimizers.Muon(ours, lr=0.1, weight_decay=0.1)
    plain = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        batched.step()
        plain.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        assert (one - other).norm() < 0.01 * (other - before).norm()  # bf16 inside: 8 bits


def test_the_loss_weighs_answers_fully_and_other_tokens_by_three_tenths() -> None:
    torch.manual_seed(0)
    special = {"bos_token_id": 0, "eos_token_id": 4, "pad_token_id": 5}
    model = pretrain.build_model(64, 32, 1, 2, 1, 48, special).eval()
    ids = torch.randint(64, (2, 9))
    answers = torch.rand(2, 9) < 0.4
    windows = (ids.numpy().astype(np.uint16) | (answers.numpy() * np.uint16(0x8000))).view(np.int16)
    with torch.no_grad():
        log_probs = model(ids[:, :-1]).logits.log_softmax(-1)  # transformers' own attention, in fp32
    losses = -log_probs.gather(-1, ids[:, 1:, None])[..., 0]
    answered = answers[:, 1:]
    weights = torch.where(answered, 1.0, 0.3)
    model.set_attn_implementation("causal")
    loss, answer_loss = pretrain.losses_of(model, torch.from_numpy(windows), compiled=False)
    assert loss.item() == pytest.approx(((losses * weights).sum() / weights.sum()).item(), abs=2e-3)  # bf16
    assert answer_loss.item() == pytest.approx(losses[answered].mean().item(), abs=2e-3)


def train(made: Path, out: Path, **changes: object) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """The weights and the log of a stage 1 of 14 steps."""
    pretrain.main(made / "tokens", out, **{**SMALL, "steps": 14, **changes})
    model = AutoModelForCausalLM.from_pretrained(out / "model").state_dict()
    return model, [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_killed_run_goes_on_to_the_same_weights(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = train(made, tmp_path / "whole")
    update, steps = pretrain.update, []

    def killed(*arguments: object) -> object:
        steps.append(1)
        if len(steps) == 13:
            raise KeyboardInterrupt
        return update(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pretrain, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "killed", save_seconds=0)
    resumed, log = train(made, tmp_path / "killed", save_seconds=0)
    assert len(steps) == 13 + 4  # from the checkpoint behind step 10
    assert [row["step"] for row in log] == [10, 14]
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_the_learning_rate_falls_to_zero_by_the_last_step_or_the_last_minute(made: Path, tmp_path: Path) -> None:
    recipe = pretrain.Recipe(steps=100, batch=1, lr=1.0, embedding_lr=1.0, warmup=10, decay=0.5)
    factors = [pretrain.schedule(step, progress, recipe) for step, progress in ((0, 0.0), (20, 0.2), (20, 0.75))]
    assert factors == [0.1, 1.0, 0.5]
    _, log = train(made, tmp_path / "late", minutes=1e-9)
    assert [(row["step"], row["lr"]) for row in log] == [(1, 0.0)]
    _, log = train(made, tmp_path / "late", minutes=1e-9)
    assert len(log) == 1  # it has ended


def test_a_failed_compilation_is_told_and_training_goes_on(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: exec("raise RuntimeError('no compiler here')"))
    compiled, _ = train(made, tmp_path / "compiled", compile=True, steps=2)
    assert "note: torch.compile failed, going on without it: no compiler here" in capsys.readouterr().err
    eager, _ = train(made, tmp_path / "eager", steps=2)
    assert all(torch.equal(value, eager[name]) for name, value in compiled.items())


def test_trade_calls_the_scripts_by_flags_that_they_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def recorded(script: Path, *rest: object) -> None:
        called.append(script.name)
        known = inspect.signature(__import__(script.stem).main).parameters
        assert {str(part)[2:].replace("-", "_") for part in rest if str(part).startswith("--")} <= set(known)
        (tmp_path / "one/stage1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "one/stage1/log.jsonl").write_text('{"held_out_loss": 4.5}\n', encoding="utf-8")

    monkeypatch.setattr(trade, "run", recorded)
    found = trade.pretrained("base", tmp_path / "corpus", tmp_path, tmp_path / "one", [tmp_path], budget=1e14)
    assert found == (tmp_path / "one/stage2/model", found[1], 4.5)
    assert called == ["tokenizer.py", "tokens.py", "pretrain.py", "pretrain.py"]


@pytest.mark.gpu
def test_on_a_gpu_a_compiled_step_waits_for_nothing_and_equals_the_cpus(made: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(made / "stage1/model", dtype=torch.float32)
    model.set_attn_implementation("causal")
    source = pretrain.Windows(made / "tokens/stage1.npy", 64, 2, 1, CPU)
    expected = pretrain.losses_of(model, source.at(0), compiled=False)[0].item()
    model.cuda()
    there = pretrain.Windows(made / "tokens/stage1.npy", 64, 2, 1, torch.device("cuda"))
    assert pretrain.compile_layers(model, there.at(0))
    both = optimizers.optimizers_for(model, 1e-3, 1e-3, 0.1)
    first = pretrain.update(model, both, there.at(0), True)[0]
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [pretrain.update(model, both, there.at(step), True)[0] for step in range(1, 4)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert first.item() == pytest.approx(expected, abs=0.02)
    assert all(math.isfinite(loss.item()) for loss in losses)
