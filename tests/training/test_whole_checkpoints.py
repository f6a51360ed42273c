"""Checkpoints are complete or absent: damage is told and passed over, or refused; no other result comes silently."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.training import fit, with_adapter
from peft import PeftModel
from peft.utils import get_peft_model_state_dict

from loraft.errors import NewerFileError, Note, RunError
from loraft.runs.records import write_record
from loraft.runs.run import Run
from loraft.training import whole_checkpoints
from loraft.training.whole_checkpoints import (
    HASHES_FILE,
    STATE_FILE,
    CheckpointedTrainer,
    damage_of,
    delete_later,
    newest_checkpoint,
    write_hashes,
)

AGAIN = "làm lại từ đầu"
FILES = [
    "adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", STATE_FILE,
]  # fmt: skip


def weights(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in get_peft_model_state_dict(model).items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """The checkpoints of a training of six steps, the best after step 4, and its final weights, those of step 4."""
    folder, model = tmp_path_factory.mktemp("chạy") / "checkpoints", with_adapter()
    fit(folder, model, eval_steps=2)
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
    return folder, weights(model)


@pytest.fixture
def folder(trained: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of these checkpoints."""
    return shutil.copytree(trained[0], tmp_path / "checkpoints")


def as_before(checkpoint: Path) -> Path:
    """The checkpoint as earlier versions wrote it: without hashes, and with the path of the best one."""
    (checkpoint / HASHES_FILE).unlink(missing_ok=True)
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    state["best_model_checkpoint"] = r"C:\runs\a\checkpoint-4"
    (checkpoint / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")
    return checkpoint


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "flipped": flip,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def test_a_whole_checkpoint_is_taken_without_a_word(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert newest_checkpoint(folder, AGAIN) == folder / "checkpoint-6"
        assert newest_checkpoint(folder / "none", AGAIN) is None
    hashes = json.loads((folder / "checkpoint-6" / HASHES_FILE).read_text(encoding="utf-8"))["files"]
    assert set(hashes) == {path.name for path in (folder / "checkpoint-6").iterdir()} - {HASHES_FILE}
    assert set(hashes) > set(FILES)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", [*FILES, HASHES_FILE])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    folder: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    damage(folder / "checkpoint-6" / name)
    if name == HASHES_FILE and damage is DAMAGES["deleted"]:  # as an earlier version left it
        with pytest.warns(Note, match="checkpoint-6: has no hashes"):
            assert newest_checkpoint(folder, AGAIN) == folder / "checkpoint-6"
        return
    file = name if name != HASHES_FILE else ".*"  # a letter of a hash or of a file's name is another one
    says = f"passed over checkpoint-6: {file} is (missing|changed|damaged)"
    with pytest.warns(UserWarning, match=f"{says}; the training goes on from checkpoint-4$") as told:
        assert newest_checkpoint(folder, AGAIN) == folder / "checkpoint-4"
    assert len(told) == 1
    damage(folder / "checkpoint-4" / name)
    says = rf"no checkpoint can be resumed \(checkpoint-6: {name} is .*; checkpoint-4: {name} is .*\); {AGAIN}"
    if name != HASHES_FILE:
        with pytest.raises(RunError, match=says):
            newest_checkpoint(folder, AGAIN)


@pytest.mark.filterwarnings("ignore::loraft.errors.Note")
@pytest.mark.parametrize("damage", [DAMAGES["deleted"], DAMAGES["emptied"], DAMAGES["cut"]])
@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_of_an_earlier_version_needs_the_files_that_a_training_goes_on_from(
    folder: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    for step in (4, 6):
        as_before(folder / f"checkpoint-{step}")
    with pytest.warns(Note, match="checkpoint-6: has no hashes, as those of earlier versions"):
        assert newest_checkpoint(folder, AGAIN) == folder / "checkpoint-6"
    damage(folder / "checkpoint-6" / name)
    says = "was not written" if name == STATE_FILE else f"{name} is (missing|damaged)"
    with pytest.warns(UserWarning, match=f"passed over checkpoint-6: {says}"):
        assert newest_checkpoint(folder, AGAIN) == folder / "checkpoint-4"


def test_what_a_killed_process_left_of_its_first_checkpoint_means_the_first_step(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoint-6")
    for name in (HASHES_FILE, STATE_FILE, "rng_state.pth"):
        (folder / "checkpoint-4" / name).unlink()
    says = "passed over checkpoint-4: was not written to its end; the training goes on at the first step"
    with pytest.warns(UserWarning, match=says):
        assert newest_checkpoint(folder, AGAIN) is None
    delete_later(folder, None)
    assert not list(folder.glob("checkpoint-*"))


def test_without_its_best_checkpoint_a_training_cannot_end_with_it(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoint-4")
    says = rf"no checkpoint can be resumed \(checkpoint-6: the best one before it, checkpoint-4, is missing\); {AGAIN}"
    with pytest.raises(RunError, match=says):
        newest_checkpoint(folder, AGAIN)
    assert newest_checkpoint(folder, AGAIN, with_best=False) == folder / "checkpoint-6"
    state: Any = SimpleNamespace(state=SimpleNamespace(best_model_checkpoint=str(folder / "checkpoint-4")))
    with pytest.raises(RunError) as raised:
        CheckpointedTrainer._load_best_model(state)
    assert str(raised.value) == (
        f"{folder}/checkpoint-4: the best checkpoint cannot be loaded (is missing); checkpoints that are left:"
        f" checkpoint-6; {Run(folder.parent).how_to_begin_again}"
    )


def test_damage_of_the_best_checkpoint_counts_where_its_weights_are_damaged(folder: Path) -> None:
    flip(folder / "checkpoint-4" / "optimizer.pt")
    assert newest_checkpoint(folder, AGAIN) == folder / "checkpoint-6"
    flip(folder / "checkpoint-4" / "adapter_model.safetensors")
    with pytest.raises(
        RunError, match=r"checkpoint-6: its best: adapter_model\.safetensors is changed; checkpoint-4: "
    ):
        newest_checkpoint(folder, AGAIN)


def test_another_number_of_processes_goes_on_and_a_lost_random_state_is_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert newest_checkpoint(folder, AGAIN) == folder / "checkpoint-6"
    for checkpoint in folder.glob("checkpoint-*"):
        (checkpoint / "rng_state.pth").unlink()
    with pytest.raises(RunError, match=r"rng_state.pth is missing"):
        newest_checkpoint(folder, AGAIN)


@pytest.mark.parametrize("content", ["", "[]", "null", '{"files": []}', '{"files": {"a": 1}}', "[" * 100_000])
def test_damaged_hashes_are_damage(folder: Path, content: str) -> None:
    (folder / "checkpoint-6" / HASHES_FILE).write_text(content, encoding="utf-8")
    assert damage_of(folder / "checkpoint-6", FILES) == f"{HASHES_FILE} is damaged"


def test_a_file_without_a_hash_is_damage(folder: Path) -> None:
    write_record(folder / "checkpoint-6" / HASHES_FILE, {"files": {}})
    assert f"optimizer.pt has no hash in {HASHES_FILE}" in str(damage_of(folder / "checkpoint-6", ["optimizer.pt"]))
    with pytest.warns(UserWarning, match=r"passed over checkpoint-6: .*has no hash"):
        assert newest_checkpoint(folder, AGAIN) == folder / "checkpoint-4"


@pytest.mark.parametrize("kind", ["file", "dangling", "symlink to a folder"])
def test_what_is_no_folder_under_a_checkpoints_name_makes_room_for_one(folder: Path, kind: str) -> None:
    shutil.rmtree(folder / "checkpoint-6")
    if kind == "file":
        (folder / "checkpoint-6").write_text("hỏng", encoding="utf-8")
    else:
        target = folder.parent / "ở xa"
        (folder / "checkpoint-6").symlink_to(target)
        if kind != "dangling":
            target.mkdir()
    with pytest.warns(UserWarning, match=r"passed over checkpoint-6: was not written to its end"):
        found = newest_checkpoint(folder, AGAIN)
    delete_later(folder, found)
    (folder / "checkpoint-6").mkdir()
    assert (folder.parent / "ở xa").exists() == (kind == "symlink to a folder")


def test_hashes_of_a_later_version_are_no_damage(folder: Path) -> None:
    (folder / "checkpoint-6" / HASHES_FILE).write_text('{"schema_version": 99}', encoding="utf-8")
    with pytest.raises(NewerFileError, match="later version"):
        newest_checkpoint(folder, AGAIN)


def test_a_message_lists_few_of_many_files(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").touch()
    write_hashes(tmp_path)
    for number in range(20):
        (tmp_path / f"{number:02}").unlink()
    assert damage_of(tmp_path, (), only=False) == "00 is missing, 01 is missing, 02 is missing and 17 more"
    assert damage_of(tmp_path / "none", ()) == "is missing"


def test_a_copied_training_resumes_from_itself_and_ends_with_its_best_weights(
    trained: tuple[Path, dict[str, torch.Tensor]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained[0])  # where the name of the best checkpoint is a folder, too
    state = json.loads((folder / "checkpoint-6" / STATE_FILE).read_text(encoding="utf-8"))
    assert state["best_model_checkpoint"] == "checkpoint-4"
    flip(folder / "checkpoint-6" / "optimizer.pt")
    with pytest.warns(UserWarning, match="passed over checkpoint-6"):
        checkpoint = newest_checkpoint(folder, AGAIN)
    delete_later(folder, checkpoint)
    (trained[0] / "checkpoint-4").rename(trained[0] / "bỏ")  # what the copy must not look at
    model = with_adapter()
    try:
        fit(folder, model, eval_steps=2, resume=True)
    finally:
        (trained[0] / "bỏ").rename(trained[0] / "checkpoint-4")
    assert newest_checkpoint(folder, AGAIN) == folder / "checkpoint-6"
    found = weights(model)
    assert all(torch.equal(found[name], weight) for name, weight in trained[1].items())


def test_older_checkpoints_are_deleted_when_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(checkpoint: Path) -> None:
        if checkpoint.name == "checkpoint-4":
            raise KeyboardInterrupt
        write_hashes(checkpoint)

    monkeypatch.setattr(whole_checkpoints, "write_hashes", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, with_adapter(), eval_steps=2, save_total_limit=1)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    monkeypatch.undo()
    fit(tmp_path, with_adapter(), eval_steps=2, save_total_limit=1)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]  # the best
