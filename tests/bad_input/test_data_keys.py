"""The keys that say how data is read and split."""

import pytest
from helpers.bad_input import refusal

NO_ENCODING = r"data\.encoding: is no encoding of text that Python knows \(got "
SHARES = r"data\.split: must be three shares from 0 to 1"
SUM = r"data\.split: must sum to 1"
FOLD = r"data\.fold: is no fold \(got .*; for example 2/5, from 1/5 to 5/5"
CASES = {
    "data.encoding=utf8mb4": rf"{NO_ENCODING}'utf8mb4'",
    "data.encoding=''": r"data\.encoding: ",
    f"data.encoding={'e' * 300}": rf"{NO_ENCODING}'e+\.\.\.",
    "data.encoding=rot13": NO_ENCODING,
    "data.encoding=hex": NO_ENCODING,
    "data.encoding=base64": NO_ENCODING,
    "data.encoding=zlib": NO_ENCODING,
    "data.encoding=undefined": NO_ENCODING,
    "data.encoding=idna": NO_ENCODING,
    "data.encoding=punycode": NO_ENCODING,
    "data.encoding=tiếng Việt": NO_ENCODING,
    "data.delimiter=ab": r"data\.delimiter: .*at most 1 character",
    "data.delimiter=''": r"data\.delimiter: .*at least 1 character",
    "data.delimiter=[;]": r"data\.delimiter: is a list",
    "data.label_separator=''": r"data\.label_separator: .*at least 1 character",
    "data.label_names=[a]": r"data\.label_names: .*at least 2 items",
    "data.source=''": r"data\.source: is blank",
    "data.train_split=''": r"data\.train_split: is blank",
    "data.text_column=''": r"data\.text_column: is blank",
    "data.subset=''": r"data\.subset: is blank",
    "data.sheet=' '": r"data\.sheet: is blank \(got ' ', from --set\); give a name",
    "data.unlabelled=drop": r"data\.unlabelled: .*'refuse' or 'skip'",
    "data.split=[1]": SHARES,
    "data.split=[0.5, 0.5]": SHARES,
    "data.split=[0.8, 0.1, 0.1, 0]": SHARES,
    "data.split=[80, 10, 10]": SHARES,
    "data.split=[0.8, 0.3, -0.1]": SHARES,
    "data.split=[.nan, 0, 0]": SHARES,
    "data.split=[.inf, 0, 0]": SHARES,
    "data.split=[true, false, false]": r"data\.split: ",
    "data.split=['0.8', '0.1', '0.1']": SHARES,
    "data.split=0.8": SHARES,
    "data.split=[0.5, 0.2, 0.2]": SUM,
    "data.split=[1, 0, 0]": SUM,
    "data.split=[0, 0.5, 0.5]": SUM,
    "data.fold=5": FOLD,
    "data.fold=0/5": FOLD,
    "data.fold=6/5": FOLD,
    "data.fold=1/1": FOLD,
    "data.fold=-1/5": FOLD,
    "data.fold=1/5/2": FOLD,
    "data.fold=1 / 5": FOLD,
    "data.fold=٢/٥": FOLD,
    "data.fold=１/５": FOLD,
    "data.fold=1/99999": FOLD,
    "data.fold=a/b": FOLD,
}


@pytest.mark.parametrize("pair", CASES, ids=[pair[:40] for pair in CASES])
def test_a_data_key_that_cannot_be_is_refused(pair: str) -> None:
    refusal(["data", "--set", pair], CASES[pair])
