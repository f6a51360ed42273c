"""YAML that would take all memory or the stack: nesting, aliases of aliases, long files."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

from loraft.config import yaml_io

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name}\n  <<: [{', '.join([f'*{before}'] * 30)}]\n" for before, name in zip("abcd", "bcde", strict=True)
)
LEVELS = r"more than 50 levels of lists and mappings"
FILES = {
    "lists": ("lora: " + "[" * 5000 + "]" * 5000, LEVELS),
    "open lists": ("lora: " + "[" * 5000, LEVELS),
    "mappings": ("lora: " + "{a: " * 5000 + "}" * 5000, LEVELS),
    "block lists": ("- " * 3000 + "a", LEVELS),
    "block mappings": ("".join(f"{' ' * depth}a:\n" for depth in range(200)), LEVELS),
    "keys of keys": ("? " * 2000 + "a", LEVELS),
    "lists of mappings": ("lora: " + "[{a: " * 2000, LEVELS),
    "aliases of aliases": (BOMB, r"line 6.*more than 100,000 values"),
    "merged aliases": (MERGED, r"more than 100,000 values"),
    "an alias of itself": ("lora: &a [*a]", r"line 1, column 11: an alias inside of its own value"),
    "a mapping of itself": ("lora: &a {r: *a}", r"an alias inside of its own value"),
    "itself two levels up": ("lora: &a {r: [{x: *a}]}", r"an alias inside of its own value"),
    "itself as key": ("&a {*a : 1}", r"an alias inside of its own value"),
}


@pytest.mark.parametrize("name", FILES)
def test_yaml_that_grows_is_refused(name: str, work: Path) -> None:
    text, says = FILES[name]
    (work / "mine.yaml").write_text(text, encoding="utf-8")
    refusal(["config", "--config", "mine.yaml"], rf"mine\.yaml: not valid YAML \(.*{says}")


@pytest.mark.parametrize("value", ["[" * 3000, "[" * 3000 + "]" * 3000, "{a: " * 3000, "- " * 100 + "a", "&a [*a]"])
def test_a_set_value_that_grows_is_refused(value: str) -> None:
    refusal(["config", "--set", f"prompt.template_kwargs={value}"], r"prompt\.template_kwargs: not valid YAML")


def test_a_long_file_is_not_read(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_io, "LONGEST", 1000)
    (work / "mine.yaml").write_text("# " + "x" * 2000, encoding="utf-8")
    refusal(
        ["config", "--config", "mine.yaml"], r"mine\.yaml: too long for a config \(got 2,002 bytes\); at most 1,000"
    )
