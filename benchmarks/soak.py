"""Memory under load: a training split and `loraft data` of up to 1,000,000 rows, and a sweep of 200 trials.

    python benchmarks/soak.py [--only rows,data,trials,same,predict] [--sizes 2000,30000,300000,1000000]

`same` trains the same config three times, each in a process of its own, and compares the adapters' hashes; `predict`
runs soak_predict.py, which labels up to 1,000,000 lines.

Every measurement runs in a process of its own. Rows are made-up Vietnamese feedback, the same for the same number, with
the columns `sentence` and `sentiment`; all sentences differ. The backbone is the bundled one. Memory is the most that
the process ever had (VmHWM), in MiB; nothing is timed. Each part writes its records to results/soak.json and leaves
those of the others there.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

OUT = Path(__file__).parent / "results" / "soak.json"
WHO = ("thầy", "cô", "giảng viên", "trợ giảng", "cố vấn học tập", "phòng đào tạo", "khoa", "thư viện", "nhà xe")
DID = ("dạy rất dễ hiểu", "giảng hơi nhanh", "trả lời thư chậm", "chuẩn bị bài kỹ", "hay đến muộn", "cho nhiều ví dụ",
       "đọc lại slide", "chấm bài công bằng", "không giải thích chỗ khó", "quan tâm đến lớp")  # fmt: skip
ALSO = ("phòng học nóng", "máy chiếu mờ", "bài tập vừa sức", "tài liệu đầy đủ", "đề thi quá dài", "lịch học dày",
        "mạng yếu", "chỗ ngồi rộng rãi", "lớp đông", "giờ thực hành ít")  # fmt: skip
WISH = (
    "mong sửa sớm",
    "xin cảm ơn",
    "nên giữ như vậy",
    "cần thêm bài mẫu",
    "không có ý kiến gì thêm",
    "học kỳ sau mong vẫn thế",
)
LABELS = ("negative", "neutral", "positive")
TINY = {"vocab_size": 8192, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024}  # fmt: skip
MARKS = (10, 50, 100, 200)  # trials
SETTINGS = ("eval.baselines=off", "data.max_test_rows=20", "data.max_eval_rows=20")


def sentences(rows: int) -> Iterator[tuple[str, str]]:
    """Yields so many different sentences with a label."""
    draw = random.Random(0)
    for number in range(rows):
        parts = [draw.choice(WHO), draw.choice(DID), ",", draw.choice(ALSO), ",", draw.choice(WISH)]
        yield " ".join([*parts, f", lớp {number // 100} nhóm {number % 100} ."]), draw.choice(LABELS)


def write_rows(folder: Path, rows: int) -> Path:
    """Writes train.jsonl with that many rows, and validation.jsonl and test.jsonl with a few; returns the folder."""
    folder.mkdir(parents=True)
    for split, number in {"train": rows, "validation": 20, "test": 20}.items():
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for text, label in sentences(number):
                line = {"sentence": text if split == "train" else f"{split}: {text}", "sentiment": label}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return folder


def inside_rows(folder: Path) -> dict[str, Any]:
    """One training step on all rows of a folder; the peak when the step is over, and that of the whole run."""
    import loraft
    from loraft.training import memory
    from loraft.training.trainer import LabelTrainer

    memory.CLEAR = folder / "none"  # the peak of the whole process is wanted: nothing resets it
    found: dict[str, Any] = {}
    step = LabelTrainer.training_step

    def stepped(self: LabelTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = step(self, *args, **kwargs)
        found.setdefault("first_step_mib", peak_mib())
        found.setdefault("first_loss", float(loss))
        return loss

    LabelTrainer.training_step = stepped  # type: ignore[method-assign]
    overrides = [*SETTINGS, f"data.source={folder}", "train.max_steps=1", f"output={folder / 'runs'}", "name=soak"]
    loraft.train(loraft.resolve(overrides=overrides), quiet=True)
    return found | {"run_mib": peak_mib()}


def inside_data(folder: Path) -> dict[str, Any]:
    """`loraft data` over all rows of a folder."""
    import loraft
    from loraft.studies.dataset.statistics import describe

    found = describe(loraft.resolve(overrides=[f"data.source={folder}", f"output={folder / 'runs'}"]))
    return {"rows": found.rows, "run_mib": peak_mib()}


def inside_trials(joint: Path) -> dict[str, Any]:
    """A sweep of 200 trials of one step over a random backbone; memory and open files after some of them.

    Args:
        joint: `sweep.joint`: "off" trains one after the other, "auto" as many in one pass as fit.
    """
    import psutil
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    import loraft
    from loraft.bundled import bundled_backbones

    process, found, done = psutil.Process(), dict[str, Any](), 0

    def note(key: str) -> None:
        found[key] = {"rss_mib": process.memory_info().rss // 2**20, "open_files": process.num_fds()}

    def tell(message: str) -> None:
        nonlocal done
        if re.search(r": .* [\d.]+, [\d.]+ s$", message):  # a trial is over
            done += 1
            if done in MARKS:
                note(str(done))
        elif "fail" in message:
            raise SystemExit(message)

    with tempfile.TemporaryDirectory() as folder:
        backbone = Path(folder) / "backbone"
        AutoTokenizer.from_pretrained(bundled_backbones()["loraft-vi-tiny"]).save_pretrained(backbone)
        AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **TINY)).save_pretrained(backbone)
        seeds = f"sweep.seeds={list(range(50))}"
        overrides = [*SETTINGS, f"model.name={backbone}", f"output={folder}", "data.max_train_rows=32",
                     "train.max_steps=1", "eval.bootstrap_samples=100", "sweep.ranks=[2]", f"sweep.joint={joint}",
                     seeds, "sweep.grid={train.learning_rate: [1e-4, 2e-4, 4e-4, 8e-4]}"]  # fmt: skip
        result = loraft.sweep(loraft.resolve(overrides=overrides), quiet=True, tell=tell)
        note("after the figures")
    return found | {"joint": sum(trial.measured is not None and trial.measured.joint for trial in result.trials)}


def inside_same(folder: Path) -> dict[str, Any]:
    """The adapter of a training of 30 steps on bundled rows: its hash, and the number of threads."""
    import torch

    import loraft
    from loraft.runs.hashes import sha256_of

    overrides = ["train.max_steps=30", "data.max_test_rows=50", "eval.baselines=off", f"output={folder}", "name=same"]
    run = Path(loraft.train(loraft.resolve(overrides=overrides), force=True, quiet=True).run)
    return {"threads": torch.get_num_threads(), "sha256": sha256_of(run / "adapter" / "adapter_model.safetensors")}


def peak_mib() -> int:
    """The most memory that this process ever had, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("VmHWM:")[2].split()[0]) // 2**10


