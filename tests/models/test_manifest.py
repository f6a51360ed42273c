"""`loraft.json`: what it holds, and that every difference from it is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.pushed import FIRST, change_bundle
from helpers.tiny import backbone, encoder, tokenizer

from loraft.config.resolve import resolve
from loraft.config.schema import LoraSection
from loraft.data.dataset import Split
from loraft.errors import RunError
from loraft.models import manifest
from loraft.models.adapter import add_adapter
from loraft.models.backbone import fingerprint
from loraft.models.encoder import Encoder
from loraft.models.manifest import Manifest
from loraft.runs.records import write_record
from loraft.runs.run import MANIFEST_FILE


def described() -> Manifest:
    config = resolve(overrides=["model.name=của-em", "quant.method=nf4", "data.source=góp-ý"])
    identity = manifest.identify(config, backbone(), Path("runs/r2"))
    data = manifest.DataIdentity(config.data.source, {"test": "f" * 64}, "p" * 64, {"negative": 3})
    return manifest.describe(config, encoder(), identity, data, {"accuracy": 0.5})


def test_what_is_described_is_read_again(tmp_path: Path) -> None:
    write_record(tmp_path / MANIFEST_FILE, described())
    assert manifest.read(tmp_path) == described()


def test_it_holds_labels_prompt_backbone_data_scores_and_versions() -> None:
    found = described()
    assert found.labels == ("negative", "neutral", "positive")
    assert found.label_words == encoder().task.label_words
    assert (found.prompt_sha256, found.chat_template_sha256) == (encoder().prompt_hash, encoder().template_hash)
    assert (found.backbone.name, found.backbone.quant["method"]) == ("của-em", "nf4")
    assert found.backbone.fingerprint == fingerprint(backbone())
    assert (found.data.source, found.data.fingerprints) == ("góp-ý", {"test": "f" * 64})
    assert found.data.train_labels == {"negative": 3}
    assert found.scores == {"accuracy": 0.5}
    assert found.versions["peft"]
    assert found.prompt["answer_prefix"] == "Sentiment: "


def test_the_same_backbone_and_prompt_are_accepted_also_under_an_adapter(tmp_path: Path) -> None:
    manifest.check(described(), tmp_path, encoder(), backbone())
    # Of a version that had no key for the end of turn.
    manifest.check(replace(described(), prompt={}), tmp_path, encoder(), backbone())
    manifest.check(described(), tmp_path, encoder(), add_adapter(backbone(), LoraSection(r=1), seed=1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ("chê", "khen")}, "labels: chê, khen then, negative, neutral, positive now"),
        ({"label_words": ("a", "b", "c")}, "words of the labels: a, b, c then"),
        ({"chat_template_sha256": "0"}, "chat template: 0 then"),
        ({"date_string": "01 Jan 2030"}, "date in the prompt: 01 Jan 2030 then, 26 Jul 2024 now"),
        ({"prompt_sha256": "0"}, r"prompt \(system message, template, answer prefix\): 0 then"),
        ({"prompt": {"score_end_of_turn": True}}, "end of turn in the scores: True then, False now"),
        ({"backbone": replace(described().backbone, fingerprint="0")}, "weights of the backbone or .*: 0 then"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_difference_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError, match=rf"another backbone or prompt:\n  {said}.*\nuse the backbone của-em") as raised:
        manifest.check(replace(described(), **changes), tmp_path, encoder(), backbone())
    assert str(raised.value).count(" then, ") == 1


def test_all_differences_are_told_at_once(tmp_path: Path) -> None:
    other = Encoder(tokenizer(), encoder("topic").task, date_string="01 Jan 2030", max_length=512)
    with pytest.raises(RunError) as raised:
        manifest.check(described(), tmp_path, other, backbone(seed=1))
    assert str(raised.value).count(" then, ") == 5  # all but the chat template


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"không có: the run's adapter is missing; train again with --force, or copy"):
        manifest.read(tmp_path / "không có")
    with pytest.raises(RunError, match=r"loraft\.json: is missing, so the adapter's labels and prompt are unknown"):
        manifest.read(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "null", '{"labels": ["a"]}'])
def test_a_damaged_manifest_is_one_clear_error(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"loraft\.json: .*; train again with --force"):
        manifest.read(tmp_path)


def test_a_manifest_from_before_the_schema_version_is_read(tmp_path: Path) -> None:
    write_record(tmp_path / MANIFEST_FILE, described())
    content = json.loads((tmp_path / MANIFEST_FILE).read_text(encoding="utf-8"))
    del content["schema_version"]
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(content), encoding="utf-8")
    assert manifest.read(tmp_path) == described()


@pytest.mark.parametrize(
    ("changes", "pool", "message"),
    [
        ([], "p", None),
        (["data.split_seed=7"], "p", r"data\.split_seed 42 then, 7 now"),
        (["data.split=[0.6, 0.2, 0.2]"], "p", r"data\.split \[0\.8, 0\.1, 0\.1\] then"),
        ([], "q", "fingerprint of all rows pppppppppppppppp then, qqqqqqqqqqqqqqqq now"),
        (["data.split_seed=7", "data.source=khác"], "p", None),  # other rows altogether
        (["data.split_seed=7"], None, None),  # a file that was named, or the source's own split
    ],
)
def test_rows_that_would_be_drawn_otherwise_are_refused(
    changes: list[str], pool: str | None, message: str | None
) -> None:
    given = ["data.source=góp-ý", "data.split=[0.8, 0.1, 0.1]"]
    trained, now = resolve(overrides=given), resolve(overrides=[*given, *changes])
    rows = Split("test", (), "góp-ý", pool=None if pool is None else pool * 64)
    if message is None:
        manifest.check_drawn(described(), trained, now, rows)
    else:
        with pytest.raises(RunError, match=message):
            manifest.check_drawn(described(), trained, now, rows)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0}, "the value of 'calibration' is damaged"),
        ({"temperature": 1.5, "bias": [0.5]}, "1 biases for 3 labels"),
        ({"temperature": 1e308}, "no fit gives such numbers"),
        ({"temperature": 1e-308}, "no fit gives such numbers"),
        ({"temperature": 1.5, "bias": [1e308, -1e308, 0]}, "no fit gives such numbers"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    copy = Path(shutil.copytree(FIRST / "adapter", tmp_path / "a"))
    change_bundle(copy, calibration=wrong)
    with pytest.raises(RunError, match=message):
        manifest.calibration(copy, resolve())


def test_answers_yes_or_no_have_no_biases(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(FIRST / "adapter", tmp_path / "a"))
    change_bundle(copy, calibration={"temperature": 1.5, "bias": [0.5, 0, -0.5]})
    assert manifest.calibration(copy, resolve()).bias == (0.5, 0, -0.5)
    with pytest.raises(RunError, match="3 biases for 3 labels, of which a row may have several"):
        manifest.calibration(copy, resolve(overrides=["prompt.kind=multilabel"]))
