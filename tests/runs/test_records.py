"""Records in JSON files: what is written is read again, and what is damaged or too new is one clear error."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import model_validator

from loraft.errors import NewerFileError, RunError
from loraft.runs.records import (
    SCHEMA_VERSION,
    as_json,
    flattened,
    gathered,
    read_object,
    read_record,
    record_from,
    write_record,
)


@dataclass(frozen=True)
class Inner:
    n: int
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    more: dict[str, Inner]
    share: float | None = None


@dataclass(frozen=True)
class Flat:
    """A record that writes its scores beside its other fields."""

    name: str
    scores: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return flattened(self, "scores")

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, content: Any) -> Any:
        return gathered(content, scores=("f1", "accuracy"))


RECORD = Outer("đẹp", Inner(3, ("a", "b")), {"x": Inner(4)}, 0.1 + 0.2)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_record(tmp_path / "a.json", RECORD)
    assert read_record(tmp_path / "a.json", Outer, "") == RECORD
    flat = Flat("một", {"f1": 0.5, "accuracy": 1.0})
    write_record(tmp_path / "b.json", flat)
    assert read_record(tmp_path / "b.json", Flat, "") == flat


def test_a_record_is_written_by_its_fields_after_the_version_of_the_layout(tmp_path: Path) -> None:
    write_record(tmp_path / "a.json", RECORD)
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert list(content) == ["schema_version", "name", "inner", "more", "share"]
    assert content["schema_version"] == SCHEMA_VERSION == 1
    assert content["more"] == {"x": {"n": 4, "words": []}}
    assert read_object(tmp_path / "a.json", "") == {key: content[key] for key in list(content)[1:]}


def test_flattened_puts_what_a_field_holds_in_its_place() -> None:
    assert flattened(Flat("một", {"f1": 0.5})) == {"name": "một", "scores": {"f1": 0.5}}
    assert as_json([Flat("một", {"f1": 0.5, "accuracy": 1.0})]) == [{"name": "một", "f1": 0.5, "accuracy": 1.0}]
    assert flattened(Outer("a", Inner(1), {}), "inner", "share", "more") == {"name": "a", "n": 1, "words": []}


def test_gathered_puts_keys_below_their_field_and_leaves_the_rest() -> None:
    content = {"name": "một", "f1": 0.5, "khác": 1}
    assert gathered(content, scores=("f1", "accuracy")) == {"name": "một", "khác": 1, "scores": {"f1": 0.5}}
    assert content == {"name": "một", "f1": 0.5, "khác": 1}  # what is given is not changed
    assert gathered({"name": "một"}, scores=("f1",)) == {"name": "một"}
    assert gathered({"scores": {"f1": 1.0}, "f1": 0.5}, scores=("f1",)) == {"scores": {"f1": 1.0}, "f1": 0.5}
    assert gathered(RECORD, scores=("f1",)) is RECORD


def test_a_file_from_before_the_version_takes_defaults_for_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"name": "a", "inner": {"n": 1}, "more": {}, "bỏ": 1}', encoding="utf-8")
    assert read_record(path, Outer, "") == Outer("a", Inner(1), {})


def test_a_file_of_a_later_version_is_refused_with_its_name_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"schema_version": 2, **as_json(RECORD)}), encoding="utf-8")
    said = r"a\.json: was written by a later version .*2; .*up to 1\); upgrade loraft: pip install --upgrade"
    with pytest.raises(NewerFileError, match=said):
        read_record(path, Outer, "")


@pytest.mark.parametrize("version", ["1", None, 1.5, -1, True])
def test_a_version_that_is_no_whole_number_is_refused(tmp_path: Path, version: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"schema_version": version, **as_json(RECORD)}), encoding="utf-8")
    with pytest.raises(RunError, match=rf"a\.json: schema_version must be .*got {version!r}\); làm lại"):
        read_record(path, Outer, "làm lại")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"[]", r"does not hold a JSON object \(got list\)"),
        (b"null", r"does not hold a JSON object \(got NoneType\)"),
        (b"\x89PNG\r\n\x1a\n\xff", "is not UTF-8 text"),
        (b'{"name": "a"', "is not JSON"),
        (b'{"name": "a", "more": {}}', r"the key .inner. is missing"),
        (b'{"name": "a", "inner": {"n": "x"}, "more": {}}', r"the value of .inner\.n. is damaged \(got 'x'\)"),
        (b'{"name": "a", "inner": {"n": 1}, "more": []}', r"the value of .more. is damaged \(got \[\]\)"),
    ],
)
def test_a_damaged_file_is_one_error_with_its_name_and_the_remedy(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=rf"a\.json: {said}.*; train again") as raised:
        read_record(path, Outer, "train again")
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a\.json: cannot be read \(No such file or directory\); train again"):
        read_record(tmp_path / "a.json", Outer, "train again")
    with pytest.raises(RunError, match=r"cannot be read \(Is a directory\); train again"):
        read_object(tmp_path, "train again")


def test_a_record_from_an_object_names_the_file_that_held_it() -> None:
    assert record_from(as_json(RECORD), Outer, Path("a.jsonl"), "") == RECORD
    with pytest.raises(RunError, match=r"a\.jsonl: the key .name. is missing; train again"):
        record_from({}, Outer, Path("a.jsonl"), "train again")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "loraft.json")
    with pytest.raises(RunError, match=r"loraft\.json: is a pipe and no file; again"):
        read_object(tmp_path / "loraft.json", "again")
