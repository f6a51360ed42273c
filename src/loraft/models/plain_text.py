"""Encode chats in which special tokens of the template are tokens, and the same strings in user text are plain text.

A tokenizer cuts a text at its special tokens before anything else, wherever they stand. `ChatTokenizer` therefore works
with a copy of the tokenizer in which every special token has a secret name: "<|eot_id|>" is called
"loraft9f86d081n3n" there, with the same id. `rename` puts the secret names into text of the chat template. User text is
left as it is: the copy knows no token "<|eot_id|>", so that its characters are encoded like any others.

The chat is still encoded as one text. Whatever a tokenizer does at the start of a text, beside a special token or over
a border between template and user text, it does here as well, so that the ids are those of the whole rendered chat.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from loraft.errors import BackboneError


class ChatTokenizer:
    """Encodes texts whose special tokens have their secret names.

    Attributes:
        tokens: the strings that are special tokens in a template, and plain text in user text; longest first.

    Args:
        tokenizer: of the backbone; it is not changed.
        template: the chat template; added tokens that it names are special tokens too, for example "<think>".

    Raises:
        BackboneError: the tokenizer has no file in the format of the `tokenizers` library.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        self.tokens = _special_tokens(tokenizer, template)
        self._pattern = re.compile("|".join(map(re.escape, self.tokens)) or "(?!)")  # (?!) matches nothing
        secret = secrets.token_hex(8)
        self._names = {token: f"loraft{secret}n{number}n" for number, token in enumerate(self.tokens)}
        if not tokenizer.is_fast:
            raise BackboneError(
                f"{tokenizer.name_or_path}: its tokenizer has no tokenizer.json (got {type(tokenizer).__name__}), so "
                "user text could not be kept apart from special tokens; add one, or choose another backbone"
            )
        backend = tokenizer.backend_tokenizer
        self._copy = type(backend).from_str(renamed(backend.to_str(), self._names))
        wanted = {name: tokenizer.convert_tokens_to_ids(token) for token, name in self._names.items()}
        if any(self._copy.token_to_id(name) != number for name, number in wanted.items()):
            raise BackboneError(
                f"{tokenizer.name_or_path}: user text could not be kept apart from the special tokens of its "
                "tokenizer; choose another backbone"
            )

    def rename(self, text: str) -> str:
        """Returns text of a chat template with the secret name of each special token."""
        return self._pattern.sub(lambda found: self._names[found[0]], text)

    def find(self, text: str) -> list[tuple[int, int]]:
        """Returns start and end of each special token in a text."""
        return [found.span() for found in self._pattern.finditer(text)]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text; only secret names are special tokens in them."""
        return [found.ids for found in self._copy.encode_batch(list(texts), add_special_tokens=False)]


def _special_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """The special tokens, and the added tokens that the template names; not those that are blank, such as a newline."""
    added = tokenizer.added_tokens_decoder.values()
    words = [
        *tokenizer.all_special_tokens,
        *(str(one.content) for one in added if one.special or one.content in template),
    ]
    return sorted({word for word in words if word and not word.isspace()}, key=lambda word: (-len(word), word))


def renamed(serialised: str, names: Mapping[str, str]) -> str:
    """Returns a tokenizer's JSON with another name for each of these tokens, and without padding and truncation."""
    content: dict[str, Any] = {**json.loads(serialised), "truncation": None, "padding": None, "post_processor": None}
    for token in content["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = content["model"]
    if isinstance(model["vocab"], dict):
        # A merge that makes a special token would make it from user text, too.
        if "merges" in model and not names.keys().isdisjoint(model["vocab"]):
            model["merges"] = [merge for merge in model["merges"] if names.keys().isdisjoint(_made_from(merge))]
        model["vocab"] = {names.get(word, word): number for word, number in model["vocab"].items()}
    else:  # Unigram: pairs of a word and its log-probability
        model["vocab"] = [[names.get(word, word), score] for word, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    return json.dumps(content, ensure_ascii=False)


def _made_from(merge: str | list[str]) -> tuple[str, str, str]:
    """The two parts of a merge, and what they make."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right, left + right
