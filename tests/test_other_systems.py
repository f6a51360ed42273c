"""What Windows and macOS lack is not needed: modules, calls, renamed open files, line feeds, consoles in UTF-8."""

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import loraft
from loraft.cli.inputs import given_rows
from loraft.config.names import relative
from loraft.config.resolve import resolve
from loraft.config.section import NO_FOLDER
from loraft.data.dataset import load_data
from loraft.data.readers import AS_IT_IS
from loraft.errors import ConfigError

PACKAGE = Path(loraft.__file__).parent
# Of the standard library, by the availability that its documentation states.
UNIX = """
    modules crypt fcntl grp nis posix pty pwd readline resource spwd syslog termios tty
    os chown chroot ctermid fchmod fchown fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpgrp
    os getpriority getsid getuid killpg lchown mkfifo mknod nice openpty pathconf posix_fadvise posix_fallocate
    os posix_spawn pread pwrite sched_getaffinity sched_setaffinity sendfile setgid setpgid setsid setuid statvfs
    os symlink sync sysconf uname wait wait3 wait4 waitid O_CLOEXEC O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK
    os O_SYNC WNOHANG
    signal SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH alarm
    signal getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait sigwait
    socket AF_UNIX SO_REUSEPORT socketpair
    time clock_gettime pthread_getcpuclockid tzset
"""
UNIX_NAMES: dict[str, list[str]] = {}
for line in UNIX.split("\n")[1:-1]:
    UNIX_NAMES.setdefault(line.split()[0], []).extend(line.split()[1:])
UNIX_MODULES = set(UNIX_NAMES.pop("modules"))
# Reached on Unix only: behind a look at the system, or after what Windows answers.
GUARDED = {("training/memory.py", "resource"), ("delivery/connections.py", "resource")}


