"""The synthetic sets are what they say, byte for byte the same each time, and load as any other data."""

import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from loraft.config.resolve import resolve
from loraft.data.dataset import load_data

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))  # a script, no package

from make_sets import Kind, make

ROWS = (160, 80, 80)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_set_is_the_same_each_time_and_loads(kind: Kind, tmp_path: Path) -> None:
    folder, again = make(kind, tmp_path / "một", ROWS), make(kind, tmp_path / "hai", ROWS)
    other = make(kind, tmp_path / "ba", ROWS, seed=7)
    names = ["task.yaml", "test.jsonl", "train.jsonl", "validation.jsonl"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)
    assert (folder / "train.jsonl").read_bytes() != (other / "train.jsonl").read_bytes()
    config = resolve(overrides=[f"data.source={folder}", f"prompt.task={folder}/task.yaml", "data.text_column=text"])
    train, test = load_data(config, "train"), load_data(config, "test")
    assert (len(train), len(test)) == (160, 80)
    assert not set(train.texts) & set(test.texts)
    assert all(text == unicodedata.normalize("NFC", text) for text in train.texts)
    counts = Counter(train.labels.tolist()).values()
    if kind is Kind.MANY_LABELS:
        assert len(config.prompt.labels or []) == 80
        assert set(counts) == {2}
        assert len({label.split(":")[0] for label in config.prompt.labels or []}) == 10  # begin alike
    if kind is Kind.LONG_DOCUMENTS:
        assert max(len(text.split()) for text in test.texts) > 1000
    if kind is Kind.IMBALANCED:
        assert sorted(counts) == [2, 158]
