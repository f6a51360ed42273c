"""Files and values that are no YAML, with line and column."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

FILES = {
    "lora: {r: 1, r: 2}": r"line 1, column 14: the key 'r' twice",
    "seed: 1\nlora:\n  r: 1\nseed: 2": r"line 4, column 1: the key 'seed' twice",
    f"{'k' * 300}: 1\n{'k' * 300}: 2": r"line 2, column 1: the key 'k+\.\.\.' twice",
    "lora:\n\tr: 8": r"line 2, column 1: found character '\\t'",
    "lora: [": r"line 1, column 8",
    "lora: {r: 8": r"line 1, column 12",
    "lora: 'r": r"line 1, column 9: found unexpected end of stream",
    'lora: "r': r"found unexpected end of stream",
    'name: "a\\q"': r"line 1, column 10: found unknown escape character 'q'",
    "a: b: c": r"line 1, column 5: mapping values are not allowed here",
    "lora:\n  r: 8\n rank: 9": r"line 3",
    "lora:\nr: 8\n  x: 9": r"line 3, column 4: mapping values are not allowed here",
    "- a\nb: c": r"line 2, column 1",
    "lora: r: 8]": r"line 1",
    "lora: [1]]": r"line 1, column 10",
    "&": r"line 1, column 2",
    "*": r"line 1, column 2",
    "lora: *r": r"line 1, column 7: found undefined alias 'r'",
    f"lora: *{'r' * 5000}": r"found undefined alias 'r+\.\.\.",
    "name: @thầy": r"line 1, column 7: found character '@' that cannot start any token",
    "name: `a`": r"found character '`' that cannot start any token",
    "name: %a": r"found character '%' that cannot start any token",
    "<<: 8": r"expected a mapping or list of mappings for merging, but found scalar",
    "<<: [8]": r"expected a mapping for merging, but found scalar",
    "[a]: 8": r"line 1, column 1: found unhashable key",
    "{a: 1}: 8": r"line 1, column 1: found unhashable key",
    "seed: 1\n---\nseed: 2": r"line 2, column 1: but found another document",
    "%YAML 9.9\n---\nseed: 1": r"incompatible YAML document",
    "%TAG ! x\n---\nseed: !a 1": r"could not determine a constructor",
    "seed: 1\n...\nseed: 2": r"line 3",
    "name: a\0b": r"does not allow the character U\+0000",
    "name: a\x1bb": r"does not allow the character U\+001B",
    "name: a\x7fb": r"does not allow the character U\+007F",
    "name: a￾b": r"does not allow the character U\+FFFE",
}


@pytest.mark.parametrize("text", FILES, ids=[ascii(text[:24]) for text in FILES])
def test_a_file_that_is_no_yaml_is_refused_with_the_place(text: str, work: Path) -> None:
    (work / "mine.yaml").write_text(text, encoding="utf-8")
    refusal(["config", "--config", "mine.yaml"], rf"mine\.yaml: not valid YAML \(.*{FILES[text]}.*\); correct it there")


VALUES = {
    "[": r"line 1, column 2.*put the value in quotes",
    "{a": r"line 1, column 3.*put the value in quotes",
    "'a": r"unexpected end of stream\); put the value in quotes",
    "a: b: c": r"mapping values are not allowed here\); put the value in quotes",
    "- a": r"is a list|sequence entries",
    "*a": r"found undefined alias 'a'\); put the value in quotes",
    "@a": r"cannot start any token\); put the value in quotes",
    "`": r"cannot start any token\); put the value in quotes",
    "a\x1b[31m": r"does not allow the character U\+001B\); remove it",
    "a\0b": r"does not allow the character U\+0000\); remove it",
    "a\ud800": r"does not allow the character U\+D800\); remove it",
    "[" * 3000: r"not valid YAML \(got '\[+\.\.\.', from --set: .*more than 50 levels",
    "{a: 1, a: 2}": r"the key 'a' twice",
}


@pytest.mark.parametrize("value", VALUES, ids=[ascii(value[:20]) for value in VALUES])
def test_a_set_value_that_is_no_yaml_is_refused(value: str) -> None:
    refusal(["train", "--set", f"prompt.system={value}"], rf"prompt\.system: .*{VALUES[value]}")
