"""Work is continued with the config that it was begun with."""

from pathlib import Path

import pytest

from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.errors import ConfigError, RunError
from loraft.runs.atomic_files import write_text
from loraft.runs.folders import RunFolder
from loraft.runs.records import write_record
from loraft.runs.resume import (
    OUTPUT_KEYS,
    STUDY_SECTIONS,
    check_same_config,
    check_same_rows,
    of_its_version,
    refuse_cut_off,
    where_it_lies,
)
from loraft.runs.run import Run, run_of
from loraft.runs.study_folders import FewshotFolder, FoldsFolder, SweepFolder


def begun(folder: Path, *overrides: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(dump_config(resolve(overrides=list(overrides))), encoding="utf-8")
    return path


def test_every_key_that_differs_is_told_with_both_values(tmp_path: Path) -> None:
    path = begun(tmp_path, "lora.r=8", "seed=1")
    now = resolve(overrides=["lora.r=4", "seed=1", "train.learning_rate=0.5", "prompt.system=Khác"])
    with pytest.raises(RunError) as raised:
        check_same_config(path, now, free=(), hint="làm lại")
    lines = str(raised.value).splitlines()
    assert lines[0] == f"{tmp_path}: was begun with another config:"
    assert "  lora.r: 8 then, 4 now" in lines
    assert lines[-1] == "làm lại"
    assert [line.split(":")[0].strip() for line in lines[1:-1]] == ["lora.r", "prompt.system", "train.learning_rate"]


def test_the_same_config_is_accepted(tmp_path: Path) -> None:
    check_same_config(begun(tmp_path, "lora.r=8"), resolve(overrides=["lora.r=8"]), free=(), hint="")


def test_a_folder_of_data_is_the_same_however_its_path_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("Ý kiến", "khác"):
        Path(folder).mkdir()
    path = run_in(tmp_path / "run", "data.source=Ý kiến")
    for spelled in ("Ý kiến/", "./Ý kiến", f"{tmp_path}/Ý kiến", "khác/../Ý kiến"):
        check_same_config(path, resolve(overrides=[f"data.source={spelled}"]), free=(), hint="")
    with pytest.raises(RunError, match=r"data\.source: Ý kiến then, khác now"):
        check_same_config(path, resolve(overrides=["data.source=khác"]), free=(), hint="")


def test_free_keys_may_differ_and_a_dot_frees_a_section(tmp_path: Path) -> None:
    path = begun(tmp_path)
    now = resolve(overrides=["output=x", "name=y", "sweep.ranks=[1, 2]", "fewshot.shots=[1]", "fewshot.repeats=7"])
    now = now.model_copy(update={"preset": "khác"})
    check_same_config(path, now, free=(*OUTPUT_KEYS, *STUDY_SECTIONS), hint="")
    with pytest.raises(RunError) as raised:
        check_same_config(path, now, free=("sweep.", "fewshot.shots"), hint="làm lại")
    lines = [line.split(":")[0].strip() for line in str(raised.value).splitlines()[1:-1]]
    assert sorted(lines) == ["fewshot.repeats", "name", "output.folder", "preset"]


def test_a_free_key_frees_no_key_that_begins_alike(tmp_path: Path) -> None:
    path, now = begun(tmp_path), resolve(overrides=["lora.lora_dropout=0.5"])
    with pytest.raises(RunError, match=r"lora\.lora_dropout: 0\.0 then, 0\.5 now"):
        check_same_config(path, now, free=("lora.lora",), hint="")


def test_work_of_a_version_that_set_no_rows_aside_goes_on_so(tmp_path: Path) -> None:
    path, now = begun(tmp_path), resolve()
    assert of_its_version(now, path) == of_its_version(now, tmp_path / "none.yaml") == now
    path.write_text(path.read_text(encoding="utf-8").replace("  calibration_share: null\n", ""), encoding="utf-8")
    going_on = of_its_version(now, path)
    assert going_on.data.calibration_share == 0
    check_same_config(path, going_on, free=(), hint="")
    with pytest.raises(RunError, match=r"data\.calibration_share: 0\.0 then, None now"):
        check_same_config(path, now, free=(), hint="")
    folds = now.model_copy(update={"data": now.data.model_copy(update={"fold": "1/2"})})  # of which none ever are
    assert of_its_version(folds, path) == folds


def test_a_config_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("lora: [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        check_same_config(tmp_path / "config.yaml", resolve(), free=(), hint="")


def run_in(folder: Path, *overrides: str, kind: type[RunFolder] = Run) -> Path:
    """The config file of a begun run in the folder, wherever its config says that it goes."""
    folder.mkdir(parents=True)
    (folder / "environment.json").touch()
    path = folder / kind.config_file
    path.write_text(dump_config(resolve(overrides=list(overrides))), encoding="utf-8")
    return path


def found(path: Path, *overrides: str, kind: type[RunFolder] = Run) -> dict[str, str]:
    config = resolve(config_file=path, overrides=list(overrides))
    return where_it_lies(config, path, kind, lambda saved: run_of(saved).path)


@pytest.mark.parametrize(
    ("lies", "named", "output", "name"),
    [
        ("runs/mới", "name=cũ", "runs", "mới"),
        ("runs/mới", "name=null", "runs", "mới"),
        ("runs/quét mới/r8", "name=quét/r8", "runs", "quét mới/r8"),
        ("khác/cũ", "name=cũ", "khác", "cũ"),
        ("mới", "name=cũ", ".", "mới"),
    ],
)
def test_work_in_a_renamed_or_copied_folder_goes_on_there(
    lies: str, named: str, output: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = run_in(Path(lies), named)
    assert found(path) == {"output": output, "name": name}
    assert found(path.absolute()) == {"output": str((tmp_path / output).absolute()), "name": name}
    moved = resolve(config_file=path, flags=found(path))
    assert run_of(moved).path == Path(lies)
    assert found(run_in(tmp_path / "r" / "x", f"output={tmp_path}/r", "name=x")) == {}  # where its config says
    for elsewhere in ("output=xa", "name=xa"):  # the command line says where
        assert found(path, elsewhere) == {}


def test_a_config_that_lies_in_no_run_says_itself_where_the_run_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = run_in(tmp_path / "dự án", "name=cũ")
    assert found(path, kind=SweepFolder) == {}
    (path.parent / "environment.json").unlink()
    assert found(path) == {}
    assert where_it_lies(resolve(), None, Run, lambda saved: tmp_path) == {}


@pytest.mark.parametrize(
    ("kind", "mark"),
    [
        (Run, ".lock"),
        (Run, ".replaced/metrics.json"),
        (Run, "before.json"),
        (Run, "checkpoints/checkpoint-4/optimizer.pt"),
        (Run, "adapter/adapter_config.json"),
        (SweepFolder, "r8/environment.json"),
        (FoldsFolder, "folds.json"),
        (FewshotFolder, "draws.jsonl"),
    ],
)
def test_a_copy_killed_or_cut_off_anywhere_is_known_by_any_file_that_only_such_work_makes(
    kind: type[RunFolder], mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = run_in(Path("runs/bản sao"), "name=gốc", kind=kind)
    (path.parent / "environment.json").unlink()
    write_text(path.parent / mark, "")
    assert found(path, kind=kind) == {"output": "runs", "name": "bản sao"}
    refuse_cut_off(path, kind)
    path.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"bản sao/{kind.config_file}: is not a whole config"):
        refuse_cut_off(path, kind)


def test_a_config_of_the_user_beside_other_programs_files_may_have_a_few_keys_only(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for name in ("metrics.json", "log.jsonl", "checkpoints/a.ckpt"):
        write_text(tmp_path / name, "")
    path.write_text("seed: 3\n", encoding="utf-8")
    refuse_cut_off(path, Run)
    refuse_cut_off(None, Run)


def test_other_rows_are_refused_and_runs_of_earlier_versions_go_on(tmp_path: Path) -> None:
    path, then = tmp_path / "rows.json", {"train": "a", "test": "b"}
    check_same_rows(path, then, hint="")  # earlier versions did not keep them
    write_record(path, then)
    check_same_rows(path, then, hint="")
    with pytest.raises(RunError, match=r"other rows \(got another train and calibration split\); làm lại"):
        check_same_rows(path, {"train": "c", "test": "b", "calibration": "d"}, hint="làm lại")
