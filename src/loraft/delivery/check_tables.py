"""What `loraft check` found, as tables and lines that are readable without colours, too."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from loraft.delivery.check import Checked
from loraft.display.table import SHOWN_LABELS, add_row, listing, number_table, shorten
from loraft.studies.dataset.tables import leaks
from loraft.visible import visible

SHARED, OWN, LOSS = "dim", "", "bold green"
COLOUR = {"error": "bold red", "warning": "yellow", "note": ""}


def tables(found: Checked) -> list[Table]:
    """The tables of the config, the labels, the rows, what splits share, and the answers."""
    preset = str(found.config["preset"])
    differs = [(key, _value(own), _value(other)) for key, (own, other) in found.differs.items()]
    made = [listing(["config", "value", f"preset {preset}"], differs or [("all keys", "as in the preset", "")])]
    names = [split.name for split in found.splits]
    labels = number_table("label", *names)
    by_label = sorted(found.splits[0].labels, key=found.splits[0].labels.__getitem__)  # of train, the rarest first
    for label in by_label[:SHOWN_LABELS]:
        add_row(labels, label, *(f"{s.labels[label]:,} ({s.labels[label] / s.rows:.1%})" for s in found.splits))
    if len(by_label) > SHOWN_LABELS:
        add_row(labels, f"{len(by_label) - SHOWN_LABELS} more", *[""] * len(names))
    rows = number_table("rows", *names)
    for head, key, form in (
        ("all", "rows", ","),
        ("with the sentence of an earlier row", "repeated", ","),
        ("with nearly that of an earlier row", "nearly", ","),
        ("with a sentence that has another label, too", "conflicting", ","),
        ("shortened to fit prompt.max_length", "shortened", ","),
        ("share of the tokens left out", "cut", ".1%"),
        ("tokens of the longest prompt and answer", "longest", ","),
    ):
        values = [getattr(split, key) for split in found.splits]
        add_row(rows, head, *("?" if value is None else format(value, form) for value in values))
    made += [labels, rows, leaks(found.leaks)]
    if found.answers:
        answers = listing(["answer", "all begin with", "then the tokens", "blank before the word"], [])
        for one in found.answers[:SHOWN_LABELS]:
            add_row(answers, one.answer, _line(one.shared), _tokens(one.tokens), one.blank)
        made.append(answers)
    return made


def prompts(found: Checked) -> Iterator[Text]:
    """Some training rows: [what all begin with], [their own part], and each [token with loss]."""
    if found.prompt is None:
        return
    beginning = _part(f"[{found.prompt.shared} tokens, in every training row, no loss: ", found.prompt.text, SHARED)
    yield beginning
    for row in found.prompt.rows:
        weight = f", weight {row.weight:.3g}" if row.weight != 1 else ""
        text = Text(visible(f"row {row.row}, {row.answer!r}: "))
        text += _part(f"[{row.own} tokens, no loss: ", row.text or f"the sentence of row {row.row}", OWN)
        yield text + " " + _part(f"[{len(row.loss)} with loss{weight}: ", _tokens(row.loss), LOSS)


def lines(found: Checked) -> Iterator[Text]:
    """Learning rate, speed, what was left out, and the findings."""
    if (rate := found.rate) is not None:
        usual = "the usual one" if rate.used == rate.usual else f"{rate.usual:g} is usual"
        yield Text(f"learning rate: {rate.used:g}, {usual} for {rate.weights:,} weights")
    if (speed := found.speed) is not None:
        train = found.config["train"]
        rows = train["per_device_train_batch_size"] * train["gradient_accumulation_steps"] / speed.seconds_per_step
        yield Text(
            f"speed: {rows:,.1f} rows and {speed.tokens_per_second:,.0f} tokens a second ({speed.method}, over"
            f" {speed.steps:,} steps); loraft plan says how long the whole training takes"
        )
    for what in found.left_out:
        yield Text(visible(f"left out: {what}"))
    for one in found.findings:
        yield Text(visible(f"{one.level}: {one.text}"), COLOUR[one.level])
    counts = [f"{n:,} {level}{'' if n == 1 else 's'}" for level in ("error", "warning") if (n := found.count(level))]
    nothing = "nothing that speaks against the training" + (" in what was looked at" if found.left_out else "")
    yield Text(f"found: {' and '.join(counts) or nothing}")


def _part(before: str, text: str, style: str) -> Text:
    return Text(before) + Text(_line(text), style) + Text("]")


def _tokens(texts: tuple[str, ...]) -> str:
    return "|".join(map(_line, texts))


def _line(text: str) -> str:
    return visible(text.replace("\n", "↵"))


def _value(value: Any) -> str:
    return shorten(_line(str(value)), 60)
