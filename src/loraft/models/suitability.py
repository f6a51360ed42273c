"""Warn where a tokenizer does not suit the language of the sentences."""

import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

FEWEST, MOST = 20, 300  # sentences that a warning needs, and that are looked at
LOST = 0.001  # share of the characters
# More tokens than these, and the tokenizer hardly knows the language. Scripts without spaces have no words to count;
# there it is half of the three bytes that UTF-8 gives a character, so less than half of the bytes are merged.
PER_WORD, PER_CHARACTER = 3, 1.5
# How Unicode's names of the characters of such scripts and of their punctuation begin. Korean has spaces.
WITHOUT_SPACES = (
    "CJK ", "HIRAGANA ", "KATAKANA", "IDEOGRAPHIC ", "FULLWIDTH ", "THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ",
)  # fmt: skip


def warn_of_tokenizer(
    name: str,
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], list[list[int]]],
    decode: Callable[[list[list[int]]], list[str]],
) -> None:
    """Warns if characters of the sentences are lost in tokenisation, or if words take many tokens.

    A word is what stands between spaces. In scripts without spaces (Chinese, Japanese, Thai, ...) every character
    counts by itself, with its combining marks.

    A character is lost if decoding does not bring it back: it became unknown, or lost its diacritic. Case, spaces and
    other forms of the same letter (Unicode's NFKC) do not count.

    Args:
        name: of the backbone, for the message.
        texts: at least `FEWEST` sentences, from which at most `MOST` are taken at equal distances.
        encode: returns the ids of each sentence.
        decode: returns the text of each list of ids, without special tokens.
    """
    sample = texts[:: -(-len(texts) // MOST)]
    ids = encode(sample)
    before, after = (Counter(_letters("".join(part))) for part in (sample, decode(ids)))
    lost = (before - after).total() / max(before.total(), 1)
    if lost > LOST:
        worst = ", ".join(letter for letter, _ in (before - after).most_common(5))
        warnings.warn(
            f"{name}: its tokenizer loses {lost:.1%} of the characters of {len(sample)} sentences ({worst}); choose a "
            "backbone for this language",
            stacklevel=2,
        )
    words, characters = _words_and_characters(sample)
    count = max(words + characters, 1)
    rate, limit = sum(map(len, ids)) / count, (PER_WORD * words + PER_CHARACTER * characters) / count
    if round(rate, 2) > round(limit, 2):  # as printed
        unit = "word" if words > characters else "character"
        warnings.warn(
            f"{name}: its tokenizer takes {rate:.2f} tokens a {unit} in {len(sample)} sentences, more than "
            f"{limit:.2f}, so it hardly knows this language; a backbone made for it will be faster and better",
            stacklevel=2,
        )


def _words_and_characters(texts: Sequence[str]) -> tuple[int, int]:
    """How many words are in scripts with spaces, and how many characters in scripts without, marks not counted."""
    words = characters = 0
    for text in texts:
        unspaced = {letter for letter in text if unicodedata.name(letter, "").startswith(WITHOUT_SPACES)}
        characters += sum(letter in unspaced and unicodedata.category(letter)[0] != "M" for letter in text)
        words += len("".join(" " if letter in unspaced else letter for letter in text).split())
    return words, characters


def _letters(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
