"""Turn pydantic's validation errors into one line for each wrong key.

Form: `<key>: <what> (got X, from <file or option>); <what is allowed, or the most similar known key>`.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from loraft.config.names import Mistake, show
from loraft.config.schema import Config
from loraft.config.section import Section
from loraft.errors import ConfigError, listed

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# Names of other tools and of loraft's short flags, for which difflib would suggest a wrong key or none.
OTHER_NAMES = {
    "alpha": "lora.lora_alpha",
    "batch_size": "train.per_device_train_batch_size",
    "dropout": "lora.lora_dropout",
    "epochs": "train.num_train_epochs",
    "lr": "train.learning_rate",
    "rank": "lora.r",
    "steps": "train.max_steps",
}


def known_keys(section: type[BaseModel] = Config) -> list[str]:
    """Every key that can be set, with dots between section and key, in the order of the config."""
    keys: list[str] = []
    for name, info in section.model_fields.items():
        kind = as_section(info.annotation)
        keys += [name] if kind is None else [f"{name}.{key}" for key in known_keys(kind)]
    return keys


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def as_section(annotation: Any) -> type[Section] | None:
    """The annotation if it is a section of the config, else None."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def report(error: ValidationError, model: type[BaseModel], origin: Callable[[str], str]) -> list[Mistake]:
    """One line for each wrong key.

    Args:
        error: what pydantic found.
        model: the model that was validated.
        origin: from a dotted key to the file or option that set its value, "" if unknown.
    """
    known = known_keys(model)
    by_key: dict[str, tuple[str, Any, list[str]]] = {}
    for item in error.errors(include_url=False):
        key = _dotted(item["loc"], model)
        what, allowed = _explain(item, key, known)
        by_key.setdefault(key, (what, item["input"], []))[2].append(allowed)
    return [
        mistake(key, what, got, origin(key), " or ".join(dict.fromkeys(filter(None, allowed))), key in known)
        for key, (what, got, allowed) in by_key.items()
    ]


def checked(value: str, section: str, key: str, flag: str) -> str:
    """The value of an option that takes what a key of the config takes, as the config would hold it.

    Raises:
        ConfigError: the key does not take it.
    """
    kind = as_section(Config.model_fields[section].annotation)
    assert kind is not None
    try:
        return str(getattr(kind.model_validate({key: value}), key))
    except ValidationError as error:
        told = report(error, kind, lambda key: "")[0]
        raise ConfigError(flag + told.removeprefix(key)) from None


def mistake(where: str, what: str, got: Any, origin: str, allowed: str, is_key: bool = False) -> Mistake:
    """One line of a report. Of a section the values are left out, which would be too long; `is_key`: it is none."""
    where = where if len(where) <= 100 else where[:60] + "..."
    source = f", from {origin}" if origin else ""
    shown = f" (got {show(got)}{source})" if is_key or not isinstance(got, dict) else ""
    return Mistake(f"{where}: {what}{shown}", allowed)


def together(mistakes: Sequence[str], most: int = 10) -> str:
    """The message that tells mistakes together: each and each hint of a `Mistake` once, of many the first ones.

    A mistake by itself comes back as it is.
    """
    if len(mistakes) == 1:
        return mistakes[0]
    lines: list[str] = []
    said = set()
    for line in dict.fromkeys(mistakes):
        hint = line.hint if isinstance(line, Mistake) else ""
        repeated = hint in said and not hint.startswith("did you mean")
        lines.append(line.removesuffix(f"; {hint}") if repeated else line)
        said.add(hint)
    more = [f"... and {len(lines) - most:,} more mistakes"] if len(lines) > most else []
    return "\n".join([*lines[:most], *more])


def nearest(key: str, known: Sequence[str]) -> str:
    """`did you mean ...?` with the most similar of the known keys or names, "" if none is similar.

    The order of the candidates: the same last part in another section, a name of `OTHER_NAMES`, a similar key, a key
    whose last part is similar.
    """
    leaf = key.split(".")[-1]
    leaves = [name.split(".")[-1] for name in known]
    close_leaves = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)
    candidates = [
        *[name for name in known if name.endswith(f".{leaf}")],
        *[name for name in known if name == OTHER_NAMES.get(leaf)],
        *difflib.get_close_matches(key, known, n=1, cutoff=0.7),
        *[name for name, its_leaf in zip(known, leaves, strict=True) if its_leaf in close_leaves],
    ]
    return f"did you mean {candidates[0]}?" if candidates else ""


def _explain(item: "ErrorDetails", key: str, known: Sequence[str]) -> tuple[str, str]:
    kind, message = item["type"], item["msg"]
    sections = list(dict.fromkeys(name.split(".")[0] for name in known if "." in name))
    if kind == "extra_forbidden" and key in known:  # "lora.r: 8" at the top of a file
        return "is a dotted key", "in a file, write the section and indent the key below it"
    if kind == "extra_forbidden":
        return "unknown key", nearest(key, [*known, *sections]) or "`loraft config` shows the known keys"
    if kind == "model_type":
        keys = [name for name in known if name.startswith(f"{key}.")]
        return "is a section, not a value", f"set a key in it, for example {keys[0]}"
    if kind == "invalid_key":
        return "is a key that is not text", "YAML reads unquoted true, false and numbers so; write a known key"
    if kind == "value_error":
        what, _, allowed = message.removeprefix("Value error, ").partition("; ")
        return what, allowed
    words = re.findall(r"'([^']*)'", item.get("ctx", {}).get("expected", "")) if kind == "literal_error" else []
    if len(words) > 10:
        return "not allowed", nearest(str(item["input"]), words) or f"should be one of {listed(words)}"
    if kind == "int_parsing_size":
        return "not allowed", "should be a number of fewer digits"
    if kind == "list_type" and isinstance(item["input"], str):
        return "not allowed", f"should be a list, for example [{item['input'][:60]}]"
    return "not allowed", message.removeprefix("Input ").partition(", unable to parse ")[0]


def _dotted(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """The dotted key of an error. Of what pydantic adds below a key, list indices are kept, types it tried are not."""
    dotted = ""
    kind: type[BaseModel] | None = model
    for part in location:
        if kind is not None:
            dotted += f".{part}" if dotted else str(part)
            info = kind.model_fields.get(str(part))
            kind = as_section(info.annotation) if info is not None else None
        elif isinstance(part, int):
            dotted += f"[{part}]"
    return dotted
