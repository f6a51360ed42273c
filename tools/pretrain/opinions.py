"""Compose Vietnamese opinions from hand-written material.

The folder ``opinions`` holds one YAML file per domain (aspects, predicates,
wishes and complete sentences), ``common.yaml`` (frames shared by all domains) and
``tasks.yaml`` (wordings of chat tasks). `sample_opinion` draws one labelled text.
"""

import random
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LABELS = ("positive", "negative", "neutral")
BALANCE = (0.45, 0.40, 0.15)
MIN_SYLLABLES, MAX_SYLLABLES = 1, 40

# Words that need a subject before them, so the aspect must stay.
BOUND = ("thì", "lại", "mà", "như vậy", "vẫn", "còn", "được cái", "thế nào", "ở đây", "làm mình", "đâu")
# Where a clause comes from, with its weight, for each label.
SOURCES: dict[str, dict[str, float]] = {
    "positive": {"predicate": 26, "adjective": 34, "deed": 14, "wanted": 6, "unwanted": 5, "clause": 15},
    "negative": {"predicate": 24, "adjective": 24, "deed": 13, "wish": 14, "wanted": 8, "unwanted": 4, "clause": 13},
    "neutral": {"predicate": 50, "adjective": 20, "clause": 30},
}


@dataclass(frozen=True)
class Group:
    """Aspects of one kind and the predicates that can be said of them."""

    name: str
    aspects: tuple[str, ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    deeds: tuple[str, ...]
    predicates: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Domain:
    """The material of one domain."""

    name: str
    names: Mapping[str, str]
    actors: tuple[str, ...]
    groups: tuple[Group, ...]
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]
    wishes: tuple[str, ...]
    clauses: Mapping[str, tuple[str, ...]]
    sentences: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Material:
    """All opinion material: domains, shared frames and chat wordings."""

    domains: Mapping[str, Domain]
    frames: Mapping[str, Mapping[str, tuple[str, ...]]]
    generic: Mapping[str, tuple[str, ...]]
    mixed: Mapping[str, tuple[str, ...]]
    openers: tuple[str, ...]
    closers: Mapping[str, tuple[str, ...]]
    particles: tuple[str, ...]
    abbreviations: Mapping[str, tuple[str, ...]]
    emoticons: Mapping[str, tuple[str, ...]]
    tasks: Mapping[str, Any]
    avoid: frozenset[str] = frozenset()  # texts, as `bare` gives them, that are never drawn


@dataclass(frozen=True)
class Opinion:
    """One labelled text; ``aspect_group`` is empty when no single group fits."""

    text: str
    label: str
    domain: str
    aspect_group: str


def _items(value: str | None, separators: str = "\n;") -> tuple[str, ...]:
    """Split a block of text into its entries."""
    text = unicodedata.normalize("NFC", value or "")
    return tuple(p.strip() for p in re.split(f"[{separators}]", text) if p.strip())


def _tables(value: Mapping[str, str], separators: str) -> dict[str, tuple[str, ...]]:
    """Split each block of a mapping."""
    return {str(key): _items(block, separators) for key, block in value.items()}


def _read(path: Path) -> dict[str, Any]:
    """Read one YAML file, all its text in NFC."""
    text = unicodedata.normalize("NFC", path.read_text(encoding="utf-8"))
    return dict(yaml.safe_load(text))


def _domain(raw: Mapping[str, Any]) -> Domain:
    """Build a domain from its YAML mapping."""
    groups = []
    for name, body in raw["groups"].items():
        aspects, good, bad, deeds = (_items(body.get(key)) for key in ("aspects", "good", "bad", "deeds"))
        groups.append(Group(name, aspects, good, bad, deeds, {label: _items(body[label]) for label in LABELS}))
    return Domain(
        name=raw["domain"],
        names={"vi": raw["vi"], "en": raw["en"]},
        groups=tuple(groups),
        **{key: _items(raw[key]) for key in ("actors", "wanted", "unwanted", "wishes")},
        clauses=_tables(raw["clauses"], "\n;"),
        sentences=_tables(raw["sentences"], "\n"),
    )


