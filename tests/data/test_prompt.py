"""Prompts equal to the tutorial's, and labels read from answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraft.config.prompt_section import PromptConfig
from loraft.data.prompt import Task, answer, messages, parse_answer, user_parts
from loraft.errors import ConfigError

# The prompts as the tutorial prints them, line by line.
SENTIMENT = PromptConfig(
    task="sentiment",
    labels=["negative", "neutral", "positive"],
    label_column="sentiment",
    system="You are a helpful assistant. You must fulfill the user request.",
    template=(
        "Predict the sentiment of the following input sentence.\n"
        "\n"
        'The response must begin with "Sentiment: ", followed by one of these keywords: "positive", "negative", or'
        ' "neutral", to reflect the sentiment of the input sentence.\n'
        "\n"
        "Sentence: {input}"
    ),
    few_shot_template=(
        "Predict the sentiment of the following input sentence.\n"
        'The response must begin with "Sentiment: ", followed by one of these keywords: "positive", "negative", or'
        ' "neutral", to reflect the sentiment of the input sentence.\n'
        "\n"
        "Here are a few examples:\n"
        "\n"
        "{few_shot_examples}\n"
        "Sentence: {input}"
    ),
    example_template="Sentence: {input}\nSentiment: {label}\n",
    answer_prefix="Sentiment: ",
)
TASK = Task.from_config(SENTIMENT)
ZERO_SHOT_HEAD = SENTIMENT.template.removesuffix("{input}")


def task(**changes):
    return Task.from_config(SENTIMENT.model_copy(update=changes))


def test_zero_shot_chat_is_the_tutorials():
    assert messages(TASK, "thầy dạy rất dễ hiểu .") == [
        {"role": "system", "content": "You are a helpful assistant. You must fulfill the user request."},
        {"role": "user", "content": ZERO_SHOT_HEAD + "thầy dạy rất dễ hiểu ."},
    ]


def test_few_shot_message_is_the_tutorials():
    chat = messages(TASK, "phòng học nóng quá .", [("cô nhiệt tình .", "positive"), ("bài tập nhiều .", "negative")])
    assert chat[1]["content"] == (
        "Predict the sentiment of the following input sentence.\n"
        'The response must begin with "Sentiment: ", followed by one of these keywords: "positive", "negative", or'
        ' "neutral", to reflect the sentiment of the input sentence.\n'
        "\n"
        "Here are a few examples:\n"
        "\n"
        "Sentence: cô nhiệt tình .\n"
        "Sentiment: positive\n"
        "\n"
        "Sentence: bài tập nhiều .\n"
        "Sentiment: negative\n"
        "\n"
        "Sentence: phòng học nóng quá ."
    )


def test_an_empty_system_message_is_left_out():
    assert [message["role"] for message in messages(task(system=""), "tạm được")] == ["user"]


SLOTS = st.sampled_from(["{input}", "{few_shot_examples}", "{label}", "{0}", "{", "}}", r"\1"])
HOSTILE = st.lists(SLOTS | st.text(max_size=5), max_size=6).map("".join)


@given(text=HOSTILE, demonstrations=st.lists(st.tuples(HOSTILE, HOSTILE), max_size=3))
def test_slots_in_a_sentence_are_text(text, demonstrations):
    before, after = user_parts(TASK, demonstrations)
    assert messages(TASK, text, demonstrations)[-1]["content"] == before + text + after
    examples = "\n".join(f"Sentence: {sentence}\nSentiment: {word}\n" for sentence, word in demonstrations)
    head = SENTIMENT.few_shot_template.split("{few_shot_examples}")[0] + examples + "\nSentence: "
    assert (before, after) == ((head if demonstrations else ZERO_SHOT_HEAD), "")


def test_the_sentence_may_stand_before_the_examples():
    before, after = user_parts(task(few_shot_template="Câu: {input}\n{few_shot_examples}Nhãn?"), [("hay", "positive")])
    assert (before, after) == ("Câu: ", "\nSentence: hay\nSentiment: positive\nNhãn?")


@pytest.mark.parametrize("label_id", range(3))
def test_an_answer_parses_back_to_its_label(label_id):
    assert parse_answer(TASK, answer(TASK, label_id)) == label_id


@pytest.mark.parametrize(
    ("generated", "label_id"),
    [
        ("Sentiment: positive", 2),
        ("  Sentiment:neutral \n", 1),
        ("The answer is: Sentiment: negative", 0),
        ("positive", 2),
        ("Sentiment: Positive", None),
        ("Sentiment: positive.", None),
        ("Sentiment: positive: hay", None),
        ("tích cực", None),
        ("", None),
    ],
)
def test_the_label_is_what_stands_after_the_last_colon_to_the_letter(generated, label_id):
    assert parse_answer(TASK, generated) == label_id


def test_label_words_with_a_colon_and_prefixes_without_one_parse_back():
    other = task(labels=["a", "b"], label_words=["giá: cao", "giá: thấp"], answer_prefix="Nhãn là ")
    assert [parse_answer(other, answer(other, k)) for k in range(2)] == [0, 1]
    assert parse_answer(other, "Nhãn là giá") is None


def test_words_are_composed_so_that_they_match_however_typed():
    decomposed = "ti\u0301ch c\u01b0\u0323c"
    other = task(labels=[decomposed, "y"], label_words=[decomposed, "tiêu cực"], answer_prefix="Cảm xúc: ")
    assert other.labels[0] == other.label_words[0] == "tích cực"
    assert parse_answer(other, f"Cảm xúc: {decomposed}") == 0


def test_label_words_default_to_the_labels():
    assert TASK.label_words == ("negative", "neutral", "positive")


@pytest.mark.parametrize("key", ["labels", "system", "template", "few_shot_template", "example_template"])
def test_an_unfilled_text_is_refused_by_its_key(key):
    with pytest.raises(ConfigError, match=rf"^prompt\.{key}: not set"):
        task(**{key: None})


@pytest.mark.parametrize("word", ["", " ", " tốt"])
def test_label_words_that_could_never_be_parsed_are_refused(word):
    with pytest.raises(ConfigError, match=r"prompt\.label_words"):
        task(labels=["a", "b"], label_words=[word, "xấu"])


def test_one_label_makes_no_task() -> None:
    one = SENTIMENT.model_copy(update={"labels": ["positive"]})  # which validates nothing
    with pytest.raises(ConfigError, match=r"prompt\.labels: a classifier needs two labels \(got \['positive'\]\)"):
        Task.from_config(one)
