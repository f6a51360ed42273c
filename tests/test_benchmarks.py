"""The baselines do the same work as loraft, tools take fair turns, and the page says what was measured."""

import asyncio
import copy
import json
import random
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import LABELS, SENTENCES, backbone, encoder, prompts, random_model, tokenizer

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.data.records import Example
from loraft.engine.collator import make_rows, pad
from loraft.engine.scorer import score
from loraft.models.adapter import add_adapter
from loraft.models.backbone import load_backbone

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))  # scripts, no package

import baselines
import cases
import performance
import programme
import serving
from measuring import measure
from speed import FLAGS, _share
from stepper import Paced
from targets import LORAFT, RECIPE, TARGETS, TRL, TRL_BEST, WHAT
from timing import count_launches, in_turns, launches, operations, ratios

CPU = torch.device("cpu")


def split() -> Split:
    examples = tuple(Example(text, label, i + 1) for i, (text, label) in enumerate(zip(SENTENCES, LABELS, strict=True)))
    return Split("train", examples, "fixture", {})


def bench() -> cases.Bench:
    config: Config = resolve(flags={**FLAGS, "model.device": "cpu"})
    return cases.Bench(config, encoder(), backbone(), split(), split())


def record(**changes: Any) -> dict[str, Any]:
    seconds = {LORAFT: [1.0, 2.0, 1.0], RECIPE: [2.0, 8.0, 3.0], TRL: [5.0, 9.0, 4.0]}
    step = {
        "backbone": "tiny", "dtype": "bfloat16", "work": {"batch": 4}, "seconds": seconds, "ratios": ratios(seconds),
        "peak_memory_mib": {}, "first_losses": {LORAFT: 1.25, RECIPE: 1.2501}, "loraft_operations": 5 * 10**9,
        "share_of_peak": 0.05,
    }  # fmt: skip
    curves = {name: {"x": [1, 2], "seconds": {LORAFT: [1.0, 1.5], RECIPE: [2.0, 4.0]}} for name in performance.CURVES}
    return {
        "environment": {"git_commit": "abc", "time": "2026-11-01T00:00:00+00:00",
                        "packages": dict.fromkeys(("torch", "transformers", "peft", "trl"), "1.0")},
        "machine": {"device": "cpu", "name": "Processor of the test", "threads": 2},
        "data": "feedback", "smoke": False, "not_measured": ["sweep"],
        "cases": {"peak": {"flop_per_second": 1e11, "size": 64}, "step-4": step, "scaling": {"curves": curves}},
        **changes,
    }  # fmt: skip


def test_each_contestant_takes_the_same_training_steps() -> None:
    with cases.steps(bench(), 2, 3, [RECIPE, TRL, TRL_BEST, LORAFT]) as made:
        _, losses, _ = in_turns(made, 3, CPU)
    for name in (RECIPE, TRL_BEST):
        assert losses[name][0] == pytest.approx(losses[LORAFT][0], rel=1e-3), name
        assert losses[name] == pytest.approx(losses[LORAFT], rel=5e-3), name  # schedules differ, and so do updates
    assert losses[TRL] == pytest.approx(losses[LORAFT], rel=2e-2)  # its default is autocast to bf16
    assert len({round(loss, 4) for loss in losses[LORAFT]}) == 3


def test_a_trainer_stands_still_between_its_steps_and_ends_without_a_trace(tmp_path: Path) -> None:
    model = add_adapter(backbone(), bench().config.lora, seed=1)
    trainer = baselines.trl_trainer(model, encoder(), split(), folder=tmp_path, batch_size=2, learning_rate=1e-3)
    paced = Paced(trainer, [[0, 1], [2, 3], [4, 5]])
    trained = [p for p in model.parameters() if p.requires_grad]
    before = [p.clone() for p in trained]
    assert trainer.state.global_step == 1  # the warm-up
    paced.step()
    assert trainer.state.global_step == 2
    assert not all(torch.equal(old, new) for old, new in zip(before, trained, strict=True))
    paced.close()
    assert paced._training.dead
    assert list(tmp_path.iterdir()) == []


