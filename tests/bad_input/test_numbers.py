"""Numbers on the command line that are out of bounds or no numbers."""

import pytest
from helpers.bad_input import refusal

CASES = {
    "rank 0": (["train", "--rank", "0"], r"lora\.r: .*got '0'.*greater than or equal to 1"),
    "rank no number": (["train", "--rank", "mười"], r"lora\.r: .*got 'mười'"),
}


@pytest.mark.parametrize(("arguments", "says"), CASES.values(), ids=CASES)
def test_a_number_out_of_bounds_is_refused_with_its_bound(arguments, says):
    refusal(arguments, says)
