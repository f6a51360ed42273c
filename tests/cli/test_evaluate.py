"""`loraft eval`: which run or backbone is judged, and what is printed of it."""

import json
from pathlib import Path

import pytest
from helpers.baselines import NOTE
from helpers.command_line import LABELS, Double, Says, finished

from loraft.config.resolve import resolve


def test_eval_judges_the_newest_finished_run(api: Double, here: Path, loraft_says: Says) -> None:
    newest = finished(here / "runs" / "mới", flags={"model.name": "mô-hình", "quant.method": "nf4"})
    code, out, err = loraft_says("eval")
    assert code == 0
    assert api.given == {"run": newest, "split": "test", "zero_shot": False}
    assert err.splitlines()[0] == f"backbone mô-hình (nf4), adapter {newest}, data feedback"
    assert "true / predicted" in out


def test_eval_prints_scores_and_the_confusion_by_true_label(api: Double, run_dir: Path, loraft_says: Says) -> None:
    _, out, _ = loraft_says("eval", "--run", "one")
    lines = [line.split() for line in out.splitlines()]
    # The double is right on 3 of 4 rows, and never predicts the one neutral row as such.
    assert next(line for line in lines if line[:1] == ["accuracy"])[1] == "0.7500"
    assert next(line for line in lines if line[:1] == ["neutral"])[1:4] == ["0.0000", "0.0000", "0.0000"]
    table = out[out.index("true / predicted") :].splitlines()
    assert table[0].split()[3:] == LABELS
    assert [line.split() for line in table[1:4]] == [
        ["negative", "2", "0", "0"],
        ["neutral", "0", "0", "1"],
        ["positive", "0", "0", "1"],
    ]


@pytest.mark.parametrize("command", ["train", "eval"])
def test_notes_and_verdict_stand_below_the_baselines(
    command: str, api: Double, run_dir: Path, loraft_says: Says
) -> None:
    _, out, _ = loraft_says(command)
    assert out.splitlines()[-2:] == [NOTE, "The adapter is worse."]


def test_eval_json_holds_the_metrics_without_the_rows(api: Double, run_dir: Path, loraft_says: Says) -> None:
    _, out, _ = loraft_says("eval", "--json", "--split", "validation")
    result = json.loads(out)
    assert (result["accuracy"], result["split"]) == (0.75, "validation")
    assert "rows" not in result


def test_a_file_is_named_as_the_data(api: Double, run_dir: Path, here: Path, loraft_says: Says) -> None:
    (here / "mới.csv").touch()
    _, _, err = loraft_says("eval", "--split", "mới.csv")
    assert err.splitlines()[0] == f"backbone loraft-vi-tiny, adapter {run_dir}, data mới.csv"
    assert api.given["split"] == "mới.csv"


def test_eval_zero_shot_judges_the_backbone_of_the_config(api: Double, here: Path, loraft_says: Says) -> None:
    code, _, err = loraft_says(
        "eval", "--zero-shot", "--model", "mô-hình", "--decode", "generate", "--preset", "tutorial", "--set", "seed=3"
    )
    assert code == 0
    assert api.given == {"run": None, "split": "test", "zero_shot": True}
    assert api.config == resolve(
        preset="tutorial", overrides=["seed=3"], flags={"model.name": "mô-hình", "eval.decode": "generate"}
    )
    assert err.splitlines()[0] == "backbone mô-hình, data uitnlp/vietnamese_students_feedback"


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
        (["--adapter", "x", "--zero-shot"], "--adapter and --zero-shot"),
        (["--adapter", "x", "--run", "one"], "--run and --adapter"),
        (["--run", "one", "--model", "x"], "--model"),
        (["--preset", "tutorial", "--task", "topic"], "--preset, --task"),
        (["--quant", "nf4"], "--quant"),
        (["--config", "runs/one/config.yaml"], "--config"),
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


@pytest.mark.parametrize("command", [["eval"], ["predict", "thầy dạy hay"]])
def test_raw_leaves_the_calibration_out(command: list[str], api: Double, run_dir: Path, loraft_says: Says) -> None:
    for given, calibrated in ((command, True), ([*command, "--raw"], False)):
        assert loraft_says(*given, "--run", "one")[0] == 0
        assert api.config is not None
        assert api.config.eval.calibrate is calibrated