def unix_names(path: Path) -> set[str]:
    """The modules and names of Unix alone that a file uses."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= UNIX_MODULES & {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            inside = {*UNIX_NAMES.get(str(node.module), [])} & {alias.name for alias in node.names}
            found |= {f"{node.module}.{name}" for name in inside} | UNIX_MODULES & {str(node.module)}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {f"{node.value.id}.{name}" for name in {*UNIX_NAMES.get(node.value.id, [])} & {node.attr}}
        if isinstance(node, ast.Attribute) and node.attr in ("symlink_to", "hardlink_to"):
            found.add(node.attr)
    return found


def test_the_package_uses_nothing_that_only_unix_has() -> None:
    files = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    assert {(name, used) for name, path in files.items() for used in unix_names(path)} == GUARDED


def without_encoding(path: Path) -> list[int]:
    """The lines in which a file is opened as text without naming its encoding."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        of = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if name not in ("open", "read_text", "write_text", "TextIOWrapper", "NamedTemporaryFile"):
            continue
        # None of Python's own that open text.
        if of in ("Run", "os", "tarfile", "trackers") or (not of and name in ("read_text", "write_text")):
            continue
        inside = [one for argument in node.args for one in ast.walk(argument)]  # modes may depend on something
        words = [one.value for one in inside if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        binary = any("b" in word for word in words)
        if not binary and not any(word.arg == "encoding" for word in node.keywords):
            lines.append(node.lineno)
    return lines


def test_every_file_that_is_opened_as_text_names_its_encoding(tmp_path: Path) -> None:
    assert {str(path): lines for path in PACKAGE.rglob("*.py") if (lines := without_encoding(path))} == {}
    (tmp_path / "a.py").write_text("path.read_text()\nopen('x', 'w')\nopen('x', 'rb')\n", encoding="utf-8")
    assert without_encoding(tmp_path / "a.py") == [1, 2]


@pytest.mark.parametrize("name", ["CON", "sub/nul", "com1.txt", "lúc 10:30", "góp ý?", "a.", "a /b", "aux .x"])
def test_windows_cannot_call_a_run_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loraft.config.section.WINDOWS", True)
    with pytest.raises(ConfigError, match="name: is not the name of a folder on Windows"):
        resolve(flags={"name": name})


@pytest.mark.parametrize("name", ["console", "góp-ý r16", "a.b", "nul1", "company/com10", "learning_rate=0.001"])
def test_windows_can_call_a_run_so(name: str) -> None:
    assert NO_FOLDER.search(name) is None


def test_a_path_on_another_drive_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert relative(tmp_path / "mô hình", tmp_path / "runs" / "a") == "../../mô hình"

    def other_drive(path: Path, start: Path) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", other_drive)
    assert relative(tmp_path / "a", tmp_path) == (tmp_path / "a").as_posix()


TASK = "labels: [tích cực, tiêu cực]\nlabel_column: nhãn\n"
CONFIG = "prompt:\n  task: {}\n  system: |\n    một\n    hai\ndata:\n  source: {}\n  text_column: câu\n"
ROWS = [("thầy dạy hay", "tích cực"), ("phòng\nnóng", "tiêu cực"), ("bình thường", "tích cực")]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_files_with_carriage_returns_read_as_those_with_line_feeds(suffix: str, tmp_path: Path) -> None:
    found = []
    for name, end in (("lf", "\n"), ("crlf", "\r\n")):
        folder = tmp_path / name
        folder.mkdir()
        lines = ["câu,nhãn"] + [f'"{text}",{label}' for text, label in ROWS]
        if suffix == "jsonl":
            lines = [json.dumps({"câu": text, "nhãn": label}, ensure_ascii=False) for text, label in ROWS]
        texts = {f"test.{suffix}": "\n".join([*lines, ""]), "task.yaml": TASK}
        texts["config.yaml"] = CONFIG.format(json.dumps(str(folder / "task.yaml")), json.dumps(str(folder)))
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8", newline=end)
        assert ((folder / "task.yaml").read_bytes().count(b"\r") > 0) is (end == "\r\n")
        config = resolve(config_file=folder / "config.yaml")
        split = load_data(config, "test")
        texts_read = [text.replace("\r\n", "\n") for text in split.texts]  # those inside a cell are its text
        found.append((texts_read, split.labels.tolist(), config.prompt.labels, config.prompt.system))
    assert found[0] == found[1]
    assert found[0][0] == [text for text, _ in ROWS]


def test_lines_on_stdin_may_end_with_carriage_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    content = "thầy dạy hay\r\n\r\nphòng nóng\r\n".encode()
    stream = io.TextIOWrapper(io.BytesIO(content), encoding="cp1252")  # of a console
    monkeypatch.setattr(sys, "stdin", stream)
    rows, _ = given_rows("predict", [], None, "auto", "sentence", AS_IT_IS, [])
    assert [getattr(row, "columns", {}).get("sentence") for row in rows][::2] == ["thầy dạy hay", "phòng nóng"]


LIKE_WINDOWS = """
import builtins, json, os, shlex, sys, types

unix_modules, unix_names, *lines = map(json.loads, sys.argv[1:])
here, real, broken = os.path.realpath("."), builtins.__import__, []


class Without(types.ModuleType):
    def __init__(self, module):
        super().__init__(module.__name__)
        self.__dict__["module"] = module

    def __getattr__(self, name):
        if name in unix_names[self.module.__name__]:
            raise AttributeError(f"Windows has no {self.module.__name__}.{name}")
        return getattr(self.module, name)


def imported(name, globals=None, locals=None, fromlist=(), level=0):
    ours = str((globals or {}).get("__name__", "")).startswith("loraft")
    if ours and name in unix_modules:
        raise ImportError(f"Windows has no module {name}")
    module = real(name, globals, locals, fromlist, level)
    return Without(module) if ours and name in unix_names else module


def closed(call):
    def checked(*paths, **named):
        for path in paths:
            base = named.get("dir_fd") or named.get("src_dir_fd")
            folder = here if base is None else os.readlink(f"/proc/self/fd/{base}")
            path = os.path.realpath(os.path.join(folder, os.fspath(path)))
            if path.startswith(here) and os.path.isfile(path) and path in opened():
                broken.append(f"{call.__name__} of the open file {path}")
        return call(*paths, **named)
    return checked


def opened():
    with open("/proc/self/maps", encoding="utf-8") as file:
        paths = {line.split(maxsplit=5)[5].strip() for line in file if line.count("/")}
    for number in os.listdir("/proc/self/fd"):
        try:
            paths.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            pass
    return paths


builtins.__import__ = imported
for name in ("replace", "rename", "unlink", "remove"):
    setattr(os, name, closed(getattr(os, name)))

from loraft.cli.app import main
for line in lines:
    try:
        main(shlex.split(line))
    except SystemExit as end:
        assert not end.code, (line, end.code)
assert not broken, broken
"""


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks up this process's open files in /proc")
def test_the_main_path_needs_no_unix_and_renames_no_open_file(tmp_path: Path) -> None:
    few = (
        "--set data.max_train_rows=48 --set data.max_eval_rows=24 --set data.max_test_rows=24 --set train.max_steps=4"
        " --set train.eval_steps=2 --set eval.bootstrap_samples=100 --set eval.baselines=off"
    )
    lines = [
        f"train {few} --set name=góp-ý",
        f"train {few} --set name=góp-ý --force",
        "eval",
        "predict 'câu phản hồi' --output-file nhãn.csv",
        f"sweep --ranks 1,2 {few}",
        "report góp-ý",
        "runs remove góp-ý --yes",
    ]
    command = [sys.executable, "-c", LIKE_WINDOWS, *map(json.dumps, [sorted(UNIX_MODULES), UNIX_NAMES, *lines])]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONWARNDEFAULTENCODING": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert "góp-ý" in done.stderr.decode("utf-8")  # and not in cp1252
    assert "argument not specified" not in done.stderr.decode("utf-8")
    done.stdout.decode("utf-8")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (["--help"], "loraft"),
        (["train", "--set", "lora.r=nhiều"], "nhiều"),
        (["eval", "--run", "không-có"], "không-có"),
        (["models"], "loraft-vi-tiny"),
    ],
    ids=["help", "a wrong value", "a missing run", "a table"],
)
def test_a_console_in_cp1252_gets_utf8(line: list[str], shown: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "loraft", *line]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert shown in done.stdout.decode("utf-8") + done.stderr.decode("utf-8")
