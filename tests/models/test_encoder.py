"""One path from text to ids: the chat as a whole, user text without special tokens, the sentence alone cut."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.tiny import SENTENCES, encoder, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from loraft.data.prompt import Task, answer, messages
from loraft.errors import BackboneError, DataError
from loraft.models.encoder import PROBE, Encoder, Prompt, warn_of_cuts

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
        ids = encoder().encode([SENTENCES[0]])[0].ids + encoder().completions_K[label]
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


def test_the_longest_start_that_fits_is_kept() -> None:
    long = "thầy giảng rất hay và dễ hiểu " * 200
    short = encoder(max_length=160)
    kept = len(long) - short.encode([long])[0].cut
    available = 160 - max(map(len, short.completions_K))
    whole = encoder(max_length=4096)
    assert len(whole.encode([long[:kept].rstrip()])[0].ids) <= available
    assert len(whole.encode([long[: kept + 1].rstrip()])[0].ids) > available


def test_a_prompt_and_its_longest_answer_fit_the_limit_to_the_token() -> None:
    task = replace(encoder().task, label_words=("tốt", "không tốt và cũng không xấu", "xấu"))
    prompt, longest = encoder().encode([SENTENCES[0]])[0].ids, max(map(len, limited(task, 1024).completions_K))
    fitting = limited(task, len(prompt) + longest).encode([SENTENCES[0]])[0]
    assert (fitting.ids, fitting.cut) == (prompt, 0)
    shorter = limited(task, len(prompt) + longest - 1).encode([SENTENCES[0]])[0]
    assert shorter.cut > 0
    assert len(shorter.ids) < len(prompt)


def limited(task: Task, max_length: int) -> Encoder:
    return Encoder(tokenizer(), task, date_string="26 Jul 2024", max_length=max_length)


def test_a_shortened_sentence_ends_with_a_letter() -> None:
    task = replace(encoder().task, template="Câu: {input}|", system="")
    texts = [prompt.ids for length in range(60, 90) for prompt in limited(task, length).encode(["a b c d e f " * 40])]
    assert not any("|" in tokenizer().decode(ids) and " |" in tokenizer().decode(ids) for ids in texts)
    assert all("|" in tokenizer().decode(ids) for ids in texts)


def test_shortened_sentences_are_counted_and_told() -> None:
    prompts = [Prompt([1], cut) for cut in (0, 7, 0, 1)]
    with pytest.warns(UserWarning, match=r"2 of 4 test sentences were shortened to fit prompt\.max_length"):
        assert warn_of_cuts(prompts, "test") == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_of_cuts(prompts[:1], "test") == 0


def test_no_sentences_make_no_prompts() -> None:
    assert encoder().encode([]) == []


def test_a_limit_that_shortens_the_sentence_of_the_check_is_no_error_of_the_backbone() -> None:
    needed = len(encoder().encode([PROBE])[0].ids) + max(map(len, encoder().completions_K))
    assert (
        Encoder(tokenizer(), encoder().task, date_string="26 Jul 2024", max_length=needed - 3).encode([PROBE])[0].cut
        > 0
    )
    with pytest.raises(DataError, match=r"prompt\.max_length=90"):
        Encoder(tokenizer(), encoder().task, date_string="26 Jul 2024", max_length=90)


def test_the_date_is_pinned_and_asked_for() -> None:
    other = Encoder(tokenizer(), encoder().task, date_string="01 Jan 2030", max_length=256)
    assert "Today Date: 01 Jan 2030" in tokenizer().decode(other.encode(["ổn"])[0].ids)
    assert "Today Date: 26 Jul 2024" in tokenizer().decode(encoder().encode(["ổn"])[0].ids)


def template_encoder(template: str, task: Task | None = None) -> Encoder:
    """An encoder whose tokenizer has another chat template."""
    other = copy.deepcopy(tokenizer())
    other.chat_template = template
    return Encoder(other, task or encoder().task, date_string="26 Jul 2024", max_length=512)


CHATML = "{% for m in messages %}<|start_header_id|>{{ m['role'] }}\n{{ m['content'] }}<|eot_id|>{% endfor %}"


def test_a_template_that_does_not_trim_gets_the_message_without_space_around() -> None:
    task = replace(encoder().task, template="Câu: {input}\n")
    assert tokenizer().decode(template_encoder(CHATML, task).encode(["ổn"])[0].ids).endswith("Câu: ổn<|eot_id|>")


def test_a_template_without_a_system_role_is_refused_with_the_remedy() -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    with pytest.raises(BackboneError, match=r"prompt\.system"):
        template_encoder(refusing)
    assert template_encoder(refusing, replace(encoder().task, system="")).encode(["ổn"])


def test_a_tokenizer_for_which_pieces_and_the_whole_differ_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task, other = encoder().task, copy.deepcopy(tokenizer())
    monkeypatch.setattr(type(other), "__call__", doubles_long_texts(type(other).__call__))
    with pytest.raises(BackboneError, match="encoding the chat in pieces differs"):
        Encoder(other, task, date_string="26 Jul 2024", max_length=512)


def doubles_long_texts(encode: Callable[..., dict[str, list[int]]]) -> Callable[..., dict[str, list[int]]]:
    """A tokenizer that encodes a text with "user" and "Sentence" in it, thus the whole chat, in an odd way."""

    def call(self: object, text: str, **kwargs: bool) -> dict[str, list[int]]:
        found = encode(self, text, **kwargs)
        whole = isinstance(text, str) and "user" in text and "Sentence" in text
        return {"input_ids": [*found["input_ids"], 5]} if whole else found

    return call


def test_the_end_of_turn_is_the_templates_and_not_the_end_of_sequence() -> None:
    found = template_encoder(CHATML.replace("<|eot_id|>", "{{ bos_token }}"))
    assert found.end_of_turn == tokenizer().bos_token_id != tokenizer().eos_token_id


def test_without_an_end_of_turn_token_the_end_of_sequence_ends_answers() -> None:
    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    assert template_encoder(plain).end_of_turn == tokenizer().eos_token_id
    other = copy.deepcopy(tokenizer())
    other.chat_template, other.eos_token = plain, None
    with pytest.raises(BackboneError, match="has no end-of-turn or end-of-sequence token"):
        Encoder(other, encoder().task, date_string="26 Jul 2024", max_length=512)


def test_the_prompt_hash_sees_every_part_of_the_prompt() -> None:
    task = encoder().task
    tasks = [task, *(replace(task, **{key: "Khác {input}"}) for key in ("system", "template", "answer_prefix"))]
    hashes = {Encoder(tokenizer(), each, date_string="26 Jul 2024", max_length=512).prompt_hash for each in tasks}
    hashes.add(Encoder(tokenizer(), task, date_string="01 Jan 2030", max_length=512).prompt_hash)
    assert len(hashes) == 5
