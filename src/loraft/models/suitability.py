"""Warn where a tokenizer does not suit the language of the sentences."""

import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

FEWEST, MOST = 20, 300  # sentences that a warning needs, and that are looked at
LOST = 0.001  # share of the characters
TOKENS_PER_WORD = 3


def warn_of_tokenizer(
    name: str,
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], list[list[int]]],
    decode: Callable[[list[list[int]]], list[str]],
) -> None:
    """Warns if characters of the sentences are lost in tokenisation, or if words take many tokens.

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
    tokens = sum(map(len, ids)) / max(sum(len(text.split()) for text in sample), 1)
    if tokens > TOKENS_PER_WORD:
        warnings.warn(
            f"{name}: its tokenizer takes {tokens:.1f} tokens a word in {len(sample)} sentences, so it hardly knows "
            "this language; a backbone made for it will be faster and better",
            stacklevel=2,
        )


def _letters(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
