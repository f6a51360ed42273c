"""Modules to adapt: regular expressions that do not compile."""

import pytest
from helpers.bad_input import refusal

NONE = r"lora\.target_modules: is no regular expression \("
CASES = {
    "(": rf"{NONE}missing \)",
    ")": rf"{NONE}unbalanced parenthesis",
    "a[": NONE,
    "[": NONE,
    "*": rf"{NONE}nothing to repeat",
    "+q_proj": rf"{NONE}nothing to repeat",
    "a**": rf"{NONE}multiple repeat",
    "(?P<a>x)(?P<a>y)": rf"{NONE}redefinition of group",
    "(?P=a)": rf"{NONE}unknown group name",
    "(?<=a+)b": rf"{NONE}look-behind requires fixed-width",
    "(?z)": rf"{NONE}unknown extension",
    r"\1": rf"{NONE}invalid group reference",
    r"\q": rf"{NONE}bad escape",
    "a{2,1}": rf"{NONE}min repeat greater than max repeat",
    "a{1,99999999999}": rf"{NONE}the repetition number is too large",
    "[z-a]": rf"{NONE}bad character range",
    "(" * 3000 + ")" * 3000: rf"{NONE}",
    "q_proj, v_proj(": rf"{NONE}",
}


@pytest.mark.parametrize("pattern", CASES, ids=[pattern[:20] for pattern in CASES])
def test_a_regular_expression_that_does_not_compile_is_refused(pattern: str) -> None:
    refusal(["train", "--set", f"lora.target_modules='{pattern}'"], CASES[pattern], r"brackets")
