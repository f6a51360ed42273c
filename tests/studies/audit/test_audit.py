"""An audit end to end over a tiny backbone: folds, resuming, other rows, the record, refusals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.data import sentences, write_rows

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.data.dataset import load_data
from loraft.errors import ConfigError, DataError, RunError
from loraft.models.load import build
from loraft.runs.predictions import read_rows
from loraft.runs.run import Run
from loraft.runs.study_folders import AuditFolder
from loraft.studies.audit import fold_adapters
from loraft.studies.audit.audit import audit, audit_folder, folds_of, found_in, worst_rows
from loraft.studies.audit.fold_adapters import FoldAdapters, FoldTrainer
from loraft.studies.audit.records import AuditResult

pytestmark = pytest.mark.usefixtures("loads")

LABELS = ["negative", "neutral", "positive"]
# 45 sentences; three stand twice with a full stop, of which one has another label then.
PAIRS = [(text, LABELS[i % 3]) for i, text in enumerate(sentences(45))]
PAIRS += [(f"{text}.", label) for text, label in PAIRS[:2]] + [(f"{PAIRS[2][0]}.", "negative")]


def config(folder: Path, *overrides: str) -> Config:
    source = folder / "câu.csv"
    if not source.exists():
        write_rows(source, [{"sentence": text, "sentiment": label} for text, label in PAIRS])
    return resolve(
        overrides=["train.max_steps=2", "lora.r=2", "train.per_device_train_batch_size=8", "train.logging_steps=1",
                   f"data.source={source}", f"output={folder / 'runs'}", *overrides]
    )  # fmt: skip


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, loads: list[Any]) -> tuple[Config, AuditResult]:
    section = config(tmp_path_factory.mktemp("kiểm tra"))
    return section, audit(section, quiet=True)


def test_every_row_is_held_out_from_the_adapter_of_its_fold_as_are_its_copies(tmp_path: Path) -> None:
    section = config(tmp_path)
    split = load_data(section, "train")
    fold_N = folds_of(section, split)
    stems: dict[str, set[int]] = {}
    for text, fold in zip(split.texts, fold_N, strict=True):
        stems.setdefault(text.rstrip("."), set()).add(fold)
    assert max(map(len, stems.values())) == 1
    assert set(fold_N) == set(range(5))
    work = FoldAdapters(section, split, np.array(fold_N), *reversed(build(section)))
    assert [row.held_out for row in work._rows(range(5))] == fold_N  # in one pass
    for fold in range(5):  # one after the other
        learnt = [i for i, own in enumerate(fold_N) if own != fold]
        assert work._learnt(range(fold, fold + 1)).tolist() == learnt
        rows = work._rows(range(fold, fold + 1))
        assert [row.label for row in rows] == split.labels[learnt].tolist()
        assert 0 not in {row.held_out for row in rows}


def test_the_rows_are_kept_with_their_probabilities_and_weights_are_deleted(
    audited: tuple[Config, AuditResult],
) -> None:
    section, result = audited
    rows = read_rows(Run(Path(result.path)))
    assert [(row.row, row.text, row.label) for row in rows] == [(i + 1, *pair) for i, pair in enumerate(PAIRS)]
    assert all(abs(sum((row.probs or {}).values()) - 1) < 1e-6 for row in rows)
    assert result.rows == 48
    assert not list(Path(result.path).glob("folds-*"))
    assert AuditResult.of(audit_folder(section)) == result
    folder = audit_folder(section)
    assert "--split" not in folder.how_to_resume
    (Path(result.path) / "khác.cleaned.csv").touch()
    assert Path(result.path) / "khác.cleaned.csv" not in folder._own_entries()  # --force keeps it
    (Path(result.path) / "khác.cleaned.csv").unlink()


def test_a_finished_audit_is_shown_again_unless_the_rows_or_the_config_changed(
    audited: tuple[Config, AuditResult], loads: list[Any]
) -> None:
    section, result = audited
    before = len(loads)
    assert audit(section, quiet=True) == result
    assert len(loads) == before
    with pytest.raises(RunError, match="begun with another config"):
        audit(section.model_copy(update={"seed": 1, "name": Path(result.path).name}), quiet=True)
    source = Path(section.data.source)
    kept = source.read_bytes()
    try:
        source.write_bytes(kept.replace(b"negative", b"positive", 1))
        with pytest.raises(RunError, match="changed since this audit was begun; --force"):
            audit(section, quiet=True)
    finally:
        source.write_bytes(kept)


@pytest.mark.integration
def test_an_interrupted_audit_goes_on_with_the_fold_that_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, audited: tuple[Config, AuditResult]
) -> None:
    monkeypatch.setattr(fold_adapters, "joint_is_faster", lambda *given: False)
    whole = audit(config(tmp_path, "name=a"), quiet=True)
    trained: list[int] = []
    train = FoldTrainer.train

    def stopped(self: Any, *args: Any, **given: Any) -> Any:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(1)
        return train(self, *args, **given)

    with monkeypatch.context() as patch:
        patch.setattr(FoldTrainer, "train", stopped)
        with pytest.raises(KeyboardInterrupt):
            audit(config(tmp_path, "name=b"), quiet=True)
    folder = audit_folder(config(tmp_path, "name=b"))
    assert not folder.finished
    monkeypatch.setattr(FoldTrainer, "train", lambda self, **given: (trained.append(1), train(self, **given))[1])
    again = audit(config(tmp_path, "name=b"), quiet=True)
    assert len(trained) == 5
    assert replace(again, path=whole.path, seconds=whole.seconds) == whole
    probs = [[row.probs for row in read_rows(Run(Path(one.path)))] for one in (again, whole)]
    assert probs[0] == probs[1]


def test_an_adapter_of_one_pass_learns_nothing_from_its_fold(tmp_path: Path) -> None:
    """A label that only the rows of one fold have gets the same scores there, whatever it is."""
    section = config(tmp_path, "train.max_steps=3")
    split = load_data(section, "train")
    fold_N = folds_of(section, split)
    scores = []
    for shift in (0, 1):
        examples = [
            replace(one, label=(one.label + shift) % 3) if fold == 0 else one  # type: ignore[operator]
            for one, fold in zip(split.examples, fold_N, strict=True)
        ]
        encoder, base = build(section)
        folder = audit_folder(section.model_copy(update={"name": f"lần {shift}"}))
        work = FoldAdapters(section, replace(split, examples=examples), np.array(fold_N), base, encoder)
        scores.append(work.scores(folder)[0])
    own = np.array(fold_N) == 0
    np.testing.assert_allclose(scores[0][own], scores[1][own], atol=1e-5)
    assert np.abs(scores[0][~own] - scores[1][~own]).max() > 1e-3


def test_suspects_are_sorted_and_say_what_rows_alike_have(tmp_path: Path) -> None:
    section = config(tmp_path)
    split = load_data(section, "train")
    probs_NK = np.full((48, 3), 0.05)
    probs_NK[np.arange(48), split.labels] = 0.9
    wrong = [2, 5, 47]
    for i, p in zip(wrong, (0.02, 0.01, 0.03), strict=True):
        other = (split.labels[i] + 1) % 3
        probs_NK[i] = (1 - p) / 20
        probs_NK[i, [split.labels[i], other]] = p, 1 - p - (1 - p) / 20
    found = found_in(section, split, probs_NK, LABELS)
    assert [one.row for one in found["suspects"]] == [6, 3, 48]
    third = found["suspects"][1]
    assert (third.label, third.suggestion, third.alike) == ("positive", "negative", {"negative": 1})
    assert [one.rows for one in found["conflicts"]] == [{"positive": (3,), "negative": (48,)}]
    assert found["duplicates"] == 2
    assert found["agreement"] == pytest.approx(45 / 48)


def test_the_way_on_names_the_split(tmp_path: Path) -> None:
    folder = AuditFolder(tmp_path)
    folder.rows_path.write_text("0123  dữ liệu.csv\n", encoding="utf-8")
    assert folder.how_to_resume.endswith("audit.yaml --split 'dữ liệu.csv'")


def test_private_sentences_are_in_no_file_of_the_audit(tmp_path: Path) -> None:
    result = audit(config(tmp_path, "output.texts=false"), quiet=True)
    for path in Path(result.path).rglob("*"):
        if path.is_file():
            content = path.read_text(encoding="utf-8", errors="replace")
            assert not any(text in content or json.dumps(text)[1:-1] in content for text, _ in PAIRS), path


def test_the_worst_rows_are_those_of_the_lowest_probability(audited: tuple[Config, AuditResult]) -> None:
    section, result = audited
    rows = {row.row: (row.probs or {})[str(row.label)] for row in read_rows(Run(Path(result.path)))}
    worst = worst_rows(audit_folder(section), 5)
    assert max(rows[i] for i in worst) <= min(p for i, p in rows.items() if i not in worst)
    with pytest.raises(ConfigError, match="would leave no row"):
        audit(section, quiet=True, drop=48)


def test_what_cannot_be_audited_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"audit: counts one label a row"):
        audit(config(tmp_path, "prompt.kind=multilabel", "train.metric=macro_f1"))
    with pytest.raises(ConfigError, match=r"share one backbone.*got DoRA"):
        audit(config(tmp_path, "lora.use_dora=true"))
    pairs = [*(pair for pair in PAIRS if pair[1] != "neutral"), *((text, "neutral") for text in sentences(3, seed=1))]
    few = write_rows(tmp_path / "ít.csv", [{"sentence": text, "sentiment": label} for text, label in pairs])
    with pytest.raises(DataError, match=r"too few rows of a label .*neutral: 3 rows.*5 folds.*add rows"):
        audit(config(tmp_path, f"data.source={few}"))
    assert not (tmp_path / "runs").exists()
