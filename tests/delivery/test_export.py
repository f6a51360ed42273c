import copy
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.finished_runs import NAMES, ORDER, calibrated_copy, finished_run
from helpers.gguf_files import save_backbone, write_gguf
from helpers.tiny import CONFIGS, SENTENCES
from transformers import AutoModelForSequenceClassification, PreTrainedModel, pipeline

import loraft
from loraft.delivery import export as exporting
from loraft.delivery import export_classifier, export_gguf, export_onnx
from loraft.delivery.export import Target, export
from loraft.errors import BackboneError, ConfigError, LoraftError, RunError
from loraft.models import manifest
from loraft.models.calibration import Calibration
from loraft.runs import validation_scores
from loraft.runs.bundle import config_of
from loraft.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """With a small vocabulary, since transformers reads that of a GGUF file word by word."""
    folder = tmp_path_factory.mktemp("small")
    save_backbone(folder / "b", CONFIGS["llama"])
    return finished_run(folder, model=str(folder / "b"))


def log_softmax(scores_NK: np.ndarray) -> np.ndarray:
    return torch.as_tensor(scores_NK).log_softmax(-1).numpy()


def expected(run: Run) -> np.ndarray:
    return log_softmax(loraft.load(run).log_probs(SENTENCES))


def piped(folder: Path, **options: Any) -> np.ndarray:
    answers = pipeline("text-classification", str(folder), **options)(SENTENCES, top_k=None)
    scores = [{one["label"]: one["score"] for one in answer} for answer in answers]
    return np.log([[score[name] for name in NAMES] for score in scores])


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    """The run as a classifier in fp32."""
    export(run, run.path.parent / "classifier", Target("classifier"))
    return run.path.parent / "classifier"


@pytest.fixture(scope="module")
def gguf(small: Run) -> Path:
    """The other run as a GGUF file in fp32."""
    export(small, small.path.parent / "gguf", Target("gguf"))
    return small.path.parent / "gguf"


def test_a_plain_pipeline_answers_as_the_run_does(run: Run, exported: Path) -> None:
    np.testing.assert_allclose(piped(exported), expected(run), atol=1e-4)


@pytest.mark.integration
def test_a_plain_pipeline_answers_as_a_quantised_run_does_in_fp32(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "quant.method=nf4")
    made = export(run, tmp_path / "out", Target("classifier"))
    assert (made.rows, made.compared.changed) == (len(SENTENCES), 0)
    config = loraft.resolve(base=loraft.load(run).loaded.config, overrides=["quant.compute_dtype=fp32"])
    own = log_softmax(loraft.load(run, config=config).log_probs(SENTENCES))
    assert np.ptp(own, axis=0).max() > 0.1  # answers differ from row to row
    np.testing.assert_allclose(piped(tmp_path / "out"), own, atol=1e-4)
    np.testing.assert_allclose(piped(tmp_path / "out", batch_size=4), own, atol=1e-4)


def test_padding_on_the_left_changes_nothing(run: Run, exported: Path) -> None:
    tokenizer, _ = export_classifier.read_classifier(exported, torch.device("cpu"))
    model = AutoModelForSequenceClassification.from_pretrained(exported).eval()
    given = tokenizer(SENTENCES, padding=True, padding_side="left", return_tensors="pt")
    with torch.inference_mode():
        np.testing.assert_allclose(model(**given).logits.log_softmax(-1), expected(run), atol=1e-4)


def test_the_folder_tells_where_it_is_from(exported: Path) -> None:
    content = manifest.read(exported)
    assert content.merged is not None
    assert (content.merged["to"], content.merged["rows"], content.merged["compared"]["changed"]) == ("classifier", 6, 0)
    assert content.files is not None
    assert content.files.keys() == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    with pytest.raises(RunError, match="is an export for other programs"):
        loraft.load(exported)


def with_calibration(run: Run, folder: Path, one: Calibration) -> Run:
    made = Run(shutil.copytree(run.path, folder))
    manifest.write(made.adapter, replace(manifest.read(made.adapter), calibration=one))
    return made


def test_a_classifier_holds_the_temperature(run: Run, tmp_path: Path) -> None:
    one = Calibration(1.9, None, 160)
    own = with_calibration(run, tmp_path / "r", one)
    made = export(own, tmp_path / "c", Target("classifier"))
    assert made.calibration == one == manifest.read(tmp_path / "c").calibration
    calibrated = np.log(loraft.load(own).probabilities(SENTENCES))
    np.testing.assert_allclose(piped(tmp_path / "c"), calibrated, atol=1e-4)
    assert np.abs(calibrated - expected(run)).max() > 0.01
    assert exporting.notes(made) == [
        "a softmax over its logits gives probabilities calibrated: temperature 1.900, fitted on 160 validation rows"
    ]


