"""Reports: one page that needs nothing else, says what the files say, and works in a browser on a phone at night."""

import ast
import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.baselines import NOTE, ROWS, noted
from helpers.folders import HOSTILE, LABELS, answers, make_data, make_fewshot, make_run, make_sweep

import loraft
from loraft.config.resolve import load_config, resolve
from loraft.config.yaml_io import dump_config
from loraft.display.page import Code, cells
from loraft.errors import ConfigError, RunError
from loraft.evaluation.explanation import Explanation, Explanations, WordEffect
from loraft.models.peft_code import peft_code
from loraft.runs.atomic_files import write_text
from loraft.runs.predictions import PredictedRow, mistakes, read_rows
from loraft.runs.records import write_record
from loraft.runs.run import Run
from loraft.runs.study_folders import SweepFolder
from loraft.studies import report
from loraft.studies.dataset import statistics
from loraft.studies.run_report import _words
from loraft.studies.sweep.records import SweepResult
from loraft.studies.sweep.tables import sweep_notes
from loraft.training.results import RunResult

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


MAKERS = {"run": make_run, "fewshot": make_fewshot, "sweep": make_sweep, "data": make_data}


class Page(HTMLParser):
    """What a browser would find: tags with attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", MAKERS)
def test_the_page_is_whole_and_asks_nothing_of_anyone(tmp_path: Path, kind: str) -> None:
    page = read(report.write_page(MAKERS[kind](tmp_path / "báo cáo")))
    assert page.open == []  # every tag is closed
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    addresses = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "srcset")]
    assert all(str(address).startswith("data:image/png;base64,") for address in addresses)
    assert "url(" not in page.text
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [attrs for _, attrs in page.tags]


@pytest.mark.parametrize("kind", MAKERS)
def test_every_image_says_what_it_shows(tmp_path: Path, kind: str) -> None:
    images = [attrs for tag, attrs in read(report.write_page(MAKERS[kind](tmp_path / "a"))).tags if tag == "img"]
    assert len(images) == {"run": 3, "fewshot": 1, "sweep": 1, "data": 2}[kind]
    assert all(len(str(attrs["alt"])) > 10 and int(str(attrs["width"])) > 200 for attrs in images)


def test_a_runs_page_has_all_sections(tmp_path: Path) -> None:
    document = report.document(make_run(tmp_path / "a"))
    assert [head for head, parts in document.sections if parts] == [
        "Results", "Labels", "Calibration", "Most confident mistakes", "Training", "How to use the adapter", "Data",
        "Config",
    ]  # fmt: skip
    text = read(report.write_page(tmp_path / "a")).text
    for expected in ("1,234,567", "2 blank rows skipped", "loraft predict --run", "PeftModel.from_pretrained",
                     "learning_rate: null", "trung tính", "40 test rows"):  # fmt: skip
        assert expected in text


def test_the_python_code_on_a_runs_page_works_and_uses_public_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(Path(__file__).parents[1] / "fixtures" / "first_layout" / "run", tmp_path / "chạy"))
    parts = dict(report.document(run).sections)["How to use the adapter"]
    loraft_code, peft_code = (part.text for part in parts if isinstance(part, Code) and "import" in part.text)
    used = {
        node.attr
        for node in ast.walk(ast.parse(loraft_code))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "loraft"
    }
    assert used
    assert used <= set(loraft.__all__)
    monkeypatch.chdir(run)
    exec(loraft_code, {})
    assert capsys.readouterr().out.startswith("positive {'negative': 0.")
    names: dict[str, Any] = {}
    exec(peft_code, names)
    assert names["model"].peft_config["default"].r == load_config(run / "config.yaml").lora.r


def quantised_run(folder: Path, *overrides: str) -> Path:
    """The run of the first layout, as if it had been trained with these settings; its weights are the same."""
    run = Path(shutil.copytree(Path(__file__).parents[1] / "fixtures" / "first_layout" / "run", folder))
    config = resolve(config_file=run / "config.yaml", overrides=overrides)
    (run / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return run


def peft_code_of(run: Path) -> str:
    return peft_code(Run(run), load_config(run / "config.yaml"))


NF4 = ("quant.method=nf4", "model.dtype=auto")


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((), id="lora-fp32"),
        pytest.param(("model.dtype=bf16",), id="lora-bf16", marks=pytest.mark.integration),
        pytest.param(NF4, id="qlora"),
        pytest.param(
            (*NF4, "quant.compute_dtype=fp32", "quant.double_quant=false"),
            id="qlora-fp32",
            marks=pytest.mark.integration,
        ),
    ],
)
def test_the_printed_peft_code_gives_lorafts_scores(
    tmp_path: Path, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from loraft.data.dataset import load_data
    from loraft.engine import scorer
    from loraft.models.adapter import load_adapter
    from loraft.models.load import build

    run = quantised_run(tmp_path / "chạy", *overrides)
    data = resolve(overrides=["data.max_test_rows=24"]).data
    config = load_config(run / "config.yaml").model_copy(update={"data": data})
    encoder, base = build(config)
    ids = [prompt.ids for prompt in encoder.encode(load_data(config, "test").texts)]
    expected = scorer.score(load_adapter(base, run / "adapter"), ids, encoder.completions_K)
    monkeypatch.chdir(run)
    names: dict[str, Any] = {}
    exec(code := peft_code_of(run), names)
    found = scorer.score(names["model"], ids, encoder.completions_K)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert {p.dtype for p in names["model"].parameters()} == {p.dtype for p in base.parameters()}
    assert str(tmp_path) not in code
    assert str(Path(loraft.__file__).parent) not in code
    if "quant.method=nf4" in overrides:
        # The code of a run without quantisation loads another backbone, which gives other scores (log-probabilities).
        plain = scorer.score(load_adapter(build(resolve())[1], run / "adapter"), ids, encoder.completions_K)
        assert abs(plain - expected).max() > 0.1


def test_a_backbone_in_a_folder_is_named_from_the_runs_folder(tmp_path: Path) -> None:
    (tmp_path / "mô hình").mkdir()
    run = quantised_run(tmp_path / "runs" / "a", f"model.name={tmp_path / 'mô hình'}", "model.revision=v1")
    code = peft_code_of(run)
    assert "    '../../mô hình',\n    revision='v1',\n    dtype=torch.float32,\n" in code
    assert str(tmp_path) not in code


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_the_printed_peft_code_loads_a_gguf_file_as_loraft_does(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from helpers.gguf_files import write_gguf

    from loraft.models.adapter import add_adapter
    from loraft.models.backbone import fingerprint, load_backbone

    (tmp_path / "mô hình").mkdir()
    write_gguf(tmp_path / "mô hình" / "tí hon.gguf")
    quant = [f"quant.method={method}", "quant.compute_dtype=fp32"]
    config = resolve(overrides=[f"model.name={tmp_path / 'mô hình'}", "model.dtype=bf16", "lora.r=2", *quant])
    base = load_backbone(config.model, config.quant)
    expected = fingerprint(base)
    run = Run(tmp_path / "runs" / "a")
    write_text(run.config_path, dump_config(config))
    add_adapter(base, config.lora, seed=1).save_pretrained(str(run.adapter), save_embedding_layers=False)
    code = peft_code(run, config)
    assert str(tmp_path) not in code
    monkeypatch.chdir(run.path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert fingerprint(names["model"]) == expected  # the same weights, dtype and quantisation


def test_a_backbone_that_moved_with_its_run_is_named_by_its_present_path(tmp_path: Path) -> None:
    run = quantised_run(tmp_path / "runs" / "a", "model.name=/ở đâu đó/mô hình/tí hon.gguf")
    recorded = json.loads((run / "adapter" / "loraft.json").read_text(encoding="utf-8"))
    recorded["backbone"]["relative_path"] = "../../mô hình/tí hon.gguf"
    (run / "adapter" / "loraft.json").write_text(json.dumps(recorded), encoding="utf-8")
    shown = "    '../../mô hình',\n    gguf_file='tí hon.gguf',\n"
    assert shown in peft_code_of(run)  # also where it is gone
    (tmp_path / "mô hình").mkdir()
    (tmp_path / "mô hình" / "tí hon.gguf").touch()
    (tmp_path / "mô hình" / "khác.gguf").touch()
    assert shown in peft_code_of(run)


@pytest.mark.parametrize(("recorded", "shown"), [("fp32", "torch.float32"), (None, "torch.bfloat16")])
def test_the_dtype_that_a_run_recorded_is_that_of_the_code(tmp_path: Path, recorded: str | None, shown: str) -> None:
    run = quantised_run(tmp_path / "a", "model.dtype=auto")
    manifest = json.loads((run / "adapter" / "loraft.json").read_text(encoding="utf-8"))
    manifest["backbone"]["dtype"] = recorded
    (run / "adapter" / "loraft.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert f"    dtype={shown},\n" in peft_code_of(run)


@pytest.mark.parametrize("kind", ["fewshot", "sweep", "data"])
def test_the_file_of_a_study_says_first_what_it_is(tmp_path: Path, kind: str) -> None:
    content = json.loads((MAKERS[kind](tmp_path / "a") / f"{kind}.json").read_text(encoding="utf-8"))
    assert list(content.items())[1] == ("kind", kind)
    assert next(iter(content)) == "schema_version"


def test_what_users_wrote_is_text_and_not_markup(tmp_path: Path) -> None:
    page = read(report.write_page(make_run(tmp_path / "a")))
    assert HOSTILE in page.text
    assert "script" not in {tag for tag, _ in page.tags}


def test_mistakes_come_by_the_probability_of_the_wrong_label(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    parts = dict(report.document(folder).sections)["Most confident mistakes"]
    references, probs = answers()
    wrong = np.flatnonzero(probs.argmax(axis=1) != references)
    assert str(parts[0]).startswith(f"{len(wrong)} of 40 test rows are wrong")
    heads, rows = cells(parts[1])  # type: ignore[arg-type]
    assert heads == ["sentence", "reference", "predicted", "probability", "row"]
    expected = sorted((float(probs[i].max()) for i in wrong), reverse=True)[:20]
    assert [row[3] for row in rows] == [f"{p:.3f}" for p in expected]
    assert rows[0][4] == str(max(wrong, key=lambda i: probs[i].max()) + 1)


def test_words_stand_beside_the_mistakes_that_are_explained(tmp_path: Path) -> None:
    run = Run(make_run(tmp_path / "a"))
    wrong = mistakes(read_rows(run))

    def explained(row: PredictedRow, label: str) -> Explanation:
        words = [WordEffect(word, 0, 1, effect) for word, effect in ((HOSTILE, 0.5), ("dở", 1.25), ("hay", -2.0))]
        return Explanation(row.row, row.text, label, 0.5, 0.0, tuple(words))

    other = next(label for label in LABELS if label != wrong[1].predicted)  # of a model that predicted another one
    kept = (explained(wrong[0], str(wrong[0].predicted)), explained(wrong[1], other))
    write_record(run.explanations_path, Explanations(kept))
    parts = dict(report.document(run.path).sections)["Most confident mistakes"]
    heads, rows = cells(parts[1])  # type: ignore[arg-type]
    assert heads == ["sentence", "reference", "predicted", "probability", "words for it", "row"]
    assert [row[4] for row in rows] == [f"dở +1.25, {HOSTILE} +0.50", *["-"] * (len(rows) - 1)]
    assert "log-odds" in str(parts[2])
    assert "dở +1.25" in read(report.write_page(run.path)).text


def test_of_label_sets_the_words_of_each_wrongly_predicted_label_are_shown(tmp_path: Path) -> None:
    run, words = Run(tmp_path), (WordEffect("dở", 0, 2, 1.25),)
    made = [Explanation(1, "dở", label, 0.5, 0.0, words) for label in ("a", "b", "c")]
    write_record(run.explanations_path, Explanations(tuple(made)))
    row = PredictedRow(1, "dở", ("b",), ("a", "b", "c"))
    assert _words(run, [row]) == {1: "a: dở +1.25; c: dở +1.25"}
    assert _words(run, [replace(row, predicted=("b", "c"))]) == {1: "dở +1.25"}
    assert _words(run, [replace(row, predicted=())]) == {}


def test_generated_answers_have_no_probabilities_and_are_shown_as_they_are(tmp_path: Path) -> None:
    sections = dict(report.document(make_run(tmp_path / "a", generated=True)).sections)
    assert sections["Calibration"] == ["Answers were generated, so there are no probabilities."]
    heads, rows = cells(sections["Most confident mistakes"][1])  # type: ignore[arg-type]
    assert (heads[2], rows[0][2]) == ("answer", "Sentiment: <không>")


def test_a_run_without_mistakes_says_so(tmp_path: Path) -> None:
    sections = dict(report.document(make_run(tmp_path / "a", right=True)).sections)
    assert sections["Most confident mistakes"] == ["None: every test row is right."]


def test_a_run_without_figures_such_as_a_trial_gets_them(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    shutil.rmtree(folder / "plots")
    images = [attrs for tag, attrs in read(report.write_page(folder)).tags if tag == "img"]
    assert len(images) == 3
    before = (folder / "plots" / "reliability.png").stat().st_mtime_ns
    report.write_page(folder)
    assert (folder / "plots" / "reliability.png").stat().st_mtime_ns == before  # drawn once


@pytest.mark.parametrize(("key", "again"), [("eval_loss", True), ("eval_answer_loss", False)])
def test_a_learning_curve_of_an_earlier_version_is_drawn_again(key: str, again: bool, tmp_path: Path) -> None:
    run = Run(make_run(tmp_path / "a"))
    report.document(run.path)
    write_text(run.log_path, json.dumps({"step": 1, "loss": 1.0, key: 1.0, "eval_macro_f1": 0.5}) + "\n")
    run.learning_curve_path.write_bytes(b"")
    report.document(run.path)
    assert (run.learning_curve_path.stat().st_size > 0) is again


def test_the_headline_has_the_backbones_scores_where_they_were_measured(tmp_path: Path) -> None:
    run = Run(make_run(tmp_path / "a"))
    result = RunResult.of(run)
    assert result.before is not None
    low, high = result.after.intervals["macro_f1"]
    after = (
        f"Macro F1 {result.after.macro_f1:.3f} (95% interval {low:.3f} to {high:.3f}) and accuracy"
        f" {result.after.accuracy:.3f} on 40 test rows."
    )
    backbone = f" The backbone without the adapter: {result.before.macro_f1:.3f} and {result.before.accuracy:.3f}."
    assert dict(report.document(run.path).sections)["Results"][0] == after + backbone
    run.finish(replace(result, before=None))
    assert dict(report.document(run.path).sections)["Results"][0] == after


def test_a_run_is_shown_beside_the_baselines_and_with_its_warnings(tmp_path: Path) -> None:
    run = Run(make_run(tmp_path / "a"))
    plain = dict(report.document(run.path).sections)
    assert (len(plain["Results"]), plain["Warnings"]) == (2, [])
    assert "Warnings" not in report.markdown(run.path)  # a section without parts has no heading
    told = ("never predicted: neutral (3); train.sampling=balanced", "rows conflict")
    run.finish(replace(RunResult.of(run), baselines=noted(), warnings=told))
    _, verdict, table, note, _ = dict(report.document(run.path).sections)["Results"]
    assert (verdict, note) == ("The adapter is worse.", NOTE)
    assert cells(table)[1] == ROWS  # type: ignore[arg-type]
    for text in (report.markdown(run.path), report.write_page(run.path).read_text(encoding="utf-8")):
        assert all(sentence in text for sentence in (*told, verdict, "-20.0 [-24.9, -15.1]"))


def test_the_training_is_told_with_its_nested_values_and_short_numbers(tmp_path: Path) -> None:
    run = Run(make_run(tmp_path / "a"))
    result = RunResult.of(run)
    run.finish(replace(result, train=replace(result.train, seconds=12345.6, peak_memory_mib=2048)))
    *_, table = dict(report.document(run.path).sections)["Training"]
    shown = dict(cells(table)[1])  # type: ignore[arg-type]
    assert (shown["seconds"], shown["validation macro f1"], shown["steps"]) == ("12,346", "0.5", "20")
    assert (shown["parameters trainable"], shown["shared prefix"]) == ("1,234,567", "yes")
    assert shown["peak memory MiB"] == "2,048"
    assert not any(key.startswith(("joint", "resumed")) for key in shown)  # of what did not happen, nothing


def test_the_subtitle_says_what_a_run_was_made_from(tmp_path: Path) -> None:
    run = Run(make_run(tmp_path / "a"))
    made = json.loads(run.environment_path.read_text(encoding="utf-8"))
    version, time = made["packages"]["loraft"], made["time"]
    settings = "data feedback · task sentiment · rank 16, fixed, alpha 32 · seed 42"
    start = f"backbone loraft-vi-tiny · {settings} · loraft {version} · {time}"
    assert report.document(run.path).subtitle.startswith(start)  # and that the source was changed, where it was
    write_text(run.config_path, dump_config(resolve(overrides=["quant.method=nf4"])))
    run.environment_path.unlink()
    assert report.document(run.path).subtitle == f"backbone loraft-vi-tiny (nf4) · {settings}"


def test_a_page_about_one_split_says_that_nothing_can_leak(tmp_path: Path) -> None:
    (tmp_path / "ý.csv").write_text("sentence,sentiment\nthầy tốt,positive\nthầy tốt,negative\n", encoding="utf-8")
    config = resolve(overrides=[f"output={tmp_path}"], flags={"data.source": str(tmp_path / "ý.csv")})
    parts = dict(report.document(Path(statistics.describe(config, tokens=False).path)).sections)["Leaks and conflicts"]
    assert parts[:2] == ["One split: nothing can leak.", "sentences with several labels: 1, in 2 rows"]
    assert cells(parts[2])[1] == [["negative 1, positive 1", "thầy tốt"]]  # type: ignore[arg-type]


def test_a_page_about_data_explains_near_before_it_shows_pairs(tmp_path: Path) -> None:
    source = tmp_path / "góp ý"
    source.mkdir()
    for split, text in (
        ("train", "thầy dạy rất nhiệt tình và dễ hiểu ."),
        ("test", "thầy dạy rất nhiệt tình và dễ hiểu"),
    ):
        (source / f"{split}.jsonl").write_text(
            json.dumps({"sentence": text, "sentiment": "positive"}), encoding="utf-8"
        )
    config = resolve(overrides=[f"output={tmp_path}", "name=a"], flags={"data.source": str(source)})
    statistics.describe(config, tokens=False)
    counts, legend, pairs, conflicts = dict(report.document(tmp_path / "a").sections)["Leaks and conflicts"]
    assert cells(counts)[1] == [["test rows that train has", "0", "1"]]  # type: ignore[arg-type]
    assert str(legend).startswith("nearly the same: ")
    assert cells(pairs)[1][0][0] == "1.00"  # type: ignore[arg-type]
    assert conflicts == "sentences with several labels: none"


def test_a_sweeps_page_names_the_best_and_shows_what_failed(tmp_path: Path) -> None:
    make_sweep(tmp_path / "a" / "quét").parent.rename(tmp_path / "đã chuyển")
    folder = tmp_path / "đã chuyển" / "quét"
    text = read(report.write_page(folder)).text
    for expected in (f"loraft predict --run '{folder}/r2-s1'", "out of memory <hết bộ nhớ>", "fixed, alpha 32", "rank"):
        assert expected in text
    failed = dict(report.document(folder).sections)["Failed trials"]
    assert failed == [Code(f"r4-s{seed}\nout of memory <hết bộ nhớ>") for seed in (1, 2)]


def test_everything_said_of_a_sweep_is_on_the_page_and_in_markdown(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "quét")
    notes = sweep_notes(SweepResult.of(SweepFolder(folder)))
    assert len(notes) >= 3
    text, blocks = read(report.write_page(folder)).text, report.markdown(folder).strip().split("\n\n")
    for note in notes:
        assert note in text
        assert note.replace("<", r"\<").replace("*", r"\*") in blocks


def test_what_is_not_known_of_a_training_is_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    assert "resumed from step" not in read(report.write_page(folder)).text
    run = Run(folder)
    result = RunResult.of(run)
    run.finish(replace(result, train=replace(result.train, resumed_from_step=10)))
    assert "resumed from step" in read(report.write_page(folder)).text


def test_a_fewshot_page_gives_the_verdict_and_every_draw(tmp_path: Path) -> None:
    text = read(report.write_page(make_fewshot(tmp_path / "a"))).text
    assert "Fine-tuning pays" in text
    for expected in (
        "backbone, 2 shots",
        "3, 1",
        "label",
        "2 draws of random",
        "±0.008",
    ):  # sd of two draws 1/90 apart: 1/90/sqrt 2
        assert expected in text


@pytest.mark.parametrize("kind", MAKERS)
def test_markdown_holds_tables_and_notes_and_nothing_breaks_out_of_a_cell(tmp_path: Path, kind: str) -> None:
    text = report.markdown(MAKERS[kind](tmp_path / "a"))
    blocks = [block.split("\n") for block in text.strip().split("\n\n") if block.startswith("|")]
    assert len(blocks) >= 2 - (kind == "sweep")
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block}) == 1
        assert set(block[1]) <= set("|- :")
    assert "<script" not in re.sub(r"\\<", "", text)
    said = {
        "run": "on 40 test rows.", "fewshot": "Fine-tuning pays", "sweep": "alpha policy: fixed, alpha 32",
        "data": "sentences with several labels: none",
    }  # fmt: skip
    assert said[kind] in text


def test_the_page_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "a")
    assert report.write_page(folder) == folder / "report.html"
    assert report.write_page(folder, tmp_path / "gửi thầy" / "b.html").is_file()
    with pytest.raises(ConfigError, match=r"--to: is a folder .*; name a file"):
        report.write_page(folder, tmp_path)
    with pytest.raises(ConfigError, match=r"--to: cannot be written .*; name another"):
        report.write_page(folder, folder / "sweep.json" / "c.html")


def test_without_a_name_the_newest_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, kind in enumerate(("run", "sweep", "fewshot")):
        folder = MAKERS[kind](tmp_path / kind)
        for file in folder.glob("*.json"):
            os.utime(file, (1000 - age, 1000 - age))
    assert report.find(None, tmp_path) == tmp_path / "run"
    os.utime(tmp_path / "sweep" / "sweep.json", (2000, 2000))
    assert report.find(None, tmp_path) == tmp_path / "sweep"
    assert report.find("fewshot", tmp_path) == tmp_path / "fewshot"
    assert report.find(str(tmp_path / "run"), Path("không có")) == tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert report.find("run", Path("không có")) == Path("run")
    assert report.find("~/run", Path("không có")) == tmp_path / "run"


def test_a_hidden_folder_such_as_one_set_aside_by_force_is_never_the_newest(tmp_path: Path) -> None:
    make_fewshot(tmp_path / "a")
    aside = make_fewshot(tmp_path / ".a.replaced")
    os.utime(aside / "fewshot.json", (4e9, 4e9))
    assert report.find(None, tmp_path) == tmp_path / "a"


def test_what_is_not_there_or_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing to report; loraft train, sweep, fewshot and data make some"):
        report.find(None, tmp_path)
    (make_run(tmp_path / "tốt-nhất") / "metrics.json").rename(tmp_path / "metrics.json")
    with pytest.raises(RunError, match="tốt-nhất: nothing finished to report"):
        report.write_page(report.find("tốt-nhất", tmp_path))
    sweep = SweepFolder(make_sweep(tmp_path / "quét"))
    with pytest.raises(RunError, match=r"\(got 'quet'\); did you mean quét\?"):
        report.find("quet", tmp_path)
    with pytest.raises(RunError, match=r"no such run or study \(got 'xyz'\); there are quét$"):
        report.find("xyz", tmp_path)
    sweep.results_path.unlink()
    with pytest.raises(RunError, match=r"loraft sweep --config \S*quét/sweep.yaml'? continues it, or name"):
        report.document(sweep.path)
    with pytest.raises(RunError, match=r"loraft train --resume --config \S*tốt-nhất/config.yaml'? continues it"):
        report.document(tmp_path / "tốt-nhất")


PROBE = """
<!doctype html><body><iframe id="page" style="border:0" width="{width}" height="800" srcdoc="{page}"></iframe><script>
document.getElementById("page").onload = (event) => {{
  const inside = event.target.contentDocument, style = getComputedStyle(inside.body);
  const found = {{
    overflow: inside.documentElement.scrollWidth - {width},
    broken: [...inside.images].filter(image => !image.naturalWidth).length,
    images: inside.images.length,
    widest: Math.max(0, ...[...inside.images].map(image => image.getBoundingClientRect().right)),
    wide: [...inside.querySelectorAll(".wide")].filter(box => box.scrollWidth > box.clientWidth).length,
    tallest: Math.max(...[...inside.querySelectorAll("td:not(.text)")].map(cell =>
      [...cell.childNodes].map(text => {{
        const range = inside.createRange(); range.selectNode(text); return range.getBoundingClientRect().height;
      }}).reduce((a, b) => Math.max(a, b), 0))),
    ink: style.color, back: style.backgroundColor, font: parseFloat(style.fontSize),
    requests: event.target.contentWindow.performance.getEntriesByType("resource").length,
  }};
  document.title = JSON.stringify(found);
}};
</script></body>
"""


def browse(page: Path, folder: Path, *, width: int, dark: bool) -> dict[str, Any]:
    """What headless Chromium makes of the page in a frame of so many pixels."""
    probe = folder / "probe.html"
    probe.write_text(PROBE.format(width=width, page=html.escape(page.read_text(encoding="utf-8"))), encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run --disable-sync --dump-dom"
        f" --virtual-time-budget=5000 --blink-settings=preferredColorScheme={0 if dark else 1}"
    )
    command = [str(BROWSER), *flags.split(), f"--user-data-dir={folder / 'profile'}", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stdout[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(title[1]))
    return found


def lightness(color: str) -> float:
    return sum(map(float, re.findall(r"\d+", color)[:3])) / 765


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("kind", MAKERS)
def test_in_a_browser_the_page_fits_a_phone_and_follows_the_dark_mode(tmp_path: Path, kind: str) -> None:
    page = report.write_page(MAKERS[kind](tmp_path / "a"))
    for width, dark in ((390, True), (390, False), (1200, False)):
        found = browse(page, tmp_path, width=width, dark=dark)
        assert found["overflow"] <= 0  # nothing but tables and code scrolls sideways, in frames of their own
        assert found["widest"] <= width
        assert found["tallest"] < 2 * found["font"]  # only sentences are broken into lines
        assert found["wide"] >= (width == 390)  # and what is too wide for a phone goes on inside its frame
        assert found["broken"] == 0
        assert found["images"] == {"run": 3, "fewshot": 1, "sweep": 1, "data": 2}[kind]
        assert found["requests"] == 0
        assert found["font"] >= 16
        ink, back = lightness(found["ink"]), lightness(found["back"])
        assert (ink > 0.8 and back < 0.2) if dark else (ink < 0.2 and back > 0.8)
