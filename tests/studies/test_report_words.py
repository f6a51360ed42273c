"""Reports in Vietnamese: nothing of the program's own words stays English, and nothing of the user's is changed."""

import ast
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.baselines import noted
from helpers.folders import LABELS, make_data, make_fewshot, make_run, make_sweep, run_result
from helpers.records import report as judgement
from helpers.sweeps import searched

import loraft
from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config, read_mapping
from loraft.display.page import Code, Document, Image, cells
from loraft.evaluation.equivalence import Equivalence
from loraft.runs.atomic_files import write_text
from loraft.runs.run import Run
from loraft.runs.study_folders import AuditFolder, FoldsFolder, RankCurveFolder, SweepFolder
from loraft.studies import report, report_words
from loraft.studies.audit.records import AuditResult, Conflict, SuspectRow
from loraft.studies.report_words import in_vietnamese, translated
from loraft.studies.sweep.curve_records import CurvePoint, RankCurve
from loraft.studies.sweep.fold_records import FoldRecord, FoldsResult
from loraft.training.results import JointShare, RunResult

SOURCE = Path(loraft.__file__).parent
TABLE: dict[str, str] = read_mapping(SOURCE / "studies" / "report.vi.yaml")
# Names of scores and terms that Vietnamese pages keep, and what the fixtures' user wrote.
KEPT = """macro F1|macro precision|macro recall|weighted F1|MCC|precision|recall|F1|val. F1|MiB|seed|fold\\d?
train|validation|test|calibration|loraft .*|20\\d\\d-.*|F1 .* \\(n=\\d+\\)|.* \\(%\\)
lecturer|training program|facility|others|negative|neutral|positive""".replace("\n", "|")


# Entries whose English no single string of the program holds.
COMPOSED = ["{how} demonstrations, decode score", "is better than the {other} ({scores})"]


def make_full_run(folder: Path) -> Path:
    """A run beside baselines, resumed, trained with others, with warnings."""
    run = Run(make_run(folder))
    result = RunResult.of(run)
    joint = JointShare("r16", 3, 12.5)
    train = replace(result.train, joint=joint, resumed_from_step=10, peak_memory_mib=5, learning_rate=2e-3, cut=0.1)
    run.finish(replace(result, baselines=noted(), warnings=("never predicted: x",), train=train))
    return folder


def make_folds(folder: Path) -> Path:
    folds = FoldsFolder(folder)
    write_text(folds.config_path, dump_config(resolve()))
    made = (FoldRecord("fold1", "runs/gấp/fold1", 20, 4, 3, 0.75),)
    report = run_result(Run(folder))[0].after
    folds.finish(
        FoldsResult(path="gấp", backbone="x", data="y", task="z", labels=tuple(LABELS), folds=made, report=report)
    )
    return folder


def make_search(folder: Path) -> Path:
    sweep = SweepFolder(folder)
    write_text(sweep.config_path, dump_config(resolve()))
    sweep.finish(searched())
    return folder


def make_curve(folder: Path) -> Path:
    curve = RankCurveFolder(folder)
    write_text(curve.config_path, dump_config(resolve()))
    judged, same = judgement(0.8, half=0.02), Equivalence(-0.001, (-0.004, 0.002), equivalent=True)
    full = CurvePoint(8, "trained", "r8", 80, judged.scores, judged.intervals, 1.0, None, None)
    two = replace(full, rank=2, made="cut", trainable_parameters=20, energy=0.75, to_full=same, to_trained=same)
    curve.finish(RankCurve(
        path="runs/cắt", source="runs/r8", rank=8, backbone="b", quant="none", data="d", task="sentiment",
        labels=tuple(LABELS), n=100, confidence=0.95, margin=0.015, points=(two, full), training_seconds=10.0,
        seconds=1.0, together=False,
    ))  # fmt: skip
    return folder


def make_audit(folder: Path) -> Path:
    audit = AuditFolder(folder)
    write_text(audit.config_path, dump_config(resolve()))
    row = SuspectRow(17, "thầy dạy hay", "negative", "positive", 0.01, 0.01, 0.95, {"positive": 2})
    audit.finish(AuditResult(
        path="runs/kiểm tra", backbone="b", data="feedback", task="sentiment", labels=("negative", "positive"),
        split="train", source="a.csv", rows=100, fingerprint="f", folds=5, seconds=1.5, agreement=0.91, suspects=(row,),
        conflicts=(Conflict("căn tin", {"negative": (3,), "positive": (9,)}),), duplicates=6,
    ))  # fmt: skip
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "run": make_full_run, "generated": lambda folder: make_run(folder, generated=True),
    "right": lambda folder: make_run(folder, right=True), "fewshot": make_fewshot, "sweep": make_sweep,
    "search": make_search,
    "data": make_data, "folds": make_folds, "curve": make_curve, "audit": make_audit,
}  # fmt: skip


