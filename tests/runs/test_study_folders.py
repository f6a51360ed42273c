"""Directories of studies: none is a run, and each has its own rule for continuing and replacing."""

import os
from pathlib import Path

import pytest

from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.errors import RunError
from loraft.runs.atomic_files import write_text
from loraft.runs.folders import RunFolder
from loraft.runs.run import Run
from loraft.runs.study_folders import DatasetFolder, FewshotFolder, FoldsFolder, JointPass, SweepFolder

STUDIES = (SweepFolder, FewshotFolder, DatasetFolder, JointPass)


def begun(kind: type[RunFolder], output: Path, name: str = "nghiên cứu") -> RunFolder:
    folder = kind.create(output, name)
    write_text(folder.config_path, dump_config(resolve(overrides=["data.source=góp-ý"])))
    return folder


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_is_no_run(tmp_path: Path, kind: type[RunFolder]) -> None:
    folder = begun(kind, tmp_path)
    folder.finish({})
    assert not isinstance(folder, Run)
    with pytest.raises(
        RunError,
        match=r"not a run directory|is a study, not a run; loraft report .* name a run; loraft train makes runs",
    ):
        Run.open(folder.path)


def test_no_two_kinds_share_the_name_of_their_results() -> None:
    assert len({kind.results_file for kind in (Run, *STUDIES)}) == 5


def test_a_sweep_is_continued_by_the_same_command_and_replaced_by_none(tmp_path: Path) -> None:
    folder = begun(SweepFolder, tmp_path)
    (folder.path / "r8").mkdir()
    folder.finish({})
    again = SweepFolder.create(tmp_path, "nghiên cứu")
    assert again.finished
    assert (again.path / "r8").is_dir()
    assert again.how_to_resume == f"loraft sweep --config '{again.path}/sweep.yaml'"
    folds = begun(FoldsFolder, tmp_path / "khác")
    assert folds.how_to_resume == f"loraft train --folds K --config '{folds.path}/folds.yaml'"
    (folds.path / "fold1").mkdir()
    (folds.path / "fold1" / "config.yaml").write_text(dump_config(resolve(overrides=["data.fold=1/5"])))
    assert "--folds 5 " in folds.how_to_resume
    (tmp_path / "luận văn").mkdir()
    (tmp_path / "luận văn" / "chương 1.txt").touch()
    with pytest.raises(RunError, match="files that are not of a sweep"):
        SweepFolder.create(tmp_path, "luận văn")


def test_the_joint_passes_of_a_sweep_are_those_that_were_begun(tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path)
    for identifier in ("b", "a", "c"):
        sweep.joint_pass(identifier).path.mkdir()
    for identifier in ("b", "a"):
        write_text(sweep.joint_pass(identifier).config_path, "{}")
    assert [joint.path for joint in sweep.joint_passes()] == [tmp_path / "joint-a", tmp_path / "joint-b"]


def test_the_files_of_a_sweep_and_of_a_joint_pass_have_fixed_names(tmp_path: Path) -> None:
    sweep, joint = SweepFolder(tmp_path), JointPass(tmp_path)
    files = [sweep.config_path, sweep.results_path, sweep.figure_path, sweep.error_path("r8-s1"), joint.config_path,
             joint.results_path, joint.checkpoints, joint.best, joint.log_of(2)]  # fmt: skip
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        "sweep.yaml", "sweep.json", "plots/sweep.png", "errors/r8-s1.txt", "members.json", "joint.json",
        "checkpoints", "best", "log-2.jsonl",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("finished", "said"),
    [
        (False, r"an unfinished study of góp-ý is there; the same command with --resume continues it, --force deletes"),
        (True, r"a finished study of góp-ý is there; the same command with --resume adds the draws that it lacks"),
    ],
)
def test_an_earlier_few_shot_study_is_named_by_its_data(tmp_path: Path, finished: bool, said: str) -> None:
    folder = begun(FewshotFolder, tmp_path)
    if finished:
        folder.finish({})
    with pytest.raises(RunError, match=f"{said}.*--set name=NAME keeps both"):
        FewshotFolder.create(tmp_path, "nghiên cứu")
    assert FewshotFolder.create(tmp_path, "nghiên cứu", resume=True).finished == finished
    assert os.listdir(FewshotFolder.create(tmp_path, "nghiên cứu", force=True).path) == [".replaced"]


def test_the_draws_of_a_few_shot_study_are_its_log(tmp_path: Path) -> None:
    folder = FewshotFolder(tmp_path)
    folder.append_log({"draw": 0})
    assert (tmp_path / "draws.jsonl").read_text(encoding="utf-8") == '{"draw": 0}\n'
    assert folder.figure_path == tmp_path / "plots" / "fewshot.png"


def test_a_figure_of_a_column_has_a_name_that_every_system_takes(tmp_path: Path) -> None:
    found = [DatasetFolder(tmp_path).lengths_figure(column).name for column in ("topic", "chủ đề/2", "../a-b_c")]
    assert found == ["lengths_by_topic.png", "lengths_by_chủ_đề_2.png", "lengths_by____a-b_c.png"]
