"""The synthetic sets are what they say, byte for byte the same each time, and load as any other data."""

import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from helpers.tiny import backbone, tokenizer

from loraft.config.resolve import resolve
from loraft.data.dataset import load_data
from loraft.evaluation.tables import before_after
from loraft.studies.fewshot.context import check_context
from loraft.studies.fewshot.demonstrations import draws
from loraft.training.pipeline import train

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


def test_a_training_that_says_one_label_for_everything_is_called_no_success(tmp_path: Path) -> None:
    backbone().save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    folder = make(Kind.IMBALANCED, tmp_path / "set", (300, 20, 100))
    settings = [f"model.name={tmp_path}/tiny", f"data.source={folder}", f"prompt.task={folder}/task.yaml",
                "data.text_column=text", f"output={tmp_path}", "train.max_steps=6", "train.eval_steps=6",
                "train.learning_rate=1e-2", "eval.bootstrap_samples=200"]  # fmt: skip
    with pytest.warns(UserWarning, match="never predicted: khẩn cấp"):
        found = train(resolve(overrides=settings), quiet=True)
    assert found.after.accuracy == 0.99  # which looks like a success
    assert found.baselines is not None
    assert found.baselines.rows[0].verdict == "cannot be told apart"  # from the majority label
    assert "cannot be told apart from the majority label" in found.baselines.verdict
    warned = "\n".join(found.warnings)
    for what in ("never predicted: khẩn cấp (1)", "fewer than 20 training rows: khẩn cấp (3)", "train.class_weights"):
        assert what in warned
    assert [str(cell) for cell in before_after(None, found.after).columns[2].cells][4] == "0.0000"  # F1 khẩn cấp


def test_a_prompt_that_offers_80_labels_leaves_room_for_demonstrations(tmp_path: Path) -> None:
    folder = make(Kind.MANY_LABELS, tmp_path, ROWS)
    settings = [f"data.source={folder}", f"prompt.task={folder}/task.yaml", "data.text_column=text"]
    config = resolve(overrides=settings)
    rows, test = load_data(config, "train"), load_data(config, "test")
    drawn = draws(rows, test, max_shots=4, repeats=1, selection="balanced", seed=1)
    found = check_context(config, rows, test, drawn, [0, 4])
    assert 700 < found[0] < found[4] <= 1024
