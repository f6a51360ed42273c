"""A rank curve: a trained adapter cut to lower ranks, beside the trained trials of its sweep."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny import backbone, encoder, prompts
from safetensors.torch import load_file

from loraft.config.resolve import resolve
from loraft.delivery.removal import remove, to_remove
from loraft.engine import scorer
from loraft.errors import ConfigError, RunError
from loraft.evaluation.evaluate import evaluate
from loraft.models.adapter import add_adapters
from loraft.models.truncation import cut
from loraft.runs.bundle import config_of
from loraft.runs.output_paths import check_target
from loraft.runs.predictions import read_predictions
from loraft.runs.run import Bundle, Run, find_run
from loraft.runs.study_folders import RankCurveFolder
from loraft.studies import report
from loraft.studies.compare.compare import compare
from loraft.studies.sweep import curve, curve_tables, runner
from loraft.studies.sweep.curve_records import RankCurve

pytestmark = pytest.mark.usefixtures("loads")

SMALL = [
    "train.max_steps=3", "train.eval_steps=3", "train.learning_rate=1e-2", "train.per_device_train_batch_size=4",
    "data.max_train_rows=24", "data.max_eval_rows=12", "data.max_test_rows=12", "eval.bootstrap_samples=100",
    "eval.baselines=off", "name=hạng",
]  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, loads: list[Any]) -> Path:
    """A folder with a finished sweep over the ranks 2 and 4."""
    folder = tmp_path_factory.mktemp("cut")
    swept = resolve(overrides=[*SMALL, f"output={folder}"], flags={"sweep.ranks": [2, 4], "sweep.joint": "off"})
    result = runner.sweep(swept, quiet=True)
    assert not result.failed
    return folder


@pytest.fixture(autouse=True)
def _no_figure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws the figure of the fixture `result` alone: it takes longer than the scores."""
    request.getfixturevalue("result")
    monkeypatch.setattr(curve, "draw", lambda result, path: None)


def cut_of(output: Path, ranks: list[int] | None = None, name: str | None = None, **given: Any) -> RankCurve:
    run = curve.find_source("hạng", output)
    config = resolve(base=config_of(run).model_copy(update={"name": name}), flags={"output": str(output)})
    return curve.rank_curve(run, config, ranks, **given)


@pytest.fixture(scope="module")
def result(output: Path) -> RankCurve:
    return cut_of(output, [1, 2])


def test_the_largest_trial_of_a_sweep_is_cut_and_the_others_stand_beside(output: Path, result: RankCurve) -> None:
    assert Path(result.source) == output / "hạng" / "r4"
    assert [(point.rank, point.made) for point in result.points] == [
        (1, "cut"), (2, "trained"), (2, "cut"), (4, "trained")
    ]  # fmt: skip
    one, trained, two, full = result.points
    assert one.to_trained is None
    assert two.to_trained is not None
    assert full.to_full is None
    assert full.energy == 1.0
    assert trained.energy is None
    assert 0 < one.energy < two.energy < 1  # type: ignore[operator]
    assert two.trainable_parameters == trained.trainable_parameters == full.trainable_parameters // 2
    answers, others = (read_predictions(Run.open(point.run)) for point in (two, trained))
    gap = two.scores["macro_f1"] - trained.scores["macro_f1"]
    assert two.to_trained.difference == pytest.approx(gap)
    assert answers.rows == others.rows


def test_the_results_can_be_read_again(output: Path, result: RankCurve) -> None:
    assert RankCurve.of(RankCurveFolder(output / "hạng-r4-cut")) == result


def test_a_cut_adapter_is_a_bundle_with_the_scores_of_the_table(result: RankCurve) -> None:
    point = result.points[2]
    bundle = Run.open(point.run)
    assert isinstance(bundle, Bundle)
    assert (point.made, config_of(bundle).lora.r) == ("cut", 2)
    assert evaluate(run=point.run).report.scores == point.scores


