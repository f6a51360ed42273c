"""The measured figures in the documentation are those of the JSON files in benchmarks/results."""

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.pages import PAGES, ROOT, blocks, name_of

sys.path.insert(0, str(ROOT / "benchmarks"))  # scripts, no package

import memory
import performance
import serving
import study_records
import tutorial
import vsfc
from targets import HARNESS, LORAFT, RECIPE, TRL, TRL_BEST

RESULTS = ROOT / "benchmarks" / "results"
# Figures without a record: the command that printed them stands on the page.
NO_RECORD = {
    "audit.md": ["python benchmarks/audit.py --run RUN", "python benchmarks/audit.py DATA"],
    "calibration.md": ["loraft train --quant nf4 --rank 16"],  # the first table; the second has a record
    "deploy.md": ["loraft merge RUN --output out --min-agreement 0 --base BASE --dtype DTYPE --split SPLIT"],
    "export.md": ["python benchmarks/exports.py RUN FILE"],
    "explain.md": ['loraft explain "thầy giảng bài rất dễ hiểu nhưng phòng học nóng"'],
    "guarantees.md": ["python benchmarks/sets.py RUN"],
    "priors.md": ["python benchmarks/sets.py RUN"],
    "rank-curve.md": ["loraft sweep --from qlora", "python benchmarks/rank_curve.py"],
    "small-cards.md": ["loraft plan --quant nf4"],
    "quiz.md": ["loraft plan --no-calibrate"],
    "tutorial.md": ["loraft train", "loraft fewshot --shots 1,2,4,8 --set data.max_test_rows=200"],
    "studies.md": ["loraft fewshot --run", "loraft sweep --ranks"],
    "README.md": ["loraft fewshot --run vsfc-r16", "loraft sweep --config benchmarks/vsfc.yaml", "loraft eval --data"],
}
SELF = {"log.md", "own-data.md", "quantisation.md", "lora.md"}  # a log with its commands; pages whose blocks tests run


