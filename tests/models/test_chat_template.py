"""Chat templates: what is rendered, where it is split, and what is refused."""

import copy
import hashlib
import json
from pathlib import Path

import pytest
from helpers.tiny import tokenizer
from pydantic import ValidationError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from loraft.config.prompt_section import PromptConfig
from loraft.errors import BackboneError, ConfigError
from loraft.models.chat_template import FALLBACK_TEMPLATE, ChatTemplate, Frame

CHATML = "{% for m in messages %}<|start_header_id|>{{ m['role'] }}\n{{ m['content'] }}<|eot_id|>{% endfor %}"
DATE = "26 Jul 2024"


def with_template(template: str | dict[str, str] | None) -> PreTrainedTokenizerBase:
    """The bundled tokenizer with another chat template."""
    other = copy.deepcopy(tokenizer())
    other.chat_template = template
    return other


def frame(template: str, system: str = "S") -> Frame:
    chat = [{"role": "system", "content": system}, {"role": "user", "content": "câu"}]
    made = ChatTemplate(with_template(template), DATE)
    assert not made.fit(system=bool(system), role="system" if system else "user")
    return made.frame(chat[not system :])


def test_the_chat_is_split_at_the_special_tokens_around_the_user_message() -> None:
    found = frame(CHATML + "{% if add_generation_prompt %}<|start_header_id|>assistant\n{% endif %}")
    assert found == Frame(
        head="<|start_header_id|>system\nS<|eot_id|><|start_header_id|>",
        before="user\n",
        after="",
        tail="<|eot_id|><|start_header_id|>assistant\n",
    )


def test_text_after_the_message_is_split_from_the_next_special_token() -> None:
    found = frame("{{ messages[-1]['content'] }} hết .<|eot_id|>xong<|eot_id|>", system="")
    assert found == Frame(head="", before="", after=" hết .", tail="<|eot_id|>xong<|eot_id|>")


def test_a_template_without_special_tokens_is_all_ordinary_text() -> None:
    assert frame("Hỏi: {{ messages[-1]['content'] }} Đáp:", system="") == Frame("", "Hỏi: ", " Đáp:", "")


@pytest.mark.parametrize(
    "template", ["{{ messages[0]['content'] }}", "{% for i in [1, 2] %}" + CHATML + "{% endfor %}"]
)
def test_a_template_that_does_not_print_the_user_message_once_is_refused(template: str) -> None:
    with pytest.raises(BackboneError, match="does not print the user message"):
        frame(template)


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{{ messages + 1 }}", "{{ raise_exception('không') }}"])
def test_a_template_that_fails_is_refused_whatever_it_raises(template: str) -> None:
    with pytest.raises(BackboneError, match="refuses the chat"):
        frame(template)


def test_a_template_that_asks_the_clock_is_told_the_pinned_date() -> None:
    asking = ChatTemplate(with_template("{{ strftime_now('%Y-%m-%d') }} " + CHATML), DATE)
    assert asking.render([{"role": "user", "content": "ổn"}]).startswith("26 Jul 2024 <|start_header_id|>user\nổn")


def test_the_hash_is_that_of_the_template_alone() -> None:
    template = "{{ strftime_now('%Y') }} " + CHATML
    hashes = [ChatTemplate(with_template(template), date).hash for date in (DATE, "01 Jan 2030")]
    assert hashes == [hashlib.sha256(template.encode()).hexdigest()] * 2


def test_a_tokenizer_without_a_template_gets_that_of_llama() -> None:
    # The bundled tokenizer's own template is the layout of Llama 3.2.
    fallback = ChatTemplate(with_template(None), DATE)
    assert fallback.hash == hashlib.sha256(FALLBACK_TEMPLATE.encode()).hexdigest()
    user, system = {"role": "user", "content": " ổn\n"}, {"role": "system", "content": "\nHệ thống "}
    for chat in ([user], [system, user]):
        for whole in (True, False):
            expected = ChatTemplate(tokenizer(), DATE).render(chat, add_generation_prompt=whole)
            assert fallback.render(chat, add_generation_prompt=whole) == expected


NAMED = {"default": CHATML, "tool_use": "{{ 'T' }}" + CHATML}


