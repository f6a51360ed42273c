"""`check` finds what would spoil a training, shows what the model is trained on, and says what it could not look at."""

import shutil
from pathlib import Path

import pytest
from helpers.data import sentences
from helpers.tiny import encoder

from loraft.bundled import bundled_backbones
from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.data.dataset import training_splits
from loraft.delivery import check as checking
from loraft.delivery.check import Checked, Finding, check
from loraft.delivery.check_prompt import APART, WITHIN, answer_tokens, collisions, pieces, shown_prompt
from loraft.delivery.check_tables import lines, prompts, tables
from loraft.display.page import cells
from loraft.engine.collator import IGNORE, pad
from loraft.errors import BackboneError, ConfigError, DataError
from loraft.models.encoder import Encoder
from loraft.models.load import build_encoder
from loraft.training.dataset import prepare

LABELS = ("negative", "neutral", "positive")
Rows = list[tuple[str, str]]


def rows(count: int, seed: int) -> Rows:
    """Rows with different sentences and all labels."""
    return [(text, LABELS[i % 3]) for i, text in enumerate(sentences(count, seed))]


def source(folder: Path, **splits: Rows) -> Path:
    """A folder with train, validation and test, clean but for the given splits."""
    clean = {"train": rows(90, 1), "validation": rows(30, 2), "test": rows(60, 3)}
    (folder / "góp ý").mkdir()
    for name, of_split in {**clean, **splits}.items():
        table = "\n".join(["sentence,sentiment", *(f"{text},{label}" for text, label in of_split)])
        (folder / "góp ý" / f"{name}.csv").write_text(table + "\n", encoding="utf-8")
    return folder / "góp ý"


def config(folder: Path, *overrides: str, **splits: Rows) -> Config:
    data = source(folder, **splits)
    return resolve(overrides=[f"data.source={data}", f"output={folder / 'runs'}", *overrides])


def found(of: Checked, level: str) -> str:
    return "\n".join(one.text for one in of.findings if one.level == level)


def printed(of: Checked) -> str:
    return "\n".join(text.plain for text in [*prompts(of), *lines(of)])


def test_nothing_is_found_in_clean_rows_and_nothing_is_written(tmp_path: Path) -> None:
    of = check(config(tmp_path), speed=False)
    assert of.findings == ()
    assert [path.name for path in tmp_path.iterdir()] == ["góp ý"]
    assert [(one.rows, one.repeated, one.nearly, one.conflicting, one.shortened) for one in of.splits] == [
        (90, 0, 0, 0, 0), (30, 0, 0, 0, 0), (60, 0, 0, 0, 0)
    ]  # fmt: skip
    assert of.splits[0].labels == dict.fromkeys(LABELS, 30)
    assert of.rate is not None
    assert (of.rate.used, of.rate.usual, of.rate.weights) == (2e-3, 2e-3, 6_229_248)  # docs/decisions/0008, up to 10 M
    assert of.differs["data.source"] == (str(tmp_path / "góp ý"), "feedback")
    assert set(of.differs) == {"data.source", "output.folder"}
    assert printed(of).endswith("found: nothing that speaks against the training")


def test_a_label_without_training_rows_and_a_test_that_stands_in_train_are_errors(tmp_path: Path) -> None:
    train = [row for row in rows(90, 1) if row[1] != "neutral"]
    of = check(config(tmp_path, train=train, test=train[:40] + rows(30, 3)), speed=False)
    assert "no training row has neutral" in found(of, "error")
    assert "40 of 70 test rows stand in train" in found(of, "error")
    assert of.count("error") == 2
    assert of.findings[0].level == "error"


def test_repeated_conflicting_and_leaked_rows_are_counted_and_warned_of(tmp_path: Path) -> None:
    clean = rows(90, 1)
    text = clean[0][0]
    train = [*clean, clean[0], (text, "positive"), (clean[4][0] + " !", "neutral")]
    of = check(
        config(tmp_path, train=train, test=[*rows(58, 3), clean[7], (clean[8][0] + " ạ", LABELS[2])]), speed=False
    )
    split = of.splits[0]
    assert (split.repeated, split.nearly, split.conflicting) == (2, 1, 3)
    pair = next(one for one in of.leaks if (one.left, one.right) == ("train", "test"))
    assert (pair.exact, pair.near, pair.examples) == (1, 1, ())
    assert "2 of 60 test rows stand in train" in found(of, "warning")
    assert "another label elsewhere: 3 train" in found(of, "warning")
    assert "1 duplicate rows" in found(of, "warning")
    assert of.count("error") == 0


