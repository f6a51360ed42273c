"""Write a run for programs that know nothing of loraft, and check that they give its answers.

    classifier  a folder for `transformers.pipeline("text-classification")`
    onnx        the same classifier for onnxruntime
    gguf        the merged model for llama.cpp and Ollama; a GGUF folder is used like a run too

`loraft.json` lies beside each, with what was compared.
"""

import gc
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from rich.table import Table
from transformers import PreTrainedModel

from loraft.config.schema import Config, QuantConfig
from loraft.data.dataset import load_data, warn_of_notes
from loraft.delivery import export_classifier, export_gguf, export_onnx
from loraft.delivery.merge import AGREEMENT, Comparison, add_comparison, check_agreement, compare, rescored
from loraft.delivery.merge import notes as merge_notes
from loraft.delivery.merged_model import dequantise, merged_model
from loraft.delivery.output_folder import check_folder, open_to_readers, written_aside
from loraft.delivery.pinned_template import pinned_template, with_own_template
from loraft.delivery.prompting_tokenizer import prompting_tokenizer, shared_answer
from loraft.display import table
from loraft.engine import scorer
from loraft.errors import BackboneError, ConfigError, DataError, RunError
from loraft.evaluation.classifier import load
from loraft.models import manifest
from loraft.models.backbone import cast, fingerprint, load_config
from loraft.models.calibration import NONE, Calibration
from loraft.models.device import DTYPES, pick_device
from loraft.models.encoder import Encoder
from loraft.models.load import build, build_encoder, load_base
from loraft.models.prompts import Prompt
from loraft.models.source import located
from loraft.progress import ROWS, Stage
from loraft.runs import validation_scores
from loraft.runs.bundle import config_of
from loraft.runs.records import as_json, write_record
from loraft.runs.run import MANIFEST_FILE, Bundle, Run

Format = Literal["classifier", "onnx", "gguf"]
# Of a log-probability, in nats, where all is in fp32: rounding stays below it, a wrong weight or prompt does not.
CLOSE = 1e-3
CALIBRATED = ("classifier", "onnx")  # formats whose logits hold the calibration


@dataclass(frozen=True)
class Target:
    """What to write.

    Attributes:
        to: classifier, onnx or gguf.
        dtype: of the weights: fp32, bf16 or fp16; onnx: fp32.
        int8: store matrices in 8 bits: onnx by onnxruntime's dynamic quantisation, gguf as Q8_0.
    """

    to: str
    dtype: str = "fp32"
    int8: bool = False

    def check(self) -> None:
        """Raises an error for what there is no such thing as.

        Raises:
            ConfigError: a value is unknown, or the format has no such weights.
            LoraftError: a package is missing.
        """
        for flag, value, allowed in (("--to", self.to, get_args(Format)), ("--dtype", self.dtype, tuple(DTYPES))):
            if value not in allowed:
                raise ConfigError(f"{flag}: unknown (got {value!r}); allowed: {', '.join(allowed)}")
        if self.int8 and (self.to == "classifier" or self.dtype != "fp32"):
            what = "a classifier" if self.to == "classifier" else f"--dtype {self.dtype}"
            raise ConfigError(f"--int8: not with {what}; allowed: --to onnx and --to gguf, without --dtype")
        if self.to == "onnx":
            if self.dtype != "fp32":
                raise ConfigError(f"--dtype: onnx is written in fp32 (got {self.dtype}); leave it out, or use --int8")
            export_onnx.refuse_missing_packages()


@dataclass(frozen=True)
class Export:
    """What `export` wrote, which is `merged` in its `loraft.json`.

    Attributes:
        to, dtype, int8: as in `Target`.
        backbone, revision: of the run.
        source, rows: the rows that were scored, and their number.
        shortened: further rows, which the run shortens to `prompt.max_length`; they were not compared.
        compared: the export, as it computes, with the run in fp32; log-probabilities are normalised over the labels.
        adapter_sha256: of the weights of the run's adapter.
        calibration: in the logits of a classifier or ONNX file; of a GGUF file in `loraft.json`, for loraft alone.
        validation_rows: in the `validation_scores.json` of a GGUF folder, as of `Merge`.
    """

    to: str
    dtype: str
    int8: bool
    backbone: str
    revision: str | None
    source: str
    rows: int
    shortened: int
    compared: Comparison
    adapter_sha256: str | None
    calibration: Calibration | None = None
    validation_rows: int = 0


