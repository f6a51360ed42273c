"""The configuration model that all commands share, with a default and allowed values for every key.

Keys have the names of peft and transformers where these have one (`lora.r`, `train.learning_rate`). The model is frozen
and refuses unknown keys; `loraft.config.resolve` builds it from preset, file, flags and `--set key=value`.
"""

import os
import re
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from loraft.bundled import bundled_backbones
from loraft.config.data_section import DataConfig
from loraft.config.names import show
from loraft.config.prompt_section import PromptConfig
from loraft.config.section import FileName, RunName, Section, is_folder_alone
from loraft.config.study_sections import FewshotConfig, SweepConfig
from loraft.errors import listed


class ModelConfig(Section):
    """The backbone: the frozen base model."""

    name: FileName = Field("loraft-vi-tiny", description="bundled name, hub id, folder or GGUF file")
    revision: FileName | None = Field(None, description="branch, tag or commit on the hub; null: main")
    cache_dir: FileName | None = Field(
        None, description="folder that keeps files of the hub; null: the hub's own cache"
    )
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where the hardware has it, else fp16 on CUDA and fp32 elsewhere"
    )
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = Field("auto", description="where the backbone runs")
    device_map: Literal["none", "auto"] = Field(
        "none", description="auto: spread a backbone that is larger than one GPU over all GPUs that are visible"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with the backbone; a hub id then needs a commit as revision"
    )

    @field_validator("name")
    @classmethod
    def _absolute(cls, name: str) -> str:
        # A relative path would mean another folder where the run is used from another place.
        path = os.path.expanduser(name)
        return os.path.abspath(path) if name not in bundled_backbones() and os.path.exists(path) else name

    @model_validator(mode="after")
    def _runs_known_code_only(self) -> "ModelConfig":
        local = self.name in bundled_backbones() or os.path.isabs(self.name) or self.name.startswith((".", "~"))
        if self.trust_remote_code and not local and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError(
                f"trust_remote_code runs code of {self.name}, and revision is {self.revision or 'not set'}; set"
                " model.revision to the commit that you read, 40 hexadecimal digits"
            )
        return self

    @model_validator(mode="after")
    def _spreads_over_gpus(self) -> "ModelConfig":
        if self.device_map == "auto" and self.device != "auto":
            raise ValueError(f"device_map=auto chooses devices, and device is {self.device}; leave one of them out")
        return self

    @property
    def label(self) -> str:
        """What people call it: the name, or the last part of a path without `.gguf`."""
        return re.sub(r"(?i)\.gguf$", "", os.path.basename(self.name)) if os.path.isabs(self.name) else self.name


class QuantConfig(Section):
    """How the backbone's linear layers are stored."""

    method: Literal["none", "nf4"] = Field("none", description="none: LoRA; nf4: QLoRA, 4 bits a weight")
    double_quant: bool = Field(True, description="quantise the quantisation constants too")
    compute_dtype: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="of the products after dequantisation; auto: model.dtype, else bf16 (CUDA without it: fp16)"
    )
    cache: Literal["auto", "on", "off"] = Field(
        "auto", description="keep dequantised weights, which is faster; auto: on a GPU with much free memory"
    )
    allow_partial: bool = Field(False, description="go on where nf4 quantises less than half of the layers' weights")


