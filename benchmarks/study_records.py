"""Write what a page of the documentation shows of a study into a small JSON file, without paths and without rows.

    python benchmarks/study_records.py runs/vsfc-ranks benchmarks/results/vsfc-ranks.json       # a sweep
    python benchmarks/study_records.py runs/fewshot-vsfc benchmarks/results/vsfc-fewshot.json   # a few-shot study

The scores of the backbone in benchmarks/results/vsfc.json, measured again with the program of the day:

    loraft eval --zero-shot --config benchmarks/vsfc.yaml --data FOLDER --json > zero.json
    python benchmarks/study_records.py zero.json benchmarks/results/vsfc.json --zero-shot none --commit COMMIT

tests/docs/test_figures.py compares the pages with these files.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

KEPT = {
    "fewshot": ("backbone", "task", "labels", "selection", "repeats", "seed", "confidence", "rows", "compared",
                "verdict"),
    "sweep": ("backbone", "task", "labels", "alpha_policies", "confidence", "settings"),
}  # fmt: skip
NOT_KEPT = {"demonstrations_cut", "cut", "trials"}  # names of folders, and what no table shows


def record_of(study: dict[str, Any], environment: dict[str, Any]) -> dict[str, Any]:
    """The scores, intervals and comparisons of a finished study, with its command and commit."""
    kept = {key: study[key] for key in KEPT[study["kind"]]}
    for key in ("rows", "settings"):
        if key in kept:
            kept[key] = [{name: v for name, v in row.items() if name not in NOT_KEPT} for row in kept[key]]
    how = {key: environment[key] for key in ("time", "git_commit", "threads", "hardware", "packages")}
    return {"kind": study["kind"], "environment": how, **kept}


def main(
    source: Path,
    out: Path,
    zero_shot: Annotated[str | None, typer.Option(help="none or nf4: SOURCE is what eval --json printed.")] = None,
    commit: Annotated[str | None, typer.Option(help="Of the program that printed it.")] = None,
) -> None:
    """Write or complete OUT."""
    if zero_shot is not None:
        printed = json.loads(source.read_text(encoding="utf-8"))
        record = json.loads(out.read_text(encoding="utf-8"))
        kept = {key: printed[key] for key in ("accuracy", "macro_f1", "intervals", "n")}
        record.setdefault("zero_shot", {})[zero_shot] = {**kept, "commit": commit}
    else:
        (path,) = [source / f"{kind}.json" for kind in KEPT if (source / f"{kind}.json").exists()]
        environment = json.loads((source / "environment.json").read_text(encoding="utf-8"))
        record = record_of(json.loads(path.read_text(encoding="utf-8")), environment)
    out.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
