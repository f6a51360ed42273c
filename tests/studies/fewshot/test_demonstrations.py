"""Draws of demonstrations: nested, balanced, near, and a function of the seed alone."""

from collections import Counter

import numpy as np
import pytest

from loraft.config.resolve import resolve
from loraft.data.dataset import Split
from loraft.data.records import Example
from loraft.errors import ConfigError, DataError
from loraft.studies.fewshot.demonstrations import draws, nearest

TRAIN = [
    ("thầy dạy rất nhiệt tình", 2), ("cô giảng bài dễ hiểu", 2), ("tài liệu đầy đủ", 2), ("em rất thích môn này", 2),
    ("cô vui tính", 2), ("phòng học nóng quá", 0), ("máy chiếu mờ , cần sửa", 0), ("bài tập nhiều quá", 0),
    ("bình thường", 1), ("tạm được", 1), ("thầy dạy rất nhiệt tình", 2), ("không có ý kiến", 1),
]  # fmt: skip
TEST = [("phòng học nóng", 0), ("thầy dạy rất nhiệt tình", 2), ("😀", 1)]


def split(rows: list[tuple[str, int]], name: str = "train") -> Split:
    return Split(name, tuple(Example(text, label, n) for n, (text, label) in enumerate(rows, start=1)), f"{name}.jsonl")


def make(selection: str = "random", most: int = 8, repeats: int = 4, seed: int = 1, order: str = "shuffled"):
    return draws(
        split(TRAIN), split(TEST, "test"), max_shots=most, repeats=repeats, selection=selection, seed=seed, order=order
    )


def test_with_the_tutorial_n_shots_are_the_first_n_of_one_shuffled_list() -> None:
    section = resolve(preset="tutorial").fewshot
    assert (section.selection, section.order) == ("random", "drawn")
    for draw in make(section.selection, order=section.order):
        (shuffled,) = draw.rows(8)
        assert shuffled.tolist() != sorted(shuffled)
        for n in section.shots:  # `sampled_few_shot_examples[:n]` in its notebook
            assert draw.rows(n).tolist() == [shuffled[:n].tolist()]
    assert any(draw.rows(8)[0, :2].tolist() != draw.rows(2)[0].tolist() for draw in make())  # by default they mix


def test_draws_of_the_nearest_in_their_own_order_would_all_be_the_same() -> None:
    with pytest.raises(ConfigError, match=r"order=drawn .* repeats is 5; set repeats=1 or order=shuffled"):
        resolve(preset="tutorial", overrides=["fewshot.selection=nearest"])
    one = resolve(preset="tutorial", overrides=["fewshot.selection=nearest", "fewshot.repeats=1"]).fewshot
    assert (one.selection, one.repeats) == ("nearest", 1)


@pytest.mark.parametrize("selection", ["random", "balanced", "nearest"])
def test_more_shots_add_sentences_and_keep_the_others_in_their_order(selection: str) -> None:
    for draw in make(selection):
        for k in range(8):
            for fewer, more in zip(draw.rows(k), draw.rows(k + 1), strict=True):
                assert [row for row in more if row in fewer] == fewer.tolist()
                assert len(set(more)) == k + 1


@pytest.mark.parametrize("selection", ["random", "balanced", "nearest"])
def test_a_draw_depends_on_the_seed_and_its_number_and_on_nothing_else(selection: str) -> None:
    def rows(k: int, **changed: int) -> list[list[list[int]]]:
        return [draw.rows(k).tolist() for draw in make(selection, **changed)]

    assert rows(4) == rows(4, most=4)  # other numbers of shots do not change this one
    assert rows(4, repeats=2) == rows(4)[:2]
    assert rows(8) != rows(8, seed=2)
    assert len({str(draw) for draw in rows(8)}) == 4


