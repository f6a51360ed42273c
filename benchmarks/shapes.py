"""Shapes of Llama backbones, and how many weights they have."""

from typing import Any

# meta-llama/Llama-3.2-1B's config.json; token ids come from the bundled tokenizer, whose 8192 are among these
LLAMA_1B: dict[str, Any] = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "tie_word_embeddings": True,
}  # fmt: skip
# meta-llama/Llama-3.1-8B's config.json
LLAMA_8B: dict[str, Any] = {
    **LLAMA_1B, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "head_dim": 128,
    "tie_word_embeddings": False,
}  # fmt: skip


def layer_weights(shape: dict[str, Any]) -> int:
    """The weights of the decoder layers' products, without norms and embeddings."""
    hidden, head = shape["hidden_size"], shape["head_dim"]
    attention = 2 * hidden * head * (shape["num_attention_heads"] + shape["num_key_value_heads"])
    return int(shape["num_hidden_layers"] * (attention + 3 * hidden * shape["intermediate_size"]))


def all_weights(shape: dict[str, Any]) -> int:
    """The weights of layers, embeddings and LM head, without norms."""
    tables = 1 if shape["tie_word_embeddings"] else 2
    return layer_weights(shape) + int(tables * shape["vocab_size"] * shape["hidden_size"])