@pytest.mark.parametrize(("rate", "level"), [(1.1e-2, "error"), (3.9e-4, "warning"), (9e-3, "")])
def test_the_learning_rate_is_judged_by_the_rule_of_the_training(tmp_path: Path, rate: float, level: str) -> None:
    of = check(config(tmp_path, f"train.learning_rate={rate}"), speed=False)
    assert [one.level for one in of.findings] == ([level] if level else [])
    assert not level or "the usual one for a backbone of this size (0.002)" in of.findings[0].text


def test_sentences_that_are_cut_are_counted_and_most_of_them_cut_is_an_error(tmp_path: Path) -> None:
    long = [(f"{text} {' '.join(sentences(9, i))}", label) for i, (text, label) in enumerate(rows(90, 1))]
    of = check(config(tmp_path, "prompt.max_length=140", train=long), speed=False)
    assert (of.splits[0].shortened, of.splits[0].longest) == (90, 140)
    assert (of.splits[0].cut or 0) > 0.5
    assert "of the text of the train rows was cut away" in found(of, "error")
    assert "90 of 90 training sentences were shortened" in found(of, "warning")


def test_the_tokens_with_loss_are_those_of_the_batch(tmp_path: Path) -> None:
    given = config(tmp_path)
    splits, own = training_splits(given), build_encoder(given)
    data = prepare(given, own, splits["train"], splits["validation"])
    shown = shown_prompt(own, data, texts=True)
    assert [row.answer for row in shown.rows] == [f"Sentiment: {label}" for label in LABELS]
    for row in shown.rows:
        number = row.row - 1  # counted from 1
        batch = pad([data.rows[number]], 0)
        length = int(batch["attention_mask"].sum())
        assert shown.shared + row.own + int((batch["labels"] != IGNORE).sum()) == length
        assert "".join(row.loss) == f"{row.answer}<|eot_id|>"
        assert splits["train"].texts[number] in row.text
        whole = own.tokenizer.decode(data.rows[number].input_ids, clean_up_tokenization_spaces=False)
        assert shown.text + row.text + "".join(row.loss) == whole


def test_the_mask_is_readable_without_colours(tmp_path: Path) -> None:
    text = printed(check(config(tmp_path), speed=False)).splitlines()
    assert text[0].startswith("[96 tokens, in every training row, no loss: <|begin_of_text|>")
    assert "\n" not in text[0]
    assert text[1].endswith("[4 with loss: Sentiment|:| negative|<|eot_id|>]")


def test_no_sentence_is_shown_where_texts_are_private(tmp_path: Path) -> None:
    train = [(f"chuyện riêng của lớp {text}", label) for text, label in rows(90, 1)]  # all begin alike
    given = config(tmp_path, "output.texts=false", train=train)
    of = check(given, speed=False)
    assert "chuyện" not in printed(of) + str(of)
    assert "the sentence of row 1" in printed(of)
    public = given.model_copy(update={"output": given.output.model_copy(update={"texts": True})})
    assert "chuyện riêng của lớp" in printed(check(public, speed=False))


def test_several_labels_a_row_are_checked_as_yes_and_no(tmp_path: Path) -> None:
    train = [(text, "negative|positive" if i % 2 else "neutral") for i, (text, _) in enumerate(rows(90, 1))]
    of = check(config(tmp_path, "prompt.kind=multilabel", train=train), speed=False)
    assert of.splits[0].labels == {"negative": 45, "neutral": 45, "positive": 45}
    assert len(of.answers) == 6
    assert of.count("error") == 0
    assert len({one.tokens for one in of.answers}) == 2  # behind what yes and no share


def with_words(*words: str) -> Encoder:
    task = encoder().task.__class__(**{**vars(encoder().task), "label_words": words})
    return Encoder(encoder().tokenizer, task, date_string="26 Jul 2024", max_length=512)