def record(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def page(name: str) -> str:
    (found,) = [path for path in PAGES if name_of(path) == name]
    return found.read_text(encoding="utf-8")


def made(text: str) -> str:
    """What stands between the marks of a table that a script writes."""
    (found,) = re.findall(r"<!-- made by .*? -->\n(.*?)\n?<!-- end -->", text, flags=re.DOTALL)
    return str(found).strip()


def block_with(name: str, words: str) -> str:
    (path,) = [path for path in PAGES if name_of(path) == name]
    (found,) = [block.text for block in blocks(path) if words in block.text]
    return found


def leaves(value: Any) -> Iterator[float]:
    """Every number in a record."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def unknown(text: str, numbers: list[float]) -> list[str]:
    """The numbers with decimals in a text that are no rounded number of the record, as it is or in points."""
    wrong = []
    for shown in re.findall(r"(?<![\d,.])[-+]?\d*\.\d+", text):
        digits = len(shown.rpartition(".")[2])
        half = 0.5 * 10**-digits + 1e-9
        near = (abs(abs(float(shown)) - abs(scale * number)) <= half for number in numbers for scale in (1, 100))
        if not any(near):
            wrong.append(shown)
    return wrong


def rows_of(table: str) -> list[list[str]]:
    """The cells of the lines that hold a number with decimals, of a table with drawn borders."""
    rows = [re.findall(r"[^│┃\s][^│┃]*[^│┃\s]", line) for line in table.splitlines()]
    return [row for row in rows if any(re.search(r"\d\.\d", cell) for cell in row)]


def test_a_wrong_number_is_found() -> None:
    assert unknown("0.684 [.862,.885] +22.1 points, 3,166 rows", [0.6838, 0.8615, 0.885, 0.2211]) == []
    assert unknown("0.684 +22.1", [0.682, 0.2211]) == ["0.684"]


def test_the_page_of_speed_is_the_one_that_its_script_makes() -> None:
    records = [record("speed.json"), record("gpu.json")]
    text = performance.page(records, ["performance-speed.png", "performance-gpu.png"])
    assert page("performance.md") == text + "\n" + performance.programme_section(record("tutorial-1b.json"))


def test_the_table_of_memory_is_the_one_that_its_script_makes() -> None:
    assert made(page("memory.md")) == memory.table(record("memory.json")).strip()


def test_the_table_of_serving_is_the_one_that_its_script_makes() -> None:
    assert made(page("serving.md")) == serving.table(record("serving.json")).strip()


def test_the_readmes_table_of_uit_vsfc_is_the_one_that_its_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    vsfc.show(record("vsfc.json"))
    printed = capsys.readouterr().out
    assert rows_of(block_with("README.md", "TF-IDF + linear SVM  ")) == rows_of(printed)


def test_the_table_of_smollm2_is_the_one_that_its_script_prints() -> None:
    assert tutorial.markdown(record("tutorial-SmolLM2-135M-Instruct.Q4_1.json")) in page("smollm2.md")


def test_the_card_of_the_backbone_has_the_figures_of_uit_vsfc() -> None:
    card = (ROOT / "src" / "loraft" / "bundled" / "loraft-vi-tiny" / "README.md").read_text(encoding="utf-8")
    found = record("vsfc.json")
    runs = found["runs"]["none"]
    medians = {key: statistics.median(run["after"][key] for run in runs) for key in ("accuracy", "macro_f1")}
    for name, scores in {"zero-shot, UIT-VSFC": found["zero_shot"]["none"], "LoRA r=16 on UIT-VSFC": medians}.items():
        (line,) = [line for line in card.splitlines() if line.startswith(f"| {name}")]
        assert f"| {scores['accuracy']:.4f} | {scores['macro_f1']:.4f} |" in line


RATIOS = {  # line of the table in the README: cases of speed.json, and per column the baseline
    "training step, bundled backbone, batch 4 / 16": (["step-4", "step-16"], [RECIPE, TRL, None]),
    "training step, Llama-3.2-1B shape, batch 4 / 16": (["step-1b-4", "step-1b-16"], [RECIPE, TRL, None]),
    "zero-shot evaluation, bundled / 1B shape": (["zero-shot", "zero-shot-1b"], [RECIPE, None, HARNESS]),
    "evaluation with 8 shots, bundled": (["few-shot"], [RECIPE, None, HARNESS]),
    "sweep of 8 ranks, end to end, bundled": (["sweep"], [RECIPE, TRL, None]),
    "1,000 predictions, warm, bundled": (["predict"], [RECIPE, None, HARNESS]),
}
GPU_RATIOS = {
    "training step, bf16, batch 4 / 16 / 64": (["step-1b-4", "step-1b-16", "step-1b-64"], [RECIPE, TRL_BEST, None]),
    "training step, NF4, batch 4 / 16": (["step-1b-nf4-4", "step-1b-nf4-16"], [RECIPE, TRL_BEST, None]),
    "3,166 rows, zero-shot / 8 shots": (["zero-shot-1b", "few-shot-1b"], [RECIPE, None, HARNESS]),
    "sweep of 8 ranks, 100 steps of 4 rows, end to end": (["sweep-1b"], [RECIPE, TRL_BEST, None]),
}  # fmt: skip


def cells_of(line: str) -> list[str]:
    (row,) = [row for row in page("README.md").splitlines() if row.startswith(f"| {line} |")]
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


@pytest.mark.parametrize("line", RATIOS)
def test_the_readmes_ratios_on_a_cpu_are_those_measured(line: str) -> None:
    names, columns = RATIOS[line]
    cases = record("speed.json")["cases"]
    shown = [
        " / ".join(f"{cases[name]['ratios'][other]['median']:.2f}x" for name in names) if other else ""
        for other in columns
    ]
    assert cells_of(line) == shown


@pytest.mark.parametrize("line", GPU_RATIOS)
def test_the_readmes_ratios_on_a_gpu_are_those_measured(line: str) -> None:
    names, columns = GPU_RATIOS[line]
    cases = record("gpu.json")["cases"]
    seconds, *ratios = cells_of(line)
    for cell, other in zip(ratios, columns, strict=True):
        expected = [cases[name]["ratios"][other]["median"] for name in names] if other else []
        assert [round(float(x)) if "." not in x else float(x) for x in re.findall(r"([\d.]+)x", cell)] == [
            round(value) if value >= 100 else round(value, 1) for value in expected
        ]
    medians = [statistics.median(cases[name]["seconds"][LORAFT]) for name in names]
    scale = 1000 if seconds.endswith("ms") else 1
    assert [float(x) for x in re.findall(r"[\d.]+", seconds)] == pytest.approx(
        [scale * value for value in medians], rel=0.03
    )


def test_the_figures_of_calibration_are_those_recorded() -> None:
    found = record("calibration.json")
    block = block_with("calibration.md", "checkpoint chosen by")
    assert unknown(block, list(leaves([found["choice"], found["calibration"]]))) == []
    for name, of in found["calibration"].items():
        (line,) = [line for line in block.splitlines() if line.strip().startswith(name)]
        keys = ("log loss", "Brier score", "calibration error")
        noisy = [f"{of[key]['mean']:.3f} ±{of[key]['sd']:.3f}" for key in keys]
        assert [*noisy, f"{of['macro F1']['mean']:.3f}", f"{of['temperature']['mean']:.3f}"] == re.findall(
            r"[\d.]+ ±[\d.]+|[\d.]+$|(?<=  )[\d.]+(?=  )", line.split(name)[1]
        )


def test_the_lines_of_labelling_are_those_that_its_script_prints() -> None:
    shown = block_with("labelling.md", "round 1  accuracy").splitlines()
    printed = [
        f"round {one['round']}  {one['score']:<12} random {one['random']:.4f}  suggest {one['suggest']:.4f}"
        f"  {one['points']:+.1f} points [{one['interval'][0]:+.1f}, {one['interval'][1]:+.1f}]"
        for one in record("suggest.json")["differences"]
    ]
    assert len(shown) == 9
    assert set(shown) <= set(printed)


def test_the_tables_of_reliability_are_those_recorded() -> None:
    text, soak = page("reliability.md"), record("soak.json")
    rows = {
        f"| {int(rows):,} | {of['first_step_mib']:,} |"
        f" {format(of['bytes_a_row'], ',') if 'bytes_a_row' in of else ''} | {of['run_mib']:,} |"
        for rows, of in soak["rows"]["measured"].items()
    }
    by_rows: dict[int, dict[str, int]] = {}
    for one in record("soak_predict.json"):
        by_rows.setdefault(one["rows"], {})[one["way"]] = one["peak_mib"]
    rows |= {f"| {n:,} | {of['output-file']} | {of['pipe']} |" for n, of in by_rows.items()}
    assert [row for row in rows if row not in text] == []


def test_the_table_of_predictions_on_ray_is_the_one_recorded() -> None:
    text, rows = page("ray.md"), []
    for name, of in record("ray_predict.json").items():
        found, words = of["measured"], {"thin": "two thin layers", "bundled": "bundled, NF4"}[name]
        assert found["same_labels"] == found["local_rows"]
        rows.append(
            f"| {words} | {found['rows']:,} | {found['seconds']} | {found['rows_per_second']:,} |"
            f" {found['local_rows_per_second']:,} | {max(found['workers_mib'])} | {found['driver_mib']} |"
        )
    assert [row for row in rows if row not in text] == []


STUDIES: dict[str, tuple[str, str]] = {  # record: page and words of its block
    "vsfc-fewshot.json": ("README.md", "$ loraft fewshot --run vsfc-r16"),
    "vsfc-ranks.json": ("README.md", "$ loraft sweep --config benchmarks/vsfc.yaml"),
}


@pytest.mark.parametrize("name", STUDIES)
def test_the_figures_of_the_studies_on_uit_vsfc_are_those_recorded(name: str) -> None:
    found = record(name)
    block = block_with(*STUDIES[name])
    table = block.partition("\n")[2].partition("\n\n")[0]
    assert unknown(table, list(leaves([found.get("rows"), found.get("settings"), found.get("compared")]))) == []
    for row in found.get("rows") or found["settings"]:
        means = [row[key]["mean"] for key in ("accuracy", "macro_f1")]
        wanted = [{f"{mean:.{digits}f}" for digits in (3, 4)} for mean in means]
        lines = [set(re.findall(r"\d\.\d+", line)) for line in table.splitlines()]
        assert any(all(one & shown for one in wanted) for shown in lines), row


def test_a_record_of_a_study_has_scores_and_no_paths() -> None:
    row = {"name": "backbone", "accuracy": {"mean": 0.5}, "cut": 0, "trials": ["r1"]}
    keys = dict.fromkeys(study_records.KEPT["sweep"], "x")
    environment = dict.fromkeys(("time", "git_commit", "threads", "hardware", "packages", "command"), "y")
    made_of = study_records.record_of({"kind": "sweep", "path": "p", **keys, "settings": [row]}, environment)
    assert made_of["settings"] == [{"name": "backbone", "accuracy": {"mean": 0.5}}]
    assert "path" not in made_of
    assert "command" not in made_of["environment"]


RECORDED = {
    "README.md", "calibration.md", "labelling.md", "memory.md", "performance.md", "ray.md", "reliability.md",
    "scaling.md", "serving.md", "smollm2.md",
}  # fmt: skip


def test_a_page_with_figures_has_a_record_or_the_command_that_printed_them() -> None:
    pages = {name_of(path): path.read_text(encoding="utf-8") for path in PAGES if path.parent.name != "decisions"}
    figures: Callable[[str], list[str]] = lambda text: re.findall(r"(?<![\d.])\d*\.\d{3,}(?![\d.])", text)  # noqa: E731
    missing = {name for name, text in pages.items() if figures(text)} - RECORDED - set(NO_RECORD) - SELF
    assert missing == set()
    for name, commands in ((name, NO_RECORD[name]) for name in NO_RECORD if name in pages):
        flat = " ".join(pages[name].split())
        assert [command for command in commands if command not in flat] == [], name
