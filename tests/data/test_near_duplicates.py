"""Near-duplicates against the Jaccard index computed pair by pair."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraft.data import near_duplicates as module
from loraft.data.near_duplicates import Overlap, first_unlike, near_duplicates, rows_also_in


def jaccard(one: str, other: str, n: int = 4) -> float:
    """Shared n-grams by all n-grams of two texts in lower case, with single spaces and no punctuation."""
    grams = [{text[i : i + n] for i in range(len(text) - n + 1)} for text in (one, other)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


# Words without punctuation and of more than 4 letters together, so that the definition above needs no exceptions.
SENTENCE = st.lists(st.sampled_from(["thầy", "dạy hay", "rất", "phòng nóng", "không"]), min_size=2, max_size=5).map(
    " ".join
)


@settings(deadline=None, max_examples=40)
@given(left=st.lists(SENTENCE, max_size=6), right=st.lists(SENTENCE, max_size=6))
def test_pairs_are_those_above_the_threshold_by_the_definition(left: list[str], right: list[str]) -> None:
    found = {(pair.left, pair.right): pair.jaccard for pair in near_duplicates(left, right, threshold=0.5)}
    every = {(i, j): jaccard(one, other) for i, one in enumerate(left) for j, other in enumerate(right)}
    assert found == pytest.approx({pair: value for pair, value in every.items() if value > 0.5})


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(SENTENCE, max_size=12), count=st.integers(0, 6))
def test_the_first_unlike_sentences_are_those_of_the_definition(texts: list[str], count: int) -> None:
    chosen: list[int] = []
    for i, text in enumerate(texts):
        if len(chosen) < count and all(jaccard(text, texts[j]) <= 0.5 for j in chosen):
            chosen.append(i)
    assert first_unlike(texts, count, threshold=0.5) == chosen


def test_of_alike_sentences_no_pairs_are_kept() -> None:
    texts = [f"thầy dạy hay và rất nhiệt tình trong giờ học {i}" for i in range(1000)]  # a million pairs
    tracemalloc.start()
    assert first_unlike(texts, 400, threshold=0.5) == [0]
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_pair_at_the_threshold_is_not_above_it() -> None:
    left, right = ["abcdef"], ["abcdeg"]  # n-grams abcd, bcde, cdef and abcd, bcde, cdeg: 2 of 4 are shared
    assert near_duplicates(left, right, threshold=0.5) == []
    assert near_duplicates(left, right, threshold=0.49) == [Overlap(0, 0, 0.5)]


def test_the_length_of_the_n_grams_can_be_chosen() -> None:
    # Pairs of letters: ab, bc, cd, de, ef and ab, bc, cd, de, eg: 4 of 6 are shared.
    (pair,) = near_duplicates(["abcdef"], ["abcdeg"], threshold=0.5, n=2)
    assert pair.jaccard == pytest.approx(4 / 6)


def test_case_punctuation_and_repeated_spaces_do_not_count() -> None:
    assert near_duplicates(["thầy dạy hay"], ["  Thầy, dạy...  HAY!"], threshold=0.9) == [Overlap(0, 0, 1.0)]


def test_a_repeated_n_gram_counts_once() -> None:
    assert near_duplicates(["ha ha ha ha"], ["ha ha ha ha ha ha"], threshold=0.9) == [Overlap(0, 0, 1.0)]


def test_sentences_shorter_than_an_n_gram_are_compared_as_a_whole() -> None:
    assert near_duplicates(["ok", "ổn"], ["OK .", "ko", "ok ok"], threshold=0.8) == [Overlap(0, 0, 1.0)]


def test_sentences_without_letters_are_alike_only_if_equal() -> None:
    assert near_duplicates([":)", "..."], ["...", ":("], threshold=0.8) == [Overlap(1, 0, 1.0)]


def test_indices_are_right_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 2)
    left = [f"câu hỏi số {word}" for word in ("một trăm", "hai nghìn", "ba triệu", "bốn tỉ", "năm vạn")]
    found = near_duplicates(left, left[::-1], threshold=0.99)
    assert [(pair.left, pair.right) for pair in found] == [(0, 4), (1, 3), (2, 2), (3, 1), (4, 0)]


@pytest.mark.parametrize(("left", "right"), [([], ["một câu"]), (["một câu"], []), ([], [])])
def test_an_empty_list_has_no_pairs(left: list[str], right: list[str]) -> None:
    assert near_duplicates(left, right, threshold=0.0) == []


def test_blocks_of_both_sides_find_what_one_block_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [f"thầy dạy hay lớp {n}" for n in range(7)]
    many = [f"thầy dạy hay lớp {n} nhóm {n % 5}" for n in range(23)]
    whole = [near_duplicates(*sides, threshold=0.5) for sides in ((few, many), (many, few), (few, few))]
    monkeypatch.setattr(module, "BLOCK", 2)
    monkeypatch.setattr(module, "CHUNK", 3)
    assert [near_duplicates(*sides, threshold=0.5) for sides in ((few, many), (many, few), (few, few))] == whole
    assert {(pair.right, pair.left, pair.jaccard) for pair in whole[0]} == {
        (pair.left, pair.right, pair.jaccard) for pair in whole[1]
    }


def test_of_equally_similar_rows_the_first_by_its_n_grams_is_named() -> None:
    asked = "aaaabbbbcccc"
    # Each has 8 of its 9 n-grams. The first two lack its first one, the next two its last one.
    others = [asked[1:], asked[1:] + ".", asked[:-1], asked[:-1] + "!"]
    assert rows_also_in(others, [asked], near=True) == ([], [Overlap(0, 2, 8 / 9)])
    assert rows_also_in(others[1::-1], [asked], near=True) == ([], [Overlap(0, 0, 8 / 9)])
