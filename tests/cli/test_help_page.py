"""Help pages: groups, widths, defaults from the config, and examples that work as they are written."""

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers.command_line import Double, Says

from loraft.cli.app import COMMANDS, app
from loraft.cli.help_page import OF_A_RUN, Command, Group
from loraft.config.reference import reference
from loraft.config.resolve import presets, resolve

ROOT = typer.main.get_command(app)
GROUPS = {"Start", "Judge", "Study", "Use", "Inspect"}


def walked(command: Any, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command by the words that call it, the groups `loraft`, `loraft task` and `loraft runs` among them."""
    found = {words: command}
    for name, inside in getattr(command, "commands", {}).items():
        found |= walked(inside, (*words, name))
    return found


ALL = walked(ROOT)
LEAVES = {words: command for words, command in ALL.items() if not hasattr(command, "commands")}
EXAMPLES = [
    pytest.param(words, line, id=line)
    for words, command in LEAVES.items()
    for line in (command.epilog or "").splitlines()
]


@cache
def page(*words: str, columns: int = 80) -> str:
    """The help page of a command, as it is printed in a terminal of that width."""
    context = None
    for number in range(len(words) + 1):
        context = typer.Context(
            ALL[words[:number]], parent=context, info_name=words[number - 1] if number else "loraft",
            terminal_width=columns - 2, help_option_names=["-h", "--help"],
        )  # fmt: skip
    assert context is not None
    return context.get_help() + "\n"


def test_the_page_is_what_is_printed(loraft_says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (60, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        for words in ((), ("train",), ("runs", "list")):
            assert loraft_says(*words, "--help") == (0, page(*words, columns=columns), "")


def test_every_command_stands_in_one_group_before_the_options() -> None:
    out = page()
    titles = re.findall(r"^(\S.*):$", out, flags=re.MULTILINE)
    assert titles == ["To start", *COMMANDS, "Options"]
    assert set(COMMANDS) == GROUPS
    names = [name for commands in COMMANDS.values() for name in commands]
    assert sorted(names) == sorted(ROOT.commands)  # type: ignore[attr-defined]
    assert re.findall(r"^  ([a-z]+)  +[A-Z]", out.partition("Options:")[0], flags=re.MULTILINE) == names


def test_at_80_columns_a_command_is_one_line() -> None:
    listed = page().partition("Start:")[2].partition("Options:")[0]
    lines = [line for line in listed.splitlines() if line.startswith(" ")]
    assert len(lines) == len(ROOT.commands)  # type: ignore[attr-defined]
    assert not any(line.endswith("...") for line in lines)


@pytest.mark.parametrize("columns", [60, 120])
def test_pages_fit_the_terminal(columns: int) -> None:
    lines = [line for words in ALL for line in page(*words, columns=columns).splitlines()]
    assert [line for line in lines if len(line) > columns] == []


def test_pages_are_plain_text_whatever_the_terminal(loraft_says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = loraft_says("train", "--help")
    assert "\x1b" not in plain[1]
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
        assert loraft_says("train", "--help") == plain


def test_without_a_command_the_page_is_printed(loraft_says: Says) -> None:
    for words in ((), ("task",), ("runs",)):
        assert loraft_says(*words) == (2, page(*words), "")


def test_every_flag_says_its_default_unless_it_is_a_switch() -> None:
    for words, command in LEAVES.items():
        flags = re.split(r"^(?:Arguments|Options):", page(*words), maxsplit=1, flags=re.MULTILINE)[1]
        entries = re.split(r"\n  (?=\S)", flags)
        for parameter in command.params:
            if parameter.nargs != 1 or parameter.required or parameter.multiple or getattr(parameter, "is_flag", False):
                continue
            name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
            entry = next(entry for entry in entries if re.match(rf"{re.escape(name)}[ \n,]", entry))
            assert "[default:" in " ".join(entry.split()), (words, entry)


def test_names_of_the_hub_are_on_one_line_and_usage_has_no_braces() -> None:
    for words in ALL:
        assert not re.search(r"[a-z]-$", page(*words), re.MULTILINE), words
        assert not re.search(r"[{}]|\.{4}|\]\.", page(*words).splitlines()[0]) or words in ((), ("task",), ("runs",))
    assert "meta-llama/Llama-3.2-1B-Instruct" in page("train")
    assert page("compare").startswith("Usage: loraft compare [OPTIONS] RUN RUN...\n")
    assert page("predict").startswith("Usage: loraft predict [OPTIONS] [TEXT...]\n")


def test_no_page_shows_a_type_of_python() -> None:
    for words in ALL:
        assert not re.search(r"<\w+>|\bstr\b|\bbool\b|INTEGER|None", page(*words)), words


def test_defaults_choices_and_bounds_are_those_of_the_config() -> None:
    out = " ".join(page("train").split())
    ranks = {name: resolve(preset=name).lora.r for name in presets()}
    assert (
        f"--rank NUMBER LoRA rank. [default: {ranks['quickstart']}; preset tutorial: {ranks['tutorial']}; 1 to" in out
    )
    assert f"--quant {'|'.join(reference()['quant.method'].choices)} " in out
    assert f"[default: {resolve().seed}; 0 to 4294967295]" in out


def test_flags_that_a_run_decides_say_so() -> None:
    for words in LEAVES:
        names = {parameter.name for parameter in LEAVES[words].params}
        assert (OF_A_RUN in page(*words)) == ({"run", "preset"} <= names)


def test_every_command_has_two_examples_that_fit_and_every_class_is_ours() -> None:
    assert all(isinstance(command, Command | Group) for command in ALL.values())
    assert {words: len(command.epilog.splitlines()) for words, command in LEAVES.items()} == dict.fromkeys(LEAVES, 2)
    assert [line.values for line in EXAMPLES if len(str(line.values[1])) > 58] == []


@pytest.mark.parametrize(("words", "line"), EXAMPLES)
def test_an_example_is_a_call_of_its_command(words: tuple[str, ...], line: str) -> None:
    name, *given = shlex.split(line)
    assert (name, tuple(given[: len(words)])) == ("loraft", words)
    context = LEAVES[words].make_context(words[-1], given[len(words) :])  # refuses what does not exist or misses
    with context:
        flags = {key: value for key, value in context.params.items() if value is not None}
        sets = flags.get("sets") or []
        short = {"quant": "quant.method", "rank": "lora.r", "task": "prompt.task", "preset": "preset"}
        resolve(overrides=sets, flags={key: flags[flag] for flag, key in short.items() if flag in flags})


@pytest.mark.parametrize(
    "line",
    [
        line
        for line in (str(example.values[1]) for example in EXAMPLES)
        if re.match("loraft (config|models|task|eval|train)", line)
    ],
)
def test_examples_run(api: Double, run_dir: Path, loraft_says: Says, line: str) -> None:
    (run_dir.parents[1] / "rows.csv").write_text("sentence,label\nhay quá,tốt\nchán quá,dở\n" * 4, encoding="utf-8")
    code, _, err = loraft_says(*shlex.split(line)[1:])
    assert code == 0, err
