"""The folder of shards: what counts as finished, what goes on, and what is refused."""

import json
from pathlib import Path

import pytest

from loraft.data.parts import Part
from loraft.delivery.shards import JOURNAL, Finished, Shard, ShardFolder
from loraft.errors import ConfigError, RunError, StorageError

NAMES = [f"part-000000-00000{number}.csv" for number in range(3)]


def finished(name: str, rows: int = 2) -> Finished:
    return Finished(name, "1 1", "câu.csv", rows, 1, 1, {"tích cực": 1}, [1, 0])


def begun(path: Path, count: int, *, complete: bool = False) -> ShardFolder:
    """A folder with so many finished shards."""
    folder = ShardFolder(path)
    folder.check({"a": 1}, resume=False, force=False)
    with folder.opened():
        for name in NAMES[:count]:
            (path / name).write_text("x", encoding="utf-8")
            folder.add(finished(name))
        if complete:
            folder.end()
    return folder


def test_what_is_finished_is_known_again(tmp_path: Path) -> None:
    begun(tmp_path / "out", 2)
    again = ShardFolder(tmp_path / "out")
    assert (again.finished, again.rows, again.complete) == ({name: finished(name) for name in NAMES[:2]}, 4, False)
    again.check({"a": 1}, resume=True, force=False)
    with again.opened():
        again.add(finished(NAMES[2], 5))
        (tmp_path / "out" / NAMES[2]).write_text("x", encoding="utf-8")
        again.end()
    last = ShardFolder(tmp_path / "out")
    assert (last.rows, last.complete, [*last.finished]) == (9, True, NAMES)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    begun(tmp_path, 2)
    half = [NAMES[2], ".part-000000-000002-123.csv", ".part-000000-000002.tries"]
    for name in half:
        (tmp_path / name).write_text("x", encoding="utf-8")
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(json.dumps(vars(finished(NAMES[2]))).encode()[:50])
    (tmp_path / NAMES[0]).unlink()  # somebody removed it
    folder = ShardFolder(tmp_path)
    folder.check({"a": 1}, resume=True, force=False)
    with folder.opened():
        assert sorted(one.name for one in tmp_path.iterdir()) == [JOURNAL, NAMES[1]]
        assert [*folder.finished] == [NAMES[1]]
        (tmp_path / NAMES[0]).write_text("x", encoding="utf-8")
        folder.add(finished(NAMES[0]))
    assert ShardFolder(tmp_path).rows == 4


def test_predictions_are_neither_replaced_nor_mixed(tmp_path: Path) -> None:
    folder = begun(tmp_path / "half", 1)
    with pytest.raises(RunError, match=r"an interrupted prediction left 2 rows \(got no --resume\); the same command"):
        ShardFolder(folder.path).check({"a": 1}, resume=False, force=False)
    with pytest.raises(RunError, match=r"was begun with something else:\n  a: 1 then, 2 now\ngive the same again"):
        ShardFolder(folder.path).check({"a": 2}, resume=True, force=False)
    with pytest.raises(RunError, match=r"\n  inputs: None then, 0, 1, .* and 9\d more now\ngive the same again"):
        ShardFolder(folder.path).check({"a": 1, "inputs": [*range(100)]}, resume=True, force=False)
    whole = begun(tmp_path / "whole", 1, complete=True)
    with pytest.raises(ConfigError, match=r"--output-file: holds predictions \(got .*whole\); --force replaces them"):
        ShardFolder(whole.path).check({"a": 1}, resume=False, force=False)
    again = ShardFolder(whole.path)
    again.check({"a": 2}, resume=False, force=True)
    with again.opened():
        pass
    found = ShardFolder(whole.path)
    assert (found.rows, found.origin, found.complete, (whole.path / NAMES[0]).exists()) == (0, {"a": 2}, False, False)
    found.check({"a": 3}, resume=True, force=False)  # nothing is there that could be mixed
    with found.opened():
        pass
    assert ShardFolder(whole.path).origin == {"a": 3}


def test_a_changed_input_is_predicted_again(tmp_path: Path) -> None:
    (tmp_path / "câu.csv").write_text("a", encoding="utf-8")
    shard = Shard.of(Part(str(tmp_path / "câu.csv"), 0, 1, 0), 0, ".csv")
    assert (shard.name, shard.changed.split()[1]) == (NAMES[0], "1")
    begun(tmp_path / "out", 2)
    same = {name: Shard(name, shard.part, "1 1") for name in NAMES[:2]}
    for now, unread, changed in (
        (same, (), []),
        ({}, ("câu.csv",), []),  # it cannot be read now: what there is of it stays
        ({**same, NAMES[1]: shard}, (), ["câu.csv"]),
    ):
        folder = ShardFolder(tmp_path / "out")
        folder.check({"a": 1}, resume=True, force=False)
        with folder.opened():
            assert folder.forget_changed(now, unread) == changed
        left = [] if changed else NAMES[:2]
        assert [*ShardFolder(tmp_path / "out").finished] == left
        assert sorted(one.name for one in (tmp_path / "out").iterdir()) == [JOURNAL, *left]


def test_a_folder_without_one_of_its_files_is_not_complete(tmp_path: Path) -> None:
    begun(tmp_path, 2, complete=True)
    (tmp_path / NAMES[0]).unlink()
    folder = ShardFolder(tmp_path)
    assert (folder.complete, [*folder.finished]) == (False, [NAMES[1]])
    folder.check({"a": 1}, resume=True, force=False)
    with folder.opened():
        folder.forget_changed({}, ())
    (tmp_path / NAMES[0]).write_text("x", encoding="utf-8")
    assert not ShardFolder(tmp_path).complete


def test_an_error_says_how_to_go_on(tmp_path: Path) -> None:
    folder = ShardFolder(begun(tmp_path, 2).path)
    folder.check({"a": 1}, resume=True, force=False)
    with pytest.raises(KeyboardInterrupt) as stopped, folder.opened():
        raise KeyboardInterrupt
    assert stopped.value.__notes__ == [f"4 rows are kept in {tmp_path}; the same command with --resume goes on"]


def test_what_is_no_folder_of_predictions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tệp").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"--output-file: is a file \(got .*tệp\)"):
        ShardFolder(tmp_path / "tệp")
    with pytest.raises(ConfigError, match=r"the folder holds other files \(got .*/tệp\); name another folder"):
        ShardFolder(tmp_path)
    begun(tmp_path / "out", 1)
    (tmp_path / "out" / "khác.csv").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the folder holds other files \(got .*/khác\.csv\)"):
        ShardFolder(tmp_path / "out")
    for content in (b"[1]\n", b'{"origin": {}}\n{"name": 1}\n', b"\xff\n", b"null\n"):
        (tmp_path / "hỏng").mkdir(exist_ok=True)
        (tmp_path / "hỏng" / JOURNAL).write_bytes(content)
        with pytest.raises(RunError, match=r"a damaged journal \(.*\); delete the folder"):
            ShardFolder(tmp_path / "hỏng")
    folder = ShardFolder(tmp_path / "x")
    folder.check({}, resume=False, force=False)
    folder.path = tmp_path / "tệp" / "x"
    with pytest.raises(StorageError, match="cannot be used"), folder.opened():
        pass
