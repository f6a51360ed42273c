"""Names of runs that are no finished run: files, unfinished runs, studies, empty and wrong names."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.bad_input import refusal

from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config


def unfinished(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(resolve()), encoding="utf-8")


def empty(folder: Path) -> None:
    folder.mkdir(parents=True)


def a_file(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("hay", encoding="utf-8")


def only(name: str, content: str = "{}") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / name).write_text(content, encoding="utf-8")

    return make


def config_folder(folder: Path) -> None:
    (folder / "config.yaml").mkdir(parents=True)


def without_adapter(folder: Path) -> None:
    unfinished(folder)
    (folder / "metrics.json").write_text("{}", encoding="utf-8")


def nothing(folder: Path) -> None:
    pass


SHAPES = {
    "missing": (nothing, r"no such run \(got '?a'?\); there are no runs yet"),
    "a file": (a_file, r"^error: .*(no such run|exists, but is no)"),
    "empty": (empty, r"is not a run directory \(no config\.yaml or loraft.json in it\)"),
    "unfinished": (unfinished, r"not finished .*; loraft train --resume --config .* continues it"),
    "results alone": (only("metrics.json"), r"is not a run directory \(no config\.yaml or loraft.json in it\)"),
    "an unfinished sweep": (
        only("sweep.yaml", ""),
        r"the sweep is not finished; loraft sweep --config runs/a/sweep\.yaml continues it",
    ),
    "a few-shot study": (only("fewshot.yaml", ""), r"a: is a study, not a run; loraft report runs/a shows it"),
    "a description of data": (only("data.json"), r"is not a run directory"),
    "a config that is a folder": (config_folder, r"a/config\.yaml: exists, but is no file"),
    "an empty config": (only("config.yaml", ""), r"^error:"),
    "a config that is a list": (only("config.yaml", "[]"), r"^error:(?s:.)*config\.yaml: not a mapping"),
    "a config of another program": (only("config.yaml", "mô_hình: 1\n"), r"^error:(?s:.)*mô_hình"),
    "no adapter": (without_adapter, r"adapter"),
}
COMMANDS = {
    "predict": ["predict", "--run", "a", "thầy dạy hay"],
    "eval": ["eval", "--run", "a"],
}
NAMES = {
    "empty": "", "a blank": " ", "a dot": ".", "two dots": "..", "a slash": "/", "above": "../../a", "a device": "/dev/null",
    "300 letters": "ă" * 300, "a star": "*", "a bracket": "[", "a trial alone": "a/b", "a line end": "a\nb", "a dash": "--",
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(("make", "says"), SHAPES.values(), ids=SHAPES)
def test_what_is_no_finished_run_is_refused(make: Callable[[Path], None], says: str, command: list[str]) -> None:
    make(Path("runs/a"))
    refusal(command, says)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_of_no_run_is_refused(name: str) -> None:
    unfinished(Path("runs/khác"))
    refusal(["predict", "--run", name, "thầy dạy hay"], r"^(error|Usage): ?")


@pytest.mark.parametrize("make", [nothing, empty, unfinished, a_file], ids=["none", "empty", "unfinished", "a file"])
@pytest.mark.parametrize("command", [["predict", "hay"], ["eval"]], ids=lambda one: one[0])
def test_without_a_name_a_finished_run_must_be_there(make: Callable[[Path], None], command: list[str]) -> None:
    make(Path("runs/a"))
    refusal(command, r"runs: no finished run \(got (none|1 unfinished)\); loraft train ")
