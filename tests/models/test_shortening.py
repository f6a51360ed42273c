"""Which units of a text are kept, and how many: against loops over all counts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from loraft.models.shortening import FEWEST, MARK, characters, kept, most, shared, words


def test_each_part_can_be_cut_out() -> None:
    units = words("một hai ba bốn năm")
    assert "".join(units) == "một hai ba bốn năm"
    assert [kept(units, 3, part) for part in ("tail", "head")] == ["một hai ba", "ba bốn năm"]
    assert kept(units, 3, "middle") == "một hai … năm"
    assert kept(units, 1, "middle") == "một …"
    assert {kept(units, 0, part) for part in ("tail", "head", "middle")} == {""}


def test_a_character_is_what_a_reader_takes_for_one() -> None:
    assert characters("ổn🇻🇳👨\u200d👩\u200d👧e\u0302\u0301👍🏽") == [
        "ổ", "n", "🇻🇳", "👨\u200d👩\u200d👧", "e\u0302\u0301", "👍🏽"
    ]  # fmt: skip


@given(st.integers(0, 200), st.integers(0, 250), st.integers(0, 250))
def test_the_largest_count_that_fits_is_found_whatever_is_expected(high: int, expected: int, limit: int) -> None:
    asked: list[int] = []
    assert most(high, expected, lambda count: asked.append(count) or count <= limit) == min(high, limit)
    if expected == limit > 0:
        assert max(asked, default=0) <= 2 * limit  # of a long text no more is encoded


def count(text: str) -> int:
    return len(text.split())


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(6, 120))
def test_a_limit_is_the_largest_with_which_all_texts_fit(lengths: list[int], available: int) -> None:
    texts = ["từ " * length for length in lengths]
    short, limit = shared(texts, available, count, "tail")
    if sum(lengths) <= available:
        assert short == texts
        assert limit >= FEWEST  # nothing to refuse
        return
    assert limit == max(n for n in range(41) if sum(min(n, length) for length in lengths) <= available)
    assert [count(text) for text in short] == [min(limit, length) for length in lengths]


def test_something_is_left_of_each_text() -> None:
    texts, limit = shared(["x" * 50, "một hai"], 4, lambda text: len(text), "tail")
    assert (texts, limit) == (["xx", "mộ"], 2)
    assert shared(["x" * 50, "một hai"], 0, lambda text: len(text), "middle")[0] == ["x …", "m …"]
    assert MARK.strip() == "…"
