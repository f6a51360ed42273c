"""The file of a data source's statistics: its layout, and that it is read back as it was written."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.data import LABELS

from loraft.config.resolve import resolve
from loraft.errors import RunError
from loraft.runs.records import SCHEMA_VERSION
from loraft.runs.study_folders import DatasetFolder
from loraft.studies.dataset import statistics
from loraft.studies.dataset.records import DatasetStatistics

TRAIN = [("thầy dạy rất nhiệt tình và dễ hiểu .", 2), ("phòng học nóng", 0), ("phòng học nóng", 1)]
TEST = [("thầy dạy rất nhiệt tình , và dễ hiểu !", 2), ("phòng học nóng", 0)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> DatasetStatistics:
    """Statistics with a conflict, a leak and a near-duplicate, and lengths in tokens."""
    folder = tmp_path_factory.mktemp("dữ-liệu")
    source = folder / "góp ý"
    source.mkdir()
    for name, rows in (("train", TRAIN), ("test", TEST)):
        lines = [json.dumps({"sentence": text, "sentiment": LABELS[label]}) for text, label in rows]
        (source / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return statistics.describe(resolve(overrides=[f"output={folder}"], flags={"data.source": str(source)}))


@pytest.fixture
def folder(found: DatasetStatistics, tmp_path: Path) -> DatasetFolder:
    """A copy of their folder, a/."""
    (tmp_path / "a").mkdir()
    shutil.copy(DatasetFolder(Path(found.path)).results_path, tmp_path / "a")
    return DatasetFolder(tmp_path / "a")


def content(folder: DatasetFolder) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(folder.results_path.read_text(encoding="utf-8"))
    return read


def test_statistics_have_a_schema_version_and_are_read_back_equal(
    folder: DatasetFolder, found: DatasetStatistics
) -> None:
    assert content(folder)["schema_version"] == SCHEMA_VERSION
    assert found.tokens is not None
    assert found.leaks[0].examples
    assert found.conflicts.examples
    assert DatasetStatistics.of(folder) == found


def test_statistics_of_a_later_version_are_refused(folder: DatasetFolder) -> None:
    later = {**content(folder), "schema_version": SCHEMA_VERSION + 1}
    folder.results_path.write_text(json.dumps(later), encoding="utf-8")
    with pytest.raises(RunError, match=r"a/data\.json: .* later version .*; upgrade loraft"):
        DatasetStatistics.of(folder)


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [("leaks", [{}], r"leaks\.0\.left"), ("leaks", 3, "leaks"), ("splits", None, "splits"), ("rows", "?", "rows")],
)
def test_statistics_that_are_damaged_are_refused_with_the_field(
    folder: DatasetFolder, key: str, value: object, where: str
) -> None:
    folder.results_path.write_text(json.dumps({**content(folder), key: value}), encoding="utf-8")
    with pytest.raises(RunError, match=rf"a/data\.json: the (key|value of) '{where}' is "):
        DatasetStatistics.of(folder)


def test_rows_of_a_near_pair_are_under_the_names_of_their_splits(
    folder: DatasetFolder, found: DatasetStatistics
) -> None:
    ((example,),) = [pair["examples"] for pair in content(folder)["leaks"]]
    assert example.keys() == {"jaccard", "train", "test"}
    assert example["test"] == {"split": "test", "row": 1, "text": TEST[0][0]}
    assert example["train"] == {"split": "train", "row": 1, "text": TRAIN[0][0]}
    assert found.leaks[0].examples[0].left.split == "train"


def test_quantiles_and_rows_are_keys_of_the_object_itself(folder: DatasetFolder) -> None:
    written = content(folder)
    assert list(written["lengths"]["all"]) == ["mean", "50%", "90%", "95%", "99%", "longest"]
    assert list(written["longest"][0]) == ["words", "characters", "split", "row", "text"]
    assert list(written["tokens"]["longest"][0]) == ["tokens", "prompt", "split", "row", "text"]