def test_answers_that_collide_are_named() -> None:
    assert list(collisions(encoder())) == []
    told = list(collisions(with_words("tốt", "tốt lắm", "xấu")))
    assert [line for line in told if "is the beginning of" in line] == [
        "'Sentiment: tốt' is the beginning of 'Sentiment: tốt lắm': scores count the end of turn, too"
    ]
    told = list(collisions(with_words("rất tốt", "rất xấu", "thường")))
    assert told[0].startswith("'Sentiment: rất tốt' and 'Sentiment: rất xấu' have the same first token")


def test_tokens_that_make_a_letter_together_are_one_text() -> None:
    tokenizer = encoder().tokenizer
    text = "phở 𝄞 ngon"  # the clef takes four bytes, each a token
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = pieces(tokenizer, ids)
    assert "".join(found) == text
    assert len(found) < len(ids)


def test_blanks_are_told_apart() -> None:
    assert {one.blank for one in answer_tokens(encoder())} == {WITHIN}
    digits = answer_tokens(with_words("1", "2", "3"))
    assert {one.blank for one in digits} <= {WITHIN, APART}


def bare(folder: Path, *files: str) -> Path:
    """A folder with some files of the bundled backbone."""
    (folder / "nền").mkdir()
    for name in files:
        shutil.copy(bundled_backbones()["loraft-vi-tiny"] / name, folder / "nền" / name)
    return folder / "nền"


def test_what_is_not_here_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = source(tmp_path)

    def of(model: str) -> Checked:
        return check(resolve(overrides=[f"data.source={data}", f"output={tmp_path / 'runs'}", f"model.name={model}"]))

    away = of("owner/name")
    assert [line.partition(":")[0] for line in away.left_out] == ["everything about the backbone"]
    assert (away.rate, away.prompt, away.speed, away.answers) == (None, None, None, ())
    assert away.count("error") == 0
    config_only = of(str(bare(tmp_path, "config.json")))
    assert [line.partition(":")[0] for line in config_only.left_out] == ["tokens, prompts, label words and speed"]
    assert config_only.rate is not None
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled_backbones()["loraft-vi-tiny"] / name, tmp_path / "nền" / name)
    no_weights = of(str(tmp_path / "nền"))
    assert [line.partition(":")[0] for line in no_weights.left_out] == ["rows a second"]
    assert no_weights.prompt is not None


def test_a_backbone_that_fails_is_an_error_beside_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise BackboneError("model.name: damaged")

    monkeypatch.setattr(checking, "calibrated", fails)
    of = check(config(tmp_path))
    assert of.findings == (Finding("error", "model.name: damaged"),)
    assert of.prompt is not None


def test_some_steps_are_trained_for_their_speed_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "SECONDS", 0.0)
    of = check(config(tmp_path, "train.per_device_train_batch_size=4"))
    assert of.speed is not None
    assert of.speed.steps > 1
    rows = 4 / of.speed.seconds_per_step
    assert f"speed: {rows:,.1f} rows and" in printed(of)
    assert [path.name for path in tmp_path.iterdir()] == ["góp ý"]


def test_an_earlier_run_and_mistakes_of_the_config_are_told(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "cũ"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text("{}", encoding="utf-8")
    (run / "config.yaml").write_text("seed: 1\n", encoding="utf-8")
    assert "--force" in found(check(config(tmp_path, "name=cũ"), speed=False), "warning")
    words = resolve(overrides=[f"data.source={tmp_path / 'góp ý'}", "train.metric=f1:neutral", "data.max_eval_rows=1"])
    with pytest.raises(ConfigError, match=r"train\.metric"):
        check(words, speed=False)
    with pytest.raises(DataError, match="asks no hub"):
        check(resolve(overrides=["data.source=owner/name"]), speed=False)


def test_the_tables_hold_the_counts(tmp_path: Path) -> None:
    of = check(config(tmp_path), speed=False)
    labels, counted = (cells(table)[1] for table in tables(of)[1:3])
    assert ["neutral", "30 (33.3%)", "10 (33.3%)", "20 (33.3%)"] in labels
    assert counted[0] == ["all", "90", "30", "60"]
