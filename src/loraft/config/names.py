"""How values and names stand in messages, and how long the names of folders may be."""

import hashlib
import os
from pathlib import Path
from typing import Any

# The short flags, and the keys of the config that they set.
SHORT = {
    "model": "model.name",
    "data": "data.source",
    "task": "prompt.task",
    "quant": "quant.method",
    "rank": "lora.r",
    "decode": "eval.decode",
    "calibrate": "eval.calibrate",
}
# The flag of each key that has one.
FLAGS = {key: flag for flag, key in SHORT.items()} | {
    "output.folder": "output",
    "data.extra_train": "add",
    **{key: key.rpartition(".")[2] for key in ("preset", "seed", "output", "fewshot.shots", "fewshot.repeats",
       "fewshot.selection", "sweep.ranks", "sweep.grid", "sweep.seeds", "sweep.joint", "sweep.search", "sweep.trials",
       "sweep.engine", "sweep.address")},
}  # fmt: skip
# Bytes of a run's folder in UTF-8. File systems allow 255; temporary and set-aside folders have longer names.
LONGEST = 200


def show(value: Any, most: int = 60) -> str:
    """A value as Python writes it, at most that many characters and, of a list, 6 items; a cut text ends in a quote."""
    try:
        more = isinstance(value, list) and len(value) > 6
        text = repr(value[:6])[:-1] + ", ...]" if more else repr(value)
    except ValueError:  # Python writes at most 4,300 digits
        text = "a number of thousands of digits"
    except RecursionError:
        text = "a value of many levels"
    end = f"...{text[-1]}" if isinstance(value, str) else "..."
    return text if len(text) <= most else text[: most - len(end)] + end


def flag_of(key: str) -> str:
    """The flag that sets a key, as it is typed; `flags` for a key that only Python code sets so."""
    return f"--{FLAGS[key]}" if key in FLAGS else "flags"


class Mistake(str):
    """A line of a report that knows how it ends: `hint` is what is allowed, "" where it is told with each line."""

    hint: str

    def __new__(cls, what: str, hint: str) -> "Mistake":
        """The line `WHAT; HINT`."""
        made = super().__new__(cls, f"{what}; {hint}" if hint else what)
        made.hint = hint
        return made

    def within(self, place: object) -> "Mistake":
        """The same line with the name of a file before it."""
        return Mistake(f"{place}: {self.removesuffix(f'; {self.hint}')}", self.hint)


def shortened(name: str, longest: int = LONGEST) -> str:
    """The name of a folder; where it has more bytes, its begin with a hash, which keeps different names apart."""
    if len(name.encode()) <= longest:
        return name
    begin = name.encode()[: longest - 9].decode(errors="ignore")
    return f"{begin}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def relative(path: str | Path, start: str | Path) -> str:
    """The way from a folder to a path, with "/" between folders; the path itself where it is on another drive."""
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:
        return Path(path).as_posix()