def export(
    run: str | Path,
    output: Path,
    target: Target,
    *,
    config: Config | None = None,
    split: str = "validation",
    min_agreement: float = AGREEMENT,
    force: bool = False,
) -> Export:
    """Writes a finished run in another format, scores rows with what was written, and returns how they differ.

    Where labels differ too often, or log-probabilities in fp32 by more than `CLOSE`, nothing is written.

    Args:
        run: its directory, or a bundle's.
        output: the folder; it may be empty, or with `force` an earlier output.
        target: the format.
        config: the run's own by default; may change data and device.
        split: a split's name or a labelled file: the rows to score.
        min_agreement: least share of the rows with the run's label.
        force: replace an earlier output.

    Raises:
        ConfigError: an argument is not allowed, or `output` is something else.
        RunError: the run is not finished, or what was written disagrees with it.
        BackboneError: the backbone cannot be loaded, or it or the prompt has no such form; the message says why.
        DataError: the rows cannot be read, or all are too long.
        LoraftError, StorageError: a package is missing; the folder cannot be written.
    """
    target.check()
    check_agreement(min_agreement)
    opened = Run.open(run)
    opened.read_results()  # refuses one that is not finished
    trained = manifest.read(opened.adapter)
    config = located(opened.adapter, config_of(opened) if config is None else config, needed=True)
    model = config.model.model_copy(update={"dtype": "fp32"})
    quant = config.quant.model_copy(update={"compute_dtype": "auto"})
    config = config.model_copy(update={"model": model, "quant": quant})
    if config.prompt.kind == "multilabel":
        raise ConfigError(
            "prompt.kind: the labels of a multilabel run are questions of their own, and no format has more than one"
            " (got multilabel); use loraft merge"
        )
    encoder, calibration = build_encoder(config), manifest.calibration(opened.adapter, config)
    if target.to == "classifier" and calibration.bias is not None:
        raise ConfigError(
            "--to: a classifier of transformers has no place for biases (got classifier, and a calibration with"
            " them); use --to onnx, or leave the calibration out: --set eval.calibrate=false"
        )
    if target.to == "gguf":
        export_gguf.refuse_shape(load_config(config.model))
    else:
        export_classifier.refuse_architecture(load_config(config.model))
        prompting_tokenizer(encoder)
    check_folder(output, exported=True, force=force)
    data = load_data(config, split)
    warn_of_notes([data])
    prompts = encoder.encode(data.texts)
    whole = [n for n, prompt in enumerate(prompts) if not prompt.cut]
    if not whole:
        raise DataError(
            f"{data.source}: no row fits prompt.max_length whole (got {len(prompts)}); --split FILE of others"
        )
    texts = [data.texts[n] for n in whole]
    with written_aside(output) as folder:  # from the beginning, so that a folder that cannot be made costs no time
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is wanted here, fp32, or said already, of the prompts
            own_NK = load(opened.path, config=config).log_probs(texts)
        gc.collect()  # one model is in memory at a time
        writer = _write_gguf if target.to == "gguf" else _write_classifier
        content, found_NK = writer(opened, config, target, folder, texts, [prompts[n] for n in whole])
        scores = rescored(opened, data, found_NK) if target.to == "gguf" and len(whole) == len(data) else None
        if scores is not None:
            validation_scores.write(folder, scores)
        given_NK = found_NK if target.to in CALIBRATED else calibration.adjusted(found_NK)
        both = (torch.as_tensor(one_NK).log_softmax(-1).numpy() for one_NK in (calibration.adjusted(own_NK), given_NK))
        compared = compare(*both)
        rows, change, exact = len(texts), compared.log_prob_change, target.dtype == "fp32" and not target.int8
        close = CLOSE / min(1.0, calibration.temperature)  # a temperature below 1 enlarges rounding errors, too
        if compared.agreement < min_agreement or (exact and not change <= close):  # NaN, too
            raise RunError(
                f"{output}: is not written, since {compared.changed} of {rows} labels are others than the run's, and"
                f" log-probabilities change by up to {change:.2g} nats (got an agreement of {compared.agreement:.4f});"
                f" allowed from {min_agreement} (--min-agreement), and in fp32 up to {close:g} nats"
            )
        base, source, shortened = trained.backbone, data.source, len(prompts) - rows
        adapter = manifest.adapter_hash(opened.adapter, trained)
        made = Export(
            target.to, target.dtype, target.int8, base.name, base.revision, source, rows, shortened, compared, adapter,
            _or_none(calibration), 0 if scores is None else len(scores.rows),
        )  # fmt: skip
        manifest.write(folder, replace(content, merged=as_json(made)))
    return made


def notes(made: Export) -> list[str]:
    """What to know of its probabilities, one sentence a line."""
    if made.to not in CALIBRATED:
        return merge_notes(made.calibration, made.validation_rows)
    how = "as scored" if made.calibration is None else f"calibrated: {made.calibration.words}"
    return [f"a softmax over its logits gives probabilities {how}"]


