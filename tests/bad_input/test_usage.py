"""Unknown commands and flags, missing and surplus arguments, in the same form as all other errors."""

import re
import shlex

import pytest
from helpers.bad_input import refusal

HELP = r"; `loraft.*--help` shows all$"
CASES: list[tuple[list[str], str]] = [
    (["trian"], r"loraft: no such command \(got 'trian'\); did you mean 'train'\? `loraft --help` shows all$"),
    (["evaluate"], r"loraft: no such command \(got 'evaluate'\); did you mean 'eval'"),
    (["--"], rf"loraft: command is missing \(got none\){HELP}"),
    (["x" * 300], rf"loraft: no such command \(got 'x+\.\.\.'\){HELP}"),
    (["huấn-luyện"], rf"loraft: no such command \(got 'huấn-luyện'\){HELP}"),
    (["\x1b[31mtrain"], r"loraft: no such command \(got '\\x1b\[31mtrain'\)"),
    (["--verison"], r"loraft: no such option \(got '--verison'\); did you mean --version\?"),
    (
        ["task", "nwe"],
        r"loraft task: no such command \(got 'nwe'\); did you mean 'new'\? `loraft task --help` shows all$",
    ),
    (["train", "--rnak", "4"], r"loraft train: no such option \(got '--rnak'\); did you mean --rank"),
    (["train", "-x"], rf"loraft train: no such option \(got '-x'\){HELP}"),
    (["predict", "-run", "a", "câu"], r"loraft predict: no such option \(got '-run'\); did you mean --run\?"),
    (["train", "-vx"], rf"loraft train: no such option \(got '-x'\){HELP}"),
    (["train", f"--{'x' * 300}"], rf"loraft train: no such option \(got '--x+\.\.\.'\){HELP}"),
    (["train", "--hạng", "8"], r"loraft train: no such option \(got '--hạng'\)"),
    (["train", "x"], rf"loraft train: more arguments than it takes \(got 'x'\){HELP}"),
    (["train", "\x1b[31m"], r"loraft train: more arguments than it takes \(got '\\x1b"),
    (["eval", "--splitt", "test"], r"loraft eval: no such option \(got '--splitt'\); did you mean .*--split"),
    (["eval", "runs/a"], r"loraft eval: more arguments than it takes \(got"),
    (["predict", "--inptu", "a.csv"], r"loraft predict: no such option \(got '--inptu'\); did you mean --input"),
    (["predict", "--input"], rf" --input: needs a value \(got none\){HELP}"),
    (["fewshot", "--shot", "1"], r"loraft fewshot: no such option \(got '--shot'\); did you mean .*--shots"),
    (["sweep", "--rank", "1"], r"loraft sweep: no such option \(got '--rank'\); did you mean .*--ranks"),
    (["sweep", "8", "16"], r"loraft sweep: more arguments than it takes \(got"),
    (["compare"], rf"loraft compare: argument RUN RUN\.\.\. is missing \(got none\){HELP}"),
    (["compare", "--row", "1", "a", "b"], r"loraft compare: no such option \(got '--row'\); did you mean --rows"),
    (["report", "a", "b"], rf"loraft report: more arguments than it takes \(got 'b'\){HELP}"),
    (["report", "--too", "x"], r"loraft report: no such option \(got '--too'\); did you mean --to"),
    (["data", "a", "b"], r"loraft data: more arguments than it takes \(got"),
    (["models", "--jsn"], r"loraft models: no such option \(got '--jsn'\); did you mean --json\?"),
    (["models", "x"], r"loraft models: more arguments than it takes \(got"),
    (["config", "--json=1"], r"loraft config --json: takes no value \(got '1'\)"),
    (["config", "--set"], rf" --set: needs a value \(got none\){HELP}"),
    (
        ["task", "new", "--langage", "vi"],
        r"loraft task new: no such option \(got '--langage'\); did you mean --language\?",
    ),
    (["task", "list", "x"], r"loraft task list: more arguments than it takes \(got"),
    (["train", "--rank"], rf" --rank: needs a value \(got none\){HELP}"),
    (["train", "--force=yes"], r"loraft train --force: takes no value \(got 'yes'\)"),
    (["train", "--folds", "x"], r"loraft train --folds: not allowed \(got 'x'\); should be a valid integer$"),
    (["train", "--folds", "1"], r" --folds: not allowed \(got '1'\); should be greater than or equal to 2$"),
    (
        ["train", "--folds", "1000000000"],
        r" --folds: not allowed \(got '1000000000'\); should be less than or equal to 1000$",
    ),
    (["compare", "a", "b", "--rows", "nhiều"], r" --rows: not allowed \(got 'nhiều'\); should be a valid integer$"),
    (
        ["compare", "a", "b", "--rows", "-1"],
        r" --rows: not allowed \(got '-1'\); should be greater than or equal to 0$",
    ),
    (["compare", "a", "b", "--rows", "1000000000"], r" --rows: .*less than or equal to 10000$"),
    (["compare", "a", "--rows", "3", "--rows", "x"], r" --rows: .*\(got 'x'\)"),
    (
        ["predict", "--min-confidence", "2", "câu"],
        r" --min-confidence: not allowed \(got '2'\); should be less than or equal to 1$",
    ),
    (
        ["predict", "--min-confidence", "-1", "câu"],
        r" --min-confidence: not allowed \(got '-1'\); should be greater than or equal to 0$",
    ),
    (
        ["predict", "--max-error", "5", "câu"],
        r" --max-error: not allowed \(got '5'\); should be less than or equal to 1$",
    ),
    (
        ["predict", "--min-confidence", "cao", "câu"],
        r" --min-confidence: not allowed \(got 'cao'\); should be a valid number$",
    ),
    (["predict", "--min-confidence", "nan", "câu"], r"--min-confidence: is no number| --min-confidence: .*nan"),
]

