"""Chat templates, of a backbone or of `prompt.chat_template`, that fail, print too much or too little, or never end."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal
from helpers.bad_models import evaluated, tiny_model

CHAT = "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>' + m['content'] + '<|eot_id|>' }}{% endfor %}"
REFUSES = (
    r"prompt\.chat_template: the template refuses the chat \(.*\); set prompt\.system_role=user .* or mend the file"
)
MISTAKE = r"prompt\.chat_template: the template has a mistake in line 1 \(.*\); mend the file"
TEMPLATES = {
    "division by zero": ("{{ 1 / 0 }}", REFUSES.replace(".*", "division by zero", 1)),
    "a wrong type": ("{{ messages + 1 }}", REFUSES),
    "a text plus a number": ("{{ 'a' + 1 }}", REFUSES),
    "an unknown function": ("{{ hay(1) }}", REFUSES.replace(".*", ".*hay.* is undefined", 1)),
    "an unknown filter": ("{{ 1 | hay }}", r"prompt\.chat_template: the template .*No filter named 'hay'"),
    "an unknown test": ("{% if 1 is hay %}{% endif %}", r"prompt\.chat_template: the template .*No test named 'hay'"),
    "an unknown tag": ("{% hay %}", MISTAKE),
    "an open block": ("{% for m in messages %}", MISTAKE),
    "an open variable": ("{{ messages", MISTAKE),
    "a mistake below": ("a\nb\n{% if %}", r"has a mistake in line 3 \("),
    "an exception of its own": ("{{ raise_exception('không có hệ thống') }}", REFUSES.replace(".*", "không có hệ thống", 1)),
    "a key that is not there": ("{{ messages[0]['x']['y'] }}", REFUSES),
    "a row that is not there": ("{{ messages[9]['content'] }}", REFUSES),
    "an attribute of Python": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", r"the template "),
    "an attribute of a function": ("{{ raise_exception.__globals__ }}", r"the template "),
    "a file included": ("{% include '/etc/passwd' %}", r"prompt\.chat_template: the template "),
    "a file imported": ("{% import 'a.jinja' as a %}", r"prompt\.chat_template: the template "),
    "a parent": ("{% extends 'a.jinja' %}", r"prompt\.chat_template: the template "),
    "itself without end": ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", REFUSES),
    "a loop without end": ("{% for i in range(10**9) %}{% endfor %}", r"the template refuses the chat \(Range too big"),
    "a loop in a loop": (
        "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}" + CHAT, r"the template refuses the chat \(takes more than 1,000,000 steps\)"
    ),
    "10,000,001 letters": ("{{ 'ă' * 10000001 }}" + CHAT, r"the template refuses the chat \(prints more than 10,000,000 characters\)"),
    "10^12 letters": ("{{ 'ă' * 10**12 }}", r"the template "),
    "nothing": ("{{ '' }}", r"does not print the (system|user) message"),
    "no message": ("{{ bos_token }} hay", r"does not print the (system|user) message"),
    "the user message twice": (CHAT + CHAT, r"does not print the user message exactly once"),
    "the first letter of messages": ("{% for m in messages %}{{ m['content'][0] }}{% endfor %}", r"does not print the"),
    "messages in capitals": ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", r"does not print the"),
    "messages in reverse": ("{% for m in messages %}{{ m['content'] | reverse }}{% endfor %}", r"does not print the"),
    "messages as they are": ("{{ messages }}", r"^error: prompt\.chat_template: "),
    "the length of the message": (CHAT + "{{ messages[-1]['content'] | length }}", r"prints something else after a message"),
}  # fmt: skip
FILES = {
    "not there": (None, r"prompt\.chat_template: no such file \(got \./mẫu\.jinja\)"),
    "empty": (b"", r"prompt\.chat_template: is a file without Jinja"),
    "plain text": ("thầy dạy hay".encode(), r"is a file without Jinja .*; give one that prints"),
    "UTF-16": ("{{ a }}".encode("utf-16"), r"prompt\.chat_template: cannot be read \(.*\); give a UTF-8 text file"),
    "binary": (bytes(range(128, 256)), r"prompt\.chat_template: cannot be read"),
}


@pytest.mark.usefixtures("bundled_tokenizer")
@pytest.mark.parametrize(("template", "says"), TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_that_does_not_render_the_chat_is_refused(template: str, says: str) -> None:
    Path("a.csv").write_text("sentence,sentiment\nhay,positive\n", encoding="utf-8")
    Path("mẫu.jinja").write_text(template, encoding="utf-8")
    refusal(["eval", "--zero-shot", "--split", "a.csv", "--set", "prompt.chat_template=./mẫu.jinja"], says)


@pytest.mark.usefixtures("bundled_tokenizer")
@pytest.mark.parametrize(("content", "says"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_template_is_refused(content: bytes | None, says: str) -> None:
    if content is not None:
        Path("mẫu.jinja").write_bytes(content)
    refusal(["fewshot", "--set", "prompt.chat_template=./mẫu.jinja"], says)


OWN = {
    "a mistake": (
        "{% if %}",
        r"mô hình: its template has a mistake in line 1 .*; set prompt\.chat_template to another",
    ),
    "division by zero": ("{{ 1 / 0 }}", r"mô hình: its template refuses the chat \(division by zero\); set prompt"),
    "no message": ("{{ 5 }}", r"mô hình: its template does not print the (system|user) message; set prompt"),
}


@pytest.mark.parametrize(("template", "says"), OWN.values(), ids=OWN)
def test_a_backbone_with_a_damaged_template_is_refused(template: str, says: str) -> None:
    (tiny_model() / "chat_template.jinja").write_text(template, encoding="utf-8")
    refusal(evaluated(), says)


KEYS = {
    "an unknown template": (["prompt.chat_template=tool"], r"no such template \(got tool\); templates of .*: default"),
    "an unknown variable": (
        ["prompt.template_kwargs={nghĩ: true}"],
        r"has no such variable \(got nghĩ\); leave it out",
    ),
    "a variable of loraft": (["prompt.template_kwargs={messages: 1}"], r"messages is set by loraft itself"),
    "a word for a boolean": (["prompt.template_kwargs={a: 'true'}"], r"'true' is text, which templates take for true"),
    "a list as a variable": (["prompt.template_kwargs={a: [1]}"], r"prompt\.template_kwargs"),
    "an unknown role": (["prompt.system_role=bot"], r"prompt\.system_role: .*'bot'"),
    "too few tokens": (["prompt.max_length=40"], r"^error: .*(prompt\.max_length|do not fit)"),
}


@pytest.mark.usefixtures("bundled_tokenizer")
@pytest.mark.parametrize(("sets", "says"), KEYS.values(), ids=KEYS)
def test_settings_of_a_template_that_do_not_fit_are_refused(sets: list[str], says: str) -> None:
    Path("a.csv").write_text("sentence,sentiment\nhay,positive\n", encoding="utf-8")
    refusal(["eval", "--zero-shot", "--split", "a.csv", *(word for one in sets for word in ("--set", one))], says)
