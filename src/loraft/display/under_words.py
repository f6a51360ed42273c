"""Show the words of a sentence with a number under each, in lines that fit a terminal."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from loraft.visible import visible

GAP = 2  # cells between two words


def under_words(words: Sequence[tuple[str, str, str]], width: int) -> Text:
    """Returns lines of words, and below each line a line of their numbers; a blank line between two pairs.

    Words wider than a line are cut, with an ellipsis. Control characters are made visible.

    Args:
        words: each with its number and the style of both, in rich's words.
        width: of the terminal, in cells.
    """
    pairs: list[tuple[Text, Text]] = []
    used = width
    for word, number, style in words:
        cells = [Text(visible(" ".join(word.split())), style), Text(number, style)]
        cells[0].truncate(width, overflow="ellipsis")
        wide = max(cell_len(cell.plain) for cell in cells)
        if used + GAP + wide > width:
            pairs.append((Text(), Text()))
            used = -GAP
        for line, cell in zip(pairs[-1], cells, strict=True):
            line.append(" " * (used + GAP - cell_len(line.plain)))
            line.append_text(cell)
        used += GAP + wide
    return Text("\n\n").join(Text("\n").join(pair) for pair in pairs)
