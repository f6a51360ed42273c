"""Record what a run depends on besides its config: package versions, machine, threads, commit of the source."""

import hashlib
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import metadata, util
from pathlib import Path

from loraft.bundled import bundled_backbones
from loraft.config.schema import Config, ModelConfig
from loraft.errors import NewerFileError, RunError
from loraft.runs.atomic_files import utc_now
from loraft.runs.hashes import hashes_of
from loraft.runs.records import read_record, write_record

# All that a result can depend on: the libraries that read, compute and write, and those below them.
PACKAGES = (
    "loraft", "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "evaluate", "numpy",
    "tokenizers", "safetensors", "huggingface-hub", "pyarrow", "jinja2", "regex", "gguf", "openpyxl", "pydantic",
    "pyyaml", "scikit-learn", "scipy", "triton", "matplotlib", "psutil", "rich", "typer",
)  # fmt: skip
UNKNOWN = "unknown"  # version of a package that can be imported but has no metadata
VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "LORAFT_PRESET", "MKL_NUM_THREADS",
    "OMP_NUM_THREADS", "PYTHONHASHSEED", "WORLD_SIZE",
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
        packages: version of each package; None where it is not installed, "unknown" where it has no metadata.
        custom_code: what `custom_code` says.
        dirty: whether loraft's source differs from its commit; None outside a repository.
        diff_sha256: hash of that difference (`git diff HEAD`, and files that git does not know); None without one.
        seed: of the config.
        threads: of torch; None where torch was not loaded.
        variables: environment variables that change results, where they are set.
        hardware: names of the processor and the card, and versions of CUDA, cuDNN and the card's driver.
        resumed: what differed each time that the work was continued elsewhere, in words, after the time.
    """

    time: str
    command: tuple[str, ...]
    python: str
    platform: str
    cpu_count: int | None
    git_commit: str | None
    packages: dict[str, str | None]
    custom_code: dict[str, str] = field(default_factory=dict)  # this and what follows: not in files of earlier versions
    dirty: bool | None = None
    diff_sha256: str | None = None
    seed: int | None = None
    threads: int | None = None
    variables: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, str] = field(default_factory=dict)
    resumed: tuple[str, ...] = ()

    @property
    def changes(self) -> str:
        """In words that loraft's source differs from its commit; "" where it does not."""
        diff = str(self.diff_sha256)[:12]
        return f"loraft's source has changes that are in no commit (diff {diff})" if self.dirty else ""


def environment(config: Config | None = None) -> Environment:
    """The environment of this process, and the seed and the backbone's own code of a config.

    Imports none of the packages.
    """
    commit, diff = _git_state()
    torch = sys.modules.get("torch")
    return Environment(
        time=utc_now(),
        command=tuple(sys.argv),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_count=os.cpu_count(),
        git_commit=commit,
        packages=package_versions(PACKAGES),
        custom_code={} if config is None else custom_code(config.model),
        dirty=None if commit is None else diff is not None,
        diff_sha256=diff,
        seed=None if config is None else config.seed,
        threads=None if torch is None else torch.get_num_threads(),
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        hardware=_hardware(),
    )


def keep_environment(path: Path, config: Config, *, anew: bool = False) -> Environment:
    """The environment in which work was begun, from its file, which is written where there is none or a damaged one.

    Where work goes on in another one, a warning says what differs, and the file keeps it.

    Args:
        path: of the file.
        config: of the work.
        anew: the work begins again.
    """
    now, begun = environment(config), None
    if path.exists() and not anew:
        try:
            begun = read_record(path, Environment, "")
        except NewerFileError:
            raise
        except RunError:
            begun = None
    if begun is None:
        write_record(path, now)
        return now
    if not (differences := _differences(begun, now)):
        return begun
    warnings.warn(f"{path}: the work goes on in another environment than it was begun in: {differences}", stacklevel=2)
    begun = replace(begun, resumed=(*begun.resumed, f"{now.time}: {differences}"))
    write_record(path, begun)
    return begun


def _differences(then: Environment, now: Environment) -> str:
    """What can change results, as `<name> <then> then, <now> now`; "" if nothing differs."""
    packages = {name: (then.packages.get(name), version) for name, version in now.packages.items()}
    own = {key: (getattr(then, key), getattr(now, key)) for key in ("python", "git_commit", "diff_sha256")}
    return "; ".join(f"{name} {old} then, {new} now" for name, (old, new) in (own | packages).items() if old != new)


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
    """The installed version of each package; imports none of the packages.

    None where it is not installed, "unknown" where it can be imported but has no readable metadata.
    """
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    if name == "loraft":
        return str(sys.modules["loraft"].__version__)
    with suppress(Exception):  # damaged metadata raises errors of many types
        return str(metadata.version(name))
    with suppress(ImportError, ValueError):
        if util.find_spec(name.replace("-", "_")) is not None:
            return UNKNOWN
    return None


def _hardware() -> dict[str, str]:
    """Processor, card, CUDA, cuDNN and driver, as far as they are known without importing anything."""
    found = {"cpu": platform.processor() or platform.machine()}
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        found["cpu"] = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    torch = sys.modules.get("torch")
    with suppress(Exception):  # of a driver that does not answer; none of this is worth a training
        if torch is not None and torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
            found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
            found["driver"] = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()[0]
    return found


def _git_state() -> tuple[str | None, str | None]:
    """The commit of loraft's source, ending in "-dirty" where files differ from it, and the hash of the difference.

    None and None outside its repository.
    """
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> bytes:
        # A checkout may be another user's.
        command = ["git", "-c", "safe.directory=*", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=10).stdout

    try:
        # loraft may be installed inside another repository, for example in its .venv: its commit is not loraft's.
        git("ls-files", "--error-unmatch", str(Path(__file__)))
        commit = git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").decode().strip()
        new = git("ls-files", "--others", "--exclude-standard", "-z", ".").decode(errors="surrogateescape").split("\0")
        diff = hashlib.sha256(git("diff", "HEAD", "--binary"))
        for name in sorted(filter(None, new)):
            diff.update(f"{name}\0".encode(errors="surrogateescape") + (package / name).read_bytes())
    except (OSError, subprocess.SubprocessError):
        return None, None
    commit = commit if not any(new) else f"{commit.removesuffix('-dirty')}-dirty"
    return commit, diff.hexdigest() if commit.endswith("-dirty") else None
