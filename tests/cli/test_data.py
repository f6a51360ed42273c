"""`loraft data` on the command line: what is parsed, printed where, and refused."""

import csv
import io
import json
from pathlib import Path

from helpers.command_line import LABELS, Says


def test_data_prints_tables_and_says_where_the_figures_are(tmp_path: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("data", "--output", str(tmp_path), "--no-near")
    assert code == 0
    assert "topic / sentiment (%)" in out
    assert "tokens, prompt and answer" in out
    assert "sentences with several labels: none" in out.splitlines()
    assert err.startswith("backbone loraft-vi-tiny, data feedback\n")
    assert str(tmp_path / "data-feedback-sentiment") in err
    code, out, _ = loraft_says(
        "data", "--output", str(tmp_path), "--no-near", "--no-tokens", "--json", "--task", "topic"
    )
    assert code == 0
    described = json.loads(out)
    assert (described["by"], described["tokens"]) == ("sentiment", None)
    assert {leak["near"] for leak in described["leaks"]} == {None}


def test_data_says_what_was_left_out_and_what_is_not_there(tmp_path: Path, loraft_says: Says) -> None:
    (tmp_path / "ý.csv").write_text("sentence,sentiment\nthầy tốt,positive\n ,neutral\n", encoding="utf-8")
    code, out, _ = loraft_says("data", "--data", str(tmp_path / "ý.csv"), "--output", str(tmp_path), "--no-tokens")
    assert code == 0
    assert "train: 1 blank rows skipped" in out.splitlines()
    assert any(line.startswith("no validation and no test split") for line in out.splitlines())
    code, out, _ = loraft_says("report", str(tmp_path / "data-ý.csv-sentiment"), "--markdown")
    assert code == 0
    assert "train: 1 blank rows skipped" in out.splitlines()


def test_data_looks_for_near_duplicates_and_counts_the_column_that_is_asked_for(
    tmp_path: Path, loraft_says: Says
) -> None:
    source = tmp_path / "góp ý"
    source.mkdir()
    for split in ("train", "test"):
        text = f"sentence,sentiment,khoa\nthầy tốt {split},positive,Toán\nphòng nóng,negative,Tin\n"
        (source / f"{split}.csv").write_text(text, encoding="utf-8")
    given = ("data", "--data", str(source), "--output", str(tmp_path), "--no-tokens", "--by", "khoa")
    code, out, err = loraft_says(*given)
    assert code == 0
    assert "khoa / sentiment (%)" in out
    assert "nearly the same: the Jaccard index" in out
    assert "not looked for" not in out
    folder = tmp_path / "data-góp ý-sentiment"
    assert err.endswith(f"figures and numbers: {folder}\nnext: loraft report '{folder}'\n")
    (source / "test.csv").unlink()
    assert "nearly the same" not in loraft_says(*given)[1]  # of one split


def test_rows_that_are_too_alike_to_draw_splits_are_no_rows_of_another_task(tmp_path: Path, loraft_says: Says) -> None:
    rows = [f"em thấy thầy giảng bài rất hay và dễ hiểu lần thứ {i},{label}" for i in range(9) for label in LABELS[::2]]
    (tmp_path / "số.csv").write_text("\n".join(["sentence,sentiment", *rows]) + "\n", encoding="utf-8")
    code, out, err = loraft_says("data", str(tmp_path / "số.csv"), "--set", "data.split=[0.8, 0.1, 0.1]")
    assert (code, out) == (1, "")
    assert "held together" in err
    assert "data.validation_split=FILE and data.test_split=FILE" in err


def test_data_names_a_column_that_is_not_there(tmp_path: Path, loraft_says: Says) -> None:
    code, _, err = loraft_says("data", "--output", str(tmp_path), "--no-tokens", "--by", "lớp")
    assert code == 1
    assert "--by: no column 'lớp' in 3462 rows (got topic); name one of these" in err


def test_the_list_of_rows_is_csv_on_stdout_and_everything_else_on_stderr(tmp_path: Path, loraft_says: Says) -> None:
    text = 'phòng nóng, "máy chiếu" mờ'  # a comma and quotes come back as they were
    lines = [json.dumps({"sentence": text, "sentiment": label}) + "\n" for label in ("negative", "neutral")]
    (tmp_path / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    given = ("data", "--data", str(tmp_path), "--output", str(tmp_path), "--list")
    code, out, err = loraft_says(*given, "conflicts")
    assert code == 0
    found = [(row["row"], row["text"], row["label"], row["other_row"]) for row in csv.DictReader(io.StringIO(out))]
    assert found == [("1", text, "negative", "2"), ("2", text, "neutral", "1")]
    assert err.endswith("conflicts: 2 rows\n")
    assert json.loads(loraft_says(*given, "conflicts", "--json")[1])[0]["other_label"] == "neutral"
    code, out, err = loraft_says(*given, "duplicates")
    assert (code, out) == (0, "split,row,text,label,other_split,other_row,other_text,other_label\n")
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]  # nothing is written beside the list
    assert "allowed: leaks, conflicts, duplicates, shortened" in loraft_says(*given, "all")[2]
