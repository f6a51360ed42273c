r"""Close a block of thoughts that a chat template leaves open where the assistant's answer begins.

Templates of reasoning models end the prompt inside such a block, and a classifier answers without thoughts:

    <|im_start|>assistant\n<think>\n                                the prompt of Qwen3.5
    <|im_start|>assistant\n<think>\n\n</think>\n\n                  what the same template prints before an answer

No list has all names of such blocks, so the template itself is asked first. A tag or token at the end of the prompt is
no opening where the answer of a whole chat stands right behind it, unless its name speaks of thoughts. Where the whole
chat closes it before the answer, the prompt is that of the whole chat. Elsewhere it is open if its name speaks of
thoughts, or if it has a counterpart.
"""

import re

PIECE = re.compile(r"(?P<left><[|｜]?|[\[◁])(?P<name>[^<>\[\]◁▷|｜\n]+)(?P<right>[|｜]?>|[\]▷])")
# The end of a prompt: such a piece; or one and a word after it, as in "<|channel|>analysis<|message|>".
LAST_PIECE = re.compile(PIECE.pattern + r"\s*\Z")
LAST_WORD = re.compile(r"[>\]▷](?P<name>[^<>\[\]◁▷|｜\n]+)(?:[<\[◁][^<>\[\]◁▷\n]+[>\]▷])?\s*\Z")
NAMES = "think|thought|reason|reflect|analysis|scratch|ponder|monologue|deliberat"
THOUGHTS = re.compile(rf"{NAMES}|(?<![a-z])(?:cot|inner)(?![a-z])", re.IGNORECASE)
CLOSES = re.compile(
    "/|(?<![a-z])(?:(?:no|non|none|not|without|skip|empty|off|end|stop|close|suffix)(?![a-z])"
    rf"|(?:no|non|end(?:of)?)(?={NAMES}|cot))",
    re.IGNORECASE,
)
ANSWERS = re.compile(
    "answer|assistant|bot|content|final|header|(?<![a-z])im(?![a-z])|message|model|output|reply|response|role|text|turn",
    re.IGNORECASE,
)
BORDERS = re.compile(r"(?<![a-z])(?:begin|start|open|prefix|end|stop|close|suffix|of)(?![a-z])|[\W_]", re.IGNORECASE)


def close_thoughts(prompt: str, tail: str, answered: str, known: str) -> str | None:
    """Returns the prompt with an open block of thoughts closed; as it is if none is open.

    Args:
        prompt: the chat up to where the answer begins.
        tail: what of it stands after the user's message.
        answered: a whole chat up to the answer; empty if the template does not print one.
        known: where a closing tag or token may be found: the template and the added tokens, one a line.

    Returns:
        None if nothing says how the block ends.
    """
    piece, word = LAST_PIECE.search(tail), LAST_WORD.search(tail)
    if piece and _closes(piece):
        return prompt
    if word and THOUGHTS.search(word["name"]) and not CLOSES.search(word["name"]):
        name, piece = word["name"], None
    elif piece:
        name = piece["name"]
    else:
        return prompt
    start = prompt.rstrip()
    if answered.startswith(start):
        if piece and _closing(piece, answered[len(start) :]):
            return answered
        if not THOUGHTS.search(name):
            return prompt
        answered = ""  # it holds the answer as a thought: no layout to follow
    closing = _closing(piece, known) if piece else None
    if not THOUGHTS.search(name) and (closing is None or not answered or ANSWERS.search(name)):
        return prompt
    if closing is None and piece and piece.group("left", "right") == ("<", ">"):  # tags are always closed so
        closing = f"</{name}>"
    # In the layout of an empty block; or else in that of a chat without thoughts.
    return f"{start}\n\n{closing}\n\n" if closing is not None else answered or None


def _closes(piece: re.Match[str]) -> bool:
    """Whether it ends a block, as "<|think_end|>" and "<channel|>" do, or switches thoughts off, as "<nothink>"."""
    return CLOSES.search(piece["name"]) is not None or piece.group("left", "right") == ("<", "|>")


def _closing(opening: re.Match[str], text: str) -> str | None:
    """The first piece of a text that ends the block: with the same brackets and name, but for words like "end"."""
    brackets = opening.group("left", "right")
    wanted = ("<", "|>") if brackets == ("<|", ">") else brackets  # <|x> ... <x|>
    core = BORDERS.sub("", opening["name"])
    pieces = (piece for piece in PIECE.finditer(text) if piece.group("left", "right") == wanted and _closes(piece))
    return next((piece[0] for piece in pieces if BORDERS.sub("", piece["name"]) == core), None)