def load_material(folder: Path) -> Material:
    """Load every YAML file of ``folder``.

    Args:
        folder: The folder of the domain files, ``common.yaml`` and ``tasks.yaml``.

    Returns:
        The material, domains in alphabetical order.
    """
    common = _read(folder / "common.yaml")
    shared = ("common.yaml", "tasks.yaml")
    files = sorted(p for p in folder.glob("*.yaml") if p.name not in shared)
    domains = [_domain(_read(path)) for path in files]
    return Material(
        domains={domain.name: domain for domain in domains},
        frames={k: _tables(v, "\n") for k, v in common["frames"].items()},
        generic=_tables(common["generic"], "\n"),
        mixed=_tables(common["mixed"], "\n"),
        openers=_items(common["openers"]),
        closers=_tables(common["closers"], "\n;"),
        particles=_items(common["particles"]),
        abbreviations={k: tuple(v) for k, v in common["abbreviations"].items()},
        emoticons={k: tuple(v) for k, v in common["emoticons"].items()},
        tasks=_read(folder / "tasks.yaml"),
    )


def _pick(options: Mapping[str, float], rng: random.Random) -> str:
    """Draw a key in proportion to its weight."""
    return rng.choices(list(options), weights=list(options.values()))[0]


def _clause(
    material: Material, domain: Domain, group: Group, label: str, rng: random.Random, plain: bool = False
) -> tuple[str, str]:
    """Compose one clause that carries ``label``; return it and its aspect group.

    With ``plain`` the clause is a statement that starts with its aspect, so that a
    conjunction may come before it.
    """
    source = _pick(SOURCES[label], rng)
    if plain:
        source = rng.choice(("predicate", "adjective"))
    if source == "clause":
        return rng.choice(domain.clauses[label]), ""
    if source == "deed" and not group.deeds:
        source = "adjective"
    frames = material.frames[label][source]
    if plain:
        frames = tuple(frame for frame in frames if frame.startswith("{a} ") and "?" not in frame)
    frame = rng.choice(frames)
    slots = dict(zip(("g", "g2", "b", "b2"), (*rng.sample(group.good, 2), *rng.sample(group.bad, 2)), strict=True))
    lists = {"a": group.aspects, "d": group.deeds or ("",), "p": group.predicates[label], "w": domain.wishes}
    lists |= {"n": domain.wanted, "u": domain.unwanted, "actor": domain.actors}
    slots |= {name: rng.choice(options) for name, options in lists.items()}
    about = group.name if "{a}" in frame else ""
    rest = frame.removeprefix("{a} ")
    if rest != frame and "{" in rest and not plain and not rest.startswith(BOUND) and rng.random() < 0.2:
        frame = rest
    return frame.format(**slots), about


def _join(kind: str, first: str, second: str, m: Material, rng: random.Random) -> str:
    """Join two clauses with a connective of ``kind``."""
    first = first.rstrip(" ?")
    return rng.choice(m.mixed[kind]).format(x=first, y=second)


def _compose(m: Material, domain: Domain, label: str, rng: random.Random) -> tuple[str, str]:
    """Compose a text of one to three clauses; return it and its aspect group."""
    group, other = rng.choice(domain.groups), rng.choice(domain.groups)
    names: list[str] = []

    def clause(of: Group, says: str = label, plain: bool = False) -> str:
        text, name = _clause(m, domain, of, says, rng, plain)
        names.append(name)
        return text

    roll = rng.random()
    if label == "neutral" or roll < 0.45:
        text = clause(group)
        if label == "neutral" and roll > 0.75:
            text = _join("add", text, clause(group), m, rng)
    elif roll < 0.70:
        text = _join("add", clause(group), clause(group if roll < 0.62 else other), m, rng)
    elif roll < 0.77:
        text = _join("add", clause(group), clause(other), m, rng)
        text = _join("add", text, clause(rng.choice(domain.groups)), m, rng)
    elif roll < 0.80:
        text = f"{rng.choice(domain.clauses['neutral'])} , {clause(group)}"
    elif roll < 0.84:
        tail = rng.choice(m.generic[label]).format(actor=rng.choice(domain.actors))
        text = _join("cause" if roll < 0.82 else "add", clause(group), tail, m, rng)
    elif label == "negative":
        text = _join("turn", clause(group, "positive", plain=True), clause(other), m, rng)
    else:
        text = _join("concede", clause(group, "negative", plain=True), clause(other), m, rng)
    if rng.random() < 0.12:
        text = f"{rng.choice(m.openers)} {text}"
    if rng.random() < 0.10:
        closer = rng.choice(m.closers[label]).format(actor=rng.choice(domain.actors))
        text = f"{text}{rng.choice((' , ', ' . '))}{closer}"
    return text, names[0] if len(set(names)) == 1 else ""


