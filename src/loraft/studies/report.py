"""What a page says about a run, a sweep, a few-shot study or a data source, from the files in its folder.

Nothing is computed again and nothing heavy is imported: a report is as old as the files it was made from. The figures
of a sweep's trial are drawn when its report is asked for.
"""

import difflib
import shlex
from collections.abc import Callable
from pathlib import Path

from loraft.display import page
from loraft.display.page import Code, Document, Part
from loraft.errors import RunError
from loraft.runs.files import write_text
from loraft.runs.folders import FewshotStudy
from loraft.studies.dataset import tables as dataset_tables
from loraft.studies.fewshot import tables as fewshot_tables
from loraft.studies.report_sections import SENTENCE, config_and_environment, images, made_from, read_json, sources
from loraft.studies.run_report import of_run
from loraft.studies.sweep import tables as sweep_tables

PAGE = "report.html"


def write_page(folder: Path, to: Path | None = None) -> Path:
    """Writes the report of a finished run, study or data source as one HTML file and returns its path.

    Args:
        folder: the directory, as `find` gives it.
        to: the file; by default `report.html` in the folder.

    Raises:
        RunError: nothing in the folder is finished, or the file cannot be written.
    """
    path = to if to is not None else folder / PAGE
    if path.is_dir():
        raise RunError(f"--to: is a folder (got {path}); name a file, for example {path / PAGE}")
    text = page.page(document(folder))
    try:
        write_text(path, text)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); name another file with --to") from error
    return path


def markdown(folder: Path) -> str:
    """The report's tables and notes in Markdown, for papers and READMEs."""
    return page.markdown(document(folder))


def document(folder: Path) -> Document:
    """The report of what lies in the folder.

    Raises:
        RunError: nothing finished lies there.
    """
    for file, make in KINDS.items():
        if (folder / file).is_file():
            return make(folder)
    again = "the same command goes on with the sweep, or name one of its runs"
    if not (folder / "sweep.yaml").is_file():
        again = "the same command with --resume finishes what was interrupted"
    raise RunError(f"{folder}: nothing finished to report (got none of {', '.join(KINDS)}); {again}")


def find(name_or_path: str | None, output: Path) -> Path:
    """The folder of that name inside `output`, or at that path; without a name the one that finished last.

    Raises:
        RunError: there is none; the message names the nearest.
    """
    for path in () if name_or_path is None else (output / name_or_path, Path(name_or_path).expanduser()):
        if path.is_dir():
            return path
    finished = {path.name: path for path in sorted(output.glob("[!.]*")) if _finished_at(path) is not None}
    if name_or_path is None and finished:
        return max(finished.values(), key=lambda path: _finished_at(path) or 0)
    close = difflib.get_close_matches(str(name_or_path), finished, n=1)
    there = f"there are {', '.join(finished)}" if finished else "loraft train, sweep, fewshot and data make some"
    hint = f"did you mean {close[0]}?" if close else there
    got = "nothing to report" if name_or_path is None else f"no such run or study (got {name_or_path!r})"
    raise RunError(f"{output}: {got}; {hint}")


def of_fewshot(folder: Path) -> Document:
    """A finished few-shot study."""
    study = FewshotStudy(folder)
    result = study.read_metrics()
    results: list[Part] = [result["verdict"], fewshot_tables.fewshot(result), *fewshot_tables.fewshot_notes(result)]
    nested = "A draw holds the same demonstrations in the same order for every number of shots, as far as it goes."
    return Document(
        title=f"Few-shot study {study.name}",
        subtitle=made_from(folder, "fewshot.yaml", f"{result['selection']} demonstrations, decode {result['decode']}"),
        sections=[
            ("Results", [*results, *images(study.plots)]),
            ("Draws", [nested, fewshot_tables.fewshot_draws(result)]),
            ("Data", [sources(result["data"])]),
            ("Config", config_and_environment(folder, "fewshot.yaml")),
        ],
    )


def of_sweep(folder: Path) -> Document:
    """A finished sweep."""
    result = read_json(folder / "sweep.json")
    failed = [trial for trial in result["trials"] if trial["status"] == "failed"]
    errors = [Code(f"{trial['name']}\n{trial['error']}") for trial in failed]
    best = result["best"]
    usage: list[Part] = []
    if best is not None:
        path = shlex.quote(str(folder / best["name"]))  # the runs may have been moved since
        usage = [Code(f"loraft predict --run {path} '{SENTENCE}'\nloraft report {path}")]
    keys = ", ".join(map(sweep_tables.key_word, result["keys"]))
    results: list[Part] = [*sweep_tables.sweep_tables(result), *sweep_tables.sweep_notes(result)]
    return Document(
        title=f"Sweep {folder.name}",
        subtitle=made_from(folder, "sweep.yaml", f"{len(result['trials'])} trials over {keys}"),
        sections=[
            ("Results", [*results, *images(folder / "plots")]),
            ("Failed trials", errors),
            ("How to use the best trial", usage),
            ("Config", config_and_environment(folder, "sweep.yaml")),
        ],
    )


def of_data(folder: Path) -> Document:
    """A data source that `loraft data` looked at."""
    data = read_json(folder / "data.json")
    others: list[Part] = ["One split: nothing can leak."]
    if data["leaks"]:
        others = [dataset_tables.leaks(data), dataset_tables.near_legend(data)]
    others += [dataset_tables.near_copies(data)] if any(pair["examples"] for pair in data["leaks"]) else []
    others.append(dataset_tables.conflict_total(data))
    others += [dataset_tables.conflicts(data)] if data["conflicts"]["examples"] else []
    return Document(
        title=f"Data {data['source']}",
        subtitle=f"{data['rows']:,} rows, task {data['task']}, labels {', '.join(data['labels'])}",
        sections=[
            ("Rows", [dataset_tables.shares(data), dataset_tables.splits(data), *dataset_tables.data_notes(data)]),
            ("Lengths", [dataset_tables.lengths(data), *images(folder / "plots"), dataset_tables.longest(data)]),
            ("Leaks and conflicts", others),
        ],
    )


# The file whose existence says that a thing is finished, and the report of it.
KINDS: dict[str, Callable[[Path], Document]] = {
    "metrics.json": of_run,
    "sweep.json": of_sweep,
    "fewshot.json": of_fewshot,
    "data.json": of_data,
}


def _finished_at(path: Path) -> int | None:
    """When the run or study in a folder finished, in nanoseconds; None if nothing there is finished."""
    return next((file.stat().st_mtime_ns for name in KINDS if (file := path / name).is_file()), None)
