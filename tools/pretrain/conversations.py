"""Compose chats for instruction tuning from Vietnamese opinions.

python tools/pretrain/conversations.py  # prints 20 samples
"""

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from opinions import LABELS, Material, Opinion, load_material, sample_opinion

Message = dict[str, str]
Turn = tuple[str, str]

SYSTEM = "You are a helpful assistant. You must fulfill the user request."
ZERO_SHOT = (
    "Predict the sentiment of the following input sentence.\n\n"
    'The response must begin with "Sentiment: ", followed by one of these keywords: '
    '"positive", "negative", or "neutral", to reflect the sentiment of the input '
    "sentence.\n\nSentence: {input}"
)
FEW_SHOT = (
    "Predict the sentiment of the following input sentence.\n"
    'The response must begin with "Sentiment: ", followed by one of these keywords: '
    '"positive", "negative", or "neutral", to reflect the sentiment of the input '
    "sentence.\n\nHere are a few examples:\n\n{few_shot_examples}\nSentence: {input}"
)
EXAMPLE = "Sentence: {sentence}\nSentiment: {label}\n"
SHOTS = (1, 2, 4, 8)
VI = {"positive": "tích cực", "negative": "tiêu cực", "neutral": "trung tính"}


def _fill(template: str, **slots: str) -> str:
    """Fill the named slots of a template, leaving any other brace alone."""
    for name, value in slots.items():
        template = template.replace("{" + name + "}", value)
    return template


def _choices(words: Sequence[str], vietnamese: bool, rng: random.Random) -> str:
    """Write the label words in a random order, as a list that reads well."""
    mixed = rng.sample(list(words), len(words))
    if rng.random() < 0.4:
        mixed = [f'"{word}"' for word in mixed]
    style = rng.random()
    if style < 0.2:
        return ", ".join(mixed)
    if style < 0.3:
        return "/".join(mixed)
    last = "hay" if vietnamese else "or"
    comma = "," if len(mixed) > 2 and not vietnamese else ""
    return f"{', '.join(mixed[:-1])}{comma} {last} {mixed[-1]}"


def zero_shot(material: Material, rng: random.Random) -> Turn:
    """Ask for the sentiment with the exact zero-shot prompt."""
    opinion = sample_opinion(material, rng)
    return ZERO_SHOT.format(input=opinion.text), f"Sentiment: {opinion.label}"


def few_shot(material: Material, rng: random.Random) -> Turn:
    """Ask for the sentiment with the exact few-shot prompt."""
    opinion = sample_opinion(material, rng)
    home = opinion.domain if rng.random() < 0.6 else None
    shots: list[Opinion] = []
    labels = rng.sample(LABELS, len(LABELS))
    for index in range(rng.choice(SHOTS)):
        label = labels[index % len(labels)] if rng.random() < 0.5 else None
        shots.append(sample_opinion(material, rng, domain=home, label=label))
    rng.shuffle(shots)
    examples = "\n".join(EXAMPLE.format(sentence=o.text, label=o.label) for o in shots)
    prompt = FEW_SHOT.format(few_shot_examples=examples, input=opinion.text)
    return prompt, f"Sentiment: {opinion.label}"


def reworded(material: Material, rng: random.Random) -> Turn:
    """Ask for the sentiment in other words, sometimes with demonstrations."""
    task = rng.choice(material.tasks["sentiment"])
    words = material.tasks["schemes"][rng.choice(task["schemes"])]
    two_way = (0.5, 0.5, 0.0)
    balance = two_way if len(words) == 2 else (0.45, 0.40, 0.15)
    vietnamese = _choices_in_vietnamese(task["q"])
    labels = _choices(words, vietnamese, rng)

    def ask(opinion: Opinion) -> Turn:
        word = words[LABELS.index(opinion.label)]
        prompt = _fill(task["q"], labels=labels, s=opinion.text)
        return prompt, _fill(task["a"], l=word)

    prompt, answer = ask(sample_opinion(material, rng, balance))
    if rng.random() < 0.12:
        shown = [ask(sample_opinion(material, rng, balance)) for _ in range(rng.randint(1, 3))]
        prompt = "\n\n".join([f"{q}\n{a}" for q, a in shown] + [prompt])
    return prompt, answer


def _choices_in_vietnamese(prompt: str) -> bool:
    """Tell whether a prompt is written in Vietnamese."""
    return any(ord(char) > 0x7F for char in prompt)


