"""A merged model answers as its run does, is whole or not there, and is used like a run."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.finished_runs import ORDER, calibrated_copy, finished_run
from helpers.gguf_files import save_backbone, write_gguf
from helpers.tiny import CONFIGS, LABELS, SENTENCES
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import loraft
from loraft.cli.app import main
from loraft.data.dataset import Split, load_data
from loraft.data.examples import Examples
from loraft.delivery import merge as merging
from loraft.delivery.merge import Comparison, Weights, compare, merge, rescored
from loraft.errors import ConfigError, LoraftError, RunError, StorageError
from loraft.models.calibration import Calibration
from loraft.models.load import build_encoder
from loraft.runs import validation_scores
from loraft.runs.bundle import config_of
from loraft.runs.hashes import sha256_of
from loraft.runs.run import MANIFEST_FILE, Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """With a small vocabulary, and with the second of its tokenizer's templates, which begins with a line feed."""
    folder = tmp_path_factory.mktemp("run")
    save_backbone(folder / "backbone", CONFIGS["llama"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "backbone")
    dated = "\n{{ date_string | default('hôm nay') }}\n" + tokenizer.chat_template
    tokenizer.chat_template = {"default": tokenizer.chat_template, "dated": dated}
    tokenizer.save_pretrained(folder / "backbone")
    given = ["lora.target_modules=all-linear", "eval.baselines=off", "prompt.chat_template=dated"]
    return finished_run(folder, *given, model=str(folder / "backbone"))


@pytest.fixture(scope="module")
def merged(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its merged model; nobody may change it."""
    folder = tmp_path_factory.mktemp("mới") / "đã gộp"
    merge(run.path, folder)
    return folder


def test_the_folder_is_a_whole_model_of_transformers(run: Run, merged: Path) -> None:
    files = {path.name for path in merged.iterdir()}
    assert files == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", MANIFEST_FILE,
    }  # fmt: skip
    assert [*merged.parent.iterdir()] == [merged]
    config = json.loads((merged / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert not {"quantization_config", "_name_or_path"} & config.keys()
    backbone = run.path.parent / "backbone" / "model.safetensors"
    with safe_open(merged / "model.safetensors", "pt") as new, safe_open(backbone, "pt") as old:
        assert {*new.keys()} == {*old.keys()}
    found = loraft.load(run.path)
    ids = torch.tensor([prompt.ids for prompt in found.loaded.encoder.encode(SENTENCES[:1])])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
        torch.testing.assert_close(logits, found.loaded.model(ids).logits, atol=1e-4, rtol=1e-4)


def test_the_template_that_travels_along_asks_as_the_run_does_on_any_day(run: Run, merged: Path) -> None:
    encoder = build_encoder(config_of(run))
    chat = [
        {"role": "system", "content": encoder.task.system},
        {"role": "user", "content": encoder.task.template.format(input=SENTENCES[0])},
    ]
    tokenizer = AutoTokenizer.from_pretrained(merged)
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ids == encoder.encode(SENTENCES[:1])[0].ids


def test_it_is_loaded_like_the_run_also_after_it_was_moved(run: Run, merged: Path, tmp_path: Path) -> None:
    moved = tmp_path / "nơi khác"
    shutil.copytree(merged, moved)
    expected = loraft.load(run.path).log_probs(SENTENCES)
    np.testing.assert_allclose(loraft.load(moved).log_probs(SENTENCES), expected, atol=1e-4)


@pytest.mark.integration
def test_eval_and_predict_take_it_like_the_run(run: Run, merged: Path) -> None:
    expected = [one.label for one in loraft.load(run.path).predict(SENTENCES)]
    assert [row.predicted for row in loraft.evaluate(run=merged).rows] == expected
    assert [one.label for one in loraft.predict(SENTENCES, run=merged)] == expected


def test_a_prediction_that_is_resumed_depends_on_its_weights(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def settings_of(adapter: Path, *_: object) -> None:
        seen.append(adapter)
        raise LoraftError("enough")

    monkeypatch.setattr("loraft.evaluation.partial_file.settings_of", settings_of)
    monkeypatch.setattr("loraft.cli.predict.start_command", lambda *_, **__: None)  # it changes the whole process
    (tmp_path / "in.csv").write_text("sentence\nthầy dạy hay\n", encoding="utf-8")
    given = ["--run", str(merged), "--input", str(tmp_path / "in.csv"), "--output-file", str(tmp_path / "out.csv")]
    with pytest.raises(SystemExit):
        main(["predict", *given])
    assert seen == [merged]


@pytest.mark.parametrize("name", ["generation_config.json", "chat_template.jinja", "model.safetensors"])
def test_a_changed_or_missing_file_is_refused(merged: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(merged, copy)
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    with pytest.raises(RunError, match=rf"is not the merged model .*{name}: changed.*merge again"):
        loraft.load(copy)
    (copy / name).unlink()
    with pytest.raises(LoraftError):
        loraft.load(copy)


def test_the_report_is_in_its_bundle_also_of_a_model_in_several_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "LARGEST_FILE", "50KB")
    made = merge(run.path, tmp_path / "m", weights=Weights(dtype="bf16"), split="test")
    assert (made.base, made.dtype, made.rows) == (None, "bf16", len(SENTENCES))
    assert made.compared.log_prob_change > 0
    assert 0 == made.rounding["fp32"] < made.rounding["fp16"] < made.rounding["bf16"] < 0.5
    content = json.loads((tmp_path / "m" / MANIFEST_FILE).read_text())
    assert content["merged"]["compared"]["log_prob_change"] == made.compared.log_prob_change
    assert content["merged"]["backbone"] == config_of(run).model.name
    assert content["merged"]["adapter_sha256"] == sha256_of(run.adapter / "adapter_model.safetensors")
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == "bfloat16"
    assert {"model.safetensors.index.json", "model-00002-of-00002.safetensors"} < content["files"].keys()


@pytest.mark.parametrize(
    ("computed", "dtype", "way"),
    [
        ("fp32", None, ""),
        ("fp32", "bf16", "; try --dtype fp32"),
        pytest.param("bf16", None, "; try --set model.dtype=fp32", marks=pytest.mark.integration),
    ],
)
def test_what_answers_otherwise_is_not_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed: str, dtype: str | None, way: str
) -> None:
    real = merging.merged_and_measured

    def broken(*given: object) -> tuple[object, ...]:
        encoder, model, rounding = real(*given)  # type: ignore[arg-type]
        head = model.get_output_embeddings().weight
        head.data = -100 * head.data
        return encoder, model, rounding

    monkeypatch.setattr(merging, "merged_and_measured", broken)
    config = loraft.resolve(base=config_of(run), overrides=[f"model.dtype={computed}"])
    why = rf"m: is not written, since \d of 6 labels .* allowed from 0\.99 \(--min-agreement\){way}$"
    with pytest.raises(RunError, match=why):
        merge(run.path, tmp_path / "neu" / "m", config=config, weights=Weights(dtype=dtype))
    assert not [*tmp_path.iterdir()]


def test_a_full_disk_is_one_message_and_leaves_the_earlier_model(
    run: Run, merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = tmp_path / "m"
    shutil.copytree(merged, earlier)

    def full(*_: object, **__: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left (os error 28)")

    assert errno.ENOSPC == 28
    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(StorageError, match=f"{tmp_path}: cannot be used .*; free some space there"):
        merge(run.path, earlier, force=True)
    assert [*tmp_path.iterdir()] == [earlier]
    assert loraft.load(earlier).labels


def test_force_replaces_an_earlier_model(run: Run, merged: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "m"
    shutil.copytree(merged, earlier)
    larger = earlier / "model-00001-of-00002.safetensors"
    larger.write_text("of an earlier, larger model")
    with pytest.raises(ConfigError, match=r"holds other files \(got .*model-00001-of-00002.safetensors\)"):
        merge(run.path, earlier, force=True)  # its loraft.json does not name it
    content = json.loads((earlier / MANIFEST_FILE).read_text())
    content["files"][larger.name] = ""
    (earlier / MANIFEST_FILE).write_text(json.dumps(content))
    merge(run.path, earlier, force=True)
    assert {path.name for path in earlier.iterdir()} == {path.name for path in merged.iterdir()}
    assert [*tmp_path.iterdir()] == [earlier]


def test_where_nothing_can_be_written_no_row_is_scored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_scores", lambda *_: pytest.fail("scored"))
    (tmp_path / "tệp").write_text("")
    with pytest.raises(StorageError, match=r"tệp.*cannot be used .*; a file is where a folder belongs"):
        merge(run.path, tmp_path / "tệp" / "m")


@pytest.mark.integration
def test_over_nf4_the_dequantised_weights_answer_as_the_run_and_the_original_ones_otherwise(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "quant.method=nf4", "quant.compute_dtype=fp32", "quant.double_quant=false")
    made = merge(run.path, tmp_path / "m")
    other = merge(run.path, tmp_path / "o", weights=Weights("original"), min_agreement=0)
    assert (made.base, other.base) == ("dequantised", "original")
    assert made.compared.log_prob_change < 1e-4 < 1e-2 < other.compared.log_prob_change
    assert "quantization_config" not in json.loads((tmp_path / "m" / "config.json").read_text())


@pytest.mark.integration
def test_a_backbone_of_a_gguf_file_becomes_safetensors(tmp_path: Path) -> None:
    write_gguf(tmp_path / "thử.gguf")
    run = finished_run(tmp_path, model=str(tmp_path / "thử.gguf"))
    assert merge(run.path, tmp_path / "m").compared.log_prob_change < 1e-4
    assert (tmp_path / "m" / "model.safetensors").is_file()
    assert "quantization_config" not in json.loads((tmp_path / "m" / "config.json").read_text())


@pytest.mark.integration
def test_an_adapter_apart_from_its_run_is_merged_too(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.adapter, tmp_path / "adapter")
    assert merge(tmp_path / "adapter", tmp_path / "m").compared.changed == 0


def test_no_sentence_is_written(run: Run, merged: Path) -> None:
    text = b"".join(path.read_bytes() for path in merged.iterdir())
    assert not [sentence for sentence in SENTENCES if sentence.encode() in text]


def test_merged_weights_keep_the_calibration_and_score_the_runs_validation_rows(run: Run, tmp_path: Path) -> None:
    one = Calibration(1.7, (0.4, -0.6, 0.2), 3, 3)
    own = calibrated_copy(run, tmp_path / "r", one)
    made = merge(own, tmp_path / "m")
    assert (made.calibration, made.validation_rows) == (one, 6)
    again = loraft.load(tmp_path / "m")  # whose hashes are checked
    assert again.calibration == one
    np.testing.assert_allclose(again.probabilities(SENTENCES), one.probabilities(again.log_probs(SENTENCES)))
    found = validation_scores.read(tmp_path / "m")
    assert found is not None
    np.testing.assert_allclose(found.log_probs, again.log_probs([SENTENCES[n] for n in ORDER]), atol=1e-5)
    assert found.set_aside == (False,) * 3 + (True,) * 3
    assert [line[:60] for line in merging.notes(made.calibration, made.validation_rows)] == [
        "loraft calibrates its probabilities: temperature 1.700, biases +0.40, -0.60, +0.20, fitted"[:60],
        "a server that generates the answer does not, and may answer another label"[:60],
    ]


def test_scores_of_other_rows_are_not_kept_for_promises(run: Run, tmp_path: Path) -> None:
    own = calibrated_copy(run, tmp_path / "r", Calibration(1.7))
    data, scores_NK = load_data(config_of(own), "validation"), np.zeros((6, 3))
    assert rescored(own, data, scores_NK) is not None
    first = Split("validation", Examples([*data.examples][:5]), "")
    other = Split("validation", Examples(replace(one, text=f"{one.text}!") for one in data.examples), "")
    assert rescored(own, first, scores_NK[:5]) is rescored(own, other, scores_NK) is None
    assert rescored(run, data, scores_NK) is None  # an earlier version's
    assert "which predict --max-error and --sets need" in merging.notes(None, 0)[0]


def test_labels_are_compared_with_their_biases() -> None:
    before_NK, after_NK = np.log([[0.6, 0.4]]), np.log([[0.55, 0.45]])
    assert compare(before_NK, after_NK).changed == 0
    assert compare(before_NK, after_NK, (), Calibration(1.0, (-0.15, 0.15))).changed == 1  # log-odds 0.41 and 0.20
    calibrated = compare(before_NK, after_NK, (), Calibration(2.0))
    assert calibrated.probability_change < compare(before_NK, after_NK).probability_change


def test_rows_with_one_label_change_where_another_is_best() -> None:
    before_NK = np.log([[0.6, 0.4], [0.5, 0.5], [0.1, 0.9]])
    after_NK = np.log([[0.3, 0.7], [0.5, 0.5], [0.1, 0.9]])
    found = compare(before_NK, after_NK)
    assert found == Comparison(2 / 3, 1, pytest.approx(np.log(2)), pytest.approx(0.3))


def test_rows_with_several_labels_change_where_one_passes_its_threshold() -> None:
    before_NK = np.log([[0.6, 0.2, 0.4, 0.8], [0.6, 0.2, 0.4, 0.8]])  # yes, yes, no, no
    after_NK = np.log([[0.6, 0.3, 0.4, 0.7], [0.6, 0.2, 0.4, 0.8]])
    assert compare(before_NK, after_NK, (0.5, 0.25)).changed == 1
    assert compare(before_NK, after_NK, (0.5, 0.5)).changed == 0
    assert len(LABELS) == 6
