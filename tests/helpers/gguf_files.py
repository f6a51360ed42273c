"""A tiny Llama with a byte-level tokenizer, as a GGUF file that holds both."""

import json
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter, TokenType
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast

from helpers.tiny import SENTENCES, random_model

SPECIAL = ["<unk>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def bpe() -> ByteLevelBPETokenizer:
    """A tokenizer of 300 tokens, the special ones first."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    return tokenizer


def save_backbone(folder: Path, config: PreTrainedConfig) -> None:
    """Writes a random model of any architecture with this tokenizer, which is read quickly, as a folder."""
    own = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(bpe().to_str()), bos_token=SPECIAL[1], eos_token=SPECIAL[2],
        chat_template=TEMPLATE,
    )  # fmt: skip
    own.save_pretrained(folder)
    random_model(type(config)(**{**config.to_dict(), "vocab_size": len(own)})).save_pretrained(folder)


def llama() -> LlamaForCausalLM:
    """A random fp32 model for it, whose matrices divide into blocks of 64 weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=bpe().get_vocab_size(), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def write_gguf(path: Path, *, leave_out: str = "none") -> None:
    """Writes model and tokenizer in llama.cpp's layout; `leave_out` is the name of a tensor there."""
    model, tokenizer = llama(), bpe()
    config, heads = model.config, {"attn_q": 4, "attn_k": 2}
    writer = GGUFWriter(path, "llama")
    writer.add_name("thử")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges(tokenizer)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        layer, _, rest = name.removeprefix("model.layers.").partition(".")
        inside = name.startswith("model.layers.")
        short = NAMES[rest.removesuffix(".weight")] if inside else OUTSIDE[name.removesuffix(".weight")]
        values = tensor.numpy().astype(np.float32)
        if short in heads:  # llama.cpp pairs the two halves of each head's rows
            values = values.reshape(heads[short], 2, -1, config.hidden_size).swapaxes(1, 2).reshape(values.shape)
        called = f"blk.{layer}.{short}.weight" if inside else f"{short}.weight"
        if called != leave_out:
            writer.add_tensor(called, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def merges(tokenizer: ByteLevelBPETokenizer) -> list[tuple[str, str]]:
    """The merges of the tokenizer, in order."""
    return [tuple(merge) for merge in json.loads(tokenizer._tokenizer.to_str())["model"]["merges"]]
