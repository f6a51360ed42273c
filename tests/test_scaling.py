"""The simulated cluster agrees with closed forms, and docs/scaling.md is what benchmarks/scaling.py makes."""

import json
import math
import re
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.pages import DOCS, ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))  # scripts, no package

import scaling
import workload
from cluster import Cluster, Outcome, Unit, simulate
from shapes import LLAMA_1B, LLAMA_8B, all_weights, layer_weights
from workload import ASSUMPTIONS, HOUR, RESULTS, Model, measured, prediction_units, sweep_units

VALUES = {key: one.value for key, one in ASSUMPTIONS.items()}


def units(*seconds: float, setup: float = 0.0, checkpoint: float = math.inf) -> list[Unit]:
    return [Unit(f"đơn vị {n}", setup, work, checkpoint) for n, work in enumerate(seconds)]


def mean(found: list[Outcome]) -> tuple[float, float]:
    """The mean makespan, and five standard errors of it."""
    times = [one.makespan for one in found]
    return statistics.fmean(times), 5 * statistics.stdev(times) / math.sqrt(len(times))


def test_the_next_free_worker_takes_the_next_unit() -> None:
    # By hand: worker 0 has 5, then 3 from 5 to 8. Worker 1 has 4, 3 from 4 to 7, 3 from 7 to 10.
    found = simulate(units(5, 4, 3, 3, 3), Cluster(2), seed=0)
    assert found.makespan == 10
    assert found.finished == ("đơn vị 1", "đơn vị 0", "đơn vị 2", "đơn vị 3", "đơn vị 4")
    assert (found.busy, found.attempts, found.failures, found.lost) == (18, 5, 0, 0)
    assert simulate(units(3, 3, 3, 4, 5), Cluster(2), seed=0).makespan == 11  # 3 + 3 + 5: order matters


def test_one_worker_takes_the_sum_and_start_and_setup_count() -> None:
    found = simulate(units(1, 2, 3.5, setup=0.5), Cluster(1, start=7), seed=0)
    assert found.makespan == pytest.approx(7 + 6.5 + 3 * 0.5)
    assert (found.busy, found.setup) == (8, 1.5)  # starting is not work


def test_more_workers_are_never_slower_for_equal_units() -> None:
    times = [simulate(units(*[2.0] * 40), Cluster(count), seed=0).makespan for count in range(1, 65)]
    assert times == [2.0 * math.ceil(40 / count) for count in range(1, 65)]


def test_the_mean_with_failures_is_that_of_the_closed_form() -> None:
    # Work of T seconds from nothing after each failure at rate L, each failure with R seconds of restart, takes
    # (1 / L + R) (e^(L T) - 1) seconds on average.
    rate, work, restart = 0.5, 2.0, 0.3
    on = Cluster(1, failure_every=1 / rate, restart=restart, retries=10**9)
    found, error = mean([simulate(units(work), on, seed) for seed in range(4000)])
    assert found == pytest.approx((1 / rate + restart) * math.expm1(rate * work), abs=error)
    assert error < 0.3
    # With checkpoints every C seconds each stretch is such a work of its own.
    found, error = mean([simulate(units(work, checkpoint=0.25), on, seed) for seed in range(4000)])
    assert found == pytest.approx(work / 0.25 * (1 / rate + restart) * math.expm1(rate * 0.25), abs=error)
    assert error < 0.2


def test_each_attempt_repeats_the_setup() -> None:
    # Checkpoints hold work, not setup: with one stretch it is as if the work were longer.
    on = Cluster(1, failure_every=2.0, retries=10**9)
    found, error = mean([simulate(units(1.0, setup=0.5, checkpoint=1.0), on, seed) for seed in range(4000)])
    assert found == pytest.approx(2.0 * math.expm1(1.5 / 2.0), abs=error)
    assert error < 0.2


