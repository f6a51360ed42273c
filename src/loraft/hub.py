"""Ask the hub once whether it has what is asked for, before libraries do so with many files and many retries."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from json import JSONDecodeError
from typing import Any

from loraft.errors import first_line

SECONDS = 8  # that the hub may take to answer
REMEMBERED = 60  # seconds for which an answer is taken for true


@dataclass(frozen=True)
class Kind:
    """What the hub is asked for: in words, what sets its revision, on the hub, and the file that is asked for."""

    noun: str
    revision: str
    repo_type: str
    file: str


BACKBONE = Kind("backbone", "model.revision", "model", "config.json")
DATA_SET = Kind("data set", "data.revision", "dataset", "README.md")


@dataclass(frozen=True)
class Answer:
    """What is in the way of loading from the hub, and what to do about it; both "" where nothing is.

    Attributes:
        reached: False where the hub did not answer, so that what the cache holds can be loaded.
    """

    problem: str = ""
    way: str = ""
    reached: bool = True


_asks_nothing: str | None = None  # the command inside `asks_nothing`


@contextmanager
def asks_nothing(command: str) -> Iterator[None]:
    """Inside the block no hub is asked, as with HF_HUB_OFFLINE; messages name the command."""
    from huggingface_hub import constants

    global _asks_nothing
    before, constants.HF_HUB_OFFLINE, _asks_nothing = constants.HF_HUB_OFFLINE, True, command
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, _asks_nothing = before, None


def answers_otherwise(error: Exception) -> bool:
    """Whether an error of the hub's client comes of an answer that has not the form of a hub's."""
    return isinstance(error, (KeyError, TypeError, AttributeError, JSONDecodeError))


def ask(kind: Kind, name: str, revision: str | None) -> Answer:
    """What the hub says to one request for one file, without retries; a missing file is no problem."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return Answer("it is no hub id either", "a hub id is owner/name, without accents and blanks")
    if _asks_nothing is not None:
        return Answer(f"it is not in the cache, and {_asks_nothing} asks no hub", "get it by hf download", False)
    if constants.HF_HUB_OFFLINE:
        return Answer("it is not in the cache, and HF_HUB_OFFLINE is set", "unset it", reached=False)
    return _remembered(kind, name, revision, int(time.monotonic() / REMEMBERED))


@lru_cache
def _remembered(kind: Kind, name: str, revision: str | None, _period: int) -> Answer:
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    error = _request(kind, name, revision)
    if error is None or isinstance(error, EntryNotFoundError):  # the libraries tell which file a repository lacks
        return Answer()
    if isinstance(error, HfHubHTTPError):
        return Answer(*_refusal(kind, name, revision, error))
    told = f"it is not in the cache, and the hub cannot be reached ({constants.ENDPOINT}: {first_line(error)})"
    return Answer(told, "check the network", reached=False)


def _request(kind: Kind, name: str, revision: str | None) -> Exception | None:
    """What went wrong with one request; the system's search for a host's address knows no limit, so a thread waits."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    found: list[Exception | None] = []

    def send() -> None:
        try:
            url = hf_hub_url(name, kind.file, repo_type=kind.repo_type, revision=revision)
            get_hf_file_metadata(url, timeout=SECONDS)
            found.append(None)
        except Exception as error:  # the hub's client and its transport have a dozen types
            found.append(error)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(SECONDS + 1)
    return found[0] if found else TimeoutError(f"no answer in {SECONDS} seconds")


def _refusal(kind: Kind, name: str, revision: str | None, error: Any) -> tuple[str, str]:
    """What the hub's refusal means, and what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{'datasets/' if kind is DATA_SET else ''}{name}"
        return "it is gated", f"ask for access on {page}, then log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision}", f"set {kind.revision} to one that it has"
    if isinstance(error, RepositoryNotFoundError):
        what = f"the hub has no such {kind.noun}, or it is private (HTTP {status})"
        return what, "check the name, or log in with `hf auth login`"
    if status in (401, 403):
        return f"the hub refuses the token (HTTP {status})", "log in again with `hf auth login`"
    return f"the hub answers HTTP {status}", "try again later"
