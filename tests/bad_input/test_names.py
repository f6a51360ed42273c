"""Names of runs that no folder can have, or that would lie elsewhere."""

import pytest
from helpers.bad_input import refusal

OUTSIDE = r"name: is not the name of a folder inside output"
LONG = r"name: is too long \(got .*\); at most 200 bytes a name and 4,096 a path"
NAMES = {
    "''": r"name: is blank",
    "..": OUTSIDE,
    ".": OUTSIDE,
    "../khác": OUTSIDE,
    "/tmp/khác": OUTSIDE,
    "a/../../b": OUTSIDE,
    "a//b": OUTSIDE,
    "a/": OUTSIDE,
    "/": OUTSIDE,
    "a/..": OUTSIDE,
    "'a\\b'": OUTSIDE,
    "'C:'": OUTSIDE,
    "'C:\\x'": OUTSIDE,
    "n" * 300: LONG,
    "n" * 201: LONG,
    "ữ" * 100: LONG,
    "ữ" * 67: LONG,
    "🙂" * 51: LONG,
    "a/" + "n" * 300: LONG,
    "n" * 300 + "/a": LONG,
    "n/" * 2500 + "a": LONG,
    '"a\\0b"': r"name: holds U\+0000",
    '"\\ud800"': r"name: holds U\+D800",
    '"a\\udfffb"': r"name: holds U\+DFFF",
    "[a]": r"name: is a list",
    "{a: b}": r"name: is a mapping",
    "true": r"name: is a boolean",
}


@pytest.mark.parametrize("name", NAMES, ids=[name[:12] for name in NAMES])
def test_a_name_that_no_folder_has_is_refused(name: str) -> None:
    refusal(["train", "--set", f"name={name}"], NAMES[name])
