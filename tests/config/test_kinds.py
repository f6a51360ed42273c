"""A task with any number of labels a row is worded, and refused by the commands that count one label a row."""

from functools import partial
from pathlib import Path

import pytest
from helpers import label_sets

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.data.prompt import Task, answers
from loraft.errors import ConfigError
from loraft.models.encoder import Encoder
from loraft.studies.dataset.listing import listed
from loraft.studies.dataset.statistics import describe
from loraft.studies.fewshot.study import fewshot
from loraft.studies.sweep.grid import expand


@pytest.fixture
def section(tmp_path: Path) -> Config:
    return resolve(overrides=[f"prompt.task={label_sets.task_file(tmp_path)}", f"output={tmp_path}"])


def test_a_task_file_needs_kind_and_labels_only(section: Config) -> None:
    prompt = section.prompt
    assert (prompt.kind, prompt.yes_word, prompt.no_word, prompt.answer_prefix) == ("multilabel", "có", "không", "")
    assert 'Các nhãn: "giảng viên", "cơ sở vật chất", "học phí".' in str(prompt.template)
    assert answers(Task.from_config(prompt)) == [
        "giảng viên: có", "cơ sở vật chất: có", "học phí: có",
        "giảng viên: không", "cơ sở vật chất: không", "học phí: không",
    ]  # fmt: skip


def test_a_task_with_one_label_is_worded_anew(tmp_path: Path) -> None:
    prompt = resolve(overrides=["prompt.kind=multilabel", "prompt.no_word=nope"], flags={"prompt.task": "topic"}).prompt
    assert answers(Task.from_config(prompt))[3:5] == ["others: yes", "lecturer: nope"]
    assert '"LABEL: yes" or "LABEL: nope"' in str(prompt.template)
    assert prompt.label_column == "topic"
    labels = resolve(overrides=["prompt.kind=multilabel", "prompt.labels=[nóng, ồn]"]).prompt
    assert answers(Task.from_config(labels)) == ["nóng: có", "ồn: có", "nóng: không", "ồn: không"]


def test_answers_that_are_the_same_are_refused() -> None:
    same = Task(**{**label_sets.task().__dict__, "no_word": "có"})
    with pytest.raises(ConfigError, match=r"'giảng viên: có' and 'giảng viên: có' are the same"):
        Encoder(label_sets.tokenizer(), same, date_string="26 Jul 2024", max_length=512)


@pytest.mark.parametrize("command", [describe, fewshot, expand, partial(listed, kind="conflicts")])
def test_commands_that_count_one_label_a_row_refuse_it_by_name(section: Config, command: object) -> None:
    with pytest.raises(
        ConfigError, match=r"loraft (data|data --list conflicts|fewshot|sweep): .*train, eval"
    ) as caught:
        command(section)  # type: ignore[operator]
    assert str(caught.value).endswith(f": loraft train --task {section.prompt.task} --data feedback")