def test_the_nearest_do_not_depend_on_how_many_are_asked_for_where_many_are_alike() -> None:
    generator = np.random.default_rng(0)
    words = ["thầy", "cô", "bài", "hay", "khó", "dễ", "vui", "mệt"]
    # Bags of three words out of eight, in any order: nearly every similarity occurs many times.
    texts = list(dict.fromkeys(" ".join(generator.permutation(words)[:3]) for _ in range(400)))
    train, test = split([(text, 0) for text in texts]), split([(word, 0) for word in [*words, "không liên quan"]])

    def rows(most: int) -> list[list[int]]:
        (draw,) = draws(train, test, max_shots=most, repeats=1, selection="nearest", seed=0)
        return draw.chosen.tolist()

    whole = rows(40)
    for most in (1, 2, 3, 5, 8, 16):
        assert rows(most) == [row[:most] for row in whole]


def test_balanced_draws_take_the_labels_by_turns() -> None:
    for draw in make("balanced"):
        for k in (3, 6):
            assert set(Counter(TRAIN[i][1] for i in draw.rows(k)[0]).values()) == {k // 3}
        # Three of negative and of neutral; what is left is positive.
        assert Counter(TRAIN[i][1] for i in draw.rows(8)[0]) in (
            {0: 3, 1: 3, 2: 2},
            {0: 3, 1: 2, 2: 3},
            {0: 2, 1: 3, 2: 3},
        )


def test_balanced_draws_go_on_where_a_label_runs_out() -> None:
    rows = [("tốt", 1), ("dở", 0), ("rất dở", 0), ("quá dở", 0)]
    (draw,) = draws(split(rows), split(TEST), max_shots=4, repeats=1, selection="balanced", seed=0)
    assert sorted(draw.rows(4)[0]) == [0, 1, 2, 3]


def test_random_draws_take_labels_as_they_come() -> None:
    counts = Counter(TRAIN[i][1] for draw in make("random", most=1, repeats=300) for i in draw.rows(1)[0])
    distinct = Counter(label for _, label in TRAIN[:10] + TRAIN[11:])
    for label, count in distinct.items():
        assert abs(counts[label] / 300 - count / 11) < 0.1  # 0.1 is over three standard errors


def test_nearest_equals_the_cosine_over_all_pairs_without_copies() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    texts, asked = [text for text, _ in TRAIN[:10]], [text for text, _ in TEST[:2]]
    vectors = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]+", ngram_range=(1, 2)).fit(texts)
    similar = cosine_similarity(vectors.transform(asked), vectors.transform(texts))
    similar[1, 0] = -1  # the copy
    found = nearest(texts, asked, np.arange(10), 1)
    assert found[:, 0].tolist() == similar.argmax(axis=1).tolist() == [5, int(similar[1].argmax())]


def test_a_test_row_never_sees_its_own_sentence_nor_one_sentence_twice() -> None:
    for draw in make("nearest", most=10):
        for rows, (asked, _) in zip(draw.rows(10), TEST, strict=True):
            shown = [TRAIN[i][0] for i in rows]
            assert asked not in shown
            assert len(set(shown)) == 10


@pytest.mark.parametrize("selection", ["random", "balanced", "nearest"])
def test_of_a_repeated_sentence_the_first_row_is_shown(selection: str) -> None:
    assert TRAIN[0] == TRAIN[10]
    most = 10 if selection == "nearest" else 11
    shown = {int(i) for draw in make(selection, most=most) for row in draw.rows(most) for i in row}
    assert shown == set(range(12)) - {10}


def test_shared_draws_have_one_list_and_nearest_one_for_each_test_row() -> None:
    assert [len(make(selection)[0].rows(2)) for selection in ("random", "balanced", "nearest")] == [1, 1, 3]


@pytest.mark.parametrize(("selection", "most", "there"), [("random", 12, 11), ("nearest", 11, 10)])
def test_more_demonstrations_than_sentences_are_refused(selection: str, most: int, there: int) -> None:
    with pytest.raises(DataError, match=rf"fewshot.shots.*\(got {most}\); train.jsonl has {there} different"):
        make(selection, most=most)


def test_without_demonstrations_there_is_an_empty_list() -> None:
    for selection in ("random", "balanced", "nearest"):
        assert make(selection, most=0)[0].rows(0).shape[1] == 0
