"""The model card of a run: the README.md of its adapter, with the hub's metadata, made from the run's own files.

It holds measured values only, and neither a sentence of the data nor a path of this machine.
"""

import math
import os
import re
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from loraft.bundled import bundled_backbones, bundled_data
from loraft.config.schema import Config
from loraft.config.wording import VI, wording_of
from loraft.data.dataset import SplitSummary
from loraft.display.page import Code, Document, Part, markdown
from loraft.display.table import listing
from loraft.evaluation import tables
from loraft.evaluation.choosing import Metric
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.shares import percent
from loraft.models.peft_code import peft_code
from loraft.runs.environment import Environment
from loraft.runs.records import as_json, read_record, read_text
from loraft.runs.run import Run
from loraft.training.results import RunResult
from loraft.visible import visible

CARD_FILE = "README.md"
SENTENCE = "thầy giảng bài rất dễ hiểu"  # in the examples of use; in no data set
# What the hub's model index calls a score.
HUB_SCORES = {
    "accuracy": "accuracy", "subset_accuracy": "accuracy", "macro_f1": "f1", "weighted_f1": "f1", "micro_f1": "f1",
    "mcc": "matthews_correlation",
}  # fmt: skip
LIBRARIES = {"adapter": "peft", "onnx": "onnx", "gguf": "gguf"}  # the hub's names; of all else transformers
WHAT = {
    "adapter": "A LoRA adapter",
    "merged": "Weights with a LoRA adapter merged into them",
    "classifier": "A sequence classifier made of a LoRA adapter and the label rows of the head",
    "onnx": "An ONNX file of a LoRA adapter merged into its backbone",
    "gguf": "A GGUF file of a LoRA adapter merged into its backbone",
}
# How that is used which `loraft.load` does not take: what is to know, and code.
OTHER_USES = {
    "classifier": (
        "Its tokenizer writes the prompt around the text:",
        'from transformers import pipeline\n\nclf = pipeline("text-classification", "{repository}")\n'
        'print(clf("{sentence}"))',
    ),
    "onnx": ("Its tokenizer writes the prompt around the text; the labels are in config.json.", ""),
}
TRAIN_KEYS = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "lr_scheduler_type",
    "warmup_steps", "weight_decay", "optim", "class_weights", "sampling", "metric", "keep",
)  # fmt: skip


def model_card(
    run: Run,
    config: Config,
    result: RunResult,
    repository: str = "",
    kind: str = "adapter",
    *,
    made: Mapping[str, Any] | None = None,
) -> str:
    """The text of the card, whose metadata the hub accepts.

    Args:
        run: whose adapter and environment are written.
        config: of its training.
        result: of its training.
        repository: owner/name on the hub; "" for the adapter's own folder.
        kind: one of `WHAT`.
        made: what a merge or an export measured.

    Raises:
        RunError: a file of the run is damaged or of a later version.
    """
    from loraft.models import manifest  # with transformers, which `loraft runs show` needs not

    metric, after = Metric.of(config), result.after
    bundle = manifest.read(run.adapter)
    versions = [(name, version) for name, version in bundle.versions.items() if version]
    quantised = f" ({config.quant.method})" if config.quant.method != "none" else ""
    which = "any of" if config.prompt.kind == "multilabel" else "one of"
    document = Document(
        title=repository or run.name,
        subtitle=f"{WHAT[kind]}, rank {config.lora.r}, over {config.model.label}{quantised}: gives a text {which}"
        f" {len(result.labels)} labels. Trained on {_data_label(config, result)} with loraft.",
        sections=[
            ("How to use it", _usage(run, config, repository, kind)),
            ("Results", [*_whose_scores(kind, made), headline(result, metric), *beside(result, metric),
                         tables.before_after(result.before, after, metric, result.before_is)]),
            ("Labels", [_labels(config, bundle.data.train_labels), *tables.labels(after)]),
            ("Calibration", calibration(after)),
            ("Limits", [f"Measured on {after.n:,} rows of one data set; other texts can give other scores.",
                        *(_without_paths(warning, run, config) for warning in result.warnings)]),
            ("Prompt", _prompt(config)),
            ("Data", [_data(result.data, bundle.data.fingerprints)]),
            ("Training", [_settings(config), _training(result)]),
            ("Conversion", [pairs(made, "conversion")] if made else []),
            ("Hardware and energy", _machine(run)),
            ("Licences", _licences(config, result)),
            ("Versions", [listing(("package", "version"), versions)]),
        ],
    )  # fmt: skip
    original = kind == "merged" and made is not None and made.get("base") == "original"  # not the model that was scored
    head = _metadata(config, result, repository or run.name, kind, scored=not original)
    return f"---\n{visible(head)}\n---\n{markdown(document, code=True)}"