INSIDE = {"rows": inside_rows, "data": inside_data, "trials": inside_trials, "same": inside_same}


def child(part: str, argument: Path) -> dict[str, Any]:
    """What `INSIDE[part]` returns in a process of its own."""
    command = [sys.executable, __file__, "--inside", part, "--argument", str(argument)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured_rows(part: str, sizes: Sequence[int]) -> dict[str, Any]:
    """The record of each number of rows, and bytes a row above the smallest."""
    found: dict[str, Any] = {}
    key = {"rows": "first_step_mib", "data": "run_mib"}[part]
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            found[str(size)] = one = child(part, write_rows(Path(folder) / "rows", size))
        least = found[str(sizes[0])][key]
        if size > sizes[0]:
            one["bytes_a_row"] = round((one[key] - least) * 2**20 / (size - sizes[0]))
        print(f"{part}: {size:,} rows: {one}", file=sys.stderr, flush=True)
    return found


def save(part: str, measured: dict[str, Any]) -> None:
    """Writes the record of a part beside those of the others."""
    from loraft.runs.atomic_files import write_json
    from loraft.runs.environment import environment
    from loraft.runs.records import as_json

    kept = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    made = {"command": f"python benchmarks/soak.py --only {part}", "environment": as_json(environment())}
    write_json(OUT, kept | {part: made | {"measured": measured}})


def main(
    only: Annotated[str, typer.Option(help="Parts, comma-separated.")] = "rows,data,trials,same,predict",
    sizes: Annotated[str, typer.Option(help="Numbers of rows, ascending.")] = "2000,30000,300000,1000000",
    inside: Annotated[str | None, typer.Option(hidden=True)] = None,
    argument: Annotated[Path, typer.Option(hidden=True)] = Path(),
) -> None:
    """Measures memory under load."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if inside is not None:
        print(json.dumps(INSIDE[inside](argument)))
        return
    numbers = [int(size) for size in sizes.split(",")]
    for part in only.split(","):
        if part == "predict":  # has a script of its own
            script, figures = Path(__file__).with_name("soak_predict.py"), OUT.with_name("soak_predict.json")
            subprocess.run([sys.executable, str(script), "--json", str(figures)], check=True)
        elif part == "same":
            with tempfile.TemporaryDirectory() as folder:
                save(part, {str(n): child(part, Path(folder) / str(n)) for n in range(3)})
        elif part == "trials":
            save(part, {f"joint {joint}": child(part, Path(joint)) for joint in ("off", "auto")})
        else:
            save(part, measured_rows(part, numbers))


if __name__ == "__main__":
    typer.run(main)
