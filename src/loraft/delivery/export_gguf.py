"""A merged model as a GGUF file, for llama.cpp and Ollama: Llama, Mistral without a window, Qwen 2 and Qwen 3.

Names, order of rows and metadata are those of llama.cpp's converter (convert_hf_to_gguf.py in
https://github.com/ggml-org/llama.cpp). Models of other shapes it converts itself, from a merged folder.
"""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loraft.errors import BackboneError
from loraft.models.source import is_gguf, resolve_name

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
TYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
# How text is cut before the merges, by the name that llama.cpp has for it.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?%s+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {
    SPLIT % (r"\p{L}", r"\p{N}{1,3}"): "llama-bpe",
    # As Llama 3's, but that combining marks are letters, of which composed Vietnamese has none.
    SPLIT % (r"[\p{L}\p{M}]", r"\p{N}{1,3}"): "llama-bpe",
    SPLIT % (r"\p{L}", r"\p{N}"): "qwen2",
}
CONVERTER = "loraft merge --output FOLDER, then llama.cpp's: python convert_hf_to_gguf.py FOLDER"


def refuse_shape(config: Any) -> None:
    """Refuses models that this writer cannot describe.

    Raises:
        BackboneError: the architecture is another one, or has a window, scaled positions or biases of its own.
    """
    rope = (config.rope_parameters or {}).get("rope_type", "default") if hasattr(config, "rope_parameters") else None
    window = getattr(config, "sliding_window", None) if config.model_type == "mistral" else None
    biased = config.model_type == "llama" and (config.attention_bias or config.mlp_bias)
    why = None
    if config.model_type not in ARCHITECTURES:
        why = f"writes Llama shapes (got model_type {config.model_type!r})"
    elif rope != "default":
        why = f"knows no scaled positions (got rope_type {rope!r})"
    elif window or getattr(config, "use_sliding_window", False) or biased:
        why = f"knows no {'biases in attention' if biased else 'sliding window'} (got {config.model_type})"
    if why is not None:
        raise BackboneError(f"--to gguf: {why}; use {CONVERTER}")


def write_gguf(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, backbone: str, template: str, kind: str
) -> None:
    """Writes a merged model with its tokenizer.

    Args:
        path: of the file.
        model: an architecture of `ARCHITECTURES`.
        tokenizer: of the backbone.
        backbone: its name; from a GGUF file the tokenizer is copied as it stands there.
        template: the chat template.
        kind: key of `TYPES`: how matrices are stored. Vectors, such as norms, are in F32.

    Raises:
        BackboneError: the tokenizer has no form in GGUF that this writer knows.
    """
    config, architecture = model.config, ARCHITECTURES[model.config.model_type]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name(path.stem)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    stored = gguf.GGMLQuantizationType[TYPES[kind]]
    writer.add_file_type({"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7}[stored.name])  # of llama.cpp's `llama_ftype`
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    source = resolve_name(backbone)
    if is_gguf(source):
        _copy_tokenizer(writer, source)
    else:
        _add_tokenizer(writer, tokenizer, config.vocab_size)
    writer.add_chat_template(template)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and tied:  # llama.cpp takes the embeddings then
            continue
        called = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if called is None:
            raise BackboneError(f"--to gguf: knows no weight {name} in {config.model_type}; use {CONVERTER}")
        values = weight.float().cpu().numpy()
        if architecture is gguf.MODEL_ARCH.LLAMA and name.endswith(("q_proj.weight", "k_proj.weight")):
            values = _interleaved(values, heads if name.endswith("q_proj.weight") else config.num_key_value_heads)
        quantised = values.ndim > 1 and (kind != "q8_0" or values.shape[-1] % 32 == 0)
        dtype = stored if quantised else gguf.GGMLQuantizationType.F32
        writer.add_tensor(called, gguf.quants.quantize(np.ascontiguousarray(values), dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key matrix in llama.cpp's order: it rotates neighbours, transformers the two halves."""
    parts = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return parts.swapaxes(1, 2).reshape(values.shape)


def _copy_tokenizer(writer: gguf.GGUFWriter, source: str) -> None:
    for key, field in gguf.GGUFReader(source).fields.items():
        if key.startswith("tokenizer.") and key != gguf.Keys.Tokenizer.CHAT_TEMPLATE:
            writer.add_key_value(key, field.contents(), *field.types[:2])


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Adds a byte-level BPE tokenizer, with unused tokens up to the size of the embeddings."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    cut, model = content["pre_tokenizer"] or {}, content["model"]
    parts = cut.get("pretokenizers", [cut])
    kinds = [part.get("type") for part in parts]
    pre = None
    if kinds == ["Split", "ByteLevel"]:
        pre = PRE_TOKENIZERS.get(parts[0]["pattern"].get("Regex"))
    elif kinds == ["ByteLevel"]:
        pre = "gpt-2"
    if model["type"] != "BPE" or pre is None or parts[-1]["add_prefix_space"]:
        raise BackboneError(
            f"--to gguf: knows no name for how the tokenizer of {tokenizer.name_or_path} cuts text; use {CONVERTER}"
        )
    added = {one["id"]: one["special"] for one in content["added_tokens"]}
    words = {number: word for word, number in tokenizer.get_vocab().items()}
    ids = range(size)
    kind = gguf.TokenType
    control = {True: kind.CONTROL, False: kind.USER_DEFINED}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([words.get(number, f"[PAD{number}]") for number in ids])
    writer.add_token_types([
        control[added[number]] if number in added else kind.NORMAL if number in words else kind.UNUSED for number in ids
    ])  # fmt: skip
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    for name, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id),
                      ("unk", writer.add_unk_token_id), ("pad", writer.add_pad_token_id)):  # fmt: skip
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None and number < size:  # transformers gives some tokenizers tokens that the model lacks
            add(number)
    begins = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    writer.add_add_bos_token(begins)
