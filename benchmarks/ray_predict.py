"""`loraft predict --engine ray` over very many rows on two workers of one CPU each, beside one local process.

    python benchmarks/ray_predict.py                            # 1,000,000 rows, a backbone of two thin layers
    python benchmarks/ray_predict.py --bundled --rows 20000     # the bundled backbone, of which a million take an hour

The thin backbone has random weights and two steps of training: it stands for the work beside the model. The rows are a
Parquet file of made-up variants of the bundled sentences, all different and the same for the same number. A Ray cluster
of two nodes with a CPU each runs on this machine; the command is the one that a user types. The output is checked:
every row once, in order, with a label and probabilities that sum to 1, and the first rows with the labels that one
local process gives, of one thread, whose speed is measured on them without its start. Memory is the most that was seen
of a process, twice a second. Writes benchmarks/results/ray_predict.json.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import psutil
import pyarrow
import pyarrow.parquet
import typer

OUT = Path(__file__).parent / "results" / "ray_predict.json"
LABELS = ("negative", "neutral", "positive")
BATCH = 50_000  # rows of the file that are made at a time
NODES = 2
OBJECT_STORE = 2 * 10**8  # bytes of each node


def write_rows(path: Path, rows: int) -> None:
    """A Parquet file of so many different sentences with their numbers."""
    from loraft.bundled import bundled_data

    lines = (bundled_data()["feedback"] / "train.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["sentence"] for line in lines]
    schema = pyarrow.schema([("id", pyarrow.int64()), ("sentence", pyarrow.string())])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for begin in range(0, rows, BATCH):
            ids = range(begin, min(begin + BATCH, rows))
            made = [f"{texts[n % len(texts)]} , lớp {n // 100} nhóm {n % 100} ." for n in ids]
            writer.write_table(pyarrow.table({"id": ids, "sentence": made}, schema=schema))


@contextmanager
def cluster() -> Iterator[str]:
    """The address of a cluster of `NODES` nodes with a CPU each."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": OBJECT_STORE}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(NODES - 1):
            made.add_node(**node)
        yield made.address
    finally:
        made.shutdown()


def thin_run(folder: Path) -> str:
    """A run with an adapter of a backbone of two thin layers and the bundled tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from loraft.bundled import bundled_backbones

    tokenizer = AutoTokenizer.from_pretrained(bundled_backbones()["loraft-vi-tiny"])
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    settings = ["train.max_steps=2", "data.max_train_rows=64", "eval.bootstrap_samples=100", "eval.baselines=off",
                "name=thin"]  # fmt: skip
    command = [sys.executable, "-m", "loraft", "train", "--model", str(folder / "backbone"), "--output", str(folder)]
    command += [word for one in settings for word in ("--set", one)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(folder / "thin")


def predicted(run: str, *arguments: str, watch: bool = False) -> tuple[float, dict[str, Any]]:
    """Seconds of a prediction in a process of one thread, and the peak memory in MiB of it and of each worker."""
    command = [sys.executable, "-m", "loraft", "predict", "--run", run, *arguments]
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    peaks: dict[int, int] = {}
    thread = threading.Thread(target=watched, args=(process, peaks))
    if watch:
        thread.start()
    code = process.wait()
    seconds = time.monotonic() - began
    if watch:
        thread.join()
    if code:
        raise SystemExit(f"loraft predict: exit code {code}")
    driver = peaks.pop(process.pid, 0)
    return seconds, {"driver_mib": driver, "workers_mib": sorted(peaks.values())}


def watched(process: "subprocess.Popen[bytes]", peaks: dict[int, int]) -> None:
    """Notes the most memory of a process, and of the workers of this machine's cluster, until the process ends."""
    while process.poll() is None:
        for one in psutil.Process().children(recursive=True):
            try:
                if one.pid == process.pid or "MapWorker" in " ".join(one.cmdline()):
                    peaks[one.pid] = max(peaks.get(one.pid, 0), one.memory_info().rss // 2**20)
            except psutil.Error:  # it has just ended
                continue
        time.sleep(0.5)


def checked(folder: Path, rows: int) -> list[str]:
    """The labels, of files that have every row once, in order.

    Raises:
        SystemExit: they do not.
    """
    labels: list[str] = []
    for path in sorted(folder.glob("part-*.parquet")):
        found = pyarrow.parquet.read_table(path)
        expected = list(range(len(labels), len(labels) + found.num_rows))
        if found["id"].to_pylist() != expected:
            raise SystemExit(f"{path}: rows are missing, double or in another order")
        sums = zip(*(found[f"prob_{label}"].to_pylist() for label in LABELS), strict=True)
        if any(abs(sum(one) - 1) > 1e-6 for one in sums):
            raise SystemExit(f"{path}: probabilities do not sum to 1")
        labels += found["label"].to_pylist()
    if len(labels) != rows or set(labels) - {*LABELS}:
        raise SystemExit(f"{folder}: {len(labels):,} rows where {rows:,} should be, with labels {set(labels)}")
    return labels


def main(
    rows: Annotated[int, typer.Option(help="Rows of the file.")] = 1_000_000,
    sample: Annotated[int, typer.Option(help="Rows that the local process predicts.")] = 20_000,
    bundled: Annotated[bool, typer.Option("--bundled", help="Take the bundled backbone and adapter.")] = False,
    out: Annotated[Path, typer.Option(help="File of the figures.")] = OUT,
) -> None:
    """Measures, checks the rows, and writes the figures."""
    from loraft.cli.predict_ray import SHARD_ROWS
    from loraft.runs.atomic_files import write_json
    from loraft.runs.environment import environment
    from loraft.runs.records import as_json

    os.environ["HF_HUB_OFFLINE"] = "1"
    sample = min(sample, rows)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        given: tuple[str, ...]
        for name, count in {"all": rows, "sample": sample, "one": 1}.items():
            write_rows(folder / f"{name}.parquet", count)
        run = "demo" if bundled else thin_run(folder)
        local = {}
        for name in ("one", "sample"):
            given = ("--input", str(folder / f"{name}.parquet"), "--output-file", str(folder / f"{name}-out.parquet"))
            local[name], _ = predicted(run, *given)
        with cluster() as address:
            given = ("--input", str(folder / "all.parquet"), "--output-file", str(folder / "out"))
            given += ("--shard-rows", str(min(SHARD_ROWS, -(-rows // (4 * NODES)))))
            seconds, memory = predicted(run, "--engine", "ray", "--address", address, *given, watch=True)
        labels = checked(folder / "out", rows)
        alone = pyarrow.parquet.read_table(folder / "sample-out.parquet")["label"].to_pylist()
    same = sum(one == other for one, other in zip(labels, alone, strict=False))
    per_second = {"local": sample / (local["sample"] - local["one"]), "ray": rows / seconds}
    measured = {
        "rows": rows, "workers": NODES, "seconds": round(seconds, 1), "rows_per_second": round(per_second["ray"], 1),
        **memory, "local_rows": sample, "local_rows_per_second": round(per_second["local"], 1),
        "ratio": round(per_second["ray"] / per_second["local"], 2), "same_labels": same,
    }  # fmt: skip
    command = "python benchmarks/ray_predict.py" + " --bundled" * bundled
    command += f" --rows {rows}" if rows != 1_000_000 else ""
    record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    record["bundled" if bundled else "thin"] = {
        "command": command, "environment": as_json(environment()), "measured": measured,
    }  # fmt: skip
    write_json(out, record)
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    typer.run(main)
