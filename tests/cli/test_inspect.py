"""`loraft config` and `loraft models`."""

import json
from pathlib import Path

import pytest
from helpers.command_line import Says

from loraft.bundled import bundled_adapters, bundled_backbones, bundled_data
from loraft.config.diagnostics import known_keys
from loraft.config.resolve import presets, resolve, tasks
from loraft.config.schema import Config


def test_config_prints_what_a_run_would_use(here: Path, loraft_says: Says) -> None:
    flags = ("--preset", "tutorial", "--rank", "4", "--seed", "5", "--set", "train.max_steps=9")
    expected = resolve(preset="tutorial", overrides=["train.max_steps=9"], flags={"lora.r": 4, "seed": 5})
    code, out, err = loraft_says("config", *flags)
    (here / "mine.yaml").write_text(out, encoding="utf-8")
    assert (code, err) == (0, "")
    assert not out.endswith("\n\n")
    assert resolve(config_file=here / "mine.yaml") == expected
    assert loraft_says("config", "--config", "mine.yaml")[1] == out
    assert Config.model_validate_json(loraft_says("config", "--json", *flags)[1]) == expected


def test_models_lists_what_ships_with_its_licence(loraft_says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = json.loads(loraft_says("models", "--json")[1])
    kinds = {
        "loraft-vi-tiny": "backbone",
        "demo": "adapter",
        "feedback": "data",
        "app-reviews": "task",
        "sentiment": "task",
        "topic": "task",
        "quickstart": "preset",
        "tutorial": "preset",
    }
    assert {row["name"]: row["kind"] for row in rows} == kinds
    assert {row["licence"] for row in rows if row["kind"] in ("task", "preset")} == {"Apache-2.0"}
    folders = {**bundled_backbones(), **bundled_adapters(), **bundled_data(), **tasks(), **presets()}
    assert {row["name"]: row["path"] for row in rows} == {name: str(path) for name, path in folders.items()}
    for row in rows:
        if row["kind"] in ("backbone", "adapter", "data"):  # the front matter of its card
            card = (Path(row["path"]) / "README.md").read_text(encoding="utf-8")
            assert f"\nlicense: {row['licence']}\n" in card.split("\n---\n")[0]
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "dumb")  # without bold heads
    table, _, paths = loraft_says("models")[1].rstrip().partition("\n\n")
    assert {row[0]: row[1] for row in map(str.split, table.splitlines()) if len(row) > 1} == {"name": "kind", **kinds}
    assert paths.split() == [word for row in rows for word in (f"{row['name']}:", row["path"])]  # no path is broken


def test_every_key_is_described_at_any_width(here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (60, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        code, out, err = loraft_says("config", "--describe")
        assert (code, err) == (0, "")
        assert [line for line in out.splitlines() if line and not line.startswith(" ")] == known_keys()
        assert max(map(len, out.splitlines())) <= columns
    rank = loraft_says("config", "--describe", "lora.r")[1]
    assert rank.splitlines()[-1] == "  whole number 1 to 4096 [default: 16; preset tutorial: 8]"
    (as_json,) = json.loads(loraft_says("config", "--describe", "lora.r", "--json")[1])
    assert (as_json["key"], as_json["default"], as_json["presets"]) == ("lora.r", 16, {"tutorial": 8})
    assert loraft_says("config", "lora")[2] == "error: lora: is for --describe; loraft config --describe lora\n"
