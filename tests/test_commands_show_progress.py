"""Every command that computes for long reports the stages of its work; nothing of that reaches stdout."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from helpers.command_line import Says
from helpers.config import SMALL
from helpers.finished_runs import finished_run
from helpers.tiny import SENTENCES

from loraft.cli.app import main
from loraft.display import progress as display
from loraft.progress import Listener, installed
from loraft.runs.run import Run

FEW = [word for override in [*SMALL, "data.max_train_rows=32", "eval.baselines=off"] for word in ("--set", override)]


class Recorder(Listener):
    """Keeps how far each stage came, by its name; of numbered stages also the notes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, tuple[int, int | None]] = {}
        self.notes: list[str] = []

    def changed(self) -> None:
        for stage in self.stages:
            self.seen[stage.name] = stage.done, stage.total
            if not stage.unit and stage.note and stage.position not in self.notes:
                self.notes.append(stage.position)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(display, "install", lambda **named: installed.set(recorder))
    return recorder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(tmp_path_factory.mktemp("run"), "eval.bootstrap_samples=100", "eval.baselines=off")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "câu.csv"
    path.write_text(
        "sentence,ghi chú\n" + "".join(f'"{text} thật","hai\ndòng"\n' for text in SENTENCES), encoding="utf-8"
    )
    return path


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Iterator[Says]:
    """Calls the command line; returns exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        return int(end.value.code or 0), *capsys.readouterr()

    with patch.dict("os.environ"):
        yield call


N = len(SENTENCES)


@pytest.mark.parametrize(
    ("arguments", "name", "done"),
    [
        (("eval", "--run", "RUN"), "scoring test", N),
        (("eval", "--run", "RUN", "--split", "train", "--decode", "generate"), "scoring train", N),
        (("predict", "--run", "RUN", "--input", "FILE"), "predicting", N),
        (("explain", "--run", "RUN", "--input", "FILE"), "explaining", N - 1),  # the last one ends the stage
        (("suggest", "FILE", "--run", "RUN"), "scoring rows", N),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_rows_are_counted(
    arguments: tuple[str, ...], name: str, done: int, says: Says, recorder: Recorder, run: Run, file: Path
) -> None:
    places = {"RUN": str(run.path), "FILE": str(file)}
    code, out, err = says(*(places.get(word, word) for word in arguments))
    assert code == 0, err
    assert recorder.seen[name] == (done, N)
    assert recorder.seen["loading backbone"] == (0, None)
    assert recorder.stages == []
    assert installed.get() is None
    if arguments[0] == "predict":
        assert set(out.split()) <= {"negative", "neutral", "positive"}
        assert len(out.splitlines()) == N


def test_rows_that_need_no_scores_are_counted_too(says: Says, recorder: Recorder, run: Run, tmp_path: Path) -> None:
    lines, table = tmp_path / "câu.txt", tmp_path / "câu.csv"
    lines.write_bytes("thầy dạy hay\r\r \rphòng nóng\r\r".encode())
    table.write_text("sentence,label\nthầy dạy hay,positive\n\nphòng nóng,\n,\nlớp đông\n", encoding="utf-8")
    assert says("predict", "--run", str(run.path), "--input", str(lines))[0] == 1  # two blank ones in the middle
    assert recorder.seen["predicting"] == (4, 4)
    assert says("suggest", str(table), "--run", str(run.path))[0] == 1
    assert recorder.seen["scoring rows"] == (4, 4)


@pytest.mark.integration
@pytest.mark.parametrize("joint", ["on", "off"])
def test_a_sweep_is_shown_as_a_whole(joint: str, says: Says, recorder: Recorder, tmp_path: Path) -> None:
    code, _, err = says("sweep", "--ranks", "1,2", "--joint", joint, "--output", str(tmp_path), *FEW)
    assert code == 0, err
    assert recorder.notes == ["trial 1 of 2 (r1)", "trial 2 of 2 (r2)"]
    assert recorder.seen["joint pass of 2 trials" if joint == "on" else "training"] == (4, 4)
    assert recorder.seen["scoring test"] == (40, 40)
    assert {"loading loraft-vi-tiny", "scoring validation"} <= set(recorder.seen)


@pytest.mark.integration
def test_studies_are_shown_as_a_whole(says: Says, recorder: Recorder, tmp_path: Path) -> None:
    code, _, err = says("fewshot", "--shots", "1", "--repeats", "2", "--output", str(tmp_path), *FEW)
    assert code == 0, err
    assert recorder.notes[-1] == "measurement 5 of 5 (backbone, 1 shot)"
    more = ("--set", "data.max_train_rows=300", "--set", "train.max_steps=1")
    code, _, err = says("audit", "--output", str(tmp_path), *FEW, *more)
    assert code == 0, err
    assert {"fold", "pass"} & set(recorder.seen)  # one after the other, or together
    assert recorder.seen["training"] == (1, 1)
    assert "scoring fold 5" in recorder.seen


@pytest.mark.integration
def test_data_and_plan_are_shown(says: Says, recorder: Recorder, tmp_path: Path) -> None:
    assert says("data", "--no-tokens", "--output", str(tmp_path), *FEW)[0] == 0
    assert {"describing feedback", "searching near-duplicates, part"} <= set(recorder.seen)
    with patch("loraft.delivery.plan.CALIBRATION", 0.1):
        assert says("plan", *FEW)[0] == 0
    assert "training a few steps, to tell the time" in recorder.seen
