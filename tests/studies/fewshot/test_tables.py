"""The few-shot table: what stands in it, and that it fits a terminal."""

import io
from dataclasses import replace

from helpers.folders import fewshot_result
from helpers.records import record
from rich.console import Console

from loraft.data.dataset import SplitSummary
from loraft.studies.fewshot.records import FewshotResult
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, summarise
from loraft.studies.fewshot.tables import fewshot, fewshot_draws, fewshot_notes


def study(decode: str = "score") -> FewshotResult:
    draws = [record(0.9, half=0.02, model=ADAPTER, shots=0, draw=0, train_rows=())]
    draws += [record(0.3, half=0.02, model=BACKBONE, shots=0, draw=0, train_rows=())]
    draws += [
        record(0.5 + draw / 10, half=0.02, model=BACKBONE, shots=8, draw=draw, train_rows=(7, 3)) for draw in (0, 1)
    ]
    plain = record(0.7, half=0.02, model="TF-IDF + linear SVM", shots=None)
    rows = summarise([plain, *draws], {0: 131, 8: 1366}, 0.9)
    return replace(
        fewshot_result(), rows=tuple(rows), draws=tuple(draws), decode=decode, selection="balanced", confidence=0.9,
        data={"test": SplitSummary("a", 3166, {})},
    )  # fmt: skip


def lines(decode: str) -> list[str]:
    console = Console(width=100, file=io.StringIO(), highlight=False, markup=False)
    console.print(fewshot(study(decode)))
    return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]  # type: ignore[attr-defined]


def test_a_row_has_mean_deviation_and_interval_of_accuracy_and_macro_f1() -> None:
    cells = [" ".join(line.split()) for line in lines("score")]
    assert cells[2] == "TF-IDF + linear SVM 0.700 [0.680, 0.720] 0.700 [0.680, 0.720] 0.700 0.700"
    # Two draws of 0.5 and 0.6: Student's t is 6.314, and sqrt((6.314 * 0.05)^2 + 0.02^2) = 0.316.
    assert cells[5] == "backbone, 8 shots 0.550±0.071 [0.234, 0.866] 0.550±0.071 [0.234, 0.866] 0.550 0.550"
    assert [cell.split(",")[0] for cell in cells[3:]] == ["adapter", "backbone", "backbone"]


def test_a_row_fits_a_line_of_100_columns_and_means_stand_under_each_other() -> None:
    for decode in ("score", "generate"):
        rows = [line for line in lines(decode) if "[" in line]
        assert len(rows) == 4  # none is wrapped
        assert len({line.index("0.") for line in rows}) == 1


def test_the_share_of_answers_that_are_no_label_is_shown_where_answers_were_generated() -> None:
    assert all(line.endswith(" 25.0%") for line in lines("generate") if "[" in line)
    assert not any("%" in line for line in lines("score"))


def test_notes_say_what_the_numbers_are() -> None:
    drawn, meaning, tokens = fewshot_notes(study())
    assert drawn == "2 draws of balanced demonstrations for each number of shots, on the same 3,166 test rows"
    assert "90% interval over draws and test rows" in meaning
    assert tokens.endswith("131 with 0, 1,366 with 8")
    assert fewshot_notes(replace(study(), order="drawn"))[1] == "demonstrations stand in the order drawn"


def test_every_draw_is_listed_with_its_training_rows_in_order() -> None:
    columns = [[str(cell) for cell in column.cells] for column in fewshot_draws(study()).columns]
    assert columns[0] == ["adapter, 0 shots", "backbone, 0 shots", "backbone, 8 shots", "backbone, 8 shots"]
    assert columns[1] == ["1", "1", "1", "2"]
    assert columns[2] == ["0.9000", "0.3000", "0.5000", "0.6000"]
    assert columns[-2] == ["25.0%"] * 4
    assert columns[-1] == ["", "", "7, 3", "7, 3"]
