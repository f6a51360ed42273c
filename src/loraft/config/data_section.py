"""The section `data` of the config: where the rows come from, how files are read and split, and limits."""

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from loraft.config.section import ColumnName, FileName, Name, Section

MOST_ROWS = 1_000_000_000
DRAWN = ("train", "validation", "test")  # the splits that `split` has a share for


class DataConfig(Section):
    """The source of the rows, its columns and splits, and limits on the number of rows."""

    source: FileName = Field("feedback", description="bundled name, hub id, folder (./NAME if bundled too) or file")
    subset: FileName | None = Field(None, description="configuration of a hub data set, or its folder")
    revision: FileName | None = Field(None, description="branch, tag or commit on the hub; null: main")
    cache_dir: FileName | None = Field(
        None, description="folder that keeps files of the hub; null: the hub's own cache"
    )
    encoding: str | None = Field(
        None,
        examples=["utf-8", "cp1258", "latin-1", "tcvn3"],
        description="encoding of text files: latin-1, cp1258, tcvn3, ...; null: UTF-8, or UTF-16 with its mark",
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        None, description="separator of CSV files, one character; null: by the header"
    )
    sheet: Name | None = Field(None, description="sheet of an Excel file; null: the only one with cells")
    text_column: ColumnName = Field("sentence", description="column of the sentence")
    label_column: ColumnName | None = Field(None, description="column of the label; null: the task's")
    label_separator: str | None = Field(
        None, min_length=1, description="text between the labels of one cell (prompt.kind=multilabel); null: | ; or ,"
    )
    label_names: Annotated[list[Name], Field(min_length=2)] | None = Field(
        None, description="what the ids 0, 1, ... in the label column mean, where the source does not say"
    )
    train_split: FileName = Field("train", description="name of the split that is trained on")
    validation_split: FileName = Field(
        "validation",
        description="name of the split that is measured in training; with train.keep=best it picks the checkpoint",
    )
    test_split: FileName = Field("test", description="name of the split that is judged before and after")
    extra_train: list[FileName] = Field(
        default_factory=list, max_length=1000, description="files of further training rows; rows without label wait"
    )
    split: list[float] | None = Field(
        None, description="shares of train, validation and test drawn from the train split; 0: the source's own"
    )
    split_seed: int = Field(
        42,
        ge=0,
        lt=2**32,
        description="seed of the draw of data.split; not seed, so that runs with other seeds have its rows",
    )
    fold: str | None = Field(None, description="such as 2/5: fold 2 of 5 of the train split as test; by --folds 5")
    calibration_share: float | None = Field(
        None, ge=0, le=0.9, description="share of the validation rows that choose neither checkpoint nor temperature:"
        " for predict --max-error and --sets; null: half of 200 or more"
    )  # fmt: skip
    max_train_rows: int | None = Field(
        None, ge=1, le=MOST_ROWS, description="most rows of the train split, at even distances; null: all"
    )
    max_eval_rows: int | None = Field(
        None, ge=1, le=MOST_ROWS, description="most rows of the validation split, at even distances; null: all"
    )
    max_test_rows: int | None = Field(
        None, ge=1, le=MOST_ROWS, description="most rows of the test split, at even distances; null: all"
    )
    unlabelled: Literal["refuse", "skip"] = Field(
        "refuse", description="what is done about rows whose label is null, NaN or empty"
    )
    drop_duplicates: bool = Field(False, description="drop repeated (text, label) rows of the train split")
    drop_conflicts: bool = Field(False, description="drop train rows whose text also has another label")
    drop_leaked: bool = Field(False, description="drop train rows that stand in validation or test, also nearly")

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str | None) -> str | None:
        try:
            # Readers have undecodable bytes replaced, which codecs that are for other things than text cannot do.
            bytes(4).decode("utf-8" if name is None or name.casefold() == "tcvn3" else name, "surrogateescape")
        except (LookupError, UnicodeError):
            raise ValueError("is no encoding of text that Python knows; try cp1258, latin-1 or tcvn3") from None
        return name

    @field_validator("fold")
    @classmethod
    def _one_of_the_folds(cls, fold: str | None) -> str | None:
        parts = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", fold or "1/2")
        if parts is None or not 1 <= int(parts[1]) <= int(parts[2]) or int(parts[2]) < 2:
            raise ValueError("is no fold; for example 2/5, from 1/5 to 5/5")
        return fold

    @field_validator("split", mode="before")
    @classmethod
    def _three_shares(cls, shares: Any) -> Any:
        three = isinstance(shares, list | tuple) and len(shares) == len(DRAWN)
        if shares is not None and not (three and all(_is_share(share) for share in shares)):
            raise ValueError("must be three shares from 0 to 1, of train, validation and test; for example"
                             " [0.8, 0.1, 0.1], or [0.9, 0.1, 0] where the source has a test split")  # fmt: skip
        return shares

    @field_validator("split")
    @classmethod
    def _whole(cls, shares: list[float] | None, info: ValidationInfo) -> list[float] | None:
        if shares is None:
            return None
        if abs(sum(shares) - 1) > 1e-6 or not 0 < shares[0] < 1:
            raise ValueError(f"must sum to 1, with rows for train and another split (sum {sum(shares):g}); for example"
                             " [0.8, 0.1, 0.1], or [0.9, 0.1, 0] where the source has a test split")  # fmt: skip
        keys = {role: f"{role}_split" for role, share in zip(DRAWN, shares, strict=True) if share and role != "train"}
        own = [role for role, key in keys.items() if info.data.get(key, role) != role]
        if own:
            named = ", ".join(f"data.{keys[role]}={info.data[keys[role]]}" for role in own)
            kept = [0 if role in own else share for role, share in zip(DRAWN, shares, strict=True)]
            kept[0] += 1 - sum(kept)
            without = f"give it no share: data.split=[{', '.join(f'{share:.6g}' for share in kept)}]"
            raise ValueError(
                f"draws the {' and '.join(own)} rows from the train split, so that {named} would not be read; leave"
                f" {named} out, or {'leave data.split out' if len(own) == len(keys) else without}"
            )
        return shares

    @field_validator("text_column", "label_column")
    @classmethod
    def _composed(cls, name: str | None) -> str | None:
        # Columns are compared in composed form (NFC), as the sentences are.
        return None if name is None else unicodedata.normalize("NFC", name)


def _is_share(share: Any) -> bool:
    return isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1
