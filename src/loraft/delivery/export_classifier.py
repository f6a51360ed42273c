"""A run as transformers' classifier: the label rows of the LM head are the rows of a classification head.

After the prompt and the begin of the answers, the logits of the K label tokens are a product with K rows of the LM
head. A softmax over these gives the label probabilities of `loraft predict`, which are normalised over the labels too.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from loraft.delivery.prompting_tokenizer import shared_answer
from loraft.errors import BackboneError
from loraft.models.encoder import Encoder

BATCH = 16  # sentences that a re-check scores together

Logits = Callable[[Any, Any], np.ndarray]  # of token ids and attention mask, both (B, L) int64: (B, K)


def refuse_architecture(config: PreTrainedConfig) -> None:
    """Refuses backbones whose label logits are no product that a classification head could compute.

    Raises:
        BackboneError: transformers has no such classifier for the architecture, or the LM head does more.
    """
    kind, caps = config.model_type, getattr(config.get_text_config(), "final_logit_softcapping", None)
    why = None
    if kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        why = "transformers has no classifier of this architecture"
    elif caps is not None:
        why = "its LM head caps the logits, which no classification head does"
    if why is not None:
        raise BackboneError(f"export: {why} (got model_type {kind!r}); use loraft merge")


def classifier(
    encoder: Encoder, model: PreTrainedModel, pad_token_id: int, temperature: float = 1.0
) -> PreTrainedModel:
    """Returns the classifier of a merged model, with which it shares its weights.

    Args:
        encoder: of the task; its labels become `id2label`.
        model: a causal language model; its layers move into the classifier.
        pad_token_id: of the tokenizer; the classifier reads the last token that is another.
        temperature: of the calibration, by which the logits are divided.

    Raises:
        BackboneError: the architecture's classifier is built otherwise than its language model.
    """
    label_ids = shared_answer(encoder)[1]
    config, head = model.config, model.get_output_embeddings()
    config.id2label = dict(enumerate(encoder.task.labels))
    config.label2id = {label: k for k, label in enumerate(encoder.task.labels)}
    config.problem_type = "single_label_classification"
    for part in (config, config.get_text_config()):
        part.pad_token_id = pad_token_id
        part.use_cache = False
    with torch.device("meta"):
        made: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=model.dtype)
    score, prefix = getattr(made, "score", None), made.base_model_prefix
    fits = type(getattr(made, prefix, None)) is type(model.base_model)
    if not fits or not isinstance(score, torch.nn.Linear) or [score.bias, head.bias] != [None, None]:
        raise BackboneError(
            f"export: the classifier of this architecture is not its language model with another head (got"
            f" {type(made).__name__}); use loraft merge"
        )
    setattr(made, prefix, model.base_model)
    score.weight = torch.nn.Parameter(head.weight[label_ids] / temperature, requires_grad=False)
    return made.eval()


def read_classifier(folder: Path, device: torch.device) -> tuple[PreTrainedTokenizerBase, Logits]:
    """Returns the tokenizer and the logits of a saved classifier, as any program that knows transformers gets them."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).to(device).eval()

    @torch.inference_mode()
    def logits(input_ids: Any, attention_mask: Any) -> np.ndarray:
        given = [torch.as_tensor(one, device=device) for one in (input_ids, attention_mask)]
        return np.asarray(model(*given).logits.float().cpu())

    return AutoTokenizer.from_pretrained(folder), logits


def log_probs(tokenizer: PreTrainedTokenizerBase, logits: Logits, texts: Sequence[str]) -> np.ndarray:
    """Returns the labels' log-probabilities, normalised over the labels: (N, K) float64."""
    found = []
    order = sorted(range(len(texts)), key=lambda n: len(texts[n]))  # batches of equal lengths, little padding
    for start in range(0, len(order), BATCH):
        given = tokenizer([texts[n] for n in order[start : start + BATCH]], padding=True, truncation=True)
        logits_BK = torch.as_tensor(logits(np.array(given["input_ids"]), np.array(given["attention_mask"])))
        found.append(logits_BK.double().log_softmax(-1).numpy())
    return np.concatenate(found)[np.argsort(order)]