def test_one_batch_scores_as_one_after_the_other(
    output: Path, result: RankCurve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is for accelerators; a double of it runs the adapters by themselves, as `score_adapters` promises."""
    asked: list[tuple[str, ...]] = []

    def batch(model: Any, names: Any, *rows: Any, **given: Any) -> np.ndarray:
        asked.append(tuple(names))
        scores = []
        for name in names:
            model.base_model.set_adapter(name)
            scores.append(scorer.score(model, *rows, **given))
        return np.stack(scores)

    monkeypatch.setattr(scorer, "scores_together", lambda model: True)
    monkeypatch.setattr(scorer, "score_adapters", batch)
    together = cut_of(output, [2, 1], "lô")
    assert together.together
    assert not result.together
    assert [len(names) for names in asked] == [2]
    for a, b in zip(together.points, result.points, strict=True):
        assert a.scores == b.scores


def test_added_to_the_weights_the_update_gives_the_same_scores(output: Path) -> None:
    config = config_of(Run(output / "hạng" / "r4"))
    cuts = cut(output / "hạng" / "r4" / "adapter", [1, 3])
    rows = (prompts(), encoder().completions_K)
    merged, together = curve._scores(backbone(), config, cuts, rows, 1, lambda line: None)
    assert not together
    model, names = add_adapters(backbone(), [curve._section(config, one.rank) for one in cuts], seed=1)
    for name, one, scores_NK in zip(names, cuts, merged, strict=True):
        for key, weight in model.named_parameters():
            if f".{name}." in key:
                weight.data.copy_(one.weights[key.replace(f".{name}.", ".")])
        model.base_model.set_adapter(name)
        np.testing.assert_allclose(scores_NK, scorer.score(model.eval(), *rows), atol=1e-4)


@pytest.mark.parametrize(("asked", "cut_to"), [(None, [1, 2]), ([3, 1], [1, 3]), ([4, 1], [1])])
def test_the_runs_own_rank_is_the_run_itself(output: Path, asked: list[int] | None, cut_to: list[int]) -> None:
    run = Run(output / "hạng" / "r4")
    assert curve._checked(run, config_of(run), asked) == cut_to


def test_the_table_says_what_was_trained_and_what_was_cut(result: RankCurve, drawn: list[Any], tmp_path: Path) -> None:
    table = curve_tables.curve(result)
    heads = [str(column.header) for column in table.columns]
    assert heads == ["rank", "weights", "accuracy", "macro F1", "energy", "parameters", "to rank 4", "to trained"]
    assert [str(cell) for cell in table.columns[1].cells] == ["cut", "trained", "cut", "trained"]
    notes = "\n".join(curve_tables.curve_notes(result))
    assert "nothing was trained again" in notes
    assert "equivalent within 1.5 points" in notes
    curve_tables.draw(result, tmp_path / "hình.png")
    upper = drawn[-1].axes[0]
    assert [text.get_text() for text in drawn[-1].legends[0].get_texts()] == ["trained", "cut from rank 4"]
    drawn_scores = [list(line.lines[0].get_ydata()) for line in upper.containers]
    key = result.metric.key
    assert drawn_scores == [
        [point.scores[key] for point in result.points if point.made == made] for made in ("trained", "cut")
    ]


def test_the_report_has_the_table_and_the_figure(output: Path, result: RankCurve) -> None:
    text = report.markdown(report.find("hạng-r4-cut", output))
    assert "Rank curve hạng-r4-cut" in text
    assert "trained" in text
    assert "nothing was trained again" in text
    assert RankCurveFolder(Path(result.path)).figure_path.is_file()


def test_without_texts_no_sentence_is_written(output: Path, tmp_path: Path) -> None:
    source = Run(output / "hạng" / "r4")
    config = resolve(
        base=config_of(source).model_copy(update={"name": "kín"}), flags={"output": str(tmp_path)},
        overrides=["output.texts=false"],
    )  # fmt: skip
    sentences = {text for text in read_predictions(source).texts if len(text) > 12}
    curve.rank_curve(source, config, [1])
    written = "".join(path.read_text("utf-8") for path in tmp_path.rglob("*.json*"))
    assert sentences
    assert not any(text in written for text in sentences)


def test_a_cut_adapter_is_no_run_to_compare_or_to_report(result: RankCurve) -> None:
    point = Path(result.points[2].run)
    with pytest.raises(RunError, match=r"r2: has no results of a run .*\(got a bundle.*loraft sweep --from compares"):
        compare([result.source, point])
    with pytest.raises(RunError, match=r"r2: nothing finished .*; loraft report .*hạng-r4-cut'? has its scores"):
        report.markdown(point)
    with pytest.raises(RunError, match=r"is a rank curve, not a run; loraft report .*; name one of its .*\(r1, r2\)"):
        Run.open(result.path)


def test_only_a_whole_curve_is_removed_and_no_file_of_it_replaced(result: RankCurve, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(result.path, tmp_path / "hạng"))
    for file in ("curve.json", "r2/adapter_config.json"):
        with pytest.raises(ConfigError, match="is a file of a run or study"):
            check_target(copy / file, "--to", own=lambda path: False, force=True)
    (copy / "r2" / "của em.txt").touch()
    with pytest.raises(RunError, match=r"holds what is not of a rank curve \(got r2/của em.txt\)"):
        to_remove([copy], checkpoints=False)
    (copy / "r2" / "của em.txt").unlink()
    remove(to_remove([copy], checkpoints=False))
    assert not copy.exists()


def test_ranks_above_the_runs_are_refused(output: Path) -> None:
    with pytest.raises(ConfigError, match=r"--ranks: above the rank 4 of .*r4 \(got 8, 16\); loraft sweep without"):
        cut_of(output, [1, 8, 16], "cao")
    with pytest.raises(ConfigError, match=r"--ranks: no rank below that of .*r4 \(got a run of rank 4\)"):
        cut_of(output, [4], "cao")
    assert not (output / "cao").exists()


@pytest.mark.integration
def test_a_finished_curve_is_replaced_by_force_alone(output: Path, result: RankCurve) -> None:
    before = cut_of(output, [1], "lại")
    assert before.points[0].scores == result.points[0].scores  # whatever ranks are cut beside
    again = cut_of(output, [2], "lại", force=True)
    assert not (Path(again.path) / "r1").exists()


def test_a_finished_curve_is_not_replaced_without_force(output: Path, result: RankCurve) -> None:
    with pytest.raises(RunError, match="a finished rank curve is there; --force deletes it"):
        cut_of(output, [1])


def test_other_test_rows_than_the_runs_are_refused_and_nothing_is_left(output: Path, tmp_path: Path) -> None:
    shutil.copytree(output / "hạng" / "r4", tmp_path / "r4")
    path = tmp_path / "r4" / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    path.write_text("".join(json.dumps({**row, "text": f"khác {row['text']}"}) + "\n" for row in rows), "utf-8")
    run = find_run(str(tmp_path / "r4"), tmp_path)
    config = resolve(base=config_of(run).model_copy(update={"name": "khác"}), flags={"output": str(tmp_path)})
    with pytest.raises(RunError, match=r"has other test rows than .*r4 \(row \d+: .*\); put the file back"):
        curve.rank_curve(run, config, [1])
    assert not (tmp_path / "khác").exists()


def test_what_has_no_trial_to_cut_is_refused(output: Path, result: RankCurve, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        curve.find_source("không", output)
    bundle = Run.open(result.points[0].run)
    with pytest.raises(RunError, match=r"--from takes a finished run \(got a bundle, without"):
        curve.rank_curve(bundle, config_of(bundle), [1])
    shutil.copytree(output / "hạng", tmp_path / "hai")
    shutil.copytree(output / "hạng" / "r4", tmp_path / "hai" / "r4b")
    with pytest.raises(RunError, match=r"--from takes the trial with the largest rank \(got r4, r4b of rank 4\)"):
        curve.find_source("hai", tmp_path)


def test_the_weights_of_a_cut_are_those_of_the_decomposition(output: Path, result: RankCurve) -> None:
    (one,) = cut(output / "hạng" / "r4" / "adapter", [2])
    saved = load_file(Path(result.points[2].run) / "adapter_model.safetensors")
    assert all((saved[name] == weight).all() for name, weight in one.weights.items())
