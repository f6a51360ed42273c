"""How long a prompt may be: `prompt.max_length`, but no more than the backbone has positions for."""

import warnings

from loraft.config.schema import Config, ModelConfig
from loraft.errors import ConfigError, Note
from loraft.models.backbone import load_config

NO_LIMIT = 10**9  # more tokens than any prompt has


def positions(section: ModelConfig) -> int:
    """Returns the tokens that the backbone can attend to, from its config; `NO_LIMIT` where the config names none."""
    return int(getattr(load_config(section).get_text_config(), "max_position_embeddings", None) or NO_LIMIT)


def longest_prompt(config: Config, answer: int) -> int:
    """Returns the largest number of tokens of a prompt with its answer; a note says where the backbone sets it.

    A table of positions ends there (GPT-2, OPT); rotary embeddings go on, but were trained no further.

    Args:
        config: gives backbone, `prompt.max_length` and `eval`.
        answer: tokens of the longest answer.
    """
    wanted, most = config.prompt.max_length, positions_of_prompts(config, answer)
    if wanted <= most:
        return wanted
    beyond = positions(config.model) - most
    less = f" less the {beyond} by which eval.max_new_tokens is longer than any answer" if beyond else ""
    warnings.warn(
        f"prompt.max_length: prompts may take {most:,} tokens, this backbone's positions{less} (got {wanted:,}); longer"
        f" sentences are shortened to that, as with --set prompt.max_length={most}",
        Note,
        stacklevel=1,  # one place, so that a command that asks twice tells it once
    )
    return most


def positions_of_prompts(config: Config, answer: int) -> int:
    """Returns how many positions a prompt may take with its longest answer of so many tokens.

    Those are all of the backbone's but the ones that a generated answer may need beyond.
    """
    longer = config.eval.max_new_tokens - answer if config.eval.decode == "generate" else 0
    return positions(config.model) - max(0, longer)


def check_positions(config: Config, needed: int, answer: int) -> None:
    """Checks that the backbone has positions for the task's prompt, and for the answers that it generates.

    Args:
        config: gives backbone and `eval`.
        needed: tokens of the prompt with an empty sentence and the longest answer.
        answer: of these, tokens of the answer.

    Raises:
        ConfigError: it has not; the message names the largest `eval.max_new_tokens` that works, if there is one.
    """
    if needed <= positions_of_prompts(config, answer):
        return
    whole, tokens, prompt = positions(config.model), config.eval.max_new_tokens, needed - answer
    if needed > whole:
        raise ConfigError(
            f"model.name: has {whole:,} positions, and the prompt without its sentence takes {needed:,} tokens with its"
            f" answer (got {config.model.name}); choose another --model, or a shorter prompt.template"
        )
    raise ConfigError(
        f"eval.max_new_tokens: beside the prompt, which takes {prompt:,} tokens without its sentence, this backbone's"
        f" {whole:,} positions leave no room for that many (got {tokens}); --set eval.max_new_tokens={whole - prompt}"
        " or less, or choose another --model"
    )
