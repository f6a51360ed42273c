"""`loraft report`: writes one HTML page, or Markdown, about a run, a sweep, a few-shot study or a data source.

A report is made from the files in the directory: nothing is measured again and no model is loaded.
"""

import difflib
import shlex
from collections.abc import Callable
from pathlib import Path

from loraft.bundled import bundled_adapters
from loraft.config.names import show
from loraft.display import page
from loraft.display.page import Code, Document, Part
from loraft.display.table import MANY_LABELS
from loraft.errors import RunError, listed
from loraft.evaluation import tables as evaluation_tables
from loraft.runs.lock import working_there
from loraft.runs.output_paths import check_target, head, writing
from loraft.runs.run import Bundle, Run, places
from loraft.runs.study_folders import (
    AuditFolder,
    DatasetFolder,
    FewshotFolder,
    FoldsFolder,
    RankCurveFolder,
    SweepFolder,
)
from loraft.studies.audit import tables as audit_tables
from loraft.studies.audit.records import AuditResult
from loraft.studies.dataset import tables as dataset_tables
from loraft.studies.dataset.records import DatasetStatistics
from loraft.studies.fewshot import tables as fewshot_tables
from loraft.studies.fewshot.records import FewshotResult
from loraft.studies.report_sections import config_and_environment, images, made_from, sources
from loraft.studies.report_words import in_vietnamese
from loraft.studies.run_report import of_run
from loraft.studies.sweep import curve_tables, fold_tables
from loraft.studies.sweep import tables as sweep_tables
from loraft.studies.sweep.curve_records import RankCurve
from loraft.studies.sweep.fold_records import FoldsResult
from loraft.studies.sweep.records import SweepResult
from loraft.training.model_card import SENTENCE


def write_page(folder: Path, to: Path | None = None, *, force: bool = False, language: str = "en") -> Path:
    """Writes the report as one HTML file and returns its path.

    Args:
        folder: directory of a finished run or study, or of a data source's statistics, as `find` returns it.
        to: the file; by default `report.html` in the directory.
        force: replace a file that is no report.
        language: of its words, en or vi.

    Raises:
        ConfigError: `to` is a folder, a file of a run, or a foreign file.
        RunError: nothing in the directory is finished, or the file cannot be written.
    """
    inside = Run(folder).report_path
    path = to if to is not None else inside
    # In the directory a page of an earlier version, without the mark, may lie.
    check_target(
        path, "--to", own=lambda file: page.MARK in head(file) or file.resolve() == inside.resolve(), force=force
    )
    text = page.page(document(folder, language))
    with writing(path, "--to") as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def markdown(folder: Path, language: str = "en") -> str:
    """The report's tables and notes in Markdown, for papers and READMEs."""
    return page.markdown(document(folder, language))


def document(folder: Path, language: str = "en") -> Document:
    """The report on a directory, before it is rendered.

    Raises:
        RunError: nothing in the directory is finished.
    """
    for file, make in KINDS.items():
        if (folder / file).exists():  # a folder of that name, too: reading it says what is wrong
            return in_vietnamese(make(folder)) if language == "vi" else make(folder)
    remedy = "the same command with --resume finishes what was interrupted"
    if (found := Run(folder)).result_is_aside or working_there(folder):
        remedy = found.way_on
    for kind, more in ((Run, ""), (SweepFolder, ", or name one of its runs"), (FoldsFolder, "")):
        if kind(folder).begun:
            remedy = f"{kind(folder).way_on}{more}"
    if Bundle(folder).begun:
        remedy = f"loraft eval --run {shlex.quote(str(folder))} measures a bundle"
        if RankCurveFolder(folder.parent).finished:
            remedy = f"loraft report {shlex.quote(str(folder.parent))} has its scores"
    raise RunError(f"{folder}: nothing finished to report (got none of {', '.join(KINDS)}); {remedy}")


def find(name_or_path: str | None, output: Path) -> Path:
    """The directory with that name in `output`, or at that path; without a name, the one that was finished last.

    Args:
        name_or_path: name of a run or study, or path of its directory; None for the newest.
        output: the folder that holds the runs.

    Raises:
        RunError: there is none; the message suggests a similar name.
    """
    for path in () if name_or_path is None else places(name_or_path, output):
        if path.is_dir():
            return path
    if name_or_path in bundled_adapters():
        raise RunError(
            f"{name_or_path}: is a bundled adapter, not a run with results of its own; loraft predict --run"
            f" {name_or_path} labels sentences with it, and explain and eval take --run {name_or_path}, too"
        )
    finished = {path.name: path for path in sorted(output.glob("[!.]*")) if _finished_at(path) is not None}
    if name_or_path is None and finished:
        return max(finished.values(), key=lambda path: _finished_at(path) or 0)
    close = difflib.get_close_matches(str(name_or_path), finished, n=1)
    known = f"there are {listed(finished)}" if finished else "loraft train, sweep, fewshot and data make some"
    hint = f"did you mean {close[0]}?" if close else known
    got = "nothing to report" if name_or_path is None else f"no such run or study (got {show(name_or_path)})"
    raise RunError(f"{output}: {got}; {hint}")


