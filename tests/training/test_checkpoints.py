import json
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from loraft.training.callbacks import SIGNALS, SaveOnInterrupt
from loraft.training.checkpoints import newest_checkpoint


def control() -> SimpleNamespace:
    return SimpleNamespace(should_save=False, should_training_stop=False)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_saves_after_the_step_and_then_interrupts(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    callback, quiet, asked = SaveOnInterrupt(), control(), control()
    with pytest.raises(KeyboardInterrupt), callback:
        callback.on_step_end(None, None, quiet)
        callback.on_save(None, None, quiet)
        signal.raise_signal(number)
        callback.on_step_end(None, None, asked)
        assert (asked.should_save, asked.should_training_stop) == (True, False)
        callback.on_save(None, None, asked)
    assert (quiet.should_save, quiet.should_training_stop) == (False, False)
    assert (asked.should_save, asked.should_training_stop) == (True, True)
    assert "the step in flight is finished and saved" in capsys.readouterr().err
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_the_second_signal_stops_at_once() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), SaveOnInterrupt():
        signal.raise_signal(signal.SIGINT)
        reached.append(1)
        signal.raise_signal(signal.SIGINT)
        reached.append(2)
    assert reached == [1]


def test_without_a_signal_nothing_happens_and_an_error_stays_itself() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with SaveOnInterrupt():
        pass
    with pytest.raises(ZeroDivisionError), SaveOnInterrupt():
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_outside_the_main_thread_it_leaves_signals_alone() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with SaveOnInterrupt():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


def test_the_newest_checkpoint_is_the_latest_whole_one(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    for step, state in ((9, "{}"), (100, json.dumps({"global_step": 100})), (200, '{"global'), (300, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state, encoding="utf-8")
    (tmp_path / "checkpoint-x").mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
