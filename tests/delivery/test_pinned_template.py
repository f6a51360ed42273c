"""A template that travels asks with the date and the settings of the training."""

from typing import Any

import pytest
from helpers.tiny import tokenizer

from loraft.config.resolve import resolve
from loraft.delivery.pinned_template import pinned_template

MESSAGES = [{"role": "user", "content": "thầy dạy hay"}]


@pytest.mark.parametrize(
    ("template", "printed"),
    [
        ("{{ strftime_now('%d %b %Y') }}: {{ messages[0]['content'] }}", "26 Jul 2024: thầy dạy hay"),
        ("{{ date_string | default('hôm nay') }}", "26 Jul 2024"),
        ("{% if thinking %}<think>{% endif %}{{ style | default('dài') }}", 'ng"ắn'),
        ("{{ messages[0]['content'] }}", "thầy dạy hay"),
        ("\n{{ style }}", '\nng"ắn'),
        ("\n{{ messages[0]['content'] }}", "\nthầy dạy hay"),
    ],
)
def test_a_server_that_knows_nothing_renders_what_the_training_did(template: str, printed: str) -> None:
    prompt = resolve().prompt
    arguments: dict[str, Any] = {"thinking": False, "style": 'ng"ắn'}
    given = prompt.model_copy(update={"chat_template": template, "template_kwargs": arguments})
    found = pinned_template(tokenizer(), given)
    assert tokenizer().apply_chat_template(MESSAGES, chat_template=found, tokenize=False) == printed