class LoraSection(Section):
    """The adapter; keys as in peft's `LoraConfig`, and `alpha_per_rank`."""

    r: int = Field(16, ge=1, le=4096, description="rank: the width of the matrices A and B of each adapted layer")
    lora_alpha: float = Field(
        32, gt=0, le=1e6, description="numerator of the scale alpha / r (alpha / sqrt(r) with rsLoRA)"
    )
    alpha_per_rank: float | None = Field(None, gt=0, le=1e6, description="if set, lora_alpha is this times r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs set to 0 in training")
    target_modules: str | list[str] = Field(
        "all-linear",
        examples=["all-linear", "default"],
        description="all-linear; default: peft's choice for the architecture; a list of names; or a regular expression",
    )
    modules_to_save: list[str] = Field(
        default_factory=list, description="modules trained whole, in fp32, for example lm_head (a copy if it is tied)"
    )
    target_parameters: list[str] = Field(
        default_factory=list, description="stacked experts to adapt, for example mlp.experts.down_proj"
    )
    use_rslora: bool = Field(False, description="scale by alpha / sqrt(r) in place of alpha / r")
    use_dora: bool = Field(False, description="DoRA: also train the magnitude of the weights; slower")
    init_lora_weights: Literal["default", "gaussian", "pissa", "olora", "orthogonal"] = Field(
        "default", description="start of A and B; default: A uniform, B zero; pissa, olora: from the backbone's weights"
    )

    @field_validator("target_modules")
    @classmethod
    def _compiles(cls, targets: str | list[str]) -> str | list[str]:
        try:
            re.compile(targets if isinstance(targets, str) else "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"is no regular expression ({error}); a list of module names needs brackets") from None
        return targets

    @model_validator(mode="after")
    def _fits_peft(self) -> "LoraSection":
        # What peft would refuse only when the backbone is loaded, in a sweep half-way through.
        if self.init_lora_weights == "orthogonal" and self.r % 2:
            raise ValueError(f"init_lora_weights=orthogonal needs an even rank, and r is {self.r}; set another of both")
        given = [key for key in ("lora_dropout", "use_dora") if getattr(self, key)]
        given += ["init_lora_weights"] if self.init_lora_weights not in ("default", "gaussian") else []
        if self.target_parameters and given:
            raise ValueError(f"target_parameters does not work with {', '.join(given)}; leave one of them out")
        return self

    @property
    def alpha(self) -> float:
        """The alpha that the adapter is built with."""
        return self.lora_alpha if self.alpha_per_rank is None else self.alpha_per_rank * self.r

    @property
    def alpha_policy(self) -> str:
        """How the scale of the update depends on the rank, in words."""
        if self.use_rslora:
            return "rsLoRA, alpha " + (f"{self.alpha_per_rank:g} r" if self.alpha_per_rank else f"{self.alpha:g}")
        if self.alpha_per_rank is not None:
            return f"proportional, alpha {self.alpha_per_rank:g} r"
        return f"fixed, alpha {self.lora_alpha:g}"


# The optimizers of transformers that need neither another package than loraft's own nor parameters of their own.
Optimizer = Literal[
    "adamw_torch", "adamw_torch_fused", "adafactor", "adagrad", "rmsprop", "sgd",
    "adamw_8bit", "lion_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "paged_lion_8bit",
]  # fmt: skip
Tracker = Literal[
    "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow", "mlflow", "neptune",
    "swanlab", "tensorboard", "trackio", "wandb",
]  # fmt: skip


MOST_STEPS = 1_000_000_000  # of a key that counts steps; far more than any training has
METRICS = ("macro_f1", "accuracy", "weighted_f1", "mcc")
MULTILABEL_METRICS = ("micro_f1", "subset_accuracy")
ORDINAL_METRICS = ("quadratic_kappa", "mean_absolute_error")  # need labels in order


class TrainConfig(Section):
    """Training arguments, as in transformers' `TrainingArguments`, and a few of loraft's own."""

    from_run: FileName | None = Field(None, description="finished run whose adapter the training goes on from")
    num_train_epochs: float = Field(3.0, gt=0, le=10_000, description="passes over the training rows")
    max_steps: int = Field(
        -1, ge=-1, le=MOST_STEPS, description="optimizer steps in place of num_train_epochs; -1: off"
    )
    per_device_train_batch_size: int = Field(16, ge=1, le=65_536, description="rows of a batch on each device")
    gradient_accumulation_steps: int = Field(1, ge=1, le=65_536, description="batches of one optimizer step")
    learning_rate: float | None = Field(
        None, ge=1e-12, le=1e6, description="highest of the schedule; null: by the backbone's size, 1e-4 to 2e-3"
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description="how the learning rate falls after the warm-up: linear and cosine to 0"
    )
    warmup_steps: float = Field(
        0.05, ge=0, le=MOST_STEPS, description="steps in which the learning rate rises; below 1: share of all steps"
    )
    weight_decay: float = Field(0.0, ge=0, le=1000, description="of the optimizer, for the adapter's weights")
    max_grad_norm: float = Field(1.0, gt=0, le=1e12, description="gradients are scaled down to this L2 norm")
    optim: Optimizer = Field("adamw_torch_fused", description="optimizer, by transformers' name")
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice to save memory; also chosen where nothing else fits"
    )
    logging_steps: int = Field(10, ge=1, le=MOST_STEPS, description="steps between two lines of the training log")
    eval_steps: int = Field(100, ge=1, le=MOST_STEPS, description="steps between two checkpoints, judged on validation")
    save_total_limit: int = Field(
        2, ge=1, le=10_000, description="checkpoints that are kept; with keep=best the best is among them"
    )
    metric: str = Field(
        "macro_f1", examples=[*METRICS, *ORDINAL_METRICS, *MULTILABEL_METRICS],
        description="with keep=best picks the checkpoint, on validation: " + ", ".join(METRICS) + ", f1:LABEL; with "
        "prompt.kind ordinal also " + ", ".join(ORDINAL_METRICS) + "; multilabel: macro_f1, f1:LABEL, "
        + ", ".join(MULTILABEL_METRICS)
    )  # fmt: skip
    early_stopping_patience: int | None = Field(
        None, ge=1, le=1_000_000, description="evaluations without a better train.metric"
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="best: the weights of the evaluation with the best train.metric; last: those of the last step",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="weights in the loss; balanced: inverse to the share of the row's label"
    )
    sampling: Literal["natural", "balanced", "by_length"] = Field(
        "natural", description="order of rows; balanced: each label as often; by_length: batches of similar length"
    )
    shared_prefix: Literal["auto", "off"] = Field(
        "auto", description="compute the batch's common prompt once; off: padded batches and peft's own layers"
    )
    report_to: list[Tracker] = Field(
        default_factory=list, description="trackers, for example [tensorboard]; see docs/trackers.md"
    )

    @field_validator("from_run")
    @classmethod
    def _absolute(cls, run: str | None) -> str | None:
        return os.path.abspath(path) if run and os.path.exists(path := os.path.expanduser(run)) else run

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, name: str) -> str:
        if name not in (*METRICS, *ORDINAL_METRICS, *MULTILABEL_METRICS) and not name.startswith("f1:"):
            raise ValueError(
                f"is no metric; {', '.join((*METRICS, 'f1:LABEL', *ORDINAL_METRICS, *MULTILABEL_METRICS))}"
            )
        return name

    @field_validator("max_steps")
    @classmethod
    def _no_zero_steps(cls, steps: int) -> int:
        if steps == 0:
            raise ValueError("would train no step; set -1 (then num_train_epochs counts) or at least 1")
        return steps

    @model_validator(mode="after")
    def _stops_early_for_the_best(self) -> "TrainConfig":
        if self.keep == "last" and self.early_stopping_patience is not None:
            raise ValueError(
                "keep=last keeps the last step, and early_stopping_patience ends a training some evaluations after its"
                " best one; set keep=best or leave early_stopping_patience out"
            )
        return self

    @model_validator(mode="after")
    def _balanced_at_most_once(self) -> "TrainConfig":
        if self.class_weights == self.sampling == "balanced":
            raise ValueError("class_weights and sampling both correct the class imbalance; set one of them to balanced")
        return self


