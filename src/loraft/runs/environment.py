"""Record what a run depends on besides its config: package versions, machine, commit of the source."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from loraft.bundled import bundled_backbones
from loraft.config.schema import ModelConfig
from loraft.runs.atomic_files import utc_now
from loraft.runs.hashes import hashes_of

PACKAGES = (
    "loraft", "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "evaluate", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Environment:
    """Versions and machine of one run.

    Attributes:
        time: when the run started, in UTC.
        command: the command line.
        python, platform: version of Python, and name of the operating system.
        cpu_count: logical CPUs; None where it is not known.
        git_commit: commit of loraft's source, ending in "-dirty" where files differ from it; None outside a repository.
        packages: version of each package; None where it is not installed.
        custom_code: what `custom_code` says.
    """

    time: str
    command: tuple[str, ...]
    python: str
    platform: str
    cpu_count: int | None
    git_commit: str | None
    packages: dict[str, str | None]
    custom_code: dict[str, str] = field(default_factory=dict)


def environment(model: ModelConfig | None = None) -> Environment:
    """The environment of this process, and the code that comes with its backbone; imports none of the packages."""
    return Environment(
        time=utc_now(),
        command=tuple(sys.argv),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_count=os.cpu_count(),
        git_commit=_git_commit(),
        packages=package_versions(PACKAGES),
        custom_code={} if model is None else custom_code(model),
    )


def custom_code(model: ModelConfig) -> dict[str, str]:
    """The Python code that comes with a backbone and may run: a folder's files and their SHA-256, or hub id and commit.

    Empty without `model.trust_remote_code`.
    """
    if not model.trust_remote_code or model.name in bundled_backbones():
        return {}
    if not os.path.exists(model.name):
        return {model.name: str(model.revision)}
    folder = Path(model.name)
    return hashes_of(folder, (path.relative_to(folder).as_posix() for path in folder.rglob("*.py")))


def package_versions(names: Sequence[str]) -> dict[str, str | None]:
    """The installed version of each package, None where it is not installed; imports none of the packages."""
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _git_commit() -> str | None:
    """The commit of loraft's source, ending in "-dirty" where files differ from it; None outside its repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # loraft may be installed inside another repository, for example in its .venv: its commit is not loraft's.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
