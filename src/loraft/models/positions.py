"""How long a prompt may be: `prompt.max_length`, but no more than the backbone has positions for."""

import warnings

from loraft.config.schema import Config, ModelConfig
from loraft.errors import ConfigError, Note
from loraft.models.backbone import load_config

NO_LIMIT = 10**9  # more tokens than any prompt has


def positions(section: ModelConfig) -> int:
    """Returns the tokens that the backbone can attend to, from its config; `NO_LIMIT` where the config names none."""
    return int(getattr(load_config(section).get_text_config(), "max_position_embeddings", None) or NO_LIMIT)


def longest_prompt(config: Config) -> int:
    """Returns the largest number of tokens of a prompt with its answer; a note says where the backbone sets it.

    A table of positions ends there (GPT-2, OPT); rotary embeddings go on, but were trained no further.
    """
    wanted, most = config.prompt.max_length, positions_of_prompts(config)
    if wanted <= most:
        return wanted
    less = f" less eval.max_new_tokens={config.eval.max_new_tokens}" if config.eval.decode == "generate" else ""
    warnings.warn(
        f"prompt.max_length: prompts may take {most:,} tokens, this backbone's positions{less} (got {wanted:,}); longer"
        f" sentences are shortened to that, as with --set prompt.max_length={most}",
        Note,
        stacklevel=1,  # one place, so that a command that asks twice tells it once
    )
    return most


def positions_of_prompts(config: Config) -> int:
    """Returns how many of the backbone's positions a prompt may take: all that generated answers do not need."""
    return positions(config.model) - (config.eval.max_new_tokens if config.eval.decode == "generate" else 0)


def check_positions(config: Config, needed: int) -> None:
    """Checks that the backbone has positions for the task's prompt, and for the answers that it generates.

    Args:
        config: gives backbone and `eval`.
        needed: tokens of the prompt with an empty sentence and the longest answer.

    Raises:
        ConfigError: it has not; the message names the largest `eval.max_new_tokens` that works, if there is one.
    """
    if needed <= positions_of_prompts(config):
        return
    whole, tokens = positions(config.model), config.eval.max_new_tokens
    if needed >= whole:
        raise ConfigError(
            f"model.name: has {whole:,} positions, and the prompt without its sentence takes {needed:,} tokens with its"
            f" answer (got {config.model.name}); choose another --model, or a shorter prompt.template"
        )
    raise ConfigError(
        f"eval.max_new_tokens: beside the prompt, which takes {needed:,} tokens without its sentence, this backbone's"
        f" {whole:,} positions leave no room for that many (got {tokens}); --set eval.max_new_tokens={whole - needed}"
        " or less, or choose another --model"
    )
