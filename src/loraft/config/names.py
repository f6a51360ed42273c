"""How values and names stand in messages, and how long the names of folders may be."""

import hashlib
from typing import Any

# Bytes of a run's folder in UTF-8. File systems allow 255; temporary and set-aside folders have longer names.
LONGEST = 200


def show(value: Any) -> str:
    """A value as Python writes it, at most 60 characters and, of a list, 6 items."""
    try:
        more = isinstance(value, list) and len(value) > 6
        text = repr(value[:6])[:-1] + ", ...]" if more else repr(value)
    except ValueError:  # Python writes at most 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def shortened(name: str, longest: int = LONGEST) -> str:
    """The name of a folder; where it has more bytes, its begin with a hash, which keeps different names apart."""
    if len(name.encode()) <= longest:
        return name
    begin = name.encode()[: longest - 9].decode(errors="ignore")
    return f"{begin}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