SENTENCES = {
    "predict '-1 sao'": "predict -- '-1 sao'",
    "predict '-vui quá' --run a --json": "predict --run a --json -- '-vui quá'",
    "predict tốt '--- chán ---'": "predict -- 'tốt' '--- chán ---'",
    "predict --verbose '-3 sao' tốt -v": "predict --verbose -v -- '-3 sao' 'tốt'",
    "predict '- không tệ' -5": "predict -- '- không tệ' -5",
    "explain '-1 sao' --label negative": "explain --label negative -- '-1 sao'",
    "predict --min-confidence -1 '-1 sao'": "predict --min-confidence -1 -- '-1 sao'",
}


@pytest.mark.parametrize(("arguments", "says"), CASES, ids=[" ".join(arguments)[:40] for arguments, _ in CASES])
def test_a_mistake_in_the_use_is_one_message_with_the_next_command(arguments: list[str], says: str) -> None:
    message = refusal(arguments, says)
    assert message.startswith("error: loraft") or "--min-confidence: " in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("line", "printed"), SENTENCES.items(), ids=SENTENCES)
def test_a_sentence_that_begins_with_a_hyphen_gets_a_command_that_takes_it(line: str, printed: str) -> None:
    message = refusal(
        shlex.split(line), rf"no such option \(got .*\); .* stands behind --: `loraft {re.escape(printed)}`$"
    )
    again = refusal(shlex.split(message.split("`")[1])[1:])
    assert "no such option" not in again  # there is no run in this folder, or another flag is wrong


def test_commands_without_sentences_do_not_offer_the_two_hyphens() -> None:
    refusal(["train", "-1 sao"], r"no such option \(got '-1 sao'\); `loraft train --help` shows all$")


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    from loraft.cli.app import main

    for arguments in ([], ["task"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        shown = capsys.readouterr()
        assert end.value.code == 2
        assert "error:" not in shown.out + shown.err
        assert "Usage:" in shown.out + shown.err
