"""One path from text to ids: the chat as a whole, user text without special tokens, the sentence alone cut."""

import copy
from dataclasses import replace

import pytest
from helpers.tiny import SENTENCES, encoder, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from loraft.data.prompt import Task, answer, messages
from loraft.engine.layout import common_prefix
from loraft.errors import BackboneError, DataError
from loraft.models.encoder import Encoder

SPECIALS = [str(token) for token in tokenizer().added_tokens_decoder.values()]
hostile = st.lists(
    st.one_of(st.sampled_from([*SPECIALS, "\n\n", "{input}", "Sentiment: positive", "đẹp", " "]), st.text(max_size=8))
).map("".join)


def render(*chat: dict[str, str], **kwargs: bool) -> list[int]:
    text = tokenizer().apply_chat_template(list(chat), tokenize=False, date_string="26 Jul 2024", **kwargs)
    return tokenizer()(text, add_special_tokens=False)["input_ids"]


def test_ids_equal_the_rendered_chat_as_a_whole() -> None:
    task = encoder().task
    for text, prompt in zip(SENTENCES, encoder().encode(SENTENCES), strict=True):
        assert prompt.ids == render(*messages(task, text), add_generation_prompt=True)


def test_prompt_and_completion_equal_the_rendered_answered_chat() -> None:
    task = encoder().task
    for label in range(3):
        assistant = {"role": "assistant", "content": answer(task, label)}
        ids = encoder().encode([SENTENCES[0]])[0].ids + encoder().completion(label)
        assert ids == render(*messages(task, SENTENCES[0]), assistant)


def test_demonstrations_stand_in_the_prompt_word_for_word() -> None:
    demonstrations = (("giảng hay <|eot_id|> .", "positive"), ("chưa rõ .", "negative"))
    text = tokenizer().decode(encoder().encode(["ổn"], demonstrations)[0].ids)
    assert (
        "Sentence: giảng hay <|eot_id|> .\nSentiment: positive\n\nSentence: chưa rõ .\nSentiment: negative\n\n" in text
    )
    assert text.count("Sentence: ") == 3


@settings(max_examples=150, deadline=None)
@given(hostile, hostile)
def test_no_special_id_comes_out_of_user_text(text: str, demonstration: str) -> None:
    special = set(tokenizer().added_tokens_decoder)
    plain = encoder().encode(["x"])[0].ids
    for prompt, reference in (
        (encoder().encode([text])[0], plain),
        (encoder().encode([text], ((demonstration, "positive"),))[0], plain),
    ):
        assert [i for i in prompt.ids if i in special] == [i for i in reference if i in special]


def test_the_end_of_turn_token_ends_every_completion_and_is_not_the_pad_token() -> None:
    end = tokenizer().convert_tokens_to_ids("<|eot_id|>")
    assert [ids[-1] for ids in encoder("topic").completions_K] == [end] * 4
    assert tokenizer().pad_token_id != end


def test_truncation_shortens_only_the_sentence_and_says_by_how_much() -> None:
    long = "thầy giảng rất hay và dễ hiểu " * 200
    short = encoder(max_length=160)
    whole, cut = encoder(max_length=4096).encode([long.strip()])[0], short.encode([long.strip()])[0]
    longest_answer = max(map(len, short.completions_K))
    assert whole.cut == 0
    assert 158 - longest_answer <= len(cut.ids) <= 160 - longest_answer
    kept = long.strip()[: len(long.strip()) - cut.cut].rstrip()
    assert cut.ids == short.encode([kept])[0].ids
    assert tokenizer().decode(cut.ids).endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_a_prompt_that_cannot_fit_is_refused_with_its_length() -> None:
    with pytest.raises(DataError, match=r"prompt\.max_length=160"):
        encoder(max_length=160).encode(["ổn"], tuple((sentence, "positive") for sentence in SENTENCES * 3))


def test_the_date_is_pinned_and_asked_for() -> None:
    other = Encoder(tokenizer(), encoder().task, date_string="01 Jan 2030", max_length=256)
    assert "Today Date: 01 Jan 2030" in tokenizer().decode(other.encode(["ổn"])[0].ids)
    assert "Today Date: 26 Jul 2024" in tokenizer().decode(encoder().encode(["ổn"])[0].ids)


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=5))
def test_common_prefix_equals_brute_force(rows: list[list[int]]) -> None:
    expected = 0
    while rows and all(len(row) > expected for row in rows) and len({row[expected] for row in rows}) == 1:
        expected += 1
    assert common_prefix(rows) == expected


def template_encoder(template: str, task: Task | None = None) -> Encoder:
    """An encoder whose tokenizer has another chat template."""
    other = copy.deepcopy(tokenizer())
    other.chat_template = template
    return Encoder(other, task or encoder().task, date_string="26 Jul 2024", max_length=512)


CHATML = "{% for m in messages %}<|start_header_id|>{{ m['role'] }}\n{{ m['content'] }}<|eot_id|>{% endfor %}"


def test_a_template_that_asks_the_clock_is_told_the_pinned_date() -> None:
    asking = template_encoder("{{ strftime_now('%Y-%m-%d') }} " + CHATML)
    assert tokenizer().decode(asking.encode(["ổn"])[0].ids).startswith("26 Jul 2024 ")


def test_a_template_that_does_not_trim_gets_the_message_without_space_around() -> None:
    task = replace(encoder().task, template="Câu: {input}\n")
    assert tokenizer().decode(template_encoder(CHATML, task).encode(["ổn"])[0].ids).endswith("Câu: ổn<|eot_id|>")


def test_a_template_without_a_system_role_is_refused_with_the_remedy() -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    with pytest.raises(BackboneError, match=r"prompt\.system"):
        template_encoder(refusing)
    assert template_encoder(refusing, replace(encoder().task, system="")).encode(["ổn"])


def test_the_prompt_hash_sees_every_part_of_the_prompt() -> None:
    task = encoder().task
    tasks = [task, *(replace(task, **{key: "Khác {input}"}) for key in ("system", "template", "answer_prefix"))]
    hashes = {Encoder(tokenizer(), each, date_string="26 Jul 2024", max_length=512).prompt_hash for each in tasks}
    hashes.add(Encoder(tokenizer(), task, date_string="01 Jan 2030", max_length=512).prompt_hash)
    assert len(hashes) == 5