def _whose_scores(kind: str, made: Mapping[str, Any] | None) -> list[Part]:
    """Of what was made of an adapter: that its own scores are not below, and how often it gives the same label."""
    if kind == "adapter" or made is None:
        return []
    compared = made.get("compared")
    agreement = compared.get("agreement") if isinstance(compared, Mapping) else None
    same = f"; this model gives the same label for {agreement:.2%} of {made.get('rows')} rows" if agreement else ""
    told = f"These are the scores of the run's adapter{same}."
    if made.get("calibration") is not None and kind not in OTHER_USES:
        told += " Loraft calibrates the probabilities; a server that generates the answer does not."
    elif kind in OTHER_USES:
        told += f" The logits hold {'the' if made.get('calibration') else 'no'} calibration."
    return [told]


def headline(result: RunResult, metric: Metric) -> str:
    """The metric with its interval and the accuracy, beside those of the backbone, in sentences."""
    after, before = result.after, result.before
    key = metric.key if metric.key in after.scores else "macro_f1"
    interval = ""  # of the F1 of a label without test rows there is none
    if key in after.intervals:
        low, high = after.intervals[key]
        interval = f" ({percent(after.confidence)} interval {low:.3f} to {high:.3f})"
    name, accuracy = metric.name(key), "accuracy" if after.thresholds is None else "subset accuracy"
    told = (
        f"{name[0].upper()}{name[1:]} {after.scores[key]:.3f}{interval} and {accuracy} {after.accuracy:.3f} on"
        f" {after.n:,} test rows."
    )
    if before is not None:
        whose = "The backbone without the adapter" if result.started_from is None else "Before its training"
        told += f" {whose}: {before.scores.get(key, math.nan):.3f} and {before.accuracy:.3f}."
    return told


def beside(result: RunResult, metric: Metric) -> list[Part]:
    """The verdict against the baselines, and their table; nothing where they were not measured."""
    found = {"": result.baselines}
    verdict = [] if result.baselines is None else [result.baselines.verdict]
    return [*verdict, *tables.baselines(found, metric=metric), *tables.baselines_notes(found, metric=metric)]


def calibration(after: EvaluationReport) -> list[Part]:
    """How good the probabilities of the test rows are, and what calibrated them; or why there are none."""
    if after.expected_calibration_error is None:
        return ["Answers were generated, so there are no probabilities."]
    said = [f"{line[0].upper()}{line[1:]}." for line in tables.calibration_notes(after)]
    return [*tables.calibration(after), *(said or ["Probabilities are as scored: nothing calibrated them."])]


def pairs(values: Mapping[str, Any], head: str = "training") -> Table:
    """A table of the names and values of a mapping and of the mappings in it; values that are None are left out."""
    rows = []
    for key, value in ((key.replace("best_step", "kept_step"), value) for key, value in values.items()):
        for name, item in value.items() if isinstance(value, Mapping) else [("", value)]:
            if item is None:
                continue
            shown = {True: "yes", False: "no"}[item] if isinstance(item, bool) else str(item)
            if isinstance(item, float):
                shown = f"{item:,.4g}" if abs(item) < 1000 else f"{item:,.0f}"
            elif isinstance(item, int) and not isinstance(item, bool):
                shown = f"{item:,}"
            rows.append((f"{key} {name}".replace("_", " ").replace(" mib", " MiB").strip(), shown))
    return listing((head, "value"), rows)


