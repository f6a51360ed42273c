"""The files of a few-shot study: their layout, and that they are read back as they were written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.folders import fewshot_result, make_fewshot
from helpers.records import record

from loraft.errors import RunError
from loraft.evaluation.metrics import INTERVAL_SCORES, SCORES
from loraft.runs.records import SCHEMA_VERSION, as_json, record_from
from loraft.runs.study_folders import FewshotFolder
from loraft.studies.fewshot.records import DrawRecord, FewshotResult


def test_results_have_a_schema_version_and_are_read_back_equal(tmp_path: Path) -> None:
    study = FewshotFolder(make_fewshot(tmp_path / "a"))
    assert json.loads(study.results_path.read_text(encoding="utf-8"))["schema_version"] == SCHEMA_VERSION
    assert FewshotResult.of(study) == fewshot_result()


def test_results_of_a_later_version_are_refused(tmp_path: Path) -> None:
    study = FewshotFolder(make_fewshot(tmp_path / "a"))
    content = json.loads(study.results_path.read_text(encoding="utf-8"))
    later = {**content, "schema_version": SCHEMA_VERSION + 1}
    study.results_path.write_text(json.dumps(later), encoding="utf-8")
    with pytest.raises(RunError, match=r"a/fewshot\.json: .* later version .*; upgrade loraft"):
        FewshotResult.of(study)


def test_results_that_are_damaged_are_refused_with_the_field(tmp_path: Path) -> None:
    study = FewshotFolder(make_fewshot(tmp_path / "a"))
    content = json.loads(study.results_path.read_text(encoding="utf-8"))
    del content["rows"][1]["macro_f1"]["mean"]
    study.results_path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError, match=r"a/fewshot\.json: the key 'rows\.1\.scores\.macro_f1\.mean' is missing"):
        FewshotResult.of(study)


def test_scores_and_differences_are_keys_of_the_row_itself() -> None:
    content = as_json(fewshot_result())
    assert set(SCORES) < content["rows"][0].keys()
    assert content["compared"][0].keys() == {"of", "against", *INTERVAL_SCORES}
    assert {"model", "shots", "draw", "train_rows", "confusion", "log_loss", *SCORES} < content["draws"][0].keys()
    assert not {"scores", "report", "differences"} & (content["rows"][0].keys() | content["draws"][0].keys())


def test_a_draw_in_the_log_is_read_back_with_its_predictions() -> None:
    draw = replace(record(0.5, train_rows=(3, 1)), predictions=(0, -1, 2), sources="ab12")
    line = json.loads(json.dumps(as_json(draw)))
    assert (line["predictions"], line["sources"]) == ([0, -1, 2], "ab12")
    assert record_from(line, DrawRecord, Path("draws.jsonl"), "") == draw
    assert not {"predictions", "sources"} & as_json(record(0.5)).keys()
