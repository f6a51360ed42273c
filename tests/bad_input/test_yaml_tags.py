"""YAML tags: none makes an object, and a value that does not fit its tag is told."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

UNREAD = r"could not determine a constructor for the tag '"
CASES = {
    "!!python/object:os.system {}": rf"{UNREAD}tag:yaml\.org,2002:python/object:os\.system'",
    "!!python/object/apply:os.system ['touch x']": UNREAD,
    "!!python/object/new:os.system ['touch x']": UNREAD,
    "!!python/name:os.system ''": UNREAD,
    "!!python/module:os ''": UNREAD,
    "!!python/tuple [1, 2]": UNREAD,
    "!own 8": rf"{UNREAD}!own'",
    "!<tag:example.org,2024:x> 8": rf"{UNREAD}tag:example\.org,2024:x'",
    "!!binary aGk=": UNREAD,
    "!!set {a, b}": UNREAD,
    "!!omap [a: 1]": UNREAD,
    "!!pairs [a: 1]": UNREAD,
    "!!timestamp 2024-07-26": UNREAD,
    f"!{'t' * 5000} 8": UNREAD,
    "!!int tám": r"is no value of !!int",
    "!!int ''": r"is no value of !!int",
    "!!float tám": r"is no value of !!float",
    "!!bool có": r"is no value of !!bool",
    "!!str [1]": r"is no value of !!str",
    "!!seq {a: 1}": r"expected a sequence node, but found mapping",
    "!!map [1]": r"expected a mapping node, but found sequence",
    "!!map 8": r"expected a mapping node, but found scalar",
    "!!int [1]": r"is no value of !!int",
    "!!float {a: 1}": r"expected a scalar node, but found mapping",
}


@pytest.mark.parametrize("value", CASES, ids=[value[:30] for value in CASES])
def test_a_tag_that_is_not_read_is_refused_in_a_set_value_and_in_a_file(value: str, work: Path) -> None:
    refusal(
        ["config", "--set", f"lora.r={value}"], rf"lora\.r: not valid YAML \(got .*from --set: line 1.*{CASES[value]}"
    )
    (work / "mine.yaml").write_text(f"lora:\n  r: {value}\n", encoding="utf-8")
    refusal(["train", "--config", "mine.yaml"], rf"mine\.yaml: not valid YAML \(line 2, column 6: .*{CASES[value]}")
