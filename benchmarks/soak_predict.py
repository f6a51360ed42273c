"""`loraft predict` over very many lines, by file and by pipe: rows, peak memory and rows per second, as JSON.

    python benchmarks/soak_predict.py --rows 10000 100000 1000000 --json soak_predict.json
    python benchmarks/soak_predict.py --rows 10000 --scorer real

The stand-in scorer takes the place of the model: its scores are a hash of the token ids. The rest is what a user runs:
reading, encoding, grouping, writing, one process for each measurement. The peak is that of the whole process, as the
system counts it (VmHWM).
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS = ("file", "pipe", "output-file")
TEXTS = (
    "thầy giảng bài rất dễ hiểu",
    "phòng học nóng và ồn",
    "môn học bình thường",
    "cô rất nhiệt tình",
    "bài tập quá nhiều",
)
CHILD = """
import hashlib, json, sys
import numpy as np
from loraft.engine import scorer

def start(model, prompts, completions_K, **settings):
    found = []
    for ids in prompts:
        digest = hashlib.blake2b(np.array(ids).tobytes(), digest_size=2 * len(completions_K)).digest()
        found.append(np.frombuffer(digest, dtype=np.uint16) / 2**14)
    return lambda: -np.array(found, dtype=np.float64).reshape(len(found), len(completions_K))

if sys.argv[1] == "stand-in":
    scorer.start = start
from loraft.cli.app import main
code = 0
try:
    main(sys.argv[3:])
except SystemExit as end:
    code = int(end.code or 0)
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
open(sys.argv[2], "w").write(json.dumps({"exit_code": code, "peak_mib": int(peak[0]) // 1024}))
"""


def write_lines(path: Path, rows: int) -> None:
    """A CSV file of so many different sentences."""
    with path.open("w", encoding="utf-8") as file:
        file.write("id,sentence\n")
        for row in range(rows):
            file.write(f"{row},{TEXTS[row % len(TEXTS)]} {hashlib.md5(str(row).encode()).hexdigest()[:6]}\n")


def measure(way: str, rows: int, scorer: str, run: str, folder: Path) -> dict[str, Any]:
    """One prediction in a process of its own."""
    given, out, report = folder / "in.csv", folder / "out", folder / "report.json"
    write_lines(given, rows)
    arguments = ["predict", "--run", run, *(["-"] if way == "pipe" else ["--input", str(given)])]
    if way == "output-file":
        arguments += ["--output-file", str(folder / "predicted.csv")]
    began = time.monotonic()
    with given.open("rb") as source, out.open("wb") as answers:
        cat = subprocess.Popen(["cat"], stdin=source, stdout=subprocess.PIPE)  # a pipe and not the file itself
        done = subprocess.run(
            [sys.executable, "-c", CHILD, scorer, str(report), *arguments], stdin=cat.stdout, stdout=answers, check=True
        )
        cat.kill()
        cat.wait()
    assert done.returncode == 0
    seconds = time.monotonic() - began
    written = folder / "predicted.csv" if way == "output-file" else out
    with written.open("rb") as file:
        answered = sum(1 for _ in file) - (way == "output-file")
    found = json.loads(report.read_text())
    return {
        "way": way, "rows": rows, "answered": answered, "scorer": scorer, **found, "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
    }  # fmt: skip


def main() -> None:
    """Measures every way at every number of rows, prints a line for each, writes them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--ways", nargs="+", default=[*WAYS], choices=WAYS)
    parser.add_argument("--scorer", default="stand-in", choices=("stand-in", "real"))
    parser.add_argument("--run", help="a finished run; by default one of two steps is made")
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as made:
        options.run = options.run or short_run(Path(made))
        measure_all(options, found)


def short_run(folder: Path) -> str:
    """A run of two steps on a few rows."""
    rows = [f"data.max_{split}_rows=32" for split in ("train", "eval", "test")]
    sets = [part for item in (*rows, "train.max_steps=2", "name=a") for part in ("--set", item)]
    command = [sys.executable, "-m", "loraft", "train", "--output", str(folder), *sets]
    subprocess.run(command, check=True, capture_output=True)
    return str(folder / "a")


def measure_all(options: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    """Measures, and writes what there is after each."""
    for way in options.ways:
        for rows in options.rows:
            with tempfile.TemporaryDirectory() as folder:
                found.append(measure(way, rows, options.scorer, options.run, Path(folder)))
            print(json.dumps(found[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