def _metadata(config: Config, result: RunResult, name: str, kind: str, *, scored: bool) -> str:
    """The card's YAML, which the hub reads; without the scores where they are of another model."""
    from huggingface_hub import EvalResult, ModelCardData

    after, metric, on_hub, data = result.after, Metric.of(config), _on_hub(result), _data_label(config, result)
    scores = [score for score in metric.shown(after.scores) if score in HUB_SCORES]
    measured = [
        EvalResult(
            task_type="text-classification",
            dataset_type=data,
            dataset_name=data,
            dataset_split=config.data.test_split if on_hub else "test",
            dataset_revision=config.data.revision if on_hub else None,
            metric_type=HUB_SCORES[score],
            metric_name=metric.name(score),
            metric_value=round(after.scores[score], 4),
        )
        for score in scores
    ]
    vietnamese = wording_of(config.prompt.template, config.prompt.label_words or result.labels) is VI
    bundled = config.model.name in bundled_backbones()
    local = bundled or os.path.isabs(config.model.name)
    card = ModelCardData(
        language="vi" if vietnamese or config.data.source in bundled_data() else None,
        license=_bundled_licence(config.model.name),
        base_model=None if local else config.model.name,
        library_name=LIBRARIES.get(kind, "transformers"),
        # A text-classification pipeline over an adapter or merged weights would draw a new head at random.
        pipeline_tag="text-classification" if kind in OTHER_USES else "text-generation",
        tags=["loraft", "qlora" if config.quant.method == "nf4" else "lora", "text-classification"],
        datasets=[data] if on_hub else None,
        metrics=list(dict.fromkeys(HUB_SCORES[score] for score in scores)),
        model_name=name,
        eval_results=measured if scored else None,
    )
    return str(card.to_yaml())


def _usage(run: Run, config: Config, repository: str, kind: str) -> list[Part]:
    if kind in OTHER_USES:
        told, code = OTHER_USES[kind]
        code = code.format(repository=repository, sentence=SENTENCE)
        return [told, Code(code, language="python")] if code else [told]
    where = f"hf:{repository}" if repository else "."
    code = f'import loraft\n\nclf = loraft.load("{where}")\nprint(clf.predict("{SENTENCE}"))'
    found: list[Part] = ["" if repository else "In the folder of this file:", Code(code, language="python")]
    if kind == "adapter" and (config.model.name in bundled_backbones() or not os.path.isabs(config.model.name)):
        found += [
            "With PEFT and transformers alone, which do not know the prompt, the labels and the hashes of loraft.json:",
            Code(peft_code(run, config, repository or "."), language="python"),
        ]
    return [part for part in found if part]


def _labels(config: Config, counts: Mapping[str, int]) -> Table:
    labels = config.prompt.labels or []
    words = config.prompt.label_words or labels
    rows = [(label, word, f"{counts.get(label, '')}") for label, word in zip(labels, words, strict=True)]
    return listing(("label", "answer of the model", "training rows"), rows)


def _prompt(config: Config) -> list[Part]:
    prompt = config.prompt
    texts = {
        "System message:": prompt.system,
        "User message:": prompt.template,
        "The answer begins:": prompt.answer_prefix,
    }
    return [part for name, text in texts.items() if text for part in (name, Code(text))]


