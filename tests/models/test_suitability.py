"""Warnings about a tokenizer that does not suit the sentences: many tokens a word, or a character without spaces."""

import warnings

import pytest

from loraft.models.suitability import warn_of_tokenizer


def told(text: str, tokens: int) -> str:
    """What is said about 20 of this sentence, if each takes so many tokens; empty if nothing is."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_tokenizer("nó", [text] * 20, lambda texts: [[0] * tokens for _ in texts], lambda ids: [text] * len(ids))
    return "".join(str(one.message) for one in caught)


@pytest.mark.parametrize(
    ("text", "count", "unit", "limit"),  # counted by hand
    [
        ("thầy dạy rất dễ hiểu", 5, "word", 3),
        ("선생님이 잘 가르쳐 주십니다", 4, "word", 3),
        ("老师讲课很生动。", 8, "character", 1.5),
        ("とてもわかりやすい、カバー", 13, "character", 1.5),
        ("อาจารย์สอนดีมาก", 13, "character", 1.5),  # of 15 code points two are marks above a letter
    ],
)
def test_tokens_are_counted_by_words_or_by_characters_of_scripts_without_spaces(
    text: str, count: int, unit: str, limit: float
) -> None:
    most = int(limit * count)
    assert told(text, most) == ""
    rate = (most + 1) / count
    assert f"takes {rate:.2f} tokens a {unit} in 20 sentences, more than {limit:.2f}, so it hardly" in told(
        text, most + 1
    )


def test_mixed_sentences_have_the_mean_limit_of_their_words_and_characters() -> None:
    text = "我喜欢 Python và 机器"  # five characters and two words: at most 5 * 1.5 + 2 * 3 = 13.5 tokens
    assert told(text, 13) == ""
    assert "takes 2.00 tokens a character in 20 sentences, more than 1.93" in told(text, 14)


def test_the_number_that_is_printed_is_more_than_the_limit_beside_it() -> None:
    text = " ".join(["từ"] * 1000)
    assert told(text, 3004) == ""  # 3.00
    assert "takes 3.01 tokens a word in 20 sentences, more than 3.00" in told(text, 3006)