def test_a_straggler_has_the_median_and_the_mean_of_the_lognormal() -> None:
    times = [simulate(units(1.0), Cluster(1, sigma=0.5), seed).makespan for seed in range(4000)]
    assert statistics.median(times) == pytest.approx(1, abs=0.04)
    assert statistics.fmean(times) == pytest.approx(math.exp(0.5**2 / 2), abs=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_each_unit_ends_once_and_all_time_is_accounted_for(seed: int) -> None:
    made = units(*[1.0 + n % 3 for n in range(30)], setup=0.2, checkpoint=0.5)
    on = Cluster(4, start=1.0, failure_every=2.0, restart=0.5, sigma=0.0, retries=1)
    found = simulate(made, on, seed)
    assert sorted(found.finished + found.given_up) == sorted(unit.name for unit in made)
    assert found.attempts == len(found.finished) + found.failures
    assert 2 * len(found.given_up) <= found.failures
    work = {unit.name: unit.work for unit in made}
    # Besides the setup of the last attempt, an attempt's time is in the unit's work or lost. A unit that was given up
    # may have some work in checkpoints.
    kept = found.busy - found.lost - 0.2 * len(found.finished) - sum(work[name] for name in found.finished)
    assert -1e-9 <= kept <= sum(work[name] for name in found.given_up)
    assert found.busy <= on.workers * found.makespan


def test_failures_are_retried_until_the_limit() -> None:
    endless = Cluster(1, failure_every=1e-3, restart=0.0, retries=3)
    found = simulate(units(50.0, 50.0), endless, seed=1)
    assert (found.finished, found.given_up) == ((), ("đơn vị 0", "đơn vị 1"))
    assert (found.attempts, found.failures) == (8, 8)  # one and three more of each
    assert simulate(units(50.0), Cluster(1, failure_every=40.0, retries=100), seed=1).given_up == ()


def test_a_failed_unit_is_taken_by_a_worker_that_waits() -> None:
    on = Cluster(2, failure_every=1.0, restart=1e6, retries=10**9)
    seeds = [seed for seed in range(200) if simulate(units(1.0), on, seed).failures == 1]
    assert seeds
    assert all(simulate(units(1.0), on, seed).makespan < 1e6 for seed in seeds)


def test_no_run_is_faster_for_having_failed() -> None:
    made = units(*range(1, 20), checkpoint=4.0)
    steady, failing = Cluster(20, sigma=0.5), Cluster(20, sigma=0.5, failure_every=20.0, retries=10**9)
    both = [[simulate(made, on, seed) for on in (steady, failing)] for seed in range(100)]
    assert sum(two.failures for _, two in both) > 100
    assert all(one.makespan <= two.makespan + 1e-9 and one.busy <= two.busy + 1e-9 for one, two in both)
    kept = {
        (one["what"], one["size"], one["gpus"], one["plan"]): one for one in workload.record("scaling.json")["cases"]
    }
    cheaper = [name for name, one in kept.items() if one["spot"]["dollars"] < one["steady"]["dollars"]]
    assert cheaper == []


def test_the_time_until_a_worker_is_replaced_counts_up_to_the_end() -> None:
    on = Cluster(1, failure_every=1.0, restart=0.5, retries=10**9)
    found = simulate(units(3.0, checkpoint=0.1), on, seed=1)
    assert found.failures > 1
    assert found.down == pytest.approx(0.5 * found.failures)
    assert found.makespan == pytest.approx(found.busy + found.down)  # one worker: nothing else takes time
    two = [simulate(units(1.0), replace(on, workers=2, restart=1e6), seed) for seed in range(50)]
    assert all(one.down < one.makespan for one in two if one.failures == 1)  # the other worker ended the unit
    costs = scaling.case(units(3.0, checkpoint=0.1), on, VALUES, 20)
    downs = [simulate(units(3.0, checkpoint=0.1), on, seed).down for seed in range(20)]
    assert costs["down_gpu_hours"] == pytest.approx(statistics.fmean(downs) / HOUR, rel=1e-3)


def test_a_cluster_without_workers_and_a_checkpoint_of_no_time_are_refused() -> None:
    for made, told in (
        (lambda: Cluster(0), "workers: must be at least 1 (got 0)"),
        (lambda: Unit("đơn vị", 0.0, 1.0, 0.0), "checkpoint: must be more than 0 seconds (got 0.0)"),
    ):
        with pytest.raises(ValueError, match=re.escape(told)):
            made()


def test_the_same_seed_gives_the_same_run() -> None:
    on = Cluster(3, failure_every=5.0, restart=1.0, sigma=0.4)
    first, again, other = (simulate(units(*range(1, 20)), on, seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_shapes_have_the_weights_of_their_models() -> None:
    gpu = workload.record("gpu.json")
    assert layer_weights(LLAMA_1B) == gpu["cases"]["step-1b-4"]["work"]["weights"]
    assert all_weights(LLAMA_8B) == pytest.approx(8.03e9, rel=1e-3)  # its model card
    assert workload.growth("layers") == 2
    assert f"{workload.growth('weights'):.1f} times the weights in layers" in (DOCS / "scaling.md").read_text("utf-8")


def test_a_joint_pass_at_1b_takes_as_long_as_the_measured_one() -> None:
    programme = workload.record("tutorial-1b.json")
    whole = programme["cases"]["ranks"]["case_seconds"] + sum(programme["whole"].values()) - sum(programme["parts"].values())  # noqa: E501  # fmt: skip
    model = Model("1B", measured(), VALUES)
    unit = model.training("", 8)
    assert model.figures["once"].value + unit.setup + unit.work == pytest.approx(whole, rel=1e-6)
    steps = programme["sizes"]["whole_steps"]
    assert unit.checkpoint == pytest.approx(unit.work * 500 / steps)  # preset tutorial: train.eval_steps


def test_a_step_at_8b_lies_between_layers_and_weights() -> None:
    figures = measured()
    for adapters in (1, 2, 8):
        small = Model("1B", figures, VALUES).step(adapters)
        steps = [Model("8B", figures, {**VALUES, "fixed": times}).step(adapters) for times in (2.0, VALUES["fixed"])]
        assert 2 * small < steps[0] < steps[1] < workload.growth("weights") * small
    assert Model("1B", figures, VALUES).step(2) < 2 * Model("1B", figures, VALUES).step(1)  # what a pass saves


def test_all_rows_are_predicted_and_all_trials_trained() -> None:
    model = Model("8B", measured(), VALUES)
    for shard in (100_000, 30_000_000):  # the second leaves a smaller last shard
        for processes in (1, 2):
            made = prediction_units(Model("8B", measured(), {**VALUES, "shard": shard}), processes)
            assert sum(unit.work for unit in made) == pytest.approx(workload.ROWS * model.a_row(processes))
            assert max(unit.work for unit in made) == pytest.approx(shard * processes * model.a_row(processes))
    for plan in scaling.PLANS:
        for count in scaling.GPUS:
            names = "+".join(unit.name for unit in sweep_units(model, plan, count)).split("+")
            assert len(names) == len(set(names)) == 40
    assert len(sweep_units(model, "one pass a seed", 64)) == 5


def test_no_more_workers_start_than_there_are_units() -> None:
    model = Model("8B", measured(), VALUES)
    few, enough = (workload.cluster(model, 64, "sweep", count, spot=False) for count in (5, 40))
    # 5 read their 16 GB at 1 GB/s each; 40 share 10 GB/s.
    assert few.start == pytest.approx(VALUES["start"] + model.figures["once"].value + model.gigabytes)
    assert enough.start - few.start == pytest.approx(model.gigabytes * (40 / 10 - 1))
    assert few.restart == pytest.approx(VALUES["restart"] + few.start)
    assert (few.workers, few.failure_every) == (64, VALUES["failure_every"] * HOUR)
    assert workload.cluster(model, 64, "sweep", 5, spot=True).failure_every == VALUES["spot_every"] * HOUR


def test_each_process_on_a_card_reads_the_backbone() -> None:
    model = Model("8B", measured(), VALUES)
    one, two = (workload.cluster(model, 64, "predictions", 500, spot=False, processes=count) for count in (1, 2))
    assert one.start == pytest.approx(VALUES["start"] + model.gigabytes * 64 / 10)
    assert two.start - one.start == pytest.approx(model.gigabytes * 64 / 10)  # 128 share 10 GB/s
    slow = Model("8B", measured(), {**VALUES, "read_all": 1.0})
    again = [workload.cluster(slow, 64, "predictions", 500, spot=False, processes=count).restart for count in (1, 2)]
    assert again[1] - again[0] == pytest.approx(model.gigabytes)
    (crowd,) = (one for one in scaling.predictions(VALUES, 20, "8B") if (one["gpus"], one["plan"]) == (64, "2 a GPU"))
    work = math.ceil(1e8 / 2e5 / 64) * crowd["unit_work"]  # rounds
    assert crowd["steady"]["ideal_hours"] * HOUR == pytest.approx(two.start + work, rel=1e-3)
    (wide,) = (one for one in scaling.rates(VALUES) if (one["size"], one["gpus"]) == ("8B", 64))
    assert wide["loading"] == pytest.approx(two.start - VALUES["start"], rel=1e-3)


def test_retries_are_those_that_the_page_tells() -> None:
    assert workload.RETRIES == {"sweep": 2, "predictions": 3}
    told = " ".join((DOCS / "scaling.md").read_text(encoding="utf-8").split())
    assert "The third failure of a sweep's unit is its last, of a shard the fourth." in told
    assert f"{scaling.DRAWS} simulated runs of each case" in told


def test_the_speed_of_python_moves_predictions_at_1b_as_its_range_does() -> None:
    found = workload.record("scaling.json")
    (one,) = (row for row in found["sensitivity"] if row["assumption"] == "host")
    sweep, _, (low, high) = one["cases"]
    assert sweep[0] == sweep[1]
    rates = [found["assumptions"]["host"][end] for end in ("low", "high")]
    assert low["ideal_hours"] - high["ideal_hours"] == pytest.approx(
        1e8 / 8 * (1 / rates[0] - 1 / rates[1]) / HOUR, rel=1e-2
    )
    # An assumption's range that moves nothing gives the case of the other tables: the same runs.
    (same,) = (row for row in found["sensitivity"] if row["assumption"] == "fixed")
    (table,) = (
        case for case in found["cases"]
        if (case["what"], case["size"], case["gpus"], case["plan"]) == ("predictions", "8B", 64, "1 a GPU")
    )  # fmt: skip
    assert same["cases"][1] == [table["steady"]] * 2


def test_processes_fill_a_card_and_no_more() -> None:
    for size in workload.SHAPES:
        model = Model(size, measured(), VALUES)
        enough = model.filling()
        assert model.a_row(enough) == model.card() < model.a_row(enough - 1)
        assert model.a_row(1) == pytest.approx(model.card() + model.host())
        assert model.computing(enough) == 1
        assert model.computing(1) == pytest.approx(model.card() / (model.card() + model.host()))


def test_a_card_that_waits_for_python_takes_the_power_of_one_that_waits() -> None:
    (one,) = (
        case["steady"] for case in workload.record("scaling.json")["cases"]
        if (case["what"], case["size"], case["gpus"], case["plan"]) == ("predictions", "1B", 1, "1 a GPU")
    )  # fmt: skip
    scoring = 1e8 / 11217.5 / 3600 * math.exp(0.1**2 / 2)  # hours; gpu.json: cases.zero-shot-1b.rows_per_second
    kwh = (scoring * 600 + (one["gpu_hours"] - scoring) * 100 + one["gpu_hours"] * 350) * 1.3 / 1000
    assert one["kwh"] == pytest.approx(kwh, rel=1e-3)


def test_costs_are_those_of_a_calculation_by_hand() -> None:
    on = Cluster(2, start=HOUR)
    found = scaling.case(units(HOUR, HOUR, HOUR), on, {**VALUES, "price": 10.0}, 20)
    # Three hours with the start; 6 GPU-hours, 3 of them busy; (3 * 600 + 3 * 100 + 6 * 350) W h * 1.3 = 5,460 W h.
    assert (found["hours"], found["gpu_hours"], found["busy_gpu_hours"], found["dollars"]) == (3, 6, 3, 60)
    assert found["kwh"] == pytest.approx(5.46)
    # A card that waits for Python in half of its busy time: (1.5 * 600 + 4.5 * 100 + 6 * 350) W h * 1.3.
    half = scaling.case(units(HOUR, HOUR, HOUR), on, {**VALUES, "price": 10.0}, 20, computing=0.5)
    assert {**found, "kwh": 4.485} == half
    assert (found["idle"], found["setup"]) == (pytest.approx(1 / 6, abs=1e-4), pytest.approx(1 / 3, abs=1e-4))


def test_the_page_is_the_one_that_its_record_makes() -> None:
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    made = scaling.tables(workload.record("scaling.json"))
    assert sorted(match[1] for match in scaling.MADE.findall(page)) == sorted(made)
    assert scaling.filled(page, made) == page


def test_the_record_is_the_one_that_its_script_makes() -> None:
    found = workload.record("scaling.json")
    assert found["measured"] == {
        key: {**vars(one), "value": scaling.rounded(one.value)} for key, one in measured().items()
    }
    assert {key: one["value"] for key, one in found["assumptions"].items()} == {
        key: scaling.rounded(value, 6) for key, value in VALUES.items()
    }
    assert found["rates"] == scaling.rates(VALUES)
    kept = {(one["what"], one["size"], one["gpus"], one["plan"]): one for one in found["cases"]}
    again = scaling.sweeps(VALUES, found["seeds"], "8B")
    assert len(again) == 8
    assert [kept["sweep", "8B", one["gpus"], one["plan"]] for one in again] == again
    model, whole = Model("8B", measured(), VALUES), kept["predictions", "8B", 64, "1 a GPU"]
    shards = prediction_units(model, 1)
    on = workload.cluster(model, 64, "predictions", len(shards), spot=False)
    one = scaling.case(shards, on, VALUES, 20)
    exact = ("ideal_hours", "idle", "setup")
    assert [whole["steady"][key] for key in exact] == [one[key] for key in exact]
    assert whole["steady"]["hours"] == pytest.approx(one["hours"], rel=0.01)  # the first 20 of its seeds


def test_predictions_take_rows_over_speed() -> None:
    gpu, soak = workload.record("gpu.json"), workload.record("soak_predict.json")
    (host,) = (one["rows_per_second"] for one in soak if (one["way"], one["rows"]) == ("output-file", 10**6))
    hours = 1e8 * (1 / gpu["cases"]["zero-shot-1b"]["rows_per_second"] + 1 / host) / 3600
    (one,) = [
        one for one in workload.record("scaling.json")["cases"]
        if (one["what"], one["size"], one["gpus"], one["plan"]) == ("predictions", "1B", 1, "1 a GPU")
    ]  # fmt: skip
    start = (VALUES["start"] + all_weights(LLAMA_1B) * 2 / 1e9 / VALUES["read"]) / 3600
    assert one["steady"]["ideal_hours"] == pytest.approx(hours + start, rel=1e-3)


def test_the_script_writes_page_record_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scaling.md").write_text(
        "a\n<!-- made by benchmarks/scaling.py: sweep -->\nold\n<!-- end -->\nb\n", "utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"SHAPES": {"8B": LLAMA_8B}, "curves": lambda *given: {}, "sensitivity": lambda *given: []}.items():  # noqa: E501  # fmt: skip
            patch.setattr(scaling, name, value)
        patch.setattr(workload, "ROWS", 1_000_000)
        patch.setattr(scaling, "draw", lambda found, path: path.write_bytes(b""))
        patch.setattr(scaling, "short", lambda cases: "")
        patch.setattr(scaling, "DRAWS", 20)
        before = (tmp_path / "scaling.md").read_bytes()
        for price, seeds in ((2.0, 20), (3.0, 21)):
            scaling.main(price=price, seeds=seeds, docs=tmp_path, out=tmp_path / "out.json")
            printed = capsys.readouterr()
            assert "| 8B | 64 | 40, one by one |" in printed.out
            assert "nothing was written" in printed.err
            assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"scaling.md": before}
        scaling.main(price=3.0, seeds=20, docs=tmp_path, out=tmp_path / "out.json")
    page = (tmp_path / "scaling.md").read_text(encoding="utf-8")
    assert page.startswith("a\n")
    assert page.endswith("\n<!-- end -->\nb\n")
    assert "| 8B | 64 | 40, one by one |" in page
    assert "| 8B | 64 | 40, one by one |" in capsys.readouterr().out
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (record["assumptions"]["price"]["value"], record["seeds"]) == (3, 20)


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    scaling.draw(json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))["curves"], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
