"""The record of versions and machine."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest

from loraft.runs import environment as module
from loraft.runs.atomic_files import to_json
from loraft.runs.environment import PACKAGES, Environment, environment, package_versions
from loraft.runs.records import as_json, read_record, write_record


def test_environment_holds_versions_without_importing_the_packages() -> None:
    probe = (
        "import sys; from loraft.runs.environment import environment; e = environment();"
        "assert e.packages['torch'] and e.cpu_count and e.time.endswith('+00:00');"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_environment_is_json_and_is_read_again(tmp_path: Path) -> None:
    found = environment()
    content = json.loads(to_json(as_json(found)))
    assert content["python"] == sys.version.split()[0]
    assert content["platform"] == platform.platform()
    assert content["command"] == sys.argv
    assert abs(datetime.now(UTC) - datetime.fromisoformat(content["time"])) < timedelta(minutes=1)
    write_record(tmp_path / "environment.json", found)
    assert read_record(tmp_path / "environment.json", Environment, "") == found


def test_versions_are_those_installed_and_none_of_what_is_not() -> None:
    assert package_versions(["numpy", "không-có"]) == {"numpy": metadata.version("numpy"), "không-có": None}
    assert set(environment().packages) == set(PACKAGES)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in whose folder loraft's source seems to lie, committed."""
    source = tmp_path / "environment.py"
    source.write_text("a", encoding="utf-8")
    monkeypatch.setattr(module, "__file__", str(source))
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "--quiet", "--message", "một")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_source_and_says_whether_it_was_changed(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert environment().git_commit == commit
    (repository / "environment.py").write_text("b", encoding="utf-8")
    assert environment().git_commit == f"{commit}-dirty"


def test_the_commit_of_a_repository_around_an_installed_package_is_not_taken(repository: Path) -> None:
    git(repository, "rm", "--quiet", "--cached", "environment.py")
    assert environment().git_commit is None


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment().git_commit is None