def test_the_operations_of_a_step_are_those_of_a_whole_batch() -> None:
    with cases.steps(bench(), 4, 1, [LORAFT]) as made:
        counted = [operations(lambda counter, n=n: made[LORAFT](n, around=counter)) for n in range(2)]
    with cases.steps(bench(), 1, 1, [LORAFT]) as made:
        one_row = operations(lambda counter: made[LORAFT](0, around=counter))
    assert counted[0] == counted[1]  # the round, and the step after the rounds
    assert counted[0] > one_row > 0


def test_an_error_in_a_step_reaches_the_one_who_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = add_adapter(backbone(), bench().config.lora, seed=1)
    trainer = baselines.trl_trainer(model, encoder(), split(), folder=tmp_path, batch_size=2, learning_rate=1e-3)
    paced = Paced(trainer, [[0, 1], [2, 3]])
    monkeypatch.setattr(trainer.optimizer, "step", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        paced.step()


def test_tools_share_the_frozen_weights_but_not_the_adapter() -> None:
    base = backbone()
    one, other = (add_adapter(cases.sharing_weights(base), bench().config.lora, seed=1) for _ in range(2))
    pointers = [{p.data_ptr() for p in model.parameters() if not p.requires_grad} for model in (base, one, other)]
    assert pointers[0] == pointers[1] == pointers[2]
    ours, theirs = ({p.data_ptr() for p in model.parameters() if p.requires_grad} for model in (one, other))
    assert not ours & theirs


def test_the_recipes_batch_is_the_padded_twin_of_loraft() -> None:
    rows = make_rows(prompts(), LABELS, encoder().completions_K, "none")
    theirs = baselines.recipe_batch(rows, tokenizer().pad_token_id, CPU)
    ours = pad(rows, tokenizer().pad_token_id)
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


def test_trl_trains_on_the_ids_that_loraft_trains_on(tmp_path: Path) -> None:
    rows = make_rows(prompts(), LABELS, encoder().completions_K, "none")
    model = add_adapter(backbone(), bench().config.lora, seed=1)
    trainer = baselines.trl_trainer(model, encoder(), split(), folder=tmp_path, batch_size=2, learning_rate=1e-3)
    assert trainer.args.activation_checkpointing  # its default, which the page speaks of
    assert trainer.args.bf16
    assert [item["input_ids"] for item in trainer.train_dataset] == [row.input_ids for row in rows]
    supervised = [sum(label != -100 for label in item["labels"]) for item in trainer.train_dataset]
    assert supervised == [len(row.input_ids) - row.answer_start for row in rows]


@pytest.mark.parametrize("task", ["sentiment", "topic"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_loops_log_likelihoods_are_the_scores(task: str, batch_size: int) -> None:
    model, ids, completions = backbone(), prompts(task=task), encoder(task).completions_K
    loop_NK = baselines.loglikelihoods(model, ids, completions, batch_size)
    assert cases.largest_difference(loop_NK, score(model, ids, completions)) < 1e-4
    assert cases.largest_difference(loop_NK[:, ::-1], score(model, ids, completions)) > 1e-2


def test_the_loop_runs_labels_that_differ_in_the_last_token_once() -> None:
    model, calls = backbone(), []
    model.register_forward_pre_hook(lambda *given: calls.append(given[2]["input_ids"].shape[0]), with_kwargs=True)
    baselines.loglikelihoods(model, prompts(), encoder().completions_K, 4)
    assert len({tuple(ids[:-2]) for ids in encoder().completions_K}) == 1
    assert sum(calls) == len(SENTENCES)


def test_generated_answers_are_parsed_in_the_rows_order(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = backbone(), prompts()
    answers = [encoder().completions_K[label] for label in LABELS]
    asked: list[int] = []

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        assert kwargs["max_new_tokens"] == 16
        rows = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        assert attention_mask[:, -1].all()  # padded on the left
        asked.append(len(rows))
        return torch.cat([input_ids, torch.tensor([answers[ids.index(row)] for row in rows])], dim=1)

    monkeypatch.setattr(model, "generate", generate)
    assert baselines.recipe_predict(model, encoder(), ids, batch_size=4) == LABELS
    assert asked == [4, 2]


def test_baselines_run_every_rank_once_in_the_rounds_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks, run = [1, 2, 4, 8, 16, 32, 64, 128], []

    def recipe_sweep(config: Config, *rest: Any) -> None:
        run.append(list(config.sweep.ranks))

    monkeypatch.setattr(baselines, "recipe_sweep", recipe_sweep)
    with cases.sweeps_of(resolve(), ranks, [RECIPE], share=4) as made:
        for number in range(5):
            made[RECIPE](number)
    assert run == [[1], [1, 128], [2, 64], [4, 32], [8, 16], [1, 128]]  # the first is the warm-up


def test_everyone_goes_first_in_turn_and_ratios_stay_inside_a_round() -> None:
    order: list[str] = []
    made = {name: lambda number, name=name: order.append(f"{name}{number}") for name in ("a", "b", LORAFT)}
    seconds, _, _ = in_turns(made, 3, CPU)
    assert order == ["a0", "b0", "loraft0", "b1", "loraft1", "a1", "loraft2", "a2", "b2"]
    assert all(len(times) == 3 for times in seconds.values())
    found = ratios({"a": [2.0, 8.0, 3.0], LORAFT: [1.0, 2.0, 1.0]})
    assert found == {"a": {"median": 3.0, "low": 2.0, "high": 4.0}}  # not 3 / 1 and not 8 / 1


def test_operations_of_a_product_are_two_a_multiplication() -> None:
    left, right = torch.ones(3, 5), torch.ones(5, 7)

    def product(counter: Any) -> None:
        with counter:
            left @ right
        left @ right  # outside

    assert operations(product) == 2 * 3 * 5 * 7


def test_rows_repeat_only_when_there_are_too_few() -> None:
    texts: Sequence[str] = cases.some_rows(split(), 6, 1).texts
    assert sorted(texts) == sorted(SENTENCES)
    assert cases.some_rows(split(), 8, 1).texts[6:] == texts[:2]
    assert texts != SENTENCES
    assert random.Random(1).sample(range(6), 6) != list(range(6))


def test_the_page_says_what_the_json_says(tmp_path: Path) -> None:
    result = tmp_path / "speed.json"
    result.write_text(json.dumps(record()), encoding="utf-8")
    performance.main([result], tmp_path)
    page = (tmp_path / "performance.md").read_text(encoding="utf-8")
    targets = TARGETS["cpu"]["step-4"]
    assert targets == {RECIPE: 2.7, TRL: 2.5}
    assert f"| {WHAT['step-4']} | tiny | {RECIPE} | 2.7x | **3.00x** | 2.00x to 4.00x | 3 |" in page
    assert f"| {TRL} | 2.5x | **4.50x** | 4.00x to 5.00x | 3 |" in page
    assert statistics.median([5 / 1, 9 / 2, 4 / 1]) == 4.5
    assert "commit abc, 2026-11-01" in page
    assert "5.0 GFLOP, 5.0%" in page
    assert "Not measured: sweep." in page
    assert (tmp_path / "performance-speed.png").read_bytes().startswith(b"\x89PNG")


def test_a_missed_target_is_said(tmp_path: Path) -> None:
    missed = record()
    missed["cases"]["step-4"]["ratios"][RECIPE]["median"] = 2.69
    assert "| 2.7x (missed) | **2.69x** |" in performance.page([missed], [""])


def test_smoke_figures_never_reach_the_page(tmp_path: Path) -> None:
    result = tmp_path / "speed.json"
    result.write_text(json.dumps(record(smoke=True)), encoding="utf-8")
    with pytest.raises(SystemExit, match="made with --smoke"):
        performance.main([result], tmp_path)
    assert not (tmp_path / "performance.md").exists()


def test_every_target_belongs_to_a_case() -> None:
    import gpu
    import speed

    suite = speed.Suite(resolve(), speed.SMOKE, CPU)
    assert set(TARGETS["cpu"]) == set(speed.all_cases(suite)) - {"peak", "scaling"}
    assert set(TARGETS["cuda"]) == set(gpu.cases_1b(suite, suite)) - {"peak", "launches-1b"}
    without_aim = set(gpu.cases_8b(suite)) - {"peak"}
    assert set(TARGETS["cpu"]) | set(TARGETS["cuda"]) | without_aim == set(WHAT)


def test_a_round_of_prediction_is_whole_groups_of_rows() -> None:
    from loraft.evaluation.scored_rows import PREDICT_ROWS

    assert cases.LINES % PREDICT_ROWS == 0


def test_a_case_that_fails_or_has_no_time_costs_no_other_case() -> None:
    saved: list[dict[str, Any]] = []

    def fails() -> dict[str, Any]:
        raise RuntimeError("the card is full")

    def hangs() -> dict[str, Any]:
        for _ in range(10**4):
            with suppress(Exception):  # as a sweep catches what its trials raise
                time.sleep(0.01)
        return {}

    def save(result: dict[str, Any]) -> None:
        saved.append(json.loads(json.dumps(result)))

    done = {"seconds": {LORAFT: [1.0], RECIPE: [3.0]}, "loraft_operations": 20}
    good = {"peak": lambda: {"flop_per_second": 100.0}, "step-4": lambda: dict(done)}
    chosen = {"sweep": fails, "predict": hangs, **good}
    with pytest.raises(SystemExit, match="card is full"):
        measure(chosen, 60, save, {"sweep": 9, "predict": 0.05, "peak": 9, "step-4": 9})
    assert len(saved) == 4  # after every case
    assert saved[-1]["not_measured"] == ["sweep", "predict"]
    assert saved[-1]["cases"]["sweep"]["error"] == "RuntimeError: the card is full"
    assert saved[-1]["cases"]["sweep"]["where"][-1].endswith(", fails")
    assert saved[-1]["cases"]["predict"]["error"] == "OutOfTime: not done after 0 s"
    assert saved[-1]["cases"]["step-4"]["ratios"][RECIPE]["median"] == 3.0
    assert saved[-1]["cases"]["step-4"]["share_of_peak"] == 20 / 1.0 / 100.0
    measure(good, 0, save)
    assert len(saved) == 4  # no time: nothing is begun
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_launches_are_counted_and_time_that_streams_share_counts_once() -> None:
    def event(cat: str, name: str, start: float = 0, duration: float = 1) -> dict[str, Any]:
        return {"cat": cat, "name": name, "ts": start, "dur": duration}

    found = count_launches([
        event("cuda_runtime", "cudaLaunchKernel"), event("cuda_runtime", "cudaLaunchKernelExC"),
        event("cuda_driver", "cuLaunchKernelEx"), event("cuda_runtime", "cudaGraphLaunch"),
        event("cuda_runtime", "cudaMemcpyAsync"), event("cpu_op", "cudaLaunchKernel"), {"ph": "M", "name": "process"},
        event("kernel", "gemm", 10, 20), event("kernel", "add", 25, 10), event("gpu_memcpy", "HtoD", 50, 5),
        event("kernel", "inside", 12, 2), event("gpu_user_annotation", "step", 0, 100),
    ])  # fmt: skip
    assert found == {"kernel_launches": 3, "graph_launches": 1, "kernels": 3, "busy_seconds": pytest.approx(30e-6)}


def test_what_a_step_launches_is_read_from_a_profile_of_it() -> None:
    def step(around: Any) -> None:
        with around:
            torch.ones(3, 3) @ torch.ones(3, 3)

    assert launches(step) == {"kernel_launches": 0, "graph_launches": 0, "kernels": 0, "busy_seconds": 0.0}  # no GPU


def test_the_arithmetic_of_a_step_is_four_operations_a_weight_and_token() -> None:
    found = cases.step_arithmetic(bench(), 2, 2)
    shape = backbone().config
    own = shape.hidden_size * shape.head_dim * 2 * (shape.num_attention_heads + shape.num_key_value_heads)
    assert found["weights"] == shape.num_hidden_layers * (own + 3 * shape.hidden_size * shape.intermediate_size)
    _, rows = cases.training_rows(bench(), 6)
    tokens = 0
    for pair in (rows[2:4], rows[4:6]):  # the first two are the warm-up
        different = [a != b for a, b in zip(pair[0].input_ids, pair[1].input_ids, strict=False)]
        tokens += sum(len(row.input_ids) for row in pair) - different.index(True)  # the same beginning counts once
    assert found["tokens"] == tokens / 2
    assert found["operations"] == 4 * found["weights"] * tokens / 2


def test_a_backbone_quantised_in_memory_is_the_one_that_is_loaded_in_nf4(tmp_path: Path) -> None:
    import gpu

    flags = {**FLAGS, "model.device": "cpu", "model.dtype": "bf16"}
    base = random_model(copy.deepcopy(backbone().config)).to(torch.bfloat16)  # which writes its dtype into its config
    made = replace(bench(), base=base, config=resolve(flags=flags))
    made.base.save_pretrained(tmp_path)
    made.encoder.tokenizer.save_pretrained(tmp_path)
    config = resolve(flags={**flags, "model.name": str(tmp_path), "quant.method": "nf4"})
    loaded, ours = load_backbone(config.model, config.quant), gpu.quantised(made).base
    theirs = dict(loaded.named_parameters())
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.named_parameters())
    assert sum(weight.dtype == torch.uint8 for weight in ours.parameters()) == 7 * ours.config.num_hidden_layers


def test_the_cases_of_a_gpu_run_on_a_cpu(tmp_path: Path) -> None:
    import gpu

    for shape, only in (
        (gpu.Shape.ONE, "peak,step-1b-nf4-16,zero-shot-1b"),
        (gpu.Shape.EIGHT, "memory-8b-nf4-4"),
    ):
        out = tmp_path / f"{shape}.json"
        gpu.main(shape=shape, data="feedback", only=only, budget=10**6, smoke=True, out=out)
        content = json.loads(out.read_text(encoding="utf-8"))
        assert content["not_measured"] == []
        assert list(content["cases"]) == only.split(",")
        assert "tiny random Llama" in performance.page([content], [""])
    sizes = content["cases"]["memory-8b-nf4-4"]["expected_memory_mib"]
    assert sizes["weights"] > 0
    assert str(tmp_path) not in out.read_text(encoding="utf-8")


def test_a_part_inside_another_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr(programme.time, "perf_counter", lambda: float(next(now)))  # each look takes a second
    parts = programme.Parts(CPU)  # 0
    with parts.part("training"), parts.part("evaluation"):  # in at 1 and 2, out at 3 and 4
        pass
    assert parts.seconds == {programme.AROUND: 1.0, "training": 2.0, "evaluation": 1.0}
    assert parts.calls == {"training": 1, "evaluation": 1}


def test_a_training_that_the_budget_ended_is_scaled_by_its_later_steps() -> None:
    parts = programme.Parts(CPU)
    parts.seconds = {programme.TRAINING: 40.0, programme.EVALUATIONS: 6.0, "saving": 1.0}
    parts.calls = {programme.EVALUATIONS: 2}
    marks = [(0, 0.0), (10, 30.0), (20, 35.0), (30, 40.0)]  # the first steps compile
    parts.trainings = [{"steps": 30, "marks": marks}]
    # 70 more steps of 5 / 10 s, and 10 evaluations of 6 / 2 s; a mark is never an average over the first steps
    assert parts.whole(100, 10) == {programme.TRAINING: 40 + 70 * 0.5, programme.EVALUATIONS: 30.0, "saving": 1.0}


def test_the_tutorials_programme_runs_in_one_process_and_says_where_its_time_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tutorial

    monkeypatch.setattr(programme, "MEASURED", {"steps": 1, "rows": 8, "batches": 1})
    rows = [f"data.max_{name}_rows={number}" for name, number in (("train", 32), ("eval", 8), ("test", 8))]
    out = tmp_path / "out.json"
    monkeypatch.setattr(tutorial, "TO_FINISH", 10**6)  # each training ends after its first step
    tutorial.main(
        shape=tutorial.Shape.TINY, steps=4, budget=0.0, out=out,
        sets=[*rows, "model.device=cpu", "sweep.ranks=[1, 2]", "fewshot.shots=[1]"],
    )  # fmt: skip
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["not_measured"] == []
    assert set(content["parts"]) == {name for name in map(part_of, programme.sites().values()) if name} | {
        programme.AROUND, programme.ZERO_SHOT, "1-shot", programme.TEST, programme.TRAINING, "encoding",
    }  # fmt: skip
    times = {part["part"]: part["times"] for part in content["cases"]["recipe"]["recipe"]}
    assert times == {
        programme.LOADING: 1 + 2, programme.ZERO_SHOT: 1, "1-shot": 1, programme.TRAINING: 2 * 5000,
        programme.EVALUATIONS: 2 * 10 * 1, programme.TEST: 2,
    }  # fmt: skip
    assert [training["steps"] for training in content["trainings"]] == [1]  # both ranks in one pass
    printed = capsys.readouterr().out
    assert f"| {programme.TRAINING} |" in printed
    assert "1 of 5,000 steps, the later ones at " in printed
    assert printed.split("\n\n")[0] in performance.programme_section(content)


def part_of(name: Any) -> str:
    return name if isinstance(name, str) else ""


def test_different_work_ends_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    import speed

    suite = speed.Suite(resolve(flags=FLAGS), speed.SMOKE, CPU)
    monkeypatch.setattr(suite, "bench", lambda name: replace(bench()))
    assert suite.evaluation("bundled", 4)["same_label_as_loop"] == 1.0
    wrong = np.zeros((4, 3))
    monkeypatch.setattr(baselines, "loglikelihoods", lambda *given: wrong)
    with pytest.raises(SystemExit, match="do not do the same work"):
        suite.evaluation("bundled", 4)
    assert _share([1, 2, None], [1, 3, None]) == pytest.approx(2 / 3)


# --- serving ----------------------------------------------------------------------------------------------------------


def test_the_table_of_serving_says_how_many_times_as_many_rows_are_answered() -> None:
    cell = {"rows_per_second": 300.0, "p50_ms": 3.25, "p99_ms": 9.9}
    slow = {"rows_per_second": 40.0, "p50_ms": 20.0, "p99_ms": 41.0}
    record = {
        "machine": {"name": "CPU", "threads": 2}, "sizes": {"seconds": 6.0, "rounds": 2, "clients": [1, 64]},
        "left_out": None, "same_labels_of_100": {serving.LORAFT: 100, "bare": 99},
        "results": {name: {"1": one, "64": one, "half": one} for name, one in ((serving.LORAFT, cell), ("bare", slow))},
    }  # fmt: skip
    made = serving.table(record)
    assert "| rows a second; p50 / p99 in ms | 1 client | 64 clients | half load |\n" in made
    assert "| loraft serve | 300; 3.2 / 9.9 | 300; 3.2 / 9.9 | 300; 3.2 / 9.9 |\n" in made
    assert 'answers 7.5 times as many rows as "bare" at 64 clients, with the same label for 99 of 100.' in made
    if serving.OUT.exists():
        record = json.loads(serving.OUT.read_text(encoding="utf-8"))
        assert f"{serving.BEGIN}{serving.table(record)}{serving.END}" in serving.PAGE.read_text(encoding="utf-8")
    assert serving.PAGE.read_text(encoding="utf-8").count(serving.BEGIN) == 1


def test_a_request_in_the_open_loop_counts_from_when_it_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        busy = asyncio.Lock()  # a server that answers one request after the other, each in 20 ms

        def __init__(self, address: str) -> None: ...

        async def label(self, text: str) -> str:
            async with self.busy:
                await asyncio.sleep(0.02)
            return "x"

    monkeypatch.setattr(serving, "Connection", Slow)
    took = asyncio.run(serving.open_loop("", ["câu"], rate=200, seconds=0.2))
    assert max(took) > 5 * min(took)  # 200 a second are four times what it can answer, so they wait longer and longer