def _data(splits: Mapping[str, SplitSummary], fingerprints: Mapping[str, str]) -> Table:
    """The splits: rows, source, notes of reading, and the begin of the SHA-256 over texts and labels."""
    rows = [
        (
            name,
            f"{split.rows:,}",
            split.source if split.source.startswith("hub ") else os.path.basename(split.source),
            ", ".join(f"{n:,} {what}" for what, n in split.notes.items()),
            fingerprints.get(name, "")[:16],
        )
        for name, split in splits.items()
    ]
    return listing(("split", "rows", "source", "notes", "fingerprint"), rows)


def _settings(config: Config) -> Table:
    lora, train = config.lora, config.train
    targets = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    named = {"r": lora.r, "alpha": lora.alpha_policy, "lora dropout": lora.lora_dropout, "target modules": targets}
    named |= {"init lora weights": lora.init_lora_weights, "use dora": lora.use_dora}
    named |= {key: ", ".join(getattr(lora, key)) or None for key in ("modules_to_save", "target_parameters")}
    named |= {"quantisation": config.quant.method, "dtype": config.model.dtype, "seed": config.seed}
    return pairs(named | {key: getattr(train, key) for key in TRAIN_KEYS}, "setting")


def _training(result: RunResult) -> Table:
    """How the training went; what `_settings` or the same number says already is left out."""
    found = as_json(result.train)
    cut, same = found.pop("cut"), found["validation_score"] == found["validation_macro_f1"]
    share = {"share of the rows' tokens left out": cut}
    return pairs(found | share | {"alpha_policy": None} | ({"validation_score": None} if same else {}))


def _machine(run: Run) -> list[Part]:
    """What the training ran on; loraft measures seconds and memory, and no energy."""
    energy = "loraft measured neither energy nor carbon; seconds and peak memory stand under Training."
    if not run.environment_path.exists():
        return [energy]
    made = read_record(run.environment_path, Environment, run.mend)
    machine = {**made.hardware, "CPUs": made.cpu_count, "threads": made.threads, "system": made.platform}
    return [pairs({**machine, "Python": made.python, "begun": made.time}, "machine"), energy]


def _bundled_licence(name: str) -> str | None:
    """The licence of a bundled backbone or data set, from its own card; None for anything else."""
    folder = {**bundled_backbones(), **bundled_data()}.get(name)
    found = re.search(r"^license: (\S+)$", read_text(folder / "README.md", ""), re.MULTILINE) if folder else None
    return found[1] if found else None


def _licences(config: Config, result: RunResult) -> list[Part]:
    told = []
    for what, name, label in (
        ("backbone", config.model.name, config.model.label), ("data", config.data.source, _data_label(config, result)),
    ):  # fmt: skip
        licence = _bundled_licence(name) or "see its own page; loraft does not know it"
        told.append((what, label, licence))
    return [listing(("", "name", "licence"), told), "What was trained is bound by the licences of both."]


def _on_hub(result: RunResult) -> bool:
    return any(split.source.startswith("hub ") for split in result.data.values())


def _data_label(config: Config, result: RunResult) -> str:
    """What people call the data: a hub id, or the name of the folder or file."""
    return config.data.source if _on_hub(result) else os.path.basename(config.data.source.rstrip("/"))


def _without_paths(warning: str, run: Run, config: Config) -> str:
    """A warning with the last part in place of each path of this machine that the run knows."""
    data, given = config.data, [config.model.name, config.output.folder, config.prompt.task, str(run.path)]
    given += [data.source, data.train_split, data.validation_split, data.test_split, *data.extra_train]
    whole = map(os.path.abspath, filter(os.path.isabs, map(os.path.expanduser, [*given, config.train.from_run or ""])))
    last = {path: os.path.basename(path) for path in sorted(whole, key=len, reverse=True)}
    for path, short in {**last, os.path.expanduser("~"): "~"}.items():
        if path != "/":
            warning = re.sub(rf"(?<![\w./~-]){re.escape(path)}(?![\w-]|\.\w)", short.replace("\\", r"\\"), warning)
    return warning