def strip_marks(text: str) -> str:
    """Remove every Vietnamese diacritic."""
    bare = text.replace("đ", "d").replace("Đ", "D")
    decomposed = unicodedata.normalize("NFD", bare)
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def _typo(text: str, rng: random.Random) -> str:
    """Drop, double or swap one letter of the text."""
    at = rng.randrange(max(1, len(text) - 1))
    pair = text[at : at + 2]
    if not pair.isalpha():
        return text
    return text[:at] + rng.choice((pair[0], pair[0] + pair, pair[::-1])) + text[at + 2 :]


def _surface(text: str, label: str, m: Material, rng: random.Random) -> str:
    """Give a clean text the look of what people type."""
    plain = rng.random() < 0.68  # lower case, spaces around the punctuation
    text = re.sub(r"\s*([,.!?;:])(?=\s|$)", r" \1", text).strip()
    if rng.random() < 0.06 and text[-1] not in "?.!":
        text = f"{text} {rng.choice(m.particles)}"
    text = text.lower() if plain or rng.random() < 0.5 else text[0].upper() + text[1:]
    if rng.random() < 0.06:
        for full, short in m.abbreviations.items():
            if rng.random() < 0.6:
                text = re.sub(rf"\b{full}\b", rng.choice(short), text)
    if rng.random() < 0.02:
        text = strip_marks(text)
    if rng.random() < 0.02:
        text = _typo(text, rng)
    ended = text[-1] in string.punctuation
    if ended and text.endswith(" .") and rng.random() < 0.2:
        text = text[:-2]
    elif not ended and rng.random() < 0.75:
        text = f"{text} {'!' if rng.random() < 0.04 else '.'}"
    if not plain and rng.random() < 0.8:
        text = re.sub(r" ([,.!?;:])(?=\s|$)", r"\1", text)
    if rng.random() < 0.02:
        text = f"{text} {rng.choice(m.emoticons[label])}"
    return unicodedata.normalize("NFC", text)


def bare(text: str) -> str:
    """Return the words of a text in lower case, for telling whether two texts say the same."""
    return " ".join(re.findall(r"\w+", text.lower()))


def sample_opinion(
    material: Material,
    rng: random.Random,
    balance: Sequence[float] = BALANCE,
    domain: str | None = None,
    label: str | None = None,
) -> Opinion:
    """Draw one opinion.

    Args:
        material: What `load_material` returned.
        rng: The only source of chance.
        balance: Shares of positive, negative and neutral opinions.
        domain: The domain to draw from; any when None.
        label: The label to draw; by ``balance`` when None.

    Returns:
        The text (NFC), its label, its domain and its aspect group.
    """
    label = label or rng.choices(LABELS, weights=list(balance))[0]
    chosen = material.domains[domain or rng.choice(list(material.domains))]
    while True:
        roll = rng.random()
        group = ""
        if roll < 0.36:
            text = rng.choice(chosen.sentences[label])
        elif roll < 0.41:
            text = rng.choice(material.generic[label]).format(actor=rng.choice(chosen.actors))
        else:
            text, group = _compose(material, chosen, label, rng)
        text = _surface(text, label, material, rng)
        if bare(text) in material.avoid:
            continue
        if MIN_SYLLABLES <= len(re.findall(r"\w+", text)) <= MAX_SYLLABLES:
            return Opinion(text, label, chosen.name, group)
