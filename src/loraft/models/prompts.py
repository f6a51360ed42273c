"""What the encoder returns: prompts as token ids, demonstrations as they stand in them, and what was left out."""

import warnings
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from loraft.data.prompt import Task
from loraft.engine.token_rows import TokenRows
from loraft.errors import ConfigError
from loraft.models.plain_text import ChatTokenizer

Demonstrations = tuple[tuple[str, str], ...]  # pairs of sentence and label word, in the order of the prompt


@dataclass(frozen=True)
class Prompt:
    """Token ids of one prompt, up to where the answer begins.

    Attributes:
        ids: of the whole prompt.
        sentence: tokens that its whole sentence adds to the prompt.
        cut: by how many tokens the sentence was shortened, so that the prompt fits.
        shown, shown_cut: the same of the sentences of all its demonstrations.
    """

    ids: list[int]
    sentence: int = 0
    cut: int = 0
    shown: int = 0
    shown_cut: int = 0


class Prompts(Sequence[Prompt]):
    """Many prompts without a Python object for each; a `Prompt` is made when it is asked for.

    Attributes:
        ids: of each whole prompt.
    """

    def __init__(self) -> None:
        self.ids = TokenRows()
        self._counts = array("i")  # of each prompt the four numbers after its ids

    def append(self, *parts: Sequence[int], counts: tuple[int, int, int, int]) -> None:
        """Adds a prompt: its ids in parts; and `sentence`, `cut`, `shown` and `shown_cut`."""
        self.ids.append(*parts)
        self._counts.extend(counts)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        i = range(len(self))[index]
        if isinstance(i, range):
            return [self[number] for number in i]
        return Prompt(self.ids[i], *self._counts[4 * i : 4 * i + 4])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


class Shown(NamedTuple):
    """Demonstrations as they stand in a prompt, the tokens of their whole sentences, and those that were left out."""

    pairs: Demonstrations
    tokens: int = 0
    cut: int = 0


def refuse_special_tokens(task: Task, tokens: ChatTokenizer, tokenizer: str) -> None:
    """Refuses a prompt's own texts that hold a special token, which would be no token but its characters there.

    Raises:
        ConfigError: one of them does; the message names its key.
    """
    texts = {key: (getattr(task, key),) for key in ("system", "template", "answer_prefix", "yes_word", "no_word")}
    for key, values in {**texts, "label_words": task.label_words}.items():
        for value in values:
            for start, end in tokens.find(value):
                raise ConfigError(
                    f"prompt.{key}: holds a special token of {tokenizer} (got {value[start:end]!r}), which belongs into"
                    " a chat template only; leave it out"
                )


def cut_share(prompts: Sequence[Prompt]) -> float:
    """Returns the share of all sentences' tokens that were left out, in [0, 1]."""
    return sum(prompt.cut for prompt in prompts) / max(1, sum(prompt.sentence for prompt in prompts))


def warn_of_cuts(prompts: Sequence[Prompt], what: str) -> int:
    """Warns if sentences were shortened, and returns their number; `what` says which sentences, for the message."""
    cut = sum(prompt.cut > 0 for prompt in prompts)
    if cut:
        warnings.warn(
            f"{cut} of {len(prompts)} {what} sentences were shortened to fit prompt.max_length; of all their tokens"
            f" {cut_share(prompts):.1%} were left out",
            stacklevel=2,
        )
    return cut
