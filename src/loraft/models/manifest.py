"""The bundle: `loraft.json` beside the adapter, so that prediction asks exactly the question of training."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.errors import RunError
from loraft.models.backbone import fingerprint
from loraft.models.encoder import Encoder

FILE = "loraft.json"
VERSIONED = ("loraft", "torch", "transformers", "peft", "trl", "bitsandbytes")


def describe(
    config: Config, encoder: Encoder, weights: str, data: dict[str, str], scores: dict[str, float]
) -> dict[str, Any]:
    """Returns the bundle's content: everything that decides what is asked of which model, and what came of it.

    Args:
        weights: the bare backbone's fingerprint.
        data: fingerprint of each split by its name.
        scores: headline metrics on the test split, as fractions.
    """
    return {
        **_identity(encoder),
        "backbone": {
            "name": config.model.name,
            "revision": config.model.revision,
            "fingerprint": weights,
            "quant": config.quant.model_dump(),
        },
        "prompt": config.prompt.model_dump(),
        "data": {"source": config.data.source, "fingerprints": data},
        "scores": scores,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
    }


def read(adapter: Path) -> dict[str, Any]:
    """Returns the bundle beside an adapter.

    Raises:
        RunError: if it is missing or no JSON.
    """
    path = adapter / FILE
    try:
        bundle: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{path}: not there, so the adapter's labels and prompt are unknown; train it with loraft"
        ) from None
    except ValueError as error:
        raise RunError(f"{path}: is no JSON ({error}); train again with --force") from error
    return bundle


def check(bundle: dict[str, Any], where: Path, encoder: Encoder, base: PreTrainedModel) -> None:
    """Refuses another backbone, quantisation, prompt, template, date or label set than the adapter was trained with.

    Raises:
        RunError: with every difference, one a line.
    """
    now = {**_identity(encoder), "backbone": fingerprint(base)}
    then = {**bundle, "backbone": bundle["backbone"]["fingerprint"]}
    words = {
        "labels": "labels",
        "label_words": "words of the labels",
        "chat_template_sha256": "chat template",
        "date_string": "date in the prompt",
        "prompt_sha256": "prompt (system message, template, answer prefix)",
        "backbone": "weights of the backbone or their quantisation",
    }
    differences = [f"  {words[key]}: {then[key]} then, {now[key]} now" for key in words if then[key] != now[key]]
    if differences:
        raise RunError(
            f"{where}: the adapter was trained on something else:\n" + "\n".join(differences) + "\n"
            f"use the backbone {bundle['backbone']['name']} and the prompt it was trained with, or train again"
        )


def _identity(encoder: Encoder) -> dict[str, Any]:
    return {
        "labels": list(encoder.task.labels),
        "label_words": list(encoder.task.label_words),
        "chat_template_sha256": encoder.template_hash,
        "date_string": encoder.date_string,
        "prompt_sha256": encoder.prompt_hash,
    }
