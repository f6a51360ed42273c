"""A machine on which nothing but the folder of the runs can be written, as in a locked-down container."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOWHERE = "/proc/không-có"  # no process can make it, not even root's
VARIABLES = (
    "HOME", "HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
)  # fmt: skip


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, a folder that nobody can write to")
def test_a_training_needs_no_home_and_no_caches(tmp_path: Path) -> None:
    rows = [f"data.max_{split}_rows=16" for split in ("train", "eval", "test")]
    sets = [part for item in (*rows, "train.max_steps=1", "name=a") for part in ("--set", item)]
    command = [sys.executable, "-m", "loraft", "train", "--quant", "nf4", "--output", str(tmp_path / "kết quả"), *sets]
    environment = os.environ | dict.fromkeys(VARIABLES, NOWHERE)
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kết quả" / "a" / "metrics.json").is_file()
    assert (tmp_path / "kết quả" / "a" / "plots" / "confusion_matrix.png").is_file()
    assert "Traceback" not in done.stderr