def test_a_classifier_with_biases_is_refused_and_onnx_or_raw_scores_are_named(run: Run, tmp_path: Path) -> None:
    own = with_calibration(run, tmp_path / "r", Calibration(1.9, (0.5, -0.75, 0.25)))
    with pytest.raises(ConfigError, match=r"no place for biases .*use --to onnx, or .*--set eval\.calibrate=false"):
        export(own, tmp_path / "c", Target("classifier"))
    config = loraft.resolve(base=config_of(own), overrides=["eval.calibrate=false"])
    made = export(own, tmp_path / "c", Target("classifier"), config=config)
    assert made.calibration is manifest.read(tmp_path / "c").calibration is None
    np.testing.assert_allclose(piped(tmp_path / "c"), expected(run), atol=1e-4)


@pytest.mark.integration  # exports twice
def test_an_onnx_file_holds_biases_too(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    own = with_calibration(run, tmp_path / "r", Calibration(1.9, (0.5, -0.75, 0.25)))
    export(own, tmp_path / "o", Target("onnx"))
    found = export_classifier.log_probs(*export_onnx.read_onnx(tmp_path / "o", torch.device("cpu")), SENTENCES)
    np.testing.assert_allclose(found, np.log(loraft.load(own).probabilities(SENTENCES)), atol=1e-4)


def test_of_a_gguf_file_loraft_alone_knows_the_calibration(small: Run, tmp_path: Path) -> None:
    one = Calibration(1.9, (0.5, -0.75, 0.25))
    made = export(calibrated_copy(small, tmp_path / "r", one), tmp_path / "g", Target("gguf"))
    assert (made.calibration, made.validation_rows) == (one, len(SENTENCES))
    scores = validation_scores.read(tmp_path / "g")
    assert scores is not None
    found = log_softmax(scores.arrays()[0])
    np.testing.assert_allclose(found, expected(small)[list(ORDER)], atol=1e-4)
    again = loraft.load(tmp_path / "g")
    np.testing.assert_allclose(log_softmax(again.log_probs(SENTENCES)), expected(small), atol=1e-4)
    np.testing.assert_allclose(again.probabilities(SENTENCES), one.probabilities(expected(small)), atol=1e-4)
    assert "since biases change labels" in exporting.notes(made)[1]


def test_a_gguf_file_answers_as_the_run_does(small: Run, gguf: Path) -> None:
    again = loraft.load(gguf)  # checked by its loraft.json
    np.testing.assert_allclose(log_softmax(again.log_probs(SENTENCES)), expected(small), atol=1e-4)


@pytest.mark.integration
@pytest.mark.parametrize("architecture", ["mistral", "qwen2", "qwen3"])
def test_a_gguf_file_of_other_shapes_does_so_too(tmp_path: Path, architecture: str) -> None:
    config = copy.deepcopy(CONFIGS[architecture])
    config.sliding_window = None
    if architecture == "qwen3":
        config.head_dim = 128  # transformers reads no other from a GGUF file of Qwen 3
    save_backbone(tmp_path / "b", config)
    run = finished_run(tmp_path, "lora.target_modules=all-linear", model=str(tmp_path / "b"))
    export(run, tmp_path / "out", Target("gguf"))
    again = loraft.load(tmp_path / "out")
    np.testing.assert_allclose(log_softmax(again.log_probs(SENTENCES)), expected(run), atol=1e-4)


@pytest.mark.integration
def test_a_gguf_file_can_be_the_backbone_of_what_becomes_one(tmp_path: Path) -> None:
    write_gguf(tmp_path / "b.gguf")
    run = finished_run(tmp_path, model=str(tmp_path / "b.gguf"))
    export(run, tmp_path / "out", Target("gguf"))
    again = loraft.load(tmp_path / "out")
    np.testing.assert_allclose(log_softmax(again.log_probs(SENTENCES)), expected(run), atol=1e-4)


@pytest.mark.integration
def test_merged_weights_can_be_exported_again(tmp_path: Path, small: Run, gguf: Path) -> None:
    export(gguf, tmp_path / "out", Target("gguf"))
    again = loraft.load(tmp_path / "out")
    np.testing.assert_allclose(log_softmax(again.log_probs(SENTENCES)), expected(small), atol=1e-4)


@pytest.mark.parametrize(
    "target", [Target("gguf", int8=True), pytest.param(Target("gguf", "fp16"), marks=pytest.mark.integration)]
)
def test_rounded_weights_are_close(tmp_path: Path, small: Run, target: Target) -> None:
    made = export(small, tmp_path / "out", target, min_agreement=0.8)
    assert 1e-4 < made.compared.log_prob_change < 0.5
    (written,) = (tmp_path / "out").glob("model.*")
    weights = sum(parameter.numel() for parameter in loraft.load(small).loaded.model.parameters())
    assert written.stat().st_size < 3 * weights  # bytes


@pytest.mark.integration
def test_a_classifier_in_bf16_is_half_as_large(tmp_path: Path, run: Run, exported: Path) -> None:
    export(run, tmp_path / "out", Target("classifier", "bf16"), min_agreement=0.8)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "out", exported)]
    assert sizes[0] / sizes[1] == pytest.approx(0.5, abs=0.01)


