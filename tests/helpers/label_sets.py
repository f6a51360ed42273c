"""A task with any number of labels a row, its encoder, and two data sets: made sentences, and the bundled feedback."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from helpers.config import config
from helpers.data import write_rows
from helpers.tiny import tokenizer
from loraft.bundled import bundled_data
from loraft.config.schema import Config
from loraft.data.prompt import Task
from loraft.models.encoder import Encoder

# What a sentence says of each label; a made sentence puts 0 to 3 of them together.
PARTS = {
    "giảng viên": "thầy giảng bài nhiệt tình",
    "cơ sở vật chất": "phòng học nóng và máy chiếu mờ",
    "học phí": "học phí tăng quá nhanh",
}
LABELS = [*PARTS]
NOTHING = "em không có ý kiến"
SETS = [(), (1,), (0, 1, 2), (2,), (0, 2), (0,)]  # of six rows: 0, 1, 3, 1, 2 and 1 labels
TOPICS = ["giảng viên", "chương trình", "cơ sở vật chất", "khác"]  # of the bundled feedback, in the order of its ids
SENTIMENTS = ["tiêu cực", "trung tính", "tích cực"]


def made_sentence(labels: tuple[int, ...], number: int) -> str:
    said = " , ".join(PARTS[LABELS[k]] for k in labels) or NOTHING
    return f"{said} , tuần {number} ."


def made_rows(count: int) -> list[dict[str, object]]:
    """Rows with 0 to 3 labels."""
    sets = [SETS[i % len(SETS)] for i in range(count)]
    return [{"sentence": made_sentence(one, i), "nhãn": [LABELS[k] for k in one]} for i, one in enumerate(sets)]


def feedback_rows(split: str) -> list[dict[str, object]]:
    """The bundled rows, each with two of seven labels: its topic and its sentiment."""
    lines = (bundled_data()["feedback"] / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = map(json.loads, lines)
    return [{"sentence": r["sentence"], "nhãn": [TOPICS[r["topic"]], SENTIMENTS[r["sentiment"]]]} for r in rows]


def task_file(folder: Path, labels: list[str] = LABELS) -> Path:
    path = folder / "nhan.yaml"
    path.write_text(f"kind: multilabel\nlabels: [{', '.join(labels)}]\nlabel_column: nhãn\n", encoding="utf-8")
    return path


def made_config(folder: Path, *overrides: str, rows: int = 48) -> Config:
    """A training of seconds on made rows in that folder."""
    for split, count in (("train", rows), ("validation", 24), ("test", 30)):
        write_rows(folder / f"{split}.jsonl", made_rows(count))
    given = [f"data.source={folder}", f"prompt.task={task_file(folder)}", *overrides]
    return config(folder / "runs", "eval.baselines=off", *given)


@lru_cache
def task() -> Task:
    words = {"labels": tuple(LABELS), "label_words": tuple(LABELS), "yes_word": "có", "no_word": "không"}
    texts = {"system": "", "template": "Văn bản: {input}", "few_shot_template": "", "example_template": ""}
    return Task(name="nhãn", kind="multilabel", answer_prefix="", **words, **texts)  # type: ignore[arg-type]


@lru_cache
def encoder() -> Encoder:
    return Encoder(tokenizer(), task(), date_string="26 Jul 2024", max_length=1024)


def applies() -> np.ndarray:
    """Whether each of three labels applies to each of six rows."""
    return np.array([[k in one for k in range(len(LABELS))] for one in SETS])
