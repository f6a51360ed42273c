"""A run's adapter merged into its backbone: plain linear layers, W + scale * B A, computed in fp32.

peft can merge into 4-bit weights, but rounds the sum to 4 bits again, which changes answers. Here the backbone is
dequantised first, so that the merged weights are those that the adapter was trained over, and the sum is not rounded
before the end.
"""

import warnings
from typing import Literal

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from loraft.config.schema import Config, QuantConfig
from loraft.errors import Note
from loraft.models import manifest
from loraft.models.adapter import load_adapter
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
        run: the adapter is checked against its backbone, as for a prediction.
        config: the run's own.
        base: for QLoRA, the weights under the adapter: those of NF4, dequantised, over which it was trained, or the
            ones before quantisation. Without quantisation both are the same.
        dtype: of the merged weights, a key of `device.DTYPES`; the sum is computed in fp32 and rounded once.

    Raises:
        RunError, BackboneError: as `load_run`.
    """
    config = located(run.adapter, config, needed=True)
    section = config.model.model_copy(update={"dtype": "fp32"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)  # that fp32 is another dtype than that of the training
        encoder, model = load_base(run, config.model_copy(update={"model": section}))
        if config.quant.method != "none" and base == "original":
            trained = manifest.read(run.adapter).backbone.dtype or config.model.dtype
            model = load_backbone(section.model_copy(update={"dtype": trained}), QuantConfig(method="none"))
            cast(model, torch.float32, torch.float32)
    if getattr(model, "is_loaded_in_4bit", False):
        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()  # it warns of the dtype
        try:
            model = model.dequantize(dtype=torch.float32)
        finally:
            transformers_logging.set_verbosity(verbosity)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input and output embeddings are no longer tied", UserWarning)
        model = load_adapter(model, run.adapter).merge_and_unload(safe_merge=True)
    # A head that was trained whole (`lora.modules_to_save`) shares its weight with the embeddings no more.
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    for part in (model.config, model.config.get_text_config()):
        part.tie_word_embeddings = head.weight is embeddings.weight
    cast(model, DTYPES[dtype], DTYPES[dtype])
    return encoder, model.requires_grad_(False).eval()
