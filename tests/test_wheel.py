"""The wheel, installed into an empty environment in another folder: it needs nothing of the repository."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[1]
SCRIPT = """
import shlex, sys
from loraft.cli.app import main
for line in sys.argv[1:]:
    try:
        main(shlex.split(line))
    except SystemExit as end:
        assert not end.code, (line, end.code)
"""
FEW = (
    "--set data.max_train_rows=48 --set data.max_eval_rows=24 --set data.max_test_rows=24 --set train.max_steps=2"
    " --set train.eval_steps=2 --set eval.bootstrap_samples=100 --set eval.baselines=off"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make wheel` builds; without hatchling in this environment pip fetches it."""
    folder = tmp_path_factory.mktemp("dist")
    flags = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", *flags]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (found,) = folder.glob("loraft-*.whl")
    return found


def test_it_holds_package_presets_and_bundled_files_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")}
    package = ROOT / "src" / "loraft"
    files = {path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file()}
    expected = {name for name in files if "__pycache__" not in name}
    presets = ROOT.glob("configs/**/*.yaml")
    expected |= {f"loraft/configs/{path.relative_to(ROOT / 'configs').as_posix()}" for path in presets}
    assert names == expected
    assert {"loraft/py.typed", "loraft/bundled/demo/loraft.json", "loraft/configs/tutorial.yaml"} <= names


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's programs; the environment has the wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("môi trường") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    python = str(programs / "python")
    quiet = ["-q", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", *quiet, str(wheel)], check=True)
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    # A .pth file inside that folder, such as the one of an editable loraft, is not read from here.
    (Path(where.stdout.strip()) / "libraries.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return programs


def test_the_three_lines_work_elsewhere(installed: Path, tmp_path: Path) -> None:
    elsewhere = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONUTF8": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=elsewhere, capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        return done.stdout

    python = str(installed / "python")
    at = Path(run(python, "-c", "import loraft; print(loraft.__file__)").strip())
    assert installed.parent in at.parents
    lines = [
        "predict --run demo 'thầy giảng bài rất dễ hiểu'",
        f"train --quant nf4 --rank 16 {FEW}",
        f"sweep --ranks 1,2 {FEW}",
        "predict 'câu phản hồi'",
        "config --preset tutorial",
        "task list",
    ]
    out = run(python, "-c", SCRIPT, *lines)
    assert out.startswith("positive\n")
    assert "after: adapter" in out
    assert "best: r" in out
    assert "Llama-3.2-1B-Instruct" in out
    assert "app-reviews" in out
    assert str(at.parent) in run(str(installed / "loraft"), "models")
