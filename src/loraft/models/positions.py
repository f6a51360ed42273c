"""How long a prompt may be: `prompt.max_length`, but no more than the backbone has positions for."""

import warnings

from transformers import AutoConfig

from loraft.config.schema import Config, ModelConfig
from loraft.errors import Note
from loraft.models.backbone import resolve_name

NO_LIMIT = 10**9  # more tokens than any prompt has


def positions(section: ModelConfig) -> int:
    """Returns the tokens that the backbone can attend to, from its config; `NO_LIMIT` where the config names none."""
    hub = {"revision": section.revision, "cache_dir": section.cache_dir}
    given = {key: value for key, value in hub.items() if value is not None}
    try:
        architecture = AutoConfig.from_pretrained(resolve_name(section.name), **given).get_text_config()
    except (OSError, ValueError):  # the error of loading the tokenizer or the weights says what is wrong
        return NO_LIMIT
    return int(getattr(architecture, "max_position_embeddings", None) or NO_LIMIT)


def longest_prompt(config: Config) -> int:
    """Returns the largest number of tokens of a prompt with its answer; a note says where the backbone sets it.

    A table of positions ends there (GPT-2, OPT); rotary embeddings go on, but were trained no further.
    """
    wanted, most = config.prompt.max_length, positions(config.model)
    if config.eval.decode == "generate":
        most -= config.eval.max_new_tokens
    if wanted <= most:
        return wanted
    warnings.warn(
        f"prompt.max_length: prompts may take {most:,} tokens with this backbone's positions (got {wanted:,}); longer"
        f" sentences are shortened to that, as with --set prompt.max_length={most}",
        Note,
        stacklevel=2,
    )
    return most
