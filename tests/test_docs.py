"""What the documentation says is there is there: paths, folders, commands, flags, printed blocks."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from loraft.cli.app import app
from loraft.config.resolve import resolve

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "README.vi.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Pages that tell of the past keep the names of their day.
HISTORY = {"log.md", "performance.md", "studies.md"} | {f"000{n}" for n in range(1, 6)}

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(text: str) -> list[str]:
    """The code blocks of a Markdown text."""
    return re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[str]:
    """Every loraft command line in the code blocks and inline code of a text, also inline without the word loraft."""
    found = [line.removeprefix("$ ") for block in blocks(text) for line in block.replace("\\\n", "").splitlines()]
    inline = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found += [" ".join(line.split()) for line in re.findall(r"`(loraft [^`]*)`", inline)]
    found += [
        f"loraft {' '.join(line.split())}" for line in re.findall(rf"`((?:{'|'.join(COMMANDS)}) --[^`]*)`", inline)
    ]
    lines = [line.partition("#")[0].rpartition("| ")[2].strip() for line in found]
    return [line for line in lines if re.match(r"loraft [a-z]", line)]


def unknown(line: str) -> set[str]:
    """The subcommand or the options of a command line that loraft does not have."""
    name, *words = (word.strip(",") for word in shlex.split(line)[1:])
    command = COMMANDS.get(name)
    if hasattr(command, "commands") and words:  # loraft task new
        name, command = words[0], command.commands.get(words[0])
    if command is None:
        return {name}
    flags = {flag for parameter in command.params for flag in [*parameter.opts, *parameter.secondary_opts]}
    given = {word.partition("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
    return given - flags - {"--help"}


def test_the_readmes_config_is_one_and_shows_the_defaults(tmp_path: Path) -> None:
    (shown,) = [block for block in blocks(README) if block.startswith("model:  {name:")]
    (tmp_path / "config.yaml").write_text(shown, encoding="utf-8")
    assert resolve(config_file=tmp_path / "config.yaml") == resolve()


def test_no_line_of_the_readme_but_what_a_command_prints_is_longer_than_132_characters() -> None:
    text = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    assert [line for line in text.splitlines() if len(line) > 132] == []


def test_the_commands_are_found() -> None:
    assert "loraft train --quant nf4 --rank 16" in command_lines(README)
    assert len(command_lines(README)) > 15
    assert command_lines("`loraft eval\n--raw`, `train --from RUN`; `eval`") == [
        "loraft eval --raw",
        "loraft train --from RUN",
    ]


def test_an_unknown_command_or_flag_is_seen() -> None:
    lines = (
        "loraft trian",
        "loraft task nwe --data x",
        "loraft train --rankk 2",
        "loraft runs --json",
        "loraft eval --raw",
    )
    assert [unknown(line) for line in lines] == [{"trian"}, {"nwe"}, {"--rankk"}, {"--json"}, set()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_flags_exist(page: Path) -> None:
    lines = command_lines(page.read_text(encoding="utf-8"))
    assert [line for line in lines if unknown(line)] == []


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in HISTORY and p.name[:4] not in HISTORY], ids=lambda p: p.name
)
def test_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#:]+)\)", text) if not link.startswith("http")]
    named = re.findall(r"`((?:src|tests|docs|configs|benchmarks|tools)/[\w./-]+)`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [path for path in named if not (ROOT / path).exists() and "NAME" not in path]
    assert missing == []


def test_every_test_that_a_page_names_exists() -> None:
    named = [found for page in PAGES for found in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text("utf-8"))]
    assert len(named) > 30
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text("utf-8")]
    assert missing == []


def test_the_readmes_tree_has_every_folder_of_the_package() -> None:
    (tree,) = [block for block in blocks(README) if block.startswith("src/loraft/")]
    package = ROOT / "src" / "loraft"
    inside = tree.partition("configs/")[0]
    told = {line.split()[0].rstrip("/") for line in inside.splitlines() if line.startswith("  ")}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    folders |= {f"studies/{path.parent.name}" for path in package.glob("studies/*/__init__.py")}
    assert folders <= told
    assert all((package / name).exists() or (package / f"{name}.py").exists() for name in told)