def tables(made: Export) -> list[Table]:
    """What was compared, for people."""
    found = table.number_table(made.to, "value")
    table.add_row(found, "weights", "int8" if made.int8 else made.dtype)
    table.add_row(found, f"rows of {made.source}", str(made.rows))
    if made.shortened:
        table.add_row(found, "longer than prompt.max_length, not compared", str(made.shortened))
    add_comparison(found, made.rows, made.compared)
    return [found]


def _merged(run: Run, config: Config, dtype: str) -> tuple[Encoder, PreTrainedModel]:
    if manifest.read(run.adapter).merged is None:
        return merged_model(run, config, dtype=dtype)
    encoder, model = load_base(run, config)
    dequantise(model)
    cast(model, DTYPES[dtype], DTYPES[dtype])
    return encoder, model


def _write_classifier(
    run: Run, config: Config, target: Target, folder: Path, texts: Sequence[str], prompts: Sequence[Prompt]
) -> tuple[manifest.Manifest, np.ndarray]:
    """Writes a classifier, or its ONNX file; returns the run's manifest, and the scores of texts, computed from disk.

    Raises:
        BackboneError: the written tokenizer gives other ids than the run's encoder.
    """
    encoder, model = _merged(run, config, target.dtype)
    own = prompting_tokenizer(encoder)
    calibration = manifest.calibration(run.adapter, config)
    made = export_classifier.classifier(encoder, model, own.pad_token_id, calibration.temperature)
    answer = shared_answer(encoder)[0]
    own.save_pretrained(folder)
    if target.to == "onnx":
        made.config.save_pretrained(folder)
        export_onnx.write_onnx(folder, made, own, calibration.bias, int8=target.int8)
    else:
        made.save_pretrained(folder)
        open_to_readers(folder)
    del model, made
    device = pick_device(config.model.device)
    reader = export_onnx.read_onnx if target.to == "onnx" else export_classifier.read_classifier
    tokenizer, logits = reader(folder, device)
    ids = tokenizer(list(texts))["input_ids"]
    _refuse_other_ids(run, ids, [[*prompt.ids, *answer] for prompt in prompts])
    content = replace(manifest.read(run.adapter), config=config_of(run).model_dump(), calibration=_or_none(calibration))
    return content, export_classifier.log_probs(tokenizer, logits, texts)


def _write_gguf(
    run: Run, config: Config, target: Target, folder: Path, texts: Sequence[str], prompts: Sequence[Prompt]
) -> tuple[manifest.Manifest, np.ndarray]:
    """Writes a GGUF file; returns the folder's manifest, and the scores of texts, computed from disk.

    Raises:
        BackboneError: the tokenizer in the file gives other prompts than the run's.
    """
    encoder, model = _merged(run, config, target.dtype)
    trained = config_of(run)
    template, trained = pinned_template(encoder.tokenizer, trained.prompt), with_own_template(trained)
    kind = "q8_0" if target.int8 else target.dtype
    export_gguf.write_gguf(folder / "model.gguf", model, encoder.tokenizer, config.model.name, template, kind)
    del model
    none = QuantConfig(method="none")
    identity = manifest.BackboneIdentity(".", None, "", none.model_dump(), target.dtype)
    content = replace(
        manifest.read(run.adapter), backbone=identity, prompt=trained.prompt.model_dump(), config=trained.model_dump(),
        merged={"to": target.to},
    )  # fmt: skip
    write_record(folder / MANIFEST_FILE, content)
    written = config_of(Bundle(folder))
    section = written.model.model_copy(update={"device": config.model.device})
    again, read = build(written.model_copy(update={"model": section}))
    content = replace(
        content,
        backbone=replace(identity, fingerprint=fingerprint(read)),
        chat_template_sha256=again.template_hash,
        prompt_sha256=again.prompt_hash,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run's encoder has given them
        ids = [prompt.ids for prompt in again.encode(texts)]
    _refuse_other_ids(run, ids, [prompt.ids for prompt in prompts])
    cast(read, torch.float32, torch.float32)
    tokens = config.eval.batch_tokens
    with Stage("scoring the exported weights", len(ids), ROWS):
        scores = scorer.score(read, ids, again.completions_K, unscored=again.unscored, batch_tokens=tokens)
    return content, scores


def _or_none(calibration: Calibration) -> Calibration | None:
    return None if calibration == NONE else calibration


def _refuse_other_ids(run: Run, found: Sequence[Sequence[int]], own: Sequence[Sequence[int]]) -> None:
    other = sum(list(one) != list(two) for one, two in zip(found, own, strict=True))
    if other:
        raise BackboneError(
            f"{run.path}: the exported tokenizer gives other tokens for {other} of {len(own)} rows than the run's; use"
            " loraft merge"
        )
