"""What comes back from a worker that does not see the driver's folder."""

from pathlib import Path

from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep.ray_worker import packed, unpack


def test_the_traceback_of_a_failed_trial_comes_back(tmp_path: Path) -> None:
    there, here = SweepFolder(tmp_path / "máy kia"), SweepFolder(tmp_path / "quét")
    there.error_path("r1").parent.mkdir(parents=True)
    there.error_path("r1").write_text("hỏng ở bước 3", encoding="utf-8")
    here.path.mkdir()
    unpack(packed(there, []), here, [])
    assert here.error_path("r1").read_text(encoding="utf-8") == "hỏng ở bước 3"
    assert [path.name for path in here.path.iterdir()] == ["errors"]
