"""Results of a run that were damaged by hand: refused by every command that reads them."""

import json
from pathlib import Path

import pytest
from helpers.damage import DAMAGES, copied, refused_everywhere

from loraft.cli.app import main
from loraft.studies.report_words import Entry, table, translated

REPORT, COMPARE = ["report", "run"], ["compare", "run", "sweep/r2"]
READ_BY = {  # the commands that read a file
    "run/metrics.json": [REPORT, COMPARE],
    "run/environment.json": [REPORT],
    "run/predictions.jsonl": [REPORT, COMPARE],
    "run/explanations.json": [REPORT],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", READ_BY)
def test_a_damaged_file_is_one_message_with_its_name(work: Path, file: str, damage: str) -> None:
    refused_everywhere(work, file, damage, READ_BY[file])


WORDS = {
    "levels": "rank 1, " * 1000,
    "groups": "a (b interval c to d) and e f " * 20,
    "long": "words, " * 3000,
    "shorter": "words, " * 300,
    "verdict": "Fine-tuning is not shown to pay, as " + "x and y " * 200,
}


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were compared with an entry of the Vietnamese table."""
    texts: list[str] = []
    values = Entry.values

    def counted(entry: Entry, text: str) -> dict[str, str] | None:
        texts.append(text)
        return values(entry, text)

    monkeypatch.setattr(Entry, "values", counted)
    return texts


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_words_of_a_stranger_are_translated_in_few_steps(words: str, searched: list[str]) -> None:
    assert words[-20:] in translated(words)
    assert len(searched) < len(table()) * 60


def test_a_strangers_run_has_a_vietnamese_report(
    work: Path, searched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied(work) / "run" / "metrics.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    results["train"]["alpha_policy"] = WORDS["groups"]
    path.unlink()  # a link
    path.write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        main(["report", "run", "--markdown", "--lang", "vi"])
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    assert WORDS["groups"][-20:].strip() in out
    assert sum(text in WORDS["groups"] for text in searched) < len(table()) * 60