class EvalConfig(Section):
    """How rows are scored."""

    decode: Literal["score", "generate"] = Field(
        "score", description="score: exact label log-probabilities; generate: free text, from which the label is read"
    )
    max_new_tokens: int = Field(16, ge=1, le=65_536, description="tokens of an answer with eval.decode=generate")
    batch_tokens: int | None = Field(
        None,
        ge=64,
        le=100_000_000,
        description="tokens of one scoring batch; null: 1536 on a CPU, by free memory on a GPU",
    )
    bootstrap_samples: int = Field(1000, ge=100, le=1_000_000, description="resamples behind each confidence interval")
    calibrate: bool = Field(True, description="probabilities by the adapter's calibration; false (--raw): as scored")
    baselines: Literal["auto", "on", "off"] = Field("auto", description="majority label, linear SVM; auto: in seconds")
    confidence: float = Field(0.95, gt=0, lt=1, description="of the confidence intervals, as a share")


class OutputSection(Section):
    """Where results are written, and what of the data they hold. A text instead of this section is its `folder`."""

    folder: FileName = Field("runs", description="folder that holds the run directories")
    texts: bool = Field(True, description="false: no sentence of the data is written, only row numbers")


class Config(Section):
    """All settings that a run depends on. Frozen: `resolve` makes one, and `model_copy(update=...)` another.

    Examples:
        >>> import loraft
        >>> loraft.Config().lora.r, loraft.Config().seed
        (16, 42)
    """

    preset: str = Field("quickstart", description="the preset that the values started from")
    seed: int = Field(42, ge=0, lt=2**32, description="seed of the adapter's first weights, row order and draws")
    output: OutputSection = Field(default_factory=OutputSection)
    name: RunName | None = Field(None, description="run directory inside output.folder; default: made from the config")
    model: ModelConfig = Field(default_factory=ModelConfig)
    quant: QuantConfig = Field(default_factory=QuantConfig)
    lora: LoraSection = Field(default_factory=LoraSection)
    data: DataConfig = Field(default_factory=DataConfig)
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    fewshot: FewshotConfig = Field(default_factory=FewshotConfig)
    sweep: SweepConfig = Field(default_factory=SweepConfig)

    @field_validator("output", mode="before")
    @classmethod
    def _folder_alone(cls, value: Any) -> Any:
        return {"folder": value} if is_folder_alone(value) else value

    @field_validator("train")
    @classmethod
    def _metric_of_the_task(cls, train: TrainConfig, info: ValidationInfo) -> TrainConfig:
        prompt = info.data.get("prompt")  # absent where it has mistakes of its own
        if prompt is None or prompt.labels is None:
            return train
        several, of_any = prompt.kind == "multilabel", train.metric == "macro_f1" or train.metric.startswith("f1:")
        if several != (train.metric in MULTILABEL_METRICS) and not of_any:
            allowed = ", ".join(("macro_f1", "f1:LABEL", *MULTILABEL_METRICS))
            raise ValueError(
                f"metric={train.metric} does not go with prompt.kind={prompt.kind}; multilabel has {allowed}"
            )
        if train.metric in ORDINAL_METRICS and prompt.kind != "ordinal":
            raise ValueError(f"metric={train.metric} needs labels in order; set prompt.kind=ordinal, or another metric")
        label = train.metric.removeprefix("f1:")
        if label != train.metric and label not in prompt.labels:
            raise ValueError(f"metric={show(train.metric)} names no label of the task; labels: {listed(prompt.labels)}")
        return train
