"""Tiny random backbones, built in place: the same tokenizer as the bundled one, a few thousand weights."""

from functools import lru_cache
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen3Config,
)

from loraft.bundled import bundled_backbones
from loraft.config.resolve import resolve
from loraft.data.prompt import Task
from loraft.models.encoder import Encoder

SENTENCES = [
    "thầy dạy rất nhiệt tình , dễ hiểu .",
    "phòng học nóng , máy chiếu mờ , cần sửa sớm .",
    "bình thường .",
    "cô nên nói chậm hơn một chút để cả lớp kịp ghi bài .",
    "tài liệu đầy đủ",
    "thầy dạy rất nhiệt tình nhưng bài tập hơi nhiều , chưa có đáp án để tự kiểm tra ở nhà .",
]
LABELS = [2, 0, 1, 0, 2, 0]
SMALL = {"vocab_size": 8192, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024}
CONFIGS = {
    "llama": LlamaConfig(**SMALL, **HEADS),
    "mistral": MistralConfig(**SMALL, **HEADS, sliding_window=512),
    "qwen2": Qwen2Config(**SMALL, **HEADS),
    "qwen3": Qwen3Config(**SMALL, **HEADS, head_dim=8),
    "gemma2": Gemma2Config(**SMALL, **HEADS, head_dim=8, sliding_window=512),
    "gpt_neox": GPTNeoXConfig(**SMALL, num_attention_heads=4, max_position_embeddings=1024),
    "gpt2": GPT2Config(
        vocab_size=8192, n_embd=32, n_layer=2, n_head=4, n_positions=1024, bos_token_id=None, eos_token_id=None
    ),
}

GATED_DELTA = {  # of linear attention
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
HEAD_8 = {**SMALL, **HEADS, "head_dim": 8}
FEW_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
# Architectures by what the fast paths cannot do with them: a model type and its settings. A window is 16 tokens.
WINDOWED: dict[str, dict[str, Any]] = {
    "gemma3_text": {**HEAD_8, "sliding_window": 16},
    "gemma2": {**HEAD_8, "sliding_window": 16},
    "qwen2": {**SMALL, **HEADS, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "mistral": {**SMALL, **HEADS, "sliding_window": 16},
    "gpt_oss": {**HEAD_8, "sliding_window": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    "cohere2": {**HEAD_8, "sliding_window": 16},
    "llama4_text": {
        **HEAD_8, "attention_chunk_size": 16, "layer_types": ["chunked_attention", "full_attention"],
        "intermediate_size_mlp": 48, "num_local_experts": 2, "no_rope_layers": [1, 0], "pad_token_id": 0,
    },
    "gpt_neo": {
        "vocab_size": 8192, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 16,
        "attention_types": [[["global", "local"], 1]],
    },
}  # fmt: skip
RECURRENT: dict[str, dict[str, Any]] = {
    "qwen3_next": {**HEAD_8, **GATED_DELTA, **FEW_EXPERTS, "shared_expert_intermediate_size": 16},
    "qwen3_5_text": {**HEAD_8, **GATED_DELTA},
    "lfm2": {**SMALL, **HEADS, "layer_types": ["conv", "full_attention"]},
    "minimax": {**HEAD_8, "num_local_experts": 2, "layer_types": ["linear_attention", "full_attention"]},
    "mamba": {"vocab_size": 8192, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "recurrent_gemma": {
        **SMALL, "num_attention_heads": 4, "lru_width": 32, "attention_window_size": 16,
        "block_types": ["recurrent", "attention"],
    },
}  # fmt: skip
ALIBI: dict[str, dict[str, Any]] = {
    "bloom": {"vocab_size": 8192, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"vocab_size": 8192, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 1024},
    "falcon": {**SMALL, "num_attention_heads": 4, "alibi": True},
}
FACTORS = {"short_factor": [1.0] * 4, "long_factor": [2.0, 4.0, 6.0, 8.0]}
# Rotary frequencies that change beyond 16 tokens.
LONG_ROPE: dict[str, dict[str, Any]] = {
    "phi3": {
        **SMALL, **HEADS, "original_max_position_embeddings": 16, "pad_token_id": 0,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 100.0, **FACTORS},
    },
    "llama": {
        **SMALL, **HEADS,
        "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 100.0, "original_max_position_embeddings": 16, **FACTORS,
        },
    },
    "qwen2": {
        **SMALL, **HEADS, "max_position_embeddings": 16,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0},
    },
}  # fmt: skip
EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {**SMALL, **HEADS, "num_local_experts": 4},
    "qwen3_moe": {**HEAD_8, **FEW_EXPERTS},
    "olmoe": {**SMALL, **HEADS, "num_experts": 4, "num_experts_per_tok": 2},
}


@lru_cache
def tokenizer() -> PreTrainedTokenizerBase:
    """The bundled tokenizer."""
    return AutoTokenizer.from_pretrained(bundled_backbones()["loraft-vi-tiny"])


@lru_cache
def encoder(task: str = "sentiment", max_length: int = 1024) -> Encoder:
    """An encoder of a shipped task."""
    section = resolve(flags={"prompt.task": task}).prompt
    return Encoder(tokenizer(), Task.from_config(section), date_string=section.date_string, max_length=max_length)


def backbone(architecture: str = "llama", seed: int = 0) -> PreTrainedModel:
    """A frozen random fp32 model whose weights are large enough for its answers to differ from row to row."""
    return random_model(CONFIGS[architecture], seed)


def special(architecture: str, **settings: Any) -> PreTrainedModel:
    """A `backbone` of one of the special architectures, with other settings."""
    own = {**WINDOWED, **RECURRENT, **ALIBI, **EXPERTS}[architecture]
    return random_model(AutoConfig.for_model(architecture, **{**own, **settings}))


def random_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """As `backbone`, of any config."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.15)
    return model.requires_grad_(False).eval()


def awaken(model: torch.nn.Module) -> None:
    """Gives every B of an adapter weights other than zero, so that every LoRA weight has a gradient."""
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)


def prompts(texts: list[str] = SENTENCES, task: str = "sentiment") -> list[list[int]]:
    """Token ids of the prompts of some sentences."""
    return [prompt.ids for prompt in encoder(task).encode(texts)]