def of_fewshot(folder: Path) -> Document:
    """The report of a finished few-shot study."""
    study = FewshotFolder(folder)
    result = FewshotResult.of(study)
    results: list[Part] = [result.verdict, fewshot_tables.fewshot(result), *fewshot_tables.fewshot_notes(result)]
    nested = "The prompts of a draw are nested: more shots keep the demonstrations of fewer, in their order."
    return Document(
        title=f"Few-shot study {study.name}",
        subtitle=made_from(
            study, " · ".join([f"{result.selection} demonstrations, decode {result.decode}", *result.order_told])
        ),
        sections=[
            ("Results", [*results, *images(study.plots)]),
            ("Draws", [nested, fewshot_tables.fewshot_draws(result)]),
            ("Data", [sources(result.data)]),
            ("Config", config_and_environment(study)),
        ],
        labels=result.labels,
    )


def of_sweep(folder: Path) -> Document:
    """The report of a finished sweep."""
    sweep = SweepFolder(folder)
    result = SweepResult.of(sweep)
    errors = [Code(f"{trial.name}\n{trial.error}") for trial in result.failed]
    usage: list[Part] = []
    if result.best is not None:
        path = shlex.quote(str(folder / result.best.name))  # the path in the record may be out of date
        usage = [Code(f"loraft predict --run {path} '{SENTENCE}'\nloraft report {path}")]
    keys = ", ".join(map(sweep_tables.key_word, result.keys))
    results: list[Part] = [*sweep_tables.sweep_tables(result), *sweep_tables.sweep_notes(result)]
    return Document(
        title=f"Sweep {sweep.name}",
        subtitle=made_from(sweep, f"{len(result.trials)} trials over {keys}"),
        sections=[
            ("Results", [*results, *images(sweep.plots)]),
            ("Warnings", [*result.warnings]),
            ("Failed trials", errors),
            ("How to use the best trial", usage),
            ("Config", config_and_environment(sweep)),
        ],
        labels=result.labels,
    )


def of_curve(folder: Path) -> Document:
    """The report of a finished rank curve."""
    study = RankCurveFolder(folder)
    result = RankCurve.of(study)
    results: list[Part] = [curve_tables.curve(result), *curve_tables.curve_notes(result)]
    return Document(
        title=f"Rank curve {study.name}",
        subtitle=made_from(study, f"cut from rank {result.rank}"),
        sections=[("Results", [*results, *images(study.plots)]), ("Config", config_and_environment(study))],
    )


def of_folds(folder: Path) -> Document:
    """The report of a finished training by folds."""
    folds = FoldsFolder(folder)
    result = FoldsResult.of(folds)
    results: list[Part] = [*fold_tables.folds_tables(result), *fold_tables.folds_notes(result)]
    return Document(
        title=f"Folds {folds.name}",
        subtitle=made_from(folds, f"{len(result.folds)} folds of {result.report.n:,} rows"),
        sections=[
            ("Results", results),
            ("Warnings", [*result.warnings]),
            ("Confusion", [evaluation_tables.confusion(result.report)]),
            ("Config", config_and_environment(folds)),
        ],
        labels=result.labels,
    )


def of_data(folder: Path) -> Document:
    """The report on a data source that `loraft data` has described."""
    statistics = DatasetFolder(folder)
    data = DatasetStatistics.of(statistics)
    others: list[Part] = ["One split: nothing can leak."]
    if data.leaks:
        counts, *pairs = dataset_tables.leak_tables(data)
        others = [counts, dataset_tables.near_legend(data), *pairs]
    others += [dataset_tables.conflict_total(data), *dataset_tables.conflict_tables(data)]
    rows: list[Part] = [*dataset_tables.row_tables(data), *dataset_tables.data_notes(data)]
    labels = f"labels {', '.join(data.labels)}" if len(data.labels) <= MANY_LABELS else f"{len(data.labels)} labels"
    return Document(
        title=f"Data {data.source}",
        subtitle=f"{data.rows:,} rows, task {data.task}, {labels}",
        sections=[
            ("Rows", rows),
            ("Lengths", [*dataset_tables.length_tables(data), *images(statistics.plots), dataset_tables.longest(data)]),
            ("Leaks and conflicts", others),
        ],
        labels=[*data.labels, *data.shares.rows],
    )


def of_audit(folder: Path) -> Document:
    """The report of a finished audit: each suspect row with its suggestion, and why."""
    found = AuditFolder(folder)
    result = AuditResult.of(found)
    return Document(
        title=f"Audit {found.name}",
        subtitle=made_from(found, f"{result.rows:,} rows of {result.split}"),
        sections=[
            ("Labels that are probably wrong", [*audit_tables.notes(result), *audit_tables.page_suspects(result)]),
            ("From which label to which", [audit_tables.moves(result)]),
            ("Same or nearly same sentences with several labels", audit_tables.page_conflicts(result)),
            ("Config", config_and_environment(found)),
        ],
        labels=result.labels,
    )


# Name of the results file, which exists if the work is finished: function that makes the report.
KINDS: dict[str, Callable[[Path], Document]] = {
    Run.results_file: of_run,
    SweepFolder.results_file: of_sweep,
    RankCurveFolder.results_file: of_curve,
    FoldsFolder.results_file: of_folds,
    FewshotFolder.results_file: of_fewshot,
    DatasetFolder.results_file: of_data,
    AuditFolder.results_file: of_audit,
}


def _finished_at(path: Path) -> int | None:
    """When the run or study in a folder finished, in nanoseconds; None if nothing there is finished."""
    return next((file.stat().st_mtime_ns for name in KINDS if (file := path / name).exists()), None)