def which_domain(material: Material, rng: random.Random) -> Turn:
    """Ask which domain an opinion is about."""
    task = rng.choice(material.tasks["domain"])
    opinion = sample_opinion(material, rng)
    others = [name for name in material.domains if name != opinion.domain]
    names = [opinion.domain, *rng.sample(others, rng.randint(1, 4))]
    lang = task["lang"]
    words = [material.domains[name].names[lang] for name in names]
    labels = _choices(words, lang == "vi", rng)
    return _fill(task["q"], labels=labels, s=opinion.text), _fill(task["a"], l=words[0])


def which_aspect(material: Material, rng: random.Random) -> Turn:
    """Ask which group of aspects an opinion is about."""
    task = rng.choice(material.tasks["aspect"])
    opinion = sample_opinion(material, rng)
    while not opinion.aspect_group:
        opinion = sample_opinion(material, rng)
    table = material.tasks["aspects"]
    groups = [group.name for group in material.domains[opinion.domain].groups]
    lang = task["lang"]
    labels = _choices([table[name][lang] for name in groups], lang == "vi", rng)
    answer = _fill(task["a"], l=table[opinion.aspect_group][lang])
    return _fill(task["q"], labels=labels, s=opinion.text), answer


def yes_no(material: Material, rng: random.Random) -> Turn:
    """Ask whether a claim about the sentiment of an opinion is right."""
    task = rng.choice(material.tasks["yesno"])
    opinion = sample_opinion(material, rng)
    others = [label for label in LABELS if label != opinion.label]
    claim = opinion.label if rng.random() < 0.5 else rng.choice(others)
    word = VI[claim] if task["lang"] == "vi" else claim
    answer = task["right"] if claim == opinion.label else task["wrong"]
    return _fill(task["q"], l=word, s=opinion.text), answer


def short_task(material: Material, rng: random.Random) -> Turn:
    """Ask to copy, finish, count, point at a word or write an opinion."""
    tasks: Any = material.tasks
    kind = rng.choice(("copy", "continue", "count", "edge", "write", "write"))
    opinion = sample_opinion(material, rng)
    words = opinion.text.split()
    task = rng.choice(tasks[kind])
    if kind == "copy":
        return _fill(task, s=opinion.text), opinion.text
    if kind == "continue":
        cut = max(1, round(len(words) * rng.uniform(0.4, 0.8)))
        start, rest = " ".join(words[:cut]), " ".join(words[cut:])
        return _fill(task, s=start), rest or opinion.text
    if kind == "write":
        place = material.domains[opinion.domain].names[task["lang"]]
        label = VI[opinion.label] if task["lang"] == "vi" else opinion.label
        return _fill(task["q"], l=label, d=place), opinion.text
    plain = [word for word in words if any(map(str.isalnum, word))] or words
    slots = {"n": str(len(plain)), "first": plain[0], "last": plain[-1]}
    asked = " ".join(plain)
    return _fill(task["q"], s=asked), _fill(task["a"], **slots)


TASKS: dict[Callable[[Material, random.Random], Turn], float] = {
    zero_shot: 35,
    few_shot: 20,
    reworded: 25,
    which_domain: 5,
    which_aspect: 5,
    yes_no: 5,
    short_task: 5,
}


def _turn(material: Material, rng: random.Random) -> Turn:
    """Draw one question and its answer."""
    task = rng.choices(list(TASKS), weights=list(TASKS.values()))[0]
    return task(material, rng)


def sample_conversation(material: Material, rng: random.Random) -> list[Message]:
    """Draw one chat.

    Args:
        material: What `load_material` returned.
        rng: The only source of chance.

    Returns:
        Messages with ``role`` and ``content``; the last one is the assistant's.
    """
    messages: list[Message] = []
    roll = rng.random()
    if roll < 0.6:
        messages.append({"role": "system", "content": SYSTEM})
    elif roll < 0.75:
        system = rng.choice(material.tasks["systems"])
        messages.append({"role": "system", "content": system})
    turns = rng.choice((2, 2, 2, 3)) if rng.random() < 0.10 else 1
    for _ in range(turns):
        prompt, answer = _turn(material, rng)
        messages.append({"role": "user", "content": prompt})
        messages.append({"role": "assistant", "content": answer})
    return messages


def main(count: int = 20, seed: int = 0) -> None:
    """Print sample chats.

    Args:
        count: How many chats to print.
        seed: The seed of the generator.
    """
    material = load_material(Path(__file__).parent / "opinions")
    rng = random.Random(seed)
    for _ in range(count):
        for message in sample_conversation(material, rng):
            sys.stdout.write(f"[{message['role']}] {message['content']}\n")
        sys.stdout.write("-" * 72 + "\n")


if __name__ == "__main__":
    main()