def test_what_disagrees_is_not_written(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    right = export_classifier.classifier

    def wrong(*given: Any) -> PreTrainedModel:
        made = right(*given)
        made.score.weight.data = made.score.weight.data.flip(0)
        return made

    monkeypatch.setattr(export_classifier, "classifier", wrong)
    with pytest.raises(RunError, match=r"is not written, since \d of 6 labels are others than the run's"):
        export(run, tmp_path / "a" / "out", Target("classifier"))
    assert list(tmp_path.iterdir()) == []


def test_a_gguf_file_in_another_order_is_refused(tmp_path: Path, small: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_gguf, "_interleaved", lambda values, heads: values)
    with pytest.raises(RunError, match="is not written, since"):
        export(small, tmp_path / "out", Target("gguf"))
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_cuts_otherwise_is_told(tmp_path: Path, small: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    right = export_gguf.gguf.GGUFWriter.add_token_merges
    monkeypatch.setattr(
        export_gguf.gguf.GGUFWriter, "add_token_merges", lambda writer, merges: right(writer, merges[:9])
    )
    with pytest.raises(BackboneError, match="gives other tokens for 6 of 6 rows"):
        export(small, tmp_path / "out", Target("gguf"))


@pytest.mark.parametrize("to", ["classifier", pytest.param("onnx", marks=pytest.mark.integration)])
def test_prompts_that_no_head_can_answer_are_refused(tmp_path: Path, to: str) -> None:
    run = finished_run(tmp_path, "prompt.score_end_of_turn=true")
    with pytest.raises(BackboneError, match="the end of turn is part of the scores"):
        export(run, tmp_path / "out", Target(to))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("architecture", "to", "message"),
    [
        ("gemma2", "classifier", "its LM head caps the logits"),
        ("gpt_neox", "gguf", r"writes Llama shapes \(got model_type 'gpt_neox'\)"),
        ("mistral", "gguf", "knows no sliding window"),
    ],
)
def test_architectures_that_have_no_such_form_are_refused(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, architecture: str, to: str, message: str
) -> None:
    monkeypatch.setattr(exporting, "load_config", lambda _: CONFIGS[architecture])
    with pytest.raises(BackboneError, match=message):
        export(run, tmp_path / "out", Target(to))


def test_several_labels_a_row_are_refused(tmp_path: Path, run: Run) -> None:
    config = loraft.resolve(base=loraft.load(run).loaded.config, overrides=["prompt.kind=multilabel"])
    with pytest.raises(ConfigError, match=r"prompt.kind: .* \(got multilabel\)"):
        export(run, tmp_path / "out", Target("gguf"), config=config)


def test_a_missing_package_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_onnx.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(LoraftError, match=r"\(got no onnxscript\); pip install 'loraft\[onnx\]'"):
        Target("onnx").check()


@pytest.mark.integration
def test_an_onnx_file_answers_as_the_run_does(tmp_path: Path, run: Run) -> None:
    export(run, tmp_path / "out", Target("onnx"))
    tokenizer, logits = export_onnx.read_onnx(tmp_path / "out", torch.device("cpu"))
    for count in (1, len(SENTENCES)):  # any number of rows, of any length
        found = export_classifier.log_probs(tokenizer, logits, SENTENCES[:count])
        np.testing.assert_allclose(found, expected(run)[:count], atol=1e-4)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json", "loraft.json", "model.onnx", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert b".py" not in (tmp_path / "out" / "model.onnx").read_bytes()  # names of folders on this machine


@pytest.mark.slow
@pytest.mark.skipif("LORAFT_GGUF" not in os.environ, reason="needs LORAFT_GGUF, the path of a GGUF file of a Llama")
def test_a_real_gguf_file_goes_round(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "quant.method=nf4", model=os.path.abspath(os.environ["LORAFT_GGUF"]))
    made = export(run, tmp_path / "out", Target("gguf"))
    assert (made.rows, made.compared.changed) == (len(SENTENCES), 0)
    assert made.compared.log_prob_change < 1e-3
