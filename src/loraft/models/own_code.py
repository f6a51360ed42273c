"""Python code that comes with a backbone: what names it, and when it is refused.

`auto_map` in config.json or tokenizer_config.json names classes in such code, as `file.Class`, or as
`owner/name--file.Class` where the code lies in another repository. It runs with the user's rights, and so only with
`model.trust_remote_code`. A kernel of the hub, which config.json may ask for, is code too, and is always refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loraft.config.names import show
from loraft.errors import BackboneError, listed

# The keys by which a config names who computes attention and experts; any other name than these may be a kernel's.
ASKING = tuple(
    f"{prefix}{what}_implementation{suffix}"
    for prefix in ("", "_")
    for what in ("attn", "experts")
    for suffix in ("", "_internal")
)
IMPLEMENTATIONS = (
    "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "grouped_mm", "batched_mm",
)  # fmt: skip
FILES = ("config.json", "tokenizer_config.json")


def refuse_code_elsewhere(name: str, found: str, where: Mapping[str, Any]) -> None:
    """Refuses a backbone that names code in another repository, where no revision of its own holds it fast.

    Args:
        name: of the backbone, for the message.
        found: its folder or hub id.
        where: revision and cache folder.

    Raises:
        BackboneError: it does.
    """
    from transformers.utils import cached_file

    for file in FILES:
        missing_is_none = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_gated_repo": False}
        path = cached_file(found, file, **where, **missing_is_none, _raise_exceptions_for_connection_errors=False)
        for reference in _auto_map(Path(path)) if path else ():
            if "--" in reference:
                raise BackboneError(
                    f"model.name: {name} names code in another repository (got {reference} in auto_map of {file}), and"
                    " its revision is not fixed; download both, and put the code into the backbone's folder"
                )


def refuse_kernels(name: str, config: Any) -> None:
    """Refuses a config that asks for another implementation than transformers' own: it loads a kernel from the hub.

    Args:
        name: of the backbone, for the message.
        config: what its config.json says, or a part of it.

    Raises:
        BackboneError: it asks for one, at any depth.
    """
    if isinstance(config, list):
        config = dict(enumerate(config))
    for key, value in config.items() if isinstance(config, dict) else ():
        if key not in ASKING:
            refuse_kernels(name, value)
            continue
        for one in value.values() if isinstance(value, dict) else [value]:
            if one is not None and one not in IMPLEMENTATIONS:
                raise BackboneError(
                    f"model.name: {name} asks for code of the hub, or for what there is not (got {key} {show(one)} in"
                    f" config.json); allowed: {', '.join(IMPLEMENTATIONS)}, or take the key out of the file"
                )


def needed(name: str, error: Exception) -> str | None:
    """The message for a backbone that cannot be loaded without its own code; None where that is not the reason.

    Args:
        name: of the backbone.
        error: what transformers raised.
    """
    named = {file: _auto_map(Path(name).expanduser() / file) for file in FILES}
    asked = "trust_remote_code" in str(error)
    if not asked and not (any(named.values()) and "does not recognize this architecture" in str(error)):
        return None
    told = [f"{listed(references, 3)} in {file}" for file, references in named.items() if references]
    got = f" (got {' and '.join(told)})" if told else ""
    commit = "" if Path(name).expanduser().exists() else " with model.revision=COMMIT"
    return (
        f"model.name: {name} needs Python code that comes with it, since transformers does not know its model_type:"
        f" auto_map names it{got}, and it would run with your rights; read it, then set model.trust_remote_code=true"
        f"{commit}, or choose another backbone"
    )


def _auto_map(path: Path) -> list[str]:
    """The references of `auto_map` in a JSON file; none where there is no such file, or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["auto_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    values = found.values() if isinstance(found, dict) else [found]
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys(str(one) for one in flat if one is not None))
