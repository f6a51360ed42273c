"""Make the characters of a stranger's text visible that would act on a terminal or hide what is written."""

import re

# C0 but tab and line feed, a carriage return that overwrites its line, DEL, C1, Unicode's ends of lines and paragraphs,
# what turns the direction of writing (Unicode's bidirectional marks, embeddings, overrides and isolates), and half a
# surrogate pair, which UTF-8 cannot hold.
HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)


def visible(text: str) -> str:
    r"""The text with its control characters as Python, YAML and JSON write them: ESC as `\x1b`, U+202E as `\u202e`."""
    return HIDDEN.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
