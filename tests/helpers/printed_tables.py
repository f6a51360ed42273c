"""Every table that a command prints, from fixed records: nothing is trained, measured or read."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from rich.table import Table

from helpers.baselines import beside
from helpers.folders import fewshot_result
from helpers.sweeps import result, searched
from loraft.cli import runs
from loraft.data.checks import ConflictingSentence, Conflicts, Duplicates, Leaks, NearPair, RowPlace
from loraft.delivery import check_tables, export, merge, plan_tables, quant_error
from loraft.delivery.check import Checked, SplitFound
from loraft.delivery.check_prompt import AnswerTokens
from loraft.delivery.listing import Row
from loraft.delivery.memory_plan import Memory
from loraft.delivery.plan import Fit, Plan
from loraft.display.table import listing
from loraft.evaluation import tables
from loraft.evaluation.baselines import Baselines
from loraft.evaluation.classification_report import EvaluationReport, ProbabilityScores, classification_report
from loraft.evaluation.equivalence import Equivalence
from loraft.evaluation.intervals import Difference
from loraft.models.calibration import Calibration
from loraft.studies.audit import tables as audit_tables
from loraft.studies.audit.records import AuditResult, SuspectRow
from loraft.studies.compare import tables as compare_tables
from loraft.studies.compare.compare import ChangedRow, ComparedRun, ComparedScores, Comparison, McNemar
from loraft.studies.dataset import overview
from loraft.studies.dataset import tables as dataset_tables
from loraft.studies.dataset.records import CrossTable, DatasetStatistics, Lengths, LongRow, SplitStatistics
from loraft.studies.fewshot import tables as fewshot_tables
from loraft.studies.sweep import curve_tables, fold_tables
from loraft.studies.sweep import tables as sweep_tables
from loraft.studies.sweep.curve_records import CurvePoint, RankCurve
from loraft.studies.sweep.fold_records import FoldRecord, FoldsResult
from loraft.studies.sweep.space import Axis
from loraft.studies.sweep.trials import PlannedTrial

LABELS = ("tiêu cực", "trung tính", "tích cực")
TOPICS = ("giảng viên", "chương trình đào tạo", "cơ sở vật chất", "thư viện và phòng máy", "khác")
SENTENCE = "phòng học nóng , máy chiếu mờ , cần sửa sớm cho kịp học kỳ mới , em cảm ơn nhà trường nhiều ."
GIB = 2**30


def judged(labels: tuple[str, ...], wrong: float, *, no_label: int = 0) -> EvaluationReport:
    """The report of 600 rows, of which that share is answered wrongly, and so many without a label."""
    generator = np.random.default_rng(len(labels))
    references = generator.integers(0, len(labels), 600)
    predictions = np.where(generator.random(600) < wrong, (references + 1) % len(labels), references)
    predictions[:no_label] = -1
    return classification_report(references, None, predictions, list(labels), bootstrap_samples=100, confidence=0.995,
                                 seed=0)  # fmt: skip


def scored() -> EvaluationReport:
    before = ProbabilityScores(0.0512, (0.0375, 0.0750), 0.7512, 0.5034, accuracy=0.5, macro_f1=0.25, changed=12)
    found = replace(judged(LABELS, 0.1), expected_calibration_error=0.0125, log_loss=0.5, brier_score=0.2512)
    return replace(found, calibration_error_interval=(0.0, 0.025), before_calibration=before,
                   calibration=Calibration(1.5, (0.25, -0.25, 0.125), 300))  # fmt: skip


def two_baselines() -> Baselines:
    found = beside()
    return replace(found, confidence=0.995, rows=(replace(found.rows[0], name="majority label"), *found.rows))


def compared() -> Comparison:
    gaps = {
        "accuracy": Difference(-0.123, (-0.234, -0.111), 0.01, 0.0123),
        "macro_f1": Difference(0.004, (-0.021, 0.031), 0.5, 0.616),
    }
    rows = tuple(
        ChangedRow(n, SENTENCE, LABELS[n % 3], LABELS[0], None if n == 3 else LABELS[2], outcome)  # type: ignore[arg-type]
        for n, outcome in enumerate(("mended", "broken", "broken", "wrong in both"), start=1)
    )
    names = ("runs/loraft-vi-tiny-feedback-sentiment-qlora-r16-s42", "runs/của em")
    scores = [ComparedScores(name, {"accuracy": 0.8849, "macro_f1": 0.8225}, two_baselines()) for name in names]
    other = ComparedRun(scores[1], gaps, McNemar(1026, 21, 0.01, 0.56), rows, worse=True, better=False)
    return Comparison(3166, LABELS, 0.995, scores[0], (other,))


def described(labels: tuple[str, ...]) -> DatasetStatistics:
    counts = {label: 1200 * n for n, label in enumerate(labels, start=1)}
    total = sum(counts.values())
    long = Lengths(14.25, {"50%": 12, "90%": 28, "95%": 36, "99%": 61}, 161)
    near = tuple(NearPair(0.81, RowPlace("train", 1017, SENTENCE), RowPlace("test", 3166, SENTENCE)) for _ in range(2))
    return DatasetStatistics(
        path="runs/data", source="góp ý", task="topic", labels=labels, label_column="chủ đề", by="cảm xúc",
        rows=2 * total,
        splits=tuple(SplitStatistics(name, f"{name}.jsonl", {}, total, 0.5, counts) for name in ("train", "test")),
        shares=CrossTable(LABELS, labels, tuple(tuple(counts.values()) for _ in LABELS)),
        lengths={"all": long, **dict.fromkeys(labels, long)},
        duplicates={name: Duplicates(same=1017, other=4) for name in ("train", "test")},
        conflicts=Conflicts(1, 1500, (ConflictingSentence(SENTENCE, dict.fromkeys(labels[:2], 750)),)),
        near_threshold=0.8, leaks=(Leaks("train", "test", 1017, 48, near),),
        longest=(LongRow(161, 812, RowPlace("train", 1017, SENTENCE)),), tokens=None, notes=(),
    )  # fmt: skip


def overview_of() -> overview.Overview:
    columns = tuple(
        overview.ColumnSummary(name, kind, 11426, different, example)
        for name, kind, different, example in (
            ("sentence", "text", 1000, SENTENCE),
            ("sentiment", "number", 3, "2"),
            ("ngày_gửi_phản_hồi", "text", 812, "2026-11-27T20:52:56"),
        )
    )
    long = Lengths(14.25, {"50%": 12, "90%": 28, "95%": 36, "99%": 61}, 161)
    counts = {"train": 4000, "validation": 500, "test": 1200}
    return overview.Overview(
        "góp ý.csv", {"train": 11426, "validation": 1583, "test": 3166}, columns, "sentence", "sentiment", (),
        dict.fromkeys(LABELS, counts), False, False, None, "vi", 0.99, long, long, 0, (),
    )  # fmt: skip


def suspicious() -> AuditResult:
    row = SuspectRow(11017, SENTENCE, "trung tính", "tích cực", 0.0123, 0.0123, 0.95, {"tích cực": 2})
    return AuditResult(
        path="runs/a", backbone="loraft-vi-tiny", data="feedback", task="sentiment", labels=LABELS, split="train",
        source="train.csv", rows=11426, fingerprint="f", folds=5, seconds=1.5, agreement=0.91,
        suspects=(row, replace(row, row=18, label="tiêu cực")), conflicts=(), duplicates=6,
    )  # fmt: skip


def curve() -> RankCurve:
    same, other = Equivalence(-0.001, (-0.009, 0.007), True), Equivalence(-0.123, (-0.151, -0.101), False)
    points = tuple(
        CurvePoint(rank, "cut" if energy else "trained", f"runs/r{rank}", 26880 * rank,
                   {"accuracy": 0.8849, "macro_f1": 0.8225}, dict.fromkeys(("accuracy", "macro_f1"), (0.802, 0.892)),
                   energy, other if energy else None, same if energy else None)
        for rank, energy in ((2, 0.7512), (4, 0.9012), (16, None))
    )  # fmt: skip
    return RankCurve("runs/c", "runs/r16", 16, "loraft-vi-tiny", "nf4", "feedback", "sentiment", LABELS, 608, 0.995,
                     0.015, points, 100.0, 12.5, True)  # fmt: skip


def folded() -> FoldsResult:
    folds = tuple(FoldRecord(f"fold{n}", f"runs/f{n}", 9141, 2285, 1430, 0.8225) for n in (1, 2))
    return FoldsResult("runs/f", "loraft-vi-tiny", "feedback", "sentiment", LABELS, folds, scored(), two_baselines())


def checked() -> Checked:
    counts = dict.fromkeys(TOPICS, 2285)
    splits = tuple(
        SplitFound(name, f"{name}.jsonl", 11425, counts, 1017, 48, 12, 3, 0.012, 1151)
        for name in ("train", "validation", "test")
    )
    answers = tuple(AnswerTokens(label, "Sentiment:", (" ti", "êu", " cực"), "in the first token") for label in LABELS)
    differs = {"model.name": ("/mnt/đĩa/mô-hình/Llama-3.2-1B-Instruct-bản-của-nhóm", "loraft-vi-tiny"),
               "train.learning_rate": (0.0005, None)}  # fmt: skip
    leaks = (Leaks("train", "test", 1017, 48), Leaks("train", "validation", 5, None))
    return Checked({"preset": "quickstart"}, differs, splits, leaks, None, answers, None, None, (), ())


def planned() -> Plan:
    memory = {method: Memory(GIB // 3, GIB // 7, GIB // 5, 2 * GIB) for method in ("full", "lora", "qlora")}
    batches = {"full": 0, "lora": 8, "qlora": 4096}
    fits = {"full": False, "lora": False, "qlora": True}
    rooms = {"this machine": 20.11, "RTX 3060 12 GB": 10.42, "A100 80 GB": 74.44}
    devices = {name: Fit(int(room * GIB), batches, fits) for name, room in rooms.items()}
    return Plan("Llama-3.2-1B", 851_968, 1_236_666_368, 4.127, 16, 151, 96, True, False,
                {"full": "fp32", "lora": "bf16", "qlora": "bf16"}, memory, devices)  # fmt: skip


def made() -> list[Table]:
    same = merge.Comparison(0.9967, 2, 0.0123, 0.00312)
    merged = merge.Merge("x", None, "dequantised", "bf16", "feedback", "test", 608, same,
                         {"bf16": 0.0123, "fp16": 0.0017, "fp32": 0.0}, None, validation_rows=317)  # fmt: skip
    exported = export.Export("onnx", "fp32", True, "x", None, "feedback", 608, 3, same, None)
    errors = [
        quant_error.LayerError(layer, method, 6_291_456, bits, rms, 1.25)
        for layer in ("q_proj", "gate_proj")
        for method, bits, rms in (("nf4", 4.127, 0.0912), ("fp4", 4.127, 0.1104), ("int8", 8.004, 0.0089))
    ]
    return [*merge.tables(merged), *export.tables(exported), quant_error.table(errors)]


def listed() -> Table:
    name = "loraft-vi-tiny-feedback-sentiment-qlora-r16-s42"
    rows = [
        Row(name, f"runs/{name}", "run", "working", 1234567, "macro_f1", 0.8225, (0.766, 0.869), "2026-11-27", 10**9),
        Row("quét/r4", "runs/quét/r4", "trial", "finished", None, "accuracy", 0.8849, None, "2026-11-26", 13_912_345),
    ]
    return runs._table(rows)


def dry_run() -> Table:
    rates = (None, 0.0005)
    return sweep_tables.plan([
        PlannedTrial(f"r{rank}-lr{rate}", {"lora.r": rank, "train.learning_rate": rate}, "fixed, alpha 32", 106_496,
                     "new")
        for rank in (1, 128) for rate in rates
    ])  # fmt: skip


TABLES: dict[str, Callable[[], list[Table]]] = {
    "train": lambda: [tables.before_after(judged(LABELS, 0.5, no_label=9), judged(LABELS, 0.1)),
                      *tables.baselines({"": two_baselines()})],
    "eval": lambda: tables.parts(scored()),
    "eval-many-labels": lambda: tables.parts(judged(tuple(f"dịch vụ {n:02}" for n in range(20)), 0.4)),
    "eval-long-labels": lambda: tables.labels(judged(TOPICS, 0.3, no_label=9)),
    "fewshot": lambda: [fewshot_tables.fewshot(fewshot_result())],
    "sweep": lambda: sweep_tables.sweep_tables(replace(result((4, 8)), baselines=two_baselines())),
    "sweep-seeds": lambda: sweep_tables.sweep_tables(result((4, 128), seeds=(1, 2))),
    "sweep-dry-run": lambda: [dry_run()],
    "sweep-search": lambda: sweep_tables.sweep_tables(searched()),
    "sweep-search-dry-run": lambda: [sweep_tables.space([
        Axis("train.learning_rate", "log", (1e-5, 0.01)), Axis("lora.lora_dropout", "uniform", (0.0, 0.1)),
        Axis("lora.r", "list", (1, 2, 4, 8)), Axis("train.optim", "list", ("sgd", "adamw_torch")),
    ])],
    "sweep-from": lambda: [curve_tables.curve(curve())],
    "folds": lambda: fold_tables.folds_tables(folded()),
    "compare": lambda: [compare_tables.comparison(compared()), *compare_tables.baselines(compared()),
                        compare_tables.changed(compared(), 2, 2)],
    "data": lambda: dataset_tables.data_tables(described(LABELS)),
    "data-long-labels": lambda: dataset_tables.row_tables(described(TOPICS)),
    "data-overview": lambda: overview.overview_tables(overview_of()),
    "audit": lambda: [audit_tables.suspects(suspicious()), audit_tables.moves(suspicious())],
    "check": lambda: check_tables.tables(checked()),
    "plan": lambda: [plan_tables.memory_table(planned()), plan_tables.device_table(planned())],
    "merge-export": made,
    "runs-list": lambda: [listed()],
    "models": lambda: [listing(["name", "kind", "licence"],
                               [["loraft-vi-tiny", "backbone", "cc-by-sa-4.0"], ["sentiment", "task", "Apache-2.0"]])],
}  # fmt: skip
