"""A run's adapter merged into its backbone, in memory: what exports are made from."""

import warnings
from typing import Literal

import torch
from transformers import PreTrainedModel

from loraft.config.schema import Config, QuantConfig
from loraft.delivery.merged_weights import dequantise, merge
from loraft.errors import Note
from loraft.models import manifest
from loraft.models.backbone import cast, load_backbone
from loraft.models.device import DTYPES
from loraft.models.encoder import Encoder
from loraft.models.load import load_base
from loraft.models.source import located
from loraft.runs.run import Run

Base = Literal["dequantised", "original"]


def merged_model(
    run: Run, config: Config, *, base: Base = "dequantised", dtype: str = "fp32"
) -> tuple[Encoder, PreTrainedModel]:
    """Returns the encoder of a finished run, and its backbone with the adapter merged into the weights.

    Args:
        run: the adapter is checked against its backbone, as for a prediction; merged weights stay as they are.
        config: the run's own.
        base: for QLoRA, the weights under the adapter: those of NF4, dequantised, over which it was trained, or the
            ones before quantisation. Without quantisation both are the same.
        dtype: of the merged weights, a key of `device.DTYPES`; the sum is computed in fp32 and rounded once.

    Raises:
        RunError, BackboneError: as `load_run` and `merge`.
    """
    content, wanted = manifest.read(run.adapter), DTYPES[dtype]
    config = located(run.adapter, config)
    section = config.model.model_copy(update={"dtype": "fp32"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)  # that fp32 is another dtype than that of the training
        encoder, model = load_base(run, config.model_copy(update={"model": section}))
        if config.quant.method != "none" and base == "original":
            trained = section.model_copy(update={"dtype": content.backbone.dtype or "bf16"})
            model = load_backbone(trained, QuantConfig(method="none"))
            cast(model, torch.float32, torch.float32)
    dequantise(model)
    if content.merged is not None:
        cast(model, wanted, wanted)
        return encoder, model
    return encoder, merge(model, run.adapter, wanted)[0]
