"""Tokenizers of every kind: ids of the whole chat, user text without special tokens, answers as the template's."""

from dataclasses import replace
from functools import lru_cache

import pytest
from helpers.tiny import SENTENCES, encoder
from helpers.tokenizers import CHATML, LLAMA2, ZEPHYR, made
from hypothesis import given, settings
from hypothesis import strategies as st

from loraft.data.prompt import answer, messages
from loraft.engine.layout import common_prefix
from loraft.errors import BackboneError
from loraft.models.encoder import Encoder
from loraft.models.plain_text import ChatTokenizer

KINDS = ["first", "always", "legacy", "unigram first", "unigram always", "wordpiece", "byte-level", "stripping"]
TEMPLATES = {"llama2": LLAMA2, "zephyr": ZEPHYR, "chatml": CHATML}
CASES = [(kind, template) for kind in KINDS for template in TEMPLATES]
WORDS = [
    "<s>",
    "</s>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "[/INST]",
    "<0x0A>",
    "▁",
    "\n",
    " ",
    "đẹp",
    "giảng hay",
    "s>",
]
hostile = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=4)), max_size=6).map("".join)


@lru_cache
def coder(kind: str, template: str) -> Encoder:
    return Encoder(made(kind, TEMPLATES[template]), encoder().task, date_string="", max_length=4096)


def whole(coder: Encoder, text: str, *more: dict[str, str]) -> list[int]:
    """The chat rendered and encoded at once, by transformers alone."""
    chat = messages(coder.task, text)
    chat[-1]["content"] = chat[-1]["content"].strip()
    rendered = coder.tokenizer.apply_chat_template([*chat, *more], tokenize=False, add_generation_prompt=not more)
    return coder.tokenizer(rendered, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(("kind", "template"), CASES)
def test_ids_are_those_of_the_whole_chat(kind: str, template: str) -> None:
    one = coder(kind, template)
    assert [prompt.ids for prompt in one.encode(SENTENCES)] == [whole(one, text) for text in SENTENCES]
    shared = common_prefix([prompt.ids for prompt in one.encode(SENTENCES)])
    assert shared > len(one.encode([""])[0].ids) * 0.6


@pytest.mark.parametrize(("kind", "template"), CASES)
def test_an_answer_has_the_ids_of_the_assistants_message(kind: str, template: str) -> None:
    one = coder(kind, template)
    for label in range(3):
        ids = one.encode([SENTENCES[0]])[0].ids + one.completions_K[label]
        expected = whole(one, SENTENCES[0], {"role": "assistant", "content": answer(one.task, label)})
        assert ids == expected[: len(ids)]
        assert one.tokenizer.convert_ids_to_tokens(ids[-1]) == ("<|im_end|>" if template == "chatml" else "</s>")


@settings(max_examples=12, deadline=None)
@given(hostile, hostile)
@pytest.mark.parametrize(("kind", "template"), CASES)
def test_special_tokens_in_user_text_are_text(kind: str, template: str, text: str, demonstration: str) -> None:
    one = coder(kind, template)
    special = {i for i in one.tokenizer.added_tokens_decoder if i != one.tokenizer.unk_token_id}
    demonstrations = ((demonstration, "positive"),)
    plain, shown = one.encode(["x"])[0].ids, one.encode(["x"], (("x", "positive"),))[0].ids
    for ids, reference in ((one.encode([text])[0].ids, plain), (one.encode([text], demonstrations)[0].ids, shown)):
        assert [i for i in ids if i in special] == [i for i in reference if i in special]
    if not any(word in text for word in WORDS[:5]):
        assert one.encode([text])[0].ids == whole(one, text)


@pytest.mark.parametrize("kind", ["first", "always", "legacy", "byte-level"])
def test_user_text_decodes_to_itself(kind: str) -> None:
    text = "cô dạy </s> hay <|im_end|><|im_start|>x"
    assert text in coder(kind, "chatml").tokenizer.decode(coder(kind, "chatml").encode([text])[0].ids)


def test_a_merge_makes_no_special_token_of_user_text() -> None:
    # SentencePiece files of Llama have pieces and merges for strings that are special tokens, too.
    tokenizer = made("first", LLAMA2)
    core = tokenizer.backend_tokenizer.to_str()
    assert '"</s>"' in core
    (ids,) = ChatTokenizer(tokenizer, LLAMA2).ids(["a</s>"])
    assert tokenizer.eos_token_id not in ids


def test_without_a_chat_template_the_prompt_is_plain_words_and_this_is_said() -> None:
    with pytest.warns(UserWarning, match="has no chat template, so the prompt is plain text"):
        one = Encoder(made("first", None), encoder().task, date_string="", max_length=4096)
    text, task = one.tokenizer.decode(one.encode(["hay"])[0].ids), one.task
    assert text == f"<s>{task.system}\n\n{task.template.replace('{input}', 'hay')}\n"
    answers = [one.tokenizer.decode(one.encode(["hay"])[0].ids + ids) for ids in one.completions_K]
    assert answers == [f"{text}Sentiment: {word}</s>" for word in task.label_words]


def test_a_tokenizer_without_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = made("byte-level", CHATML)
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(BackboneError, match=r"has no tokenizer\.json"):
        Encoder(tokenizer, encoder().task, date_string="", max_length=512)


def test_an_answer_that_would_merge_with_the_prompt_stands_by_itself() -> None:
    trailing = made("byte-level", "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '</s>' }}{% endfor %}"
                    "{% if add_generation_prompt %}assistant: {% endif %}")  # fmt: skip
    one = Encoder(trailing, replace(encoder().task, answer_prefix=""), date_string="", max_length=512)
    end = trailing.eos_token_id
    alone = [trailing(word, add_special_tokens=False)["input_ids"] for word in one.task.label_words]
    assert one.completions_K == [[*ids, end] for ids in alone]
