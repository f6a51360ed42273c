"""The record of versions and machine."""

import json
import platform
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest

import loraft
from loraft.config.resolve import resolve
from loraft.runs import environment as module
from loraft.runs.atomic_files import to_json
from loraft.runs.environment import PACKAGES, Environment, environment, keep_environment, package_versions
from loraft.runs.records import as_json, read_record, write_record

GUIDE = Path(__file__).parents[2] / "docs" / "studies.md"


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


def test_work_that_goes_on_elsewhere_keeps_where_it_was_begun_and_says_what_differs(tmp_path: Path) -> None:
    path, config = tmp_path / "môi trường.json", resolve()
    first = keep_environment(path, config)
    kept = path.read_bytes()
    assert keep_environment(path, config) == first
    assert path.read_bytes() == kept
    write_record(path, replace(first, packages={**first.packages, "torch": "1.0"}, git_commit="a-dirty", dirty=True))
    with pytest.warns(UserWarning, match=r"begun in: git_commit a-dirty then, .*; torch 1\.0 then, .* now$"):
        again = keep_environment(path, config)
    assert (again.packages["torch"], again.dirty, len(again.resumed)) == ("1.0", True, 1)
    assert read_record(path, Environment, "") == again
    assert keep_environment(path, config, anew=True).resumed == ()
    path.write_text("", encoding="utf-8")
    assert keep_environment(path, config).dirty == first.dirty


def test_a_package_without_readable_metadata_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> str:
        raise KeyError("Version") if name == "numpy" else metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", broken)
    found = package_versions(["numpy", "scikit-learn", "không-có", "loraft"])
    assert found == {"numpy": "unknown", "scikit-learn": None, "không-có": None, "loraft": loraft.__version__}


def test_the_record_makes_constraints_for_pip(tmp_path: Path) -> None:
    write_record(tmp_path / "environment.json", environment())
    line = next(
        line for line in GUIDE.read_text(encoding="utf-8").splitlines() if "environment.json" in line and "-c" in line
    )
    program = line[line.index('"') + 1 : line.rindex('"')].replace("runs/NAME/", "")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert f"numpy=={metadata.version('numpy')}" in done.stdout.splitlines()
    assert "None" not in done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in whose folder loraft's source seems to lie, committed."""
    source = tmp_path / "runs" / "environment.py"
    source.parent.mkdir()
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
    clean = environment()
    assert (clean.git_commit, clean.dirty, clean.diff_sha256, clean.changes) == (commit, False, None, "")
    hashes = []
    for text in ("b", "c", "b"):
        (repository / "runs" / "environment.py").write_text(text, encoding="utf-8")
        changed = environment()
        assert (changed.git_commit, changed.dirty) == (f"{commit}-dirty", True)
        assert str(changed.diff_sha256)[:12] in changed.changes
        hashes.append(changed.diff_sha256)
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_source_file_that_git_does_not_know_is_a_change(repository: Path) -> None:
    (repository / "mới.py").write_text("a", encoding="utf-8")
    first = environment()
    assert (str(first.git_commit).endswith("-dirty"), first.dirty) == (True, True)
    (repository / "mới.py").write_text("b", encoding="utf-8")
    assert environment().diff_sha256 != first.diff_sha256
    (repository / ".gitignore").write_text("*", encoding="utf-8")
    assert environment().dirty is False


def test_a_checkout_of_another_user_has_a_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert environment().git_commit is not None


def test_the_commit_of_a_repository_around_an_installed_package_is_not_taken(repository: Path) -> None:
    git(repository, "rm", "--quiet", "--cached", "runs/environment.py")
    assert environment().git_commit is None


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment().git_commit is None
