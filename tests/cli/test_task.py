"""`loraft task new`, `loraft task list`, and `loraft data` before there is a task."""

import csv
import io
import json
from pathlib import Path

import pytest
from helpers.command_line import Says
from helpers.data import write_rows

from loraft.config.resolve import resolve, tasks

ROWS = [{"câu": f"Máy chạy nóng {i}", "loại": ["khen", "lỗi"][i % 2]} for i in range(4)]


@pytest.fixture
def data(here: Path) -> Path:
    return write_rows(Path("góp ý.csv"), ROWS)


def test_data_describes_a_source_without_a_task_and_says_how_to_go_on(data: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("data", str(data))
    assert code == 0
    assert "label (loại)" in out
    assert out.splitlines()[-1].startswith("language: Vietnamese (100% of the texts")
    assert err.splitlines()[1:] == [
        "described as it is, not as rows of task sentiment: góp ý.csv: no column 'sentence' (got câu, loại);"
        " name it with --set data.text_column=NAME",
        "next: loraft task new --data 'góp ý.csv'",
    ]
    code, out, err = loraft_says("data", "--data", str(data), "--set", "data.text_column=câu", "--json")
    assert json.loads(out)["labels"] == {"khen": {"train": 2}, "lỗi": {"train": 2}}
    assert err.endswith("next: loraft task new --data 'góp ý.csv' --set 'data.text_column=câu'\n")
    assert not Path("runs").exists()


def test_data_asks_for_the_encoding_before_a_task(here: Path, loraft_says: Says) -> None:
    Path("a.csv").write_bytes("câu,loai\nà la mode,présent\nok,côté\n".encode("latin-1"))
    code, out, err = loraft_says("data", "a.csv")
    assert (code, "name the encoding" in out) == (0, True)
    assert err.splitlines()[-1] == "next: loraft data a.csv --set data.encoding=cp1258"


def test_data_describes_a_source_under_a_task_that_is_named_or_fits(data: Path, loraft_says: Says) -> None:
    given = ["data", str(data), "--no-tokens", "--no-near"]
    for asked in (["--task", "sentiment"], ["--by", "loại"], ["--set", "prompt.labels=[positive, negative]"]):
        code, _, err = loraft_says(*given, *asked)
        assert (code, err.splitlines()[1].partition(";")[0]) == (
            1, "error: góp ý.csv: no column 'sentence' (got câu, loại)"
        )  # fmt: skip
    write_rows(data, [{"sentence": "Máy nóng", "sentiment": "negative"}])
    assert "sentiment (%)" in loraft_says(*given)[1]
    write_rows(data, [{"sentence": "Máy nóng", "sentiment": "chê"}])
    assert "unknown label in 'sentiment' (got 'chê')" in loraft_says(*given)[2]


def test_rows_are_listed_before_there_is_a_task(data: Path, loraft_says: Says) -> None:
    rows = [{"câu": text, "loại": label} for text, label in [("Máy nóng", 1), ("Máy nóng", 0), ("Máy nóng", 1)]]
    write_rows(data, rows + [{"câu": f"Pin tốt {i}", "loại": 0} for i in range(4)] + [{"câu": "Pin yếu", "loại": ""}])
    for kind, expected in (("duplicates", ["3"]), ("conflicts", ["1", "2", "3"]), ("shortened", [])):
        code, out, err = loraft_says("data", str(data), "--list", kind)
        assert code == 0
        assert [row["row"] for row in csv.DictReader(io.StringIO(out))] == expected
        assert "text column: câu; label column: loại; " in err
    write_rows(data, [{"câu": "Máy nóng"}] * 3)
    assert "no label column (got câu); name it: --set data.label_column=NAME" in loraft_says(
        "data", str(data), "--list", "conflicts"
    )[2]  # fmt: skip


def test_data_names_one_source(data: Path, loraft_says: Says) -> None:
    assert loraft_says("data", "a", "--data", "b")[::2] == (
        2, "error: --data: another source than the argument (got b and a); give one of them\n"
    )  # fmt: skip


def test_task_new_writes_a_task_and_the_command_that_uses_it(data: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("task", "new", "--data", str(data))
    assert (code, out) == (0, "")
    split = "--set 'data.split=[0.8, 0.1, 0.1]'"
    command = f"loraft train --task 'góp ý.yaml' --data 'góp ý.csv' --set 'data.text_column=câu' {split}"
    assert err.splitlines()[-3:] == [
        "prompt in Vietnamese; --language en changes it",
        "task: góp ý.yaml; look at it, and at the whole prompt: loraft config --task 'góp ý.yaml'",
        f"next: {command}",
    ]
    assert Path("góp ý.yaml").read_text(encoding="utf-8").startswith(f"# {command}\n")
    assert resolve(flags={"prompt.task": "góp ý.yaml"}).prompt.labels == ["khen", "lỗi"]


def test_task_new_never_overwrites_unasked(data: Path, loraft_says: Says) -> None:
    Path("t.yaml").write_text("của tôi", encoding="utf-8")
    given = ["task", "new", "--data", str(data), "--output", "t.yaml", "--language", "en"]
    assert loraft_says(*given)[::2] == (
        2, "error: --output: exists (got t.yaml); --force replaces it, or name another file\n"
    )  # fmt: skip
    assert Path("t.yaml").read_text(encoding="utf-8") == "của tôi"
    assert loraft_says(*given, "--force")[0] == 0
    assert resolve(flags={"prompt.task": "t.yaml"}).prompt.answer_prefix == "Label: "
    assert loraft_says(*given[:-1], "fr", "--force")[::2] == (
        2, "error: --language: unknown (got 'fr'); allowed: vi, en\n"
    )  # fmt: skip


def test_task_list_names_the_built_in_tasks_with_their_files(loraft_says: Says) -> None:
    rows = json.loads(loraft_says("task", "list", "--json")[1])
    assert {row["name"]: row["path"] for row in rows} == {name: str(path) for name, path in tasks().items()}
    assert rows[1]["labels"] == ["negative", "neutral", "positive"]
    table = loraft_says("task", "list")[1]
    assert all(str(path) in table for path in tasks().values())
