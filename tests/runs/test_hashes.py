import hashlib

import pytest

from loraft.runs.hashes import differing, hashes_of


def test_a_changed_and_a_missing_file_are_named_and_a_whole_one_is_not(tmp_path):
    (tmp_path / "điểm").mkdir()
    for name in ("a.json", "b.bin", "điểm/c.txt"):
        (tmp_path / name).write_text(f"nội dung {name}", encoding="utf-8")
    hashes = hashes_of(tmp_path, ["điểm/c.txt", "b.bin", "a.json"])
    assert hashes["a.json"] == hashlib.sha256("nội dung a.json".encode()).hexdigest()
    assert differing(tmp_path, hashes) == {}
    (tmp_path / "a.json").unlink()
    (tmp_path / "điểm" / "c.txt").write_text("nội dung điểm/c.tx?", encoding="utf-8")
    assert differing(tmp_path, hashes) == {"a.json": "missing", "điểm/c.txt": "changed"}


def test_a_name_outside_the_folder_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "b.bin").touch()
    monkeypatch.setattr("loraft.runs.hashes.sha256_of", lambda path: pytest.fail(f"reads {path}"))
    names = ("../b.bin", "x/../../b.bin", str(tmp_path / "b.bin"))
    assert differing(tmp_path / "x", dict.fromkeys(names, "0" * 64)) == dict.fromkeys(names, "outside")
