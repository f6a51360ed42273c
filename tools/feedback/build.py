"""Turn the hand-written text files into the bundled splits: check the form, drop near-duplicates, write JSONL.

    python tools/feedback/build.py FOLDER [--avoid CORPUS_FOLDER]

FOLDER holds train*.txt, validation*.txt and test*.txt with one row a line: sentiment id, topic id, tab, sentence.
With `--avoid`, rows that nearly repeat a sentence of that corpus ({train,validation,test}.jsonl) are dropped too.
Test is kept whole first, then validation, then train: a row that is too like one already kept goes.
"""

import json
import random
import unicodedata
from pathlib import Path

import typer

from loraft.bundled import bundled_data
from loraft.overlap import near_duplicates

THRESHOLD = 0.8


def read(folder: Path, split: str) -> list[dict[str, object]]:
    """Returns the rows of one split in a fixed shuffled order."""
    rows: list[dict[str, object]] = []
    for path in sorted(folder.glob(f"{split}*.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            ids, tab, text = unicodedata.normalize("NFC", line).partition("\t")
            if not tab or len(ids) != 2 or ids[0] not in "012" or ids[1] not in "0123" or not text.strip():
                raise SystemExit(f"{path}:{number}: not `<sentiment><topic><tab><sentence>` (got {line!r})")
            rows.append({"sentence": text.strip(), "sentiment": int(ids[0]), "topic": int(ids[1])})
    random.Random(7).shuffle(rows)
    return rows


def main(folder: Path, avoid: Path | None = None) -> None:
    """Write the splits and print what was dropped and the shares."""
    kept: list[str] = []
    if avoid is not None:
        for path in sorted(avoid.glob("*.jsonl")):
            kept += [json.loads(line)["sentence"] for line in path.read_text(encoding="utf-8").splitlines()]
    for split in ("test", "validation", "train"):
        rows = read(folder, split)
        texts = [str(row["sentence"]) for row in rows]
        bad = {pair.left for pair in near_duplicates(texts, kept, threshold=THRESHOLD)}
        bad |= {p.left for p in near_duplicates(texts, texts, threshold=THRESHOLD) if p.left > p.right}
        rows = [row for i, row in enumerate(rows) if i not in bad]
        kept += [str(row["sentence"]) for row in rows]
        out = bundled_data()["feedback"] / f"{split}.jsonl"
        out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        shares = [round(sum(r["sentiment"] == i for r in rows) / len(rows), 3) for i in range(3)]
        topics = [round(sum(r["topic"] == i for r in rows) / len(rows), 3) for i in range(4)]
        print(f"{split}: {len(rows)} rows, {len(bad)} dropped, sentiment {shares}, topic {topics}")


if __name__ == "__main__":
    typer.run(main)
