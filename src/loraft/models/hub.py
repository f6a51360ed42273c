"""Ask the hub once whether it has a backbone, before the libraries do so with many files and many retries."""

import threading
from functools import lru_cache
from typing import Any

from loraft.errors import BackboneError, first_line

SECONDS = 8  # that the hub may take to answer
FILE = "config.json"


@lru_cache
def reached(name: str, revision: str | None, cache_dir: str | None) -> dict[str, Any]:
    """Returns the keyword arguments with which `from_pretrained` asks the hub no more than it has to.

    One request for one file, without retries. Where the hub cannot be reached, the cache has to do.

    Raises:
        BackboneError: the hub cannot be reached and the cache has no such backbone, or the hub refuses it.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        cached = isinstance(try_to_load_from_cache(name, FILE, cache_dir=cache_dir, revision=revision), str)
    except HFValidationError as error:
        raise BackboneError(
            f"model.name: no folder, and no hub id (got {name!r}); owner/name, without accents and blanks"
        ) from error
    if constants.HF_HUB_OFFLINE:
        if not cached:
            raise _refused(name, "is not in the cache, and HF_HUB_OFFLINE is set", "unset it")
        return {"local_files_only": True}
    problem = _asked(name, revision)
    if problem is None or isinstance(problem, EntryNotFoundError):  # transformers tells which file a repository lacks
        return {}
    if not isinstance(problem, HfHubHTTPError):
        if cached:
            return {"local_files_only": True}
        endpoint, what = constants.ENDPOINT, first_line(problem)
        raise _refused(name, f"the hub cannot be reached ({endpoint}: {what})", "check the network") from problem
    raise _refused(name, *_answered(name, revision, problem)) from problem


def _asked(name: str, revision: str | None) -> Exception | None:
    """What went wrong with one request; the system's search for a host's address knows no limit, so a thread waits."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    found: list[Exception | None] = []

    def ask() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(name, FILE, revision=revision), timeout=SECONDS)
            found.append(None)
        except Exception as error:  # the hub's client and its transport have a dozen types
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS + 1)
    return found[0] if found else TimeoutError(f"no answer in {SECONDS} seconds")


def _answered(name: str, revision: str | None, error: Any) -> tuple[str, str]:
    """What the hub's refusal means, and what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return "is gated", f"ask for access on {constants.ENDPOINT}/{name}, then log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision {revision}", "set model.revision to one that it has"
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no such backbone, or it is private (HTTP {status})", "check the name, or `hf auth login`"
    if status in (401, 403):
        return f"the hub refuses the token (HTTP {status})", "log in again with `hf auth login`"
    return f"the hub answers HTTP {status}", "try again later"


def _refused(name: str, what: str, way: str) -> BackboneError:
    return BackboneError(
        f"model.name: cannot load {name}, which is no folder here: {what}; {way}, name a folder, or start with the"
        " bundled one: --model loraft-vi-tiny"
    )
