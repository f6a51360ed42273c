"""The chat template that travels with a model, so that a server asks as the training did."""

import json
import re

from transformers import PreTrainedTokenizerBase

from loraft.config.prompt_section import PromptConfig
from loraft.config.schema import Config
from loraft.models.chat_template import chosen_template


def pinned_template(tokenizer: PreTrainedTokenizerBase, prompt: PromptConfig) -> str:
    """Returns the chat template of a task's prompts, with its date and its further variables set in the template.

    Servers know neither: they would print today's date, or leave blocks of thoughts open.
    """
    template, date = chosen_template(tokenizer, prompt.chat_template), prompt.date_string
    values = {"date_string": date, **prompt.template_kwargs}
    used = {name: value for name, value in values.items() if re.search(rf"\b{re.escape(name)}\b", template)}
    sets = "".join(f"{{%- set {name} = {json.dumps(value, ensure_ascii=False)} %}}" for name, value in used.items())
    if "strftime_now" in template:  # a function that reads the clock, defined as by `ChatTemplate`
        sets += f"{{%- macro strftime_now(format) -%}}{date}{{%- endmacro %}}"
    elif sets:
        sets += "\n"  # which a block takes away, so that a line feed with which the template begins stays
    return sets + template


def with_own_template(config: Config) -> Config:
    """Returns the config of a model whose tokenizer has the template of `pinned_template`, and no other."""
    return config.model_copy(update={"prompt": config.prompt.model_copy(update={"chat_template": None})})
