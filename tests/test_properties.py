"""What holds for any input: configs, files, ranges, texts and scores. `make fuzz` looks for counterexamples."""

import csv
import io
import json
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from helpers.plain_scoring import score_plainly
from helpers.tiny import backbone, encoder, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from loraft.config.diagnostics import known_keys
from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config
from loraft.config.yaml_io import dump_config
from loraft.data.readers import SUFFIXES, TEXT_SUFFIXES, Format, input_rows, read_rows, unlabelled
from loraft.data.records import BadRow, Example, FileSettings, Row
from loraft.engine.scorer import score
from loraft.errors import ConfigError, DataError
from loraft.studies.sweep.progression import expand_integers

FOLDER = tempfile.TemporaryDirectory(prefix="loraft-properties-")
USUAL = 100  # examples in hypothesis's default profile
SPECIAL = set(tokenizer().added_tokens_decoder)
MODEL = backbone()


def examples(few: int) -> settings:
    """That many examples, the same ones each time; as many as another profile says where one is chosen (fuzz)."""
    chosen = settings.default.max_examples
    return settings(max_examples=few if chosen == USUAL else chosen, deadline=None, derandomize=chosen == USUAL)


ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEY = st.sampled_from([*known_keys(), "lora", "prompt", "data", "sweep", "train"]) | st.text(max_size=12)


@given(st.dictionaries(KEY, ANY_VALUE, max_size=4))
@examples(60)
def test_any_values_of_any_keys_are_a_config_or_a_config_error(values: dict[str, Any]) -> None:
    try:
        config = resolve(overrides=[f"{key}={json.dumps(value)}" for key, value in values.items()])
    except ConfigError:
        return
    assert isinstance(config, Config)
    _loads_back(config)


@given(st.text(max_size=200) | st.dictionaries(KEY, ANY_VALUE, max_size=4).map(json.dumps))
@examples(60)
def test_any_text_in_a_config_file_is_a_config_or_a_config_error(text: str) -> None:
    path = Path(FOLDER.name, "mine.yaml")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config = load_config(path)
    except ConfigError:
        return
    _loads_back(config)


def _loads_back(config: Config) -> None:
    path = Path(FOLDER.name, "dumped.yaml")
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


def _whole_files() -> list[bytes]:
    table = io.BytesIO()
    pq.write_table(pa.table({"sentence": ["thầy dạy hay", None], "n": [[1, 2], []]}), table)
    book, workbook = io.BytesIO(), openpyxl.Workbook()
    workbook.active.append(["sentence", "n"])
    workbook.active.append(["thầy dạy hay", 5])
    workbook.save(book)
    lines = '{"sentence": "thầy dạy hay", "n": [1, {"a": null}]}\n'
    text = 'sentence,n\n"thầy ""dạy"" hay",5\n'
    return [
        table.getvalue(),
        book.getvalue(),
        lines.encode(),
        f"[{lines}]".encode(),
        text.encode(),
        text.encode("utf-16"),
    ]


WHOLE = _whole_files()


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Any bytes, or a whole file of some format with some bytes replaced, or cut off."""
    content = bytearray(draw(st.binary(max_size=200) | st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(content[: draw(st.none() | st.integers(0, len(content)))])


@given(
    files(),
    st.sampled_from([*SUFFIXES, *TEXT_SUFFIXES, "", ".docx"]),
    st.sampled_from(["auto", "lines", "text", "jsonl", "csv", "tsv"]),
    st.sampled_from([None, "cp1258", "utf-16", "tcvn3", "utf-7"]),
)
@examples(250)
def test_any_bytes_in_a_file_of_any_format_are_rows_or_a_data_error(
    content: bytes, suffix: str, format: Format, encoding: str | None
) -> None:
    path = Path(FOLDER.name, f"tệp{suffix}")
    path.write_bytes(content)
    own = FileSettings(encoding=encoding)
    for rows in (read_rows(path, ("sentence",), own), input_rows(path, format, "sentence", own)):
        try:
            for item in islice(rows, 1000):
                assert isinstance(item, Row | BadRow)
                assert isinstance(unlabelled(item, "sentence"), Example | BadRow)
        except DataError:
            continue


NUMBER = st.integers(-9, 5000).map(str) | st.sampled_from(["...", "…", "", "1" * 30, "1e3", "٣", "+4", " 8 "])


@given(st.text(max_size=12) | st.lists(NUMBER, max_size=7).map(",".join))
@examples(150)
def test_any_text_is_a_range_of_different_numbers_or_a_config_error(text: str) -> None:
    try:
        numbers = expand_integers(text, "--ranks")
    except ConfigError:
        return
    assert numbers
    assert len(set(numbers)) == len(numbers) <= 100_000


WORDS = st.sampled_from(
    ["<|eot_id|>", "<|begin_of_text|>", "{input}", "thầy", " ", "\n", "\ufeff", "e\u0302", "😀", "\0"]
)
SENTENCE = st.text(max_size=40) | st.lists(WORDS, max_size=300).map("".join)


@given(SENTENCE)
@examples(40)
def test_any_sentence_fits_the_prompt_and_changes_only_its_own_part(text: str) -> None:
    made = encoder(max_length=160)
    text = text.encode("utf-8", "ignore").decode()  # readers let no lone surrogate through
    prompt, empty = made.encode([text])[0], made.encode([""])[0]
    assert len(prompt.ids) + max(map(len, made.completions_K)) <= 160
    assert [i for i in prompt.ids if i in SPECIAL] == [i for i in empty.ids if i in SPECIAL]
    last = len(empty.ids) - 1 - next(i for i, one in enumerate(reversed(empty.ids)) if one in SPECIAL)
    assert prompt.ids[len(prompt.ids) - len(empty.ids) + last :] == empty.ids[last:]


IDS = st.lists(st.integers(4, 8191), min_size=1, max_size=6)


@given(
    st.lists(IDS, min_size=1, max_size=4),
    st.lists(IDS, min_size=2, max_size=4, unique_by=tuple),
    IDS,
    st.integers(9, 200),
)
@examples(15)
def test_scores_of_any_prompts_and_labels_equal_those_of_one_pass_each(
    prompts: list[list[int]], labels: list[list[int]], shared: list[int], batch_tokens: int
) -> None:
    prompts = [[*shared, *prompt] for prompt in prompts]
    completions_K = [[*label, 2] for label in labels]
    found = score(MODEL, prompts, completions_K, batch_tokens=batch_tokens)
    np.testing.assert_allclose(found, score_plainly(MODEL, prompts, completions_K), atol=2e-4)


@given(st.lists(st.lists(st.text(max_size=20), min_size=2, max_size=2), max_size=6), st.sampled_from(",;\t|"))
@examples(60)
def test_any_table_that_python_writes_is_read_as_it_was(rows: list[list[str]], delimiter: str) -> None:
    path = Path(FOLDER.name, "bảng.csv")
    rows = [[cell.encode("utf-8", "ignore").decode().replace("\0", "") for cell in row] for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([["sentence", "id"], *rows, ["hết", "1"]])
    found = list(read_rows(path, ("sentence", "id"), FileSettings(delimiter=delimiter)))
    assert [item.columns for item in found if isinstance(item, Row)] == [
        {"sentence": text, "id": number} for text, number in [*rows, ["hết", "1"]]
    ]