def texts(document: Document) -> Iterator[str]:
    """Every text of a report but code, warnings and the cells of the user's columns."""
    yield from (document.title, *document.subtitle.split(" · "))
    for head, parts in document.sections:
        if not parts:
            continue
        yield head
        for part in parts if head not in ("Warnings", translated("Warnings")) else ():
            if isinstance(part, str | Image | Code):
                yield from filter(None, [part if isinstance(part, str) else getattr(part, "caption", "")])
                yield from filter(None, [getattr(part, "summary", None)])
                continue
            heads, rows = cells(part)
            yield from heads
            yield from (row[0] for row in rows if heads[0] not in ("sentence", "câu", "first sentence", "câu đầu tiên"))


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Document, Document]]:
    """Of each kind of report, the English and the Vietnamese one; their figures are empty files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.print_png", lambda _, path, **__: path.touch())
        folders = {kind: make(tmp_path_factory.mktemp(kind) / kind) for kind, make in MAKERS.items()}
    return {kind: (report.document(folder), report.document(folder, "vi")) for kind, folder in folders.items()}


@pytest.mark.parametrize("kind", MAKERS)
def test_no_word_of_the_program_stays_english(kind: str, documents: dict[str, tuple[Document, Document]]) -> None:
    english, vietnamese = documents[kind]
    pairs = list(zip(texts(english), texts(vietnamese), strict=True))
    assert len(pairs) > 20
    same = {one for one, other in pairs if one == other and re.search("[A-Za-z]{2}", one)}
    assert {one for one in same - {*LABELS} if not re.fullmatch(KEPT, one)} == set()


@pytest.mark.parametrize("kind", MAKERS)
def test_a_page_in_vietnamese_has_the_numbers_of_the_english_one(
    kind: str, documents: dict[str, tuple[Document, Document]]
) -> None:
    def numbers(text: str) -> list[str]:
        return sorted(re.findall(r"[+-]?\d[\d.,]*\d|\d", text))

    english, vietnamese = (report.page.markdown(document) for document in documents[kind])
    assert numbers(vietnamese) == numbers(english)
    assert documents[kind][1].language == "vi"


def test_both_languages_of_an_entry_have_the_same_names() -> None:
    for english, vietnamese in TABLE.items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", vietnamese)), english
        assert unicodedata.is_normalized("NFC", vietnamese)


def test_every_entry_is_said_somewhere(documents: dict[str, tuple[Document, Document]]) -> None:
    """By a report of the fixtures, or by a string of the program: an entry whose English was reworded is found."""
    said = [text for english, _ in documents.values() for text in texts(english)]
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        said += [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    said_together = "\n\n".join(said).lower()
    dead = [
        english
        for english in TABLE
        if max(re.split(r"\{\w+\}", english), key=len).strip(" ,;:.()").lower() not in said_together
    ]
    assert dead == COMPOSED


def test_fixed_values_of_keys_are_translated_and_one_word_is_not_taken_for_another(tmp_path: Path) -> None:
    assert (
        translated("nearest demonstrations, decode score")
        == "ví dụ minh hoạ gần câu cần gán nhãn nhất, chấm điểm từng nhãn"
    )
    assert (
        translated("random demonstrations, decode generate") == "ví dụ minh hoạ rút ngẫu nhiên, sinh câu trả lời tự do"
    )
    rows = cells(dict(report.document(make_full_run(tmp_path / "a"), "vi").sections)["Quá trình huấn luyện"][-1])[1]  # type: ignore[arg-type]
    assert ["tỉ lệ token bị cắt", "0.1"] in [list(row) for row in rows]
    assert "cắt" not in [row[0] for row in rows]  # the word for an adapter that was cut to a lower rank


def test_labels_of_the_user_are_not_translated() -> None:
    table = report_words.listing(["true / predicted", "best", "rows"], [["best", "1", "2"], ["accuracy", "3", "4"]])
    document = Document("Run a", "", [("Labels", [table])], labels=["best", "accuracy"])
    (_, (made,)) = in_vietnamese(document).sections[0]
    assert cells(made) == (["đúng / dự đoán", "best", "số dòng"], [["best", "1", "2"], ["accuracy", "3", "4"]])  # type: ignore[arg-type]


def test_names_of_runs_data_and_tasks_are_not_translated() -> None:
    document = Document("Run last", "backbone best · data accuracy · task rank 8 · rank 8, fixed, alpha 32", [])
    made = in_vietnamese(document)
    assert made.title == "Lần huấn luyện last"
    assert made.subtitle == "mô hình nền best · dữ liệu accuracy · bài toán rank 8 · hạng 8, cố định, alpha 32"
    assert translated("9 rows, task score, labels best, mean") == "9 dòng, bài toán score, các nhãn best, mean"


def test_brackets_of_a_head_are_kept_and_numbers_keep_their_side(tmp_path: Path) -> None:
    parts = dict(report.document(make_full_run(tmp_path / "a"), "vi").sections)["Kết quả"]
    heads, _ = cells(parts[2])  # type: ignore[arg-type]
    assert "điểm phần trăm [khoảng tin cậy 95%]" in heads
    assert {column.justify for column in parts[4].columns[1:]} == {"right"}  # type: ignore[union-attr]


def test_warnings_stay_as_the_program_said_them(tmp_path: Path) -> None:
    sections = dict(report.document(make_full_run(tmp_path / "a"), "vi").sections)
    assert sections[translated("Warnings")] == ["never predicted: x"]


def test_the_verdicts_are_whole_sentences() -> None:
    said = "The adapter is worse than the majority label (accuracy) and better (macro F1); it is better than"
    assert translated(f"{said} the TF-IDF + linear SVM (accuracy, macro F1).") == (
        "Adapter kém hơn nhãn đa số (độ chính xác) nhưng tốt hơn (macro F1);"
        " nó tốt hơn TF-IDF + SVM tuyến tính (độ chính xác, macro F1)."
    )


def test_a_text_is_searched_once_for_each_entry_and_depth_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes back: no pattern repeats without bound, and the first place that fits is the only one tried."""
    anchors = [anchor.pattern for entry in report_words.table() for anchor in entry.anchors]
    assert [one for one in anchors if re.search(r"(?<!\\)[*+]|,\}", one.replace(r"\+", ""))] == []
    assert not any(re.search(r"\(\?P<\w\w", one) for one in anchors)
    deep = translated("rank 1, " * 400)
    assert deep.count("hạng") == report_words.DEEPEST + 1
    assert translated("rank 1, " * 1000) == "rank 1, " * 1000
    assert translated("Rows", level=report_words.DEEPEST + 1) == "Rows"
