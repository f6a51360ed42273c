"""What is predicted is what a training takes: one setting of `benchmarks/memory.py`, in a process of its own."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.integration
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library is told by variables of glibc")
def test_a_trainings_peak_is_as_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import memory

    toy = tmp_path / "toy"
    memory.AutoModelForCausalLM.from_config(memory.BACKBONES["toy"]).save_pretrained(toy)
    setting = memory.Setting(memory.TINY, "none", 8, 256)
    predicted = memory.predicted(setting, tmp_path, "cpu")["predicted_mib"]
    measured = memory.in_a_process(setting, tmp_path, "cpu", **memory.GIVEN_BACK)["measured_mib"]
    assert predicted == pytest.approx(measured, rel=0.15)
