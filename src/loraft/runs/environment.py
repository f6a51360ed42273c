"""What a run depends on besides its config: versions, machine, commit of the source."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from loraft.runs.files import utc_now

PACKAGES = (
    "loraft", "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "evaluate", "numpy",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """What a run depends on besides its config: versions, machine, commit of the source; imports none of them."""
    return {
        "time": utc_now(),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "git_commit": _git_commit(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of loraft's own source, with "-dirty" where it was changed; None outside its repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # An installed package may lie inside some other repository, whose commit says nothing.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
