"""Config files that cannot be read, and what is no file."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_input import refusal

NO_FILE = r"exists, but is no file; give a YAML file"
GONE = r"cannot be read \(No such file or directory\); give a YAML file"
LONG = r"cannot be read \(File name too long\); give a YAML file"


@pytest.mark.parametrize("command", [["train"], ["eval", "--zero-shot"], ["fewshot"], ["sweep"], ["data"], ["config"]])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("không-có.yaml", GONE),
        ("không/có.yaml", GONE),
        ("c" * 300, LONG),
        ("ữ" * 100, LONG),
        ("thư-mục", NO_FILE),
    ],
    ids=["missing", "missing folder", "300 letters", "300 bytes", "folder"],
)
def test_a_config_that_is_not_there_is_told(command: list[str], name: str, says: str, work: Path) -> None:
    (work / "thư-mục").mkdir()
    refusal([*command, "--config", name], says)


def test_what_is_no_file_is_refused_and_never_waited_for(work: Path) -> None:
    os.mkfifo(work / "ống")
    refusal(["train", "--config", "ống"], rf"ống: {NO_FILE}")
    refusal(["train", "--config", "/dev/null"], rf"/dev/null: {NO_FILE}")
    refusal(["train", "--config", "/dev/zero"], rf"/dev/zero: {NO_FILE}")
    refusal(["train", "--config", ""], NO_FILE)
    refusal(["train", "--config", "/"], NO_FILE)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("ổ")
        refusal(["train", "--config", "ổ"], NO_FILE)


def test_links_that_lead_nowhere_are_told(work: Path) -> None:
    (work / "mất.yaml").symlink_to("đi.yaml")
    refusal(["config", "--config", "mất.yaml"], GONE)
    (work / "vòng.yaml").symlink_to("vòng.yaml")
    refusal(["config", "--config", "vòng.yaml"], r"cannot be read \(Too many levels of symbolic links\)")
    (work / "tệp").write_text("seed: 1", encoding="utf-8")
    refusal(["config", "--config", "tệp/mine.yaml"], r"cannot be read \(Not a directory\)")


def test_a_path_with_nul_is_told() -> None:
    refusal(["config", "--config", "a\0b.yaml"], r"--config.*embedded null byte \(got .a.x00b\.yaml.\)")


CONTENTS: dict[str, tuple[bytes, str]] = {
    "UTF-16": ("seed: 1".encode("utf-16"), r"not UTF-8 text; save it as UTF-8"),
    "UTF-16 without mark": ("seed: 1".encode("utf-16-le"), r"does not allow the character U\+0000"),
    "UTF-32": ("seed: 1".encode("utf-32"), r"not UTF-8 text; save it as UTF-8"),
    "Latin-1": ("name: café".encode("latin-1"), r"not UTF-8 text; save it as UTF-8"),
    "Windows-1258": ("name: thầy".encode("cp1258", "replace") + b"\xe2", r"not UTF-8 text; save it as UTF-8"),
    "half a letter": ("name: thầy".encode()[:-2], r"not UTF-8 text; save it as UTF-8"),
    "binary": (bytes(range(256)), r"not UTF-8 text; save it as UTF-8"),
    "zip": (b"PK\x03\x04" + bytes(40), r"does not allow the character U\+0003"),
    "gzip": (b"\x1f\x8b\x08\x00", r"not UTF-8 text"),
    "NULs": (bytes(100), r"does not allow the character U\+0000"),
    "two marks": (b"\xef\xbb\xbf\xef\xbb\xbfseed: -1", r"seed"),
    "mark and a mistake": (b"\xef\xbb\xbfseed: -1", r"seed: not allowed \(got -1, from mine\.yaml\)"),
    "only text": ("xin chào".encode(), r"not a mapping \(got 'xin chào'\); write `key: value` lines"),
    "a list": (b"- lora\n- train", r"not a mapping \(got \['lora', 'train'\]\)"),
    "a number": (b"8", r"not a mapping \(got 8\)"),
    "a boolean": (b"true", r"not a mapping \(got True\)"),
    "digits": (b"9" * 5000, r"not a mapping \(got '9+\.\.\.'\)"),
    "JSON list": (b'[{"seed": 1}]', r"not a mapping \(got \[\{'seed': 1\}\]\)"),
    "INI": (b"[train]\nlearning_rate = 1e-4", r"not valid YAML \(line 2"),
    "TOML": (b"seed = 1", r"not a mapping \(got 'seed = 1'\)"),
    "HTML": (b"<html><body>404</body></html>", r"not a mapping"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_of_another_kind_is_refused(name: str, work: Path) -> None:
    content, says = CONTENTS[name]
    (work / "mine.yaml").write_bytes(content)
    refusal(["train", "--config", "mine.yaml"], rf"{says}")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.EACCES, "Permission denied"),
        (errno.EPERM, "Operation not permitted"),
        (errno.EIO, "Input/output error"),
        (errno.ESTALE, "Stale file handle"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_a_config_or_task_that_the_system_does_not_give_is_told(
    code: int, says: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "mine.yaml").write_text("labels: [khen, chê]", encoding="utf-8")
    real: Callable[..., Any] = Path.open

    def refused(path: Path, *given: Any, **named: Any) -> Any:
        if path.name == "mine.yaml":
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *given, **named)

    monkeypatch.setattr(Path, "open", refused)
    refusal(["config", "--config", "mine.yaml"], rf"mine\.yaml: cannot be read \({says}\); give a YAML file")
    refusal(["config", "--task", "mine.yaml"], rf"mine\.yaml: cannot be read \({says}\); give a YAML file")