def test_one_of_several_templates_is_taken_by_name(tmp_path: Path) -> None:
    # transformers reads chat_template: [{"name": "default", "template": ...}, ...] of tokenizer_config.json.
    tokenizer().save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    path = tmp_path / "tokenizer_config.json"
    listed = [{"name": name, "template": template} for name, template in NAMED.items()]
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": listed}))
    several = AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "user", "content": "câu"}]
    for name, template in ((None, CHATML), *NAMED.items()):
        made = ChatTemplate(several, DATE, name)
        assert made.hash == hashlib.sha256(template.encode()).hexdigest()
        assert made.render(chat) == ("T" if name == "tool_use" else "") + "<|start_header_id|>user\ncâu<|eot_id|>"
    with pytest.raises(ConfigError, match=r"^prompt\.chat_template: .*got rag.*: default, tool_use; --set"):
        ChatTemplate(several, DATE, "rag")
    with pytest.raises(ConfigError, match=r"no template is the default .*; --set prompt\.chat_template=tool_use$"):
        ChatTemplate(with_template({"tool_use": CHATML}), DATE)


def test_the_text_of_a_template_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "của tôi.jinja"
    file.write_text("Hỏi: " + CHATML, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tool_use").write_text("{{ 'khác' }}", encoding="utf-8")
    section = PromptConfig(chat_template="của tôi.jinja")
    assert PromptConfig(chat_template="tool_use").chat_template == "tool_use"  # of the tokenizer, not the file
    assert PromptConfig(chat_template="./tool_use").chat_template == "{{ 'khác' }}"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PromptConfig(chat_template="~/tool_use").chat_template == "{{ 'khác' }}"
    file.unlink()
    again = PromptConfig.model_validate(section.model_dump())
    made = ChatTemplate(tokenizer(), DATE, again.chat_template)
    assert made.render([{"role": "user", "content": "câu"}]).startswith("Hỏi: <|start")
    with pytest.raises(ConfigError, match=r"no such file \(got \./cũ\.jinja\); write the template there; templates of"):
        ChatTemplate(tokenizer(), DATE, "./cũ.jinja")
    file.write_text("", encoding="utf-8")
    with pytest.raises(ValidationError, match="a file without Jinja"):
        PromptConfig(chat_template=str(file))
    file.write_bytes(b"\xff")
    with pytest.raises(ValidationError, match=r"cannot be read.*UTF-8"):
        PromptConfig(chat_template=str(file))


def test_a_mistake_in_a_template_is_named_with_where_it_stands() -> None:
    broken = "{{ messages[0]['content'] }}\n{% for %}"
    for given, message in (
        (None, r"của em: its template has a mistake in line 2 \(Expected .*\); set prompt\.chat_template"),
        (broken, r"^prompt\.chat_template: the template has a mistake in line 2 \(.*\); mend the file"),
    ):
        own = with_template(CHATML if given else broken)
        own.name_or_path = "của em"
        with pytest.raises(BackboneError, match=message):
            ChatTemplate(own, DATE, given).fit(system=True, role="auto")
    with pytest.raises(BackboneError, match=r"^prompt\.chat_template: the template refuses the chat .*mend the file$"):
        ChatTemplate(tokenizer(), DATE, "{{ 1 / 0 }}").fit(system=True, role="auto")


def test_a_template_may_print_the_type_of_a_message() -> None:
    as_dict = "{'type': '{{ messages[-1]['role'] }}', 'text': '{{ messages[-1]['content'] }}'}"
    assert frame(as_dict, system="").before == "{'type': 'user', 'text': '"
    with pytest.raises(BackboneError, match="does not print the user message"):  # but its parts
        frame("{% if messages[0]['content'] is string %}{% else %}{{ messages[0]['content'] }}{% endif %}", system="")


OPENINGS = {
    "<think>": "</think>", "<reasoning>": "</reasoning>", "<thought>\n": "</thought>", "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]", "◁think▷": "◁/think▷", "<|begin_of_thought|>\n\n": "<|end_of_thought|>",
    "<|START_THINKING|>": "<|END_THINKING|>", "<|inner_prefix|>": "<|inner_suffix|>", "<|think|>": "<|/think|>",
    "<inner_monologue>": "</inner_monologue>", "<cot>": "</cot>", "<ponder>": "</ponder>", "<mull>\n": "</mull>",
    "<|mull_start|>": "<|mull_end|>", "<｜begin▁of▁thinking｜>": "<｜end▁of▁thinking｜>", "<|mull>": "<mull|>",
}  # fmt: skip
USER = [{"role": "user", "content": "câu"}]
ROLE = "<|start_header_id|>assistant\n"


def prompt_of(template: str, chat: list[dict[str, str]] = USER) -> str:
    """What is rendered after the user's message."""
    return ChatTemplate(with_template(template), DATE).render(chat).rpartition("<|eot_id|>")[2]


def begun(prompt: str, before: str = "", seen: str = "") -> str:
    """A template that begins an answer with `prompt`, prints `before` before that of a whole chat, and names `seen`."""
    answered = "{% if m.role == 'assistant' %}" + before + "{% endif %}{{ m.content }}"
    whole = CHATML.replace("{{ m['content'] }}", answered)
    return whole + "{% if add_generation_prompt %}" + ROLE + prompt + "{% endif %}{# " + seen + " #}"


@pytest.mark.parametrize("opening", OPENINGS)
def test_an_open_block_of_thoughts_is_closed(opening: str) -> None:
    closing = OPENINGS[opening]
    made = ChatTemplate(with_template(begun(opening, seen=closing)), DATE)
    assert made.render(USER).endswith(f"câu<|eot_id|>{ROLE}{opening.strip()}\n\n{closing}\n\n")
    assert made.render(USER, add_generation_prompt=False).endswith("câu<|eot_id|>")
    for closed in (opening + closing, opening + "\n" + closing + "\n"):
        assert prompt_of(begun(closed, seen=closing)) == ROLE + closed
    # The whole chat knows better: it closes the block in its own layout.
    closed = opening.strip() + closing
    assert prompt_of(begun(opening, before=closed)) == ROLE + closed
    # An answer that stands right behind it is no thought, but for a name that says so.
    found = prompt_of(begun(opening, before=opening, seen=closing))
    assert found == ROLE + (opening if "mull" in opening else f"{opening.strip()}\n\n{closing}\n\n")


def test_a_block_of_thoughts_around_the_answer_is_closed_or_refused() -> None:
    assert prompt_of(begun("<think>\n", before="<think>\n")) == f"{ROLE}<think>\n\n</think>\n\n"
    for opening in ("[THINK]", "<|channel|>analysis<|message|>"):
        with pytest.raises(BackboneError, match="opens a block of thoughts, and nothing says how it ends"):
            prompt_of(begun(opening, before=opening))


def test_what_follows_the_message_may_not_depend_on_it() -> None:
    template = CHATML + "{% if add_generation_prompt and 'câu' in messages[-1].content %}" + ROLE + "<think>{% endif %}"
    with pytest.raises(BackboneError, match=r"prints something else after a message with another text .*<think>'"):
        prompt_of(template)


def test_a_block_that_nothing_closes_is_left_out_as_before_the_answer_of_a_whole_chat() -> None:
    # gpt-oss, whose prompt would end in "assistant"; Gemma 4; and tokens without a counterpart.
    harmony = (
        "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}"
        "<|message|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant"
    )
    for given, expected in (
        ("", ""),
        ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
        *[("<|channel|>final<|message|>",) * 2],
    ):
        made = ChatTemplate(with_template(harmony + given + "{% endif %}"), DATE)
        assert made.render(USER).endswith("câu<|end|><|start|>assistant" + expected)
    for given in ("<|channel>thought\n", "<|begin_of_thought|>", "[THINK]", "<unused94>thought\n"):
        assert prompt_of(begun(given)) == ROLE
        silent = "{% for m in messages if m.role == 'user' %}" + begun(given).partition("%}")[2]
        with pytest.raises(BackboneError, match=r"nothing says how it ends .*prompt\.template_kwargs"):
            prompt_of(silent)


CLOSED = (
    "<nothink>", "<|no_think|>", "<|think_end|>", "<｜end▁of▁thinking｜>", "<|end_of_thought|>", "</think>", "[/THINK]",
    "◁/think▷", "<|channel>thought\n<channel|>", "<think>\n\n</think>\n\n", "<|START_THINKING|><|END_THINKING|>",
    "<|thinking_off|>", "<|inner_suffix|>", "<think>no reasoning</think>", "<think>reasoning</think>",
)  # fmt: skip


@pytest.mark.parametrize(
    "end", [*CLOSED, "<assistant>", "<|start_header_id|>", "<|START_RESPONSE|>", "<|im_start|>", "<answer>", "Đáp:"]
)
def test_a_closed_block_and_the_name_of_a_role_are_no_open_block(end: str) -> None:
    seen = "</think> </assistant> <|END_RESPONSE|> </answer> <|/think_end|> <|/no_think|> </nothink> <|im_end|>"
    for template in (begun(end, seen=seen), begun(end, before=end, seen=seen), CHATML + ROLE + end + "{# #}"):
        assert prompt_of(template) == ROLE + end


def test_a_tag_at_the_end_of_the_users_message_opens_nothing() -> None:
    made = ChatTemplate(with_template("{{ messages[-1]['content'] }}"), DATE)
    assert made.render([{"role": "user", "content": "câu <think>"}]) == "câu <think>"
