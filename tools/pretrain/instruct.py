"""The text of stage 2: chats and opinions, in windows of 512 tokens.

Three kinds: chats (`conversations.py`, with and without demonstrations), opinions with their labels written one after
the other, and the part of the stage-1 corpus that is densest in words of opinion, so that the language is not
forgotten. Every token counts a little (`pretrain.OTHER_WEIGHT`), for the language of opinions is new; answers,
end-of-turn tokens and the labels behind demonstrations are marked and count fully.
"""

import random
from collections.abc import Iterator

import numpy as np
from conversations import sample_conversation
from opinions import Material, sample_opinion
from transformers import PreTrainedTokenizerFast

LENGTH = 512
SHARES = {"chat": 0.42, "labelled": 0.25, "corpus": 0.33}  # of the windows
ANSWER = 0x8000  # the bit of a uint16 token that marks an answer
DATES = [
    f"{day:02d} {month} {year}"
    for day in (1, 9, 17, 26)
    for month in ("Jan", "Apr", "Jul", "Nov")
    for year in (2023, 2024, 2026)
]


def answer_mask(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> np.ndarray:
    """Returns which tokens are answers: assistant turns with their end, and label words behind `Sentiment:`."""
    start, end, stop = (
        tokenizer.convert_tokens_to_ids(f"<|{n}|>") for n in ("start_header_id", "end_header_id", "eot_id")
    )
    assistant = tokenizer("assistant", add_special_tokens=False)["input_ids"]
    sentiment = tokenizer("Sentiment:", add_special_tokens=False)["input_ids"]
    labels = {tokenizer(f" {w}", add_special_tokens=False)["input_ids"][0] for w in ("positive", "negative", "neutral")}
    header = [start, *assistant, end]
    mask = np.zeros(len(ids), dtype=bool)
    inside = False
    for i in range(len(ids)):
        if inside:
            mask[i] = True
            inside = ids[i] != stop
        elif ids[max(0, i - len(header) - 1) : i - 1] == header:  # header and the first of two line breaks lie behind
            inside = True
        elif ids[i] in labels and ids[max(0, i - len(sentiment)) : i] == sentiment:
            mask[i] = True
    return mask


def chat_text(tokenizer: PreTrainedTokenizerFast, material: Material, rng: random.Random) -> str:
    """Returns one rendered chat; the date is mostly the one that loraft pins."""
    date = "26 Jul 2024" if rng.random() < 0.7 else rng.choice(DATES)
    return str(tokenizer.apply_chat_template(sample_conversation(material, rng), tokenize=False, date_string=date))


def labelled_text(material: Material, rng: random.Random) -> str:
    """Returns a page of opinions, each with its label, as demonstrations are written."""
    rows = [sample_opinion(material, rng) for _ in range(rng.randint(8, 16))]
    return (
        "<|begin_of_text|>" + "\n".join(f"Sentence: {o.text}\nSentiment: {o.label}\n" for o in rows) + "<|end_of_text|>"
    )


def windows(
    tokenizer: PreTrainedTokenizerFast, material: Material, stream: np.ndarray, rng: random.Random
) -> Iterator[np.ndarray]:
    """Yields LENGTH + 1 tokens, answers marked; whole chats are put behind each other until a window is full."""
    kinds, shares = list(SHARES), list(SHARES.values())
    while True:
        kind = rng.choices(kinds, shares)[0]
        if kind == "corpus":
            at = rng.randrange(len(stream) - LENGTH - 1)
            yield np.asarray(stream[at : at + LENGTH + 1])
            continue
        ids: list[int] = []
        while len(ids) <= LENGTH:
            text = chat_text(tokenizer, material, rng) if kind == "chat" else labelled_text(material, rng)
            piece = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(piece) <= LENGTH:
                ids += piece
        marked = np.array(ids, dtype=np.uint16) | np.where(answer_mask(tokenizer, ids), ANSWER, 0).astype(np.uint16)
        yield marked[: LENGTH + 1]
