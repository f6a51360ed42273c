"""A run's classifier as an ONNX file, by torch's exporter, in fp32 or with 8-bit matrices."""

import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from loraft.delivery.export_classifier import Logits
from loraft.errors import BackboneError, LoraftError, first_line

FILE = "model.onnx"
INPUTS = ("input_ids", "attention_mask")
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def refuse_missing_packages() -> None:
    """Refuses the export where its packages are missing.

    Raises:
        LoraftError: one is; the message has the command that installs all of them.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise LoraftError(f"--to onnx: needs packages (got no {', '.join(missing)}); pip install 'loraft[onnx]'")


class _Logits(torch.nn.Module):
    """The classifier, and a bias for each label, as a function of its two inputs to its one output."""

    def __init__(self, model: PreTrainedModel, bias: Sequence[float] | None) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("bias", None if bias is None else torch.tensor(bias, device=model.device))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        """Returns the logits (B, K)."""
        logits_BK = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits_BK if self.bias is None else logits_BK + self.bias


def write_onnx(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    bias: Sequence[float] | None = None,
    *,
    int8: bool,
) -> None:
    """Writes a classifier in fp32 as `model.onnx`: token ids and mask (B, L) to logits (B, K), for any B and L.

    Args:
        folder: where to.
        model: the classifier.
        tokenizer: makes the example with which the exporter traces it.
        bias: of each label, in nats, added to its logit; None for none.
        int8: store the matrices of the layers, a scale for each row, and quantise their inputs as they come
            (onnxruntime's dynamic quantisation). Embeddings stay in fp32.

    Raises:
        BackboneError: torch cannot export this architecture.
    """
    example = tokenizer(["một", "hai ba bốn"], padding=True, return_tensors="pt")
    inputs = tuple(example[name].to(model.device) for name in INPUTS)
    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    whole = folder / ("whole.onnx" if int8 else FILE)
    with _quiet():
        from onnxscript.ir.passes.common import ClearMetadataAndDocStringPass

        try:
            program = torch.onnx.export(
                _Logits(model, bias).eval(), inputs, dynamo=True, dynamic_shapes=dict.fromkeys(INPUTS, dynamic),
                input_names=list(INPUTS), output_names=["logits"], verbose=False,
            )  # fmt: skip
            assert program is not None
            ClearMetadataAndDocStringPass()(program.model)  # lines of source, with this machine's folders
            program.save(whole)
        except Exception as error:  # of as many types as operations
            raise BackboneError(
                f"--to onnx: torch cannot export {model.config.model_type} ({first_line(error)}); use --to classifier"
            ) from error
        if int8:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            settings = {"weight_type": QuantType.QInt8, "per_channel": True, "op_types_to_quantize": ["MatMul"]}
            large = (folder / f"{whole.name}.data").exists()  # of 2 GB or more
            quantize_dynamic(whole, folder / FILE, use_external_data_format=large, **settings)
            for path in folder.glob("whole.onnx*"):
                path.unlink()


def read_onnx(folder: Path, _: torch.device) -> tuple[PreTrainedTokenizerBase, Logits]:
    """Returns the tokenizer and the logits of a written file, computed by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])

    def logits(input_ids: Any, attention_mask: Any) -> np.ndarray:
        found = session.run(None, dict(zip(INPUTS, (input_ids, attention_mask), strict=True)))
        return np.asarray(found[0])

    return AutoTokenizer.from_pretrained(folder), logits


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what exporter and quantiser say of missing packages, deprecations and steps that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
