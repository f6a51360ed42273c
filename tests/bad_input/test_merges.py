"""`loraft merge` with a run, a folder or flags that it must refuse, before a backbone is loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.bad_input import refusal

LOADER = "loraft.delivery.merge.load"


def merged(folder: Path) -> None:
    folder.mkdir()
    (folder / "loraft.json").write_text(json.dumps({"merged": {}, "files": {}}), encoding="utf-8")


def foreign(folder: Path) -> None:
    folder.mkdir()
    (folder / "luận văn.docx").write_text("của em", encoding="utf-8")


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize(
    ("there", "says"),
    [
        (foreign, "holds other files .got out.; name another folder"),
        (lambda folder: folder.write_text("x"), "is a file .got out.; name a folder"),
        (lambda folder: folder.symlink_to(folder), "is a file"),
    ],
)
def test_nothing_of_the_users_is_replaced(
    run: Path, there: Callable[[Path], None], says: str, force: list[str]
) -> None:
    there(Path("out"))
    refusal(["merge", "--output", "out", *force], f"--output: .*{says}")


def test_an_earlier_merged_model_is_replaced_with_force_only(run: Path) -> None:
    merged(Path("out"))
    refusal(["merge", "--output", "out"], r"--output: is there already \(got out\); --force replaces it")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--base", "original"], r"--base: the run's backbone is not quantised \(got original\); leave it out"),
        (["--base", "4bit"], r"--base: unknown \(got '4bit'\); allowed: dequantised, original"),
        (["--dtype", "int8"], r"--dtype: unknown \(got 'int8'\); allowed: bf16, fp16, fp32"),
        (["--min-agreement", "nan"], r"--min-agreement: not from 0 to 1 \(got nan\)"),
        (["--min-agreement", "99"], r"--min-agreement: not from 0 to 1 \(got 99\.0\)"),
        (["--split", "dev"], r"dev"),
        (["--set", "prompt.task=topic"], "prompt.task=topic: fixed by the run"),
    ],
)
def test_a_wrong_flag_is_told(run: Path, flags: list[str], says: str) -> None:
    refusal(["merge", "--output", "out", *flags], says)


def test_a_folder_that_is_no_finished_run_is_refused(run: Path, made: Path) -> None:
    foreign(Path("luận văn"))
    refusal(["merge", "luận văn", "--output", "out"], "is not a run directory")
    refusal(["merge", "two", "--output", "out"], "no such run .got two.; did you mean one|runs there: one")
    Path("half").mkdir()
    Path("half", "config.yaml").write_text((made / "config.yaml").read_text(), encoding="utf-8")
    refusal(["merge", "half", "--output", "out"], "half: the run is not finished; loraft train --resume")
    refusal(["merge", "one"], "--output")


def test_a_merged_model_is_not_merged_again(run: Path, made: Path) -> None:
    content = json.loads((made / "adapter" / "loraft.json").read_text())
    Path("m").mkdir()
    Path("m", "loraft.json").write_text(json.dumps({**content, "merged": {}}), encoding="utf-8")
    refusal(["merge", "m", "--output", "out"], "m: is merged already; name a run, or an adapter with its loraft.json")
