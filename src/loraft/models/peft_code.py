"""Python code that loads the adapter of a run by transformers and peft alone, for its report and its model card."""

import os
from contextlib import suppress
from pathlib import Path

from loraft.bundled import bundled_backbones
from loraft.config.dtypes import TORCH_NAMES
from loraft.config.names import relative
from loraft.config.schema import Config
from loraft.errors import BackboneError
from loraft.models.source import is_gguf, located, recorded, resolve_name
from loraft.runs.run import Run

KEEP_NF4_LAYOUT = (
    "for layer in base.modules():  # some CPUs would round the weights again at the first prediction\n"
    '    if hasattr(layer, "support_avx512bf16_for_cpu"):\n'
    "        layer.support_avx512bf16_for_cpu = False\n"
)


def peft_code(run: Run, config: Config, adapter: str = "adapter") -> str:
    """Code that loads backbone and adapter as the training did, to be run in the run's folder.

    Args:
        run: whose adapter is loaded.
        config: of its training.
        adapter: where the adapter is, for peft: a folder or a repository on the hub.
    """
    name, path, trained = config.model.name, _from_the_run(run, config), _trained_dtype(run, config)
    classes, own_import = ["AutoModelForCausalLM"], ""
    if name in bundled_backbones():
        where = [f"bundled_backbones()[{name!r}]"]
        own_import = "from loraft.bundled import bundled_backbones\n"
    else:
        where = [repr(path)]
        if config.model.revision is not None:
            where.append(f"revision={config.model.revision!r}")
        if config.model.trust_remote_code:
            where.append("trust_remote_code=True")
    dtype, settings, after = f"dtype={_torch_dtype(trained)}", [], ""
    if config.quant.method == "nf4":
        classes.append("BitsAndBytesConfig")
        settings, after = [f"quantization_config={_nf4(config, trained)}"], KEEP_NF4_LAYOUT
    folder, file = os.path.split(path)
    if is_gguf(file):
        classes.append("GgufConfig")
        where = [repr(folder or "."), f"gguf_file={file!r}", "quantization_config=GgufConfig(dequantize=True)"]
        load = _call("AutoModelForCausalLM", [*where, dtype])
        if settings:  # transformers takes one quantisation config a call
            load += _call(
                "type(base)", ["None", "config=base.config", "state_dict=base.state_dict()", dtype, *settings]
            )
    else:
        load = _call("AutoModelForCausalLM", [*where, dtype, *settings])
    return (
        f"import torch\nfrom peft import PeftModel\nfrom transformers import {', '.join(classes)}\n{own_import}\n"
        f"{load}{after}model = PeftModel.from_pretrained(base, {adapter!r})"
    )


def _call(owner: str, arguments: list[str]) -> str:
    given = "".join(f"    {argument},\n" for argument in arguments)
    return f"base = {owner}.from_pretrained(\n{given})\n"


def _nf4(config: Config, trained: str) -> str:
    compute: str = config.quant.compute_dtype
    if compute == "auto":  # the dtype of the other weights
        compute = trained
    return (
        "BitsAndBytesConfig(\n"
        '        load_in_4bit=True,\n        bnb_4bit_quant_type="nf4",\n'
        f"        bnb_4bit_use_double_quant={config.quant.double_quant},\n"
        f"        bnb_4bit_compute_dtype={_torch_dtype(compute)},\n    )"
    )


def _from_the_run(run: Run, config: Config) -> str:
    """The path of a local backbone relative to the run's folder, or a hub id.

    A local backbone that is gone is named by its path relative to the run's folder when the run was trained.
    """
    found = located(run.adapter, config).model.name
    with suppress(BackboneError):
        found = resolve_name(found)
    if Path(found).exists():
        return relative(found, run.path)
    return str(recorded(run.adapter).get("relative_path") or found)


def _trained_dtype(run: Run, config: Config) -> str:
    """The dtype of the weights that are not quantised: as the run recorded it, else as the config says."""
    dtype = recorded(run.adapter).get("dtype") or config.model.dtype
    if dtype == "auto" and config.quant.method == "nf4":
        dtype = config.quant.compute_dtype
    return str(dtype)


def _torch_dtype(name: str) -> str:
    # A run of an earlier version does not say what `auto` was where it was trained.
    return f"torch.{TORCH_NAMES.get(name, 'bfloat16')}"
