"""One path from text to ids: the chat as a whole, user text without special tokens, the sentence alone cut."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import regex
from helpers.tiny import SENTENCES, encoder, tokenizer
from helpers.tokenizers import made
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import tokenization_utils_base

from loraft.data.prompt import Task, answer, messages
from loraft.errors import BackboneError, ConfigError, DataError
from loraft.models.encoder import KEPT_CALLS, PROBE, Encoder
from loraft.models.prompts import Prompt, Shown, warn_of_cuts
from loraft.models.shortening import MARK

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


def sentence_in(found: Encoder, prompt: Prompt) -> str:
    """The sentence of a prompt, as its ids have it."""
    text = found.tokenizer.decode(prompt.ids)
    before, after = (text.rindex("Sentence: ") + len("Sentence: ")), text.rindex("<|eot_id|>")
    return str(text[before:after])


def test_truncation_shortens_only_the_sentence_and_says_by_how_much() -> None:
    long = ("thầy giảng rất hay và dễ hiểu " * 200).strip()
    short = encoder(max_length=160)
    whole, cut = encoder(max_length=4096).encode([long])[0], short.encode([long])[0]
    longest_answer = max(map(len, short.completions_K))
    empty = len(short.encode([""])[0].ids)
    assert (whole.cut, whole.sentence) == (0, len(whole.ids) - empty)
    assert (cut.cut, cut.sentence) == (len(whole.ids) - len(cut.ids), whole.sentence)
    assert 158 - longest_answer <= len(cut.ids) <= 160 - longest_answer
    assert long.startswith(sentence_in(short, cut))
    assert cut.ids == short.encode([sentence_in(short, cut)])[0].ids
    assert tokenizer().decode(cut.ids).endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_a_prompt_that_cannot_fit_is_refused_with_its_length() -> None:
    with pytest.raises(DataError, match=r"18 demonstrations leave 0 tokens .*prompt\.max_length=160"):
        encoder(max_length=160).encode(["ổn"], tuple((sentence, "positive") for sentence in SENTENCES * 3))


PEOPLE, FLAG, DOTS = "👨‍👩‍👧‍👦", "🇻🇳", "q\u0323\u0302"  # seven code points, two, and three: one character each
MANY = f"Thầy giảng đẹp lắm {PEOPLE} ạ {FLAG}{FLAG} ừ {DOTS} <|eot_id|> ngờ nghệch 👍🏽 " * 30


@pytest.mark.parametrize("truncation", ["tail", "head", "middle"])
@pytest.mark.parametrize("kind", ["bundled", "byte-level"])
def test_a_cut_leaves_whole_characters_of_the_part_that_is_kept(kind: str, truncation: str) -> None:
    own = tokenizer() if kind == "bundled" else made("byte-level", CHATML)
    task = replace(encoder().task, system="", template="{input}", truncation=truncation)
    around = Encoder(own, task, date_string="", max_length=4096)
    empty = len(around.encode([""])[0].ids) + max(map(len, around.completions_K))
    whole, clusters = MANY.strip(), regex.findall(r"\X", MANY.strip())
    starts = {"".join(clusters[:n]).rstrip() for n in range(len(clusters))}
    ends = {"".join(clusters[n:]).lstrip() for n in range(len(clusters) + 1)}
    special = set(own.added_tokens_decoder)
    shortened = 0
    for length in range(empty + 9, empty + 90, 20):
        found = Encoder(own, task, date_string="", max_length=length)
        (prompt,) = found.encode([whole])
        text = own.decode([i for i in prompt.ids if i not in special], clean_up_tokenization_spaces=False)
        plain = own.decode([i for i in around.encode(["§"])[0].ids if i not in special])
        before, after = plain.split("§")
        text = text.removeprefix(before).removesuffix(after)
        assert "\ufffd" not in text
        head, mark, tail = (text + " ").partition(MARK) if truncation == "middle" else (text, "", "")
        head, tail = ("", head) if truncation == "head" else (head, tail)
        assert head in starts
        assert tail.rstrip() in ends
        assert bool(mark) == (truncation == "middle")
        assert len(prompt.ids) + max(map(len, found.completions_K)) <= length
        shortened += prompt.cut > 0
    assert shortened == 5  # all of them


def test_demonstrations_share_what_the_prompt_has_for_sentences_and_none_vanishes() -> None:
    long, short = "thầy giảng rất hay và dễ hiểu " * 60, "lớp vui"
    shown = [(long, "positive"), (short, "neutral"), (long + "ạ", "negative")]
    found = limited(replace(encoder().task, system=""), 300)
    pairs, tokens, cut = found.fit(shown)
    assert [word for _, word in pairs] == ["positive", "neutral", "negative"]
    assert pairs[1][0] == short  # short ones stay whole, and leave the longer ones more
    counts = [len(tokenizer()(text, add_special_tokens=False)["input_ids"]) for text, _ in pairs]
    whole = [len(tokenizer()(text, add_special_tokens=False)["input_ids"]) for text, _ in shown]
    assert (tokens, cut) == (sum(whole), sum(whole) - sum(counts))
    for text, count in ((pairs[0][0], counts[0]), (pairs[2][0], counts[2])):
        assert long.startswith(text + " ")  # whole words
        assert abs(count - counts[0]) < 5  # a common limit, up to a word
    empty = len(found.encode([""], [("", word) for _, word in shown])[0].ids) + max(map(len, found.completions_K))
    assert sum(counts) <= (300 - empty) * 3 // 4 < sum(counts) + 8  # a quarter is the sentence's

    assert [found.encode([text], shown)[0] for text in (long, short)] == found.encode([long, short], shown)
    prompts = found.encode([long, short], shown)
    assert [(prompt.shown, prompt.shown_cut) for prompt in prompts] == [(tokens, cut)] * 2
    assert [prompt.cut > 0 for prompt in prompts] == [True, False]
    assert len(prompts[0].ids) + max(map(len, found.completions_K)) in (299, 300)
    texts = [tokenizer().decode(prompt.ids) for prompt in prompts]
    assert texts[0].partition("negative\n")[0] == texts[1].partition("negative\n")[0]  # whatever sentence comes after
    assert found.fit(pairs).pairs == pairs  # they are not cut again
    assert encoder().fit([(short, "positive")]) == Shown(((short, "positive"),), counts[1], 0)


def test_a_prompt_that_fits_is_whole_whatever_share_its_demonstrations_take() -> None:
    shown = tuple((sentence, "positive") for sentence in SENTENCES)
    prompt = encoder().encode(["ổn"], shown)[0]
    needed = len(prompt.ids) + max(map(len, encoder().completions_K))
    found = limited(encoder().task, needed)
    assert found.encode(["ổn", "ổn lắm ạ " * 9], shown)[0].ids == prompt.ids
    assert found.encode(["ổn lắm ạ " * 9], shown)[0].shown_cut > 0


def test_no_library_says_that_a_text_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    own = copy.deepcopy(tokenizer())
    own.model_max_length = 8
    monkeypatch.setattr(tokenization_utils_base.logger, "warning", lambda *said: pytest.fail(str(said)))
    found = Encoder(own, encoder().task, date_string="", max_length=512)
    found.encode(["thầy dạy hay " * 300])
    found.read([found.completions_K[0] * 9])


def test_the_longest_start_that_fits_is_kept() -> None:
    long = "thầy giảng rất hay và dễ hiểu " * 200
    short = encoder(max_length=160)
    kept = len(sentence_in(short, short.encode([long])[0]))
    available = 160 - max(map(len, short.completions_K))
    whole = encoder(max_length=4096)
    assert len(whole.encode([long[:kept].rstrip()])[0].ids) <= available
    assert len(whole.encode([long[: kept + 1 + (long[kept] == " ")]])[0].ids) > available


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
    prompts = [Prompt([1], 10, cut) for cut in (0, 7, 0, 1)]
    with pytest.warns(UserWarning, match=r"2 of 4 test sentences were .*max_length; of all their tokens 20\.0% were"):
        assert warn_of_cuts(prompts, "test") == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_of_cuts(prompts[:1], "test") == 0


def test_the_same_texts_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own = limited(encoder().task, 1024)
    others = [[text + str(number) for text in SENTENCES] for number in range(KEPT_CALLS)]
    first = own.encode(SENTENCES)
    shots = own.encode(SENTENCES, [("lớp vui", "positive")])
    calls: list[int] = []
    middle_ids = own._middle_ids
    monkeypatch.setattr(own, "_middle_ids", lambda pieces: calls.append(len(pieces)) or middle_ids(pieces))
    again = own.encode(list(SENTENCES))
    assert again == first != shots
    assert calls == []
    assert own.encode(SENTENCES, [("lớp vui", "positive")]) == shots
    for texts in others:
        own.encode(texts)
    assert own.encode(SENTENCES) == first  # three calls later it is encoded again
    assert calls == [1 + len(SENTENCES)] * 5  # and what is around a sentence
    assert len(own._encoded) == KEPT_CALLS


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


# Gemma refuses a system message; others leave it out silently.
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
SILENT = "{% for m in messages if m['role'] != 'system' %}" + CHATML.split("%}", 1)[1]
PARTS = CHATML.replace("{{ m['content'] }}", "{% for p in m['content'] %}{{ p['text'] }}{% endfor %}")


@pytest.mark.parametrize("template", [NO_SYSTEM, SILENT])
def test_without_a_system_role_the_system_message_begins_the_user_message(template: str) -> None:
    task = encoder().task
    with pytest.raises(BackboneError, match=r"system.*prompt\.system_role=user"):
        template_encoder(template, replace(task, system_role="system"))
    found, demonstrations = template_encoder(template), (("hay", "positive"),)
    for shown in ((), demonstrations):
        message = found.tokenizer.decode(found.encode(["ổn"], shown)[0].ids)
        assert message.startswith(f"<|start_header_id|>user\n{task.system}\n\nPredict the sentiment")
        assert message.endswith("Sentence: ổn<|eot_id|>")
    assert found.prompt_hash != template_encoder(template, replace(task, system="")).prompt_hash
    assert template_encoder(CHATML, replace(task, system_role="user")).encode(["ổn"]) == found.encode(["ổn"])


@pytest.mark.parametrize("template", [PARTS, NO_SYSTEM.replace(CHATML, PARTS)])
def test_a_template_over_content_parts_prints_the_same_prompt(template: str) -> None:
    plain = template_encoder(CHATML if template == PARTS else NO_SYSTEM)
    found = template_encoder(template)
    assert (found.encode(SENTENCES), found.completions_K) == (plain.encode(SENTENCES), plain.completions_K)


ASSISTANT = "<|start_header_id|>assistant\n"
THINKING = CHATML + ("{% if add_generation_prompt %}" + ASSISTANT + "{% if not quick %}<think>\n{% endif %}{% endif %}")


def test_an_open_block_of_thoughts_is_closed_before_the_answer() -> None:
    found = template_encoder(THINKING)
    text = tokenizer().decode(found.encode(["ổn"])[0].ids + found.completions_K[2])
    assert text.endswith(f"ổn<|eot_id|>{ASSISTANT}<think>\n\n</think>\n\nSentiment: positive<|eot_id|>")


def test_arguments_of_the_template_reach_it_and_unknown_ones_are_refused() -> None:
    found = template_encoder(THINKING, replace(encoder().task, template_kwargs={"quick": True}))
    assert tokenizer().decode(found.encode(["ổn"])[0].ids).endswith(f"ổn<|eot_id|>{ASSISTANT}")
    for name, said in (("quik", "has no such variable"), ("date_string", "is set by loraft itself")):
        with pytest.raises(ConfigError, match=rf"^prompt\.template_kwargs: .*{said}.*got {name}"):
            template_encoder(THINKING, replace(encoder().task, template_kwargs={name: True}))


def test_thoughts_that_the_template_prints_before_an_answer_belong_to_the_answer() -> None:
    # Qwen3's template begins the last answer with an empty block of thoughts.
    plain = "{% for m in messages %}<|start_header_id|>{{ m['role'] }}\n"
    plain += "{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    plain += "{{ m['content'] }}<|eot_id|>{% endfor %}"
    found = template_encoder(plain + "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}")
    assert tokenizer().decode(found.encode(["ổn"])[0].ids).endswith(ASSISTANT)
    assert tokenizer().decode(found.completions_K[0]) == "<think>\n\n</think>\n\nSentiment: negative<|eot_id|>"


def test_labels_that_the_tokenizer_cannot_tell_apart_are_refused_with_their_tokens() -> None:
    task = encoder().task
    for kind, words, token in (
        ("wordpiece", ("IT", "it", "x"), "'##t'"),
        ("unigram first", ("😀", "好", "xấu"), "<unk>"),
    ):
        with pytest.raises(ConfigError, match="'negative' and 'neutral' are the same") as caught:
            Encoder(made(kind), replace(task, label_words=words), date_string="", max_length=512)
        assert str(caught.value).startswith("prompt.label_words: to the tokenizer of")
        assert token in str(caught.value)
    assert encoder().unscored == 1


def test_the_end_of_turn_is_scored_where_it_is_asked_for() -> None:
    asked = Encoder(tokenizer(), replace(encoder().task, score_end_of_turn=True), date_string="", max_length=512)
    assert asked.unscored == 0
    # Llama 2's end of turn is a space and </s>: two tokens.
    llama2 = Encoder(made("first"), encoder().task, date_string="", max_length=4096)
    assert [made("first").decode(ids[: -llama2.unscored]) for ids in llama2.completions_K] == [
        f"Sentiment: {word}" for word in encoder().task.labels
    ]


def test_an_added_special_token_ends_the_turn_also_without_a_name() -> None:
    # Llama 3.2's base model names <|end_of_text|> only; its template ends turns with <|eot_id|>.
    other = copy.deepcopy(tokenizer())
    end = other.convert_tokens_to_ids("<|eot_id|>")
    for name, token in other.special_tokens_map.items():
        if "<|eot_id|>" in token:
            setattr(other, name, None)
    assert end not in other.all_special_ids
    assert Encoder(other, encoder().task, date_string="", max_length=512).end_of_turn == end


def test_a_tokenizer_that_loses_letters_or_spends_many_tokens_is_called_so_once() -> None:
    texts = [f"{text} ứng dụng" for text in SENTENCES] * 4
    lossy = Encoder(made("wordpiece"), encoder().task, date_string="", max_length=4096)
    with pytest.warns(UserWarning, match=r"loses \d+\.\d% of the characters of 24 sentences \("):
        lossy.encode(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lossy.encode(texts)
        encoder().encode(texts)
    spelling = Encoder(made("byte-level"), encoder().task, date_string="", max_length=4096)
    with pytest.warns(UserWarning, match=r"takes \d\.\d\d tokens a word in 20 sentences"):
        spelling.encode(["ứợẫ ỗựữ"] * 20)  # 3 bytes a letter, none of them merged


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
