"""Unknown commands and flags, missing and surplus arguments, in the same form as all other errors."""

import pytest
from helpers.bad_input import refusal

HELP = r"; `loraft.*--help` shows all$"
CASES: list[tuple[list[str], str]] = [
    (["trian"], r"loraft: no such command 'trian'; did you mean 'train'\?$"),
    (["evaluate"], r"loraft: no such command 'evaluate'"),
    (["x" * 300], rf"loraft: no such command 'x+\.\.\.{HELP}"),
    (["huấn-luyện"], rf"loraft: no such command 'huấn-luyện'{HELP}"),
    (["\x1b[31mtrain"], r"loraft: no such command '\\x1b\[31mtrain'"),
    (["--verison"], r"loraft: no such option: --verison; did you mean --version\?$"),
    (["task", "nwe"], r"loraft task: no such command 'nwe'; did you mean 'new'\?$"),
    (["train", "--rnak", "4"], r"loraft train: no such option: --rnak; did you mean --rank"),
    (["train", "-x"], rf"loraft train: no such option: -x{HELP}"),
    (["train", "-vx"], rf"loraft train: no such option: -x{HELP}"),
    (["train", f"--{'x' * 300}"], rf"loraft train: no such option: --x+\.\.\.{HELP}"),
    (["train", "--hạng", "8"], r"loraft train: no such option: --hạng"),
    (["train", "x"], rf"loraft train: got unexpected extra argument.*x.*{HELP}"),
    (["train", "\x1b[31m"], r"loraft train: got unexpected extra argument.*\\x1b"),
    (["eval", "--splitt", "test"], r"loraft eval: no such option: --splitt; did you mean .*--split"),
    (["eval", "runs/a"], r"loraft eval: got unexpected extra argument"),
    (["predict", "--inptu", "a.csv"], r"loraft predict: no such option: --inptu; did you mean --input"),
    (["predict", "--input"], rf"option '--input' requires an argument{HELP}"),
    (["fewshot", "--shot", "1"], r"loraft fewshot: no such option: --shot; did you mean .*--shots"),
    (["sweep", "--rank", "1"], r"loraft sweep: no such option: --rank; did you mean .*--ranks"),
    (["sweep", "8", "16"], r"loraft sweep: got unexpected extra argument"),
    (["compare"], rf"loraft compare: missing argument 'RUN RUN\.\.\.'{HELP}"),
    (["compare", "--row", "1", "a", "b"], r"loraft compare: no such option: --row; did you mean --rows"),
    (["report", "a", "b"], rf"loraft report: got unexpected extra argument.*b.*{HELP}"),
    (["report", "--too", "x"], r"loraft report: no such option: --too; did you mean --to"),
    (["data", "a", "b"], r"loraft data: got unexpected extra argument"),
    (["models", "--jsn"], r"loraft models: no such option: --jsn; did you mean --json\?"),
    (["models", "x"], r"loraft models: got unexpected extra argument"),
    (["config", "--json=1"], r"option '--json' does not take a value"),
    (["config", "--set"], rf"option '--set' requires an argument{HELP}"),
    (["task", "new", "--langage", "vi"], r"loraft task new: no such option: --langage; did you mean --language\?"),
    (["task", "list", "x"], r"loraft task list: got unexpected extra argument"),
    (["train", "--rank"], r"option '--rank' requires an argument"),
    (["train", "--force=yes"], r"option '--force' does not take a value"),
    (["train", "--folds", "x"], r"loraft train: invalid value for '--folds': .*valid integer.*\(got 'x'\)"),
    (["train", "--folds", "1"], r"'--folds': .*greater than or equal to 2 \(got '1'\)"),
    (["train", "--folds", "1000000000"], r"'--folds': .*less than or equal to 1000 \(got '1000000000'\)"),
    (["compare", "a", "b", "--rows", "nhiều"], r"'--rows': .*valid integer.*\(got 'nhiều'\)"),
    (["compare", "a", "b", "--rows", "-1"], r"'--rows': .*greater than or equal to 0 \(got '-1'\)"),
    (["compare", "a", "b", "--rows", "1000000000"], r"'--rows': .*less than or equal to 10000"),
    (["compare", "a", "--rows", "3", "--rows", "x"], r"'--rows': .*\(got 'x'\)"),
    (["predict", "--min-confidence", "2", "câu"], r"'--min-confidence': .*less than or equal to 1 \(got '2'\)"),
    (["predict", "--min-confidence", "-1", "câu"], r"'--min-confidence': .*greater than or equal to 0 \(got '-1'\)"),
    (["predict", "--max-error", "5", "câu"], r"'--max-error': .*less than or equal to 1 \(got '5'\)"),
    (["predict", "--min-confidence", "cao", "câu"], r"'--min-confidence': .*valid number.*\(got 'cao'\)"),
    (["predict", "--min-confidence", "nan", "câu"], r"--min-confidence: is no number|'--min-confidence'.*nan"),
]


@pytest.mark.parametrize(("arguments", "says"), CASES, ids=[" ".join(arguments)[:40] for arguments, _ in CASES])
def test_a_mistake_in_the_use_is_one_message_with_the_next_command(arguments: list[str], says: str) -> None:
    message = refusal(arguments, says)
    assert message.startswith("error: loraft") or "--min-confidence: " in message
    assert len(message.splitlines()) == 1


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    from loraft.cli.app import main

    for arguments in ([], ["task"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        shown = capsys.readouterr()
        assert end.value.code == 2
        assert "error:" not in shown.out + shown.err
        assert "Usage:" in shown.out + shown.err
