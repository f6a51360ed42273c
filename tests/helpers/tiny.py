"""Tiny random backbones, built in place: the same tokenizer as the bundled one, a few thousand weights."""

from functools import lru_cache

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
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
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture])
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
