"""`docs/export.md` does what it says: its blocks run one after the other in a folder with a finished run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.finished_runs import NAMES, finished_run

PAGE = Path(__file__).parents[1] / "docs" / "export.md"


@pytest.mark.integration
def test_the_blocks_of_the_page_run(tmp_path: Path) -> None:
    finished_run(tmp_path / "runs")
    printed = []
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        assert language in ("bash", "python")
        python = shlex.quote(sys.executable)
        script = re.sub(r"^loraft ", f"{python} -m loraft ", block, flags=re.MULTILINE)
        command = ["bash", "-ec", script] if language == "bash" else [sys.executable, "-c", block]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    _, by_pipeline, _, by_onnx, by_gguf = printed
    label = by_pipeline.strip()
    assert label in NAMES
    assert NAMES[int(by_onnx)] == label
    assert by_gguf.splitlines()[-1] == label
