"""Lists of whole numbers with dots, in `--ranks`, `--seeds` and `--shots`."""

import pytest
from helpers.bad_input import refusal

WHOLE = r"not a whole number \(got "
DOTS = r"the dots cannot be expanded \(got "
NONE = r"no progression leads from the first numbers to the last \(got "
CASES = {
    ("--ranks", ""): WHOLE,
    ("--ranks", " "): WHOLE,
    ("--ranks", ","): WHOLE,
    ("--ranks", "1,,2"): rf"{WHOLE}'' in '1,,2'\)",
    ("--ranks", "1,2,"): rf"{WHOLE}'' in '1,2,'\)",
    ("--ranks", ",1"): WHOLE,
    ("--ranks", "1;2"): rf"{WHOLE}'1;2'\)",
    ("--ranks", "1 2"): rf"{WHOLE}'1 2'\)",
    ("--ranks", "4-1"): rf"{WHOLE}'4-1'\)",
    ("--ranks", "1-1000000000"): rf"{WHOLE}'1-1000000000'\)",
    ("--ranks", "1..128"): WHOLE,
    ("--ranks", "1:128"): WHOLE,
    ("--ranks", "[1,2]"): rf"{WHOLE}'\[1'",
    ("--ranks", "1.5,2"): rf"{WHOLE}'1.5'",
    ("--ranks", "1e3"): rf"{WHOLE}'1e3'\)",
    ("--ranks", "0x10"): rf"{WHOLE}'0x10'\)",
    ("--ranks", "1_6"): rf"{WHOLE}'1_6'\)",
    ("--ranks", "１６"): rf"{WHOLE}'１６'\)",
    ("--ranks", "١,٢"): rf"{WHOLE}'١'",
    ("--ranks", "true"): WHOLE,
    ("--ranks", "null"): WHOLE,
    ("--ranks", "..."): DOTS,
    ("--ranks", "1,..."): DOTS,
    ("--ranks", "1,...,128"): DOTS,
    ("--ranks", "...,1,2"): DOTS,
    ("--ranks", "1,2,4,...,"): rf"{WHOLE}''",
    ("--ranks", "1,2,...,4,...,8"): DOTS,
    ("--ranks", "1,1,...,1"): r"the first numbers are equal",
    ("--ranks", "1,2,4,...,100"): NONE,
    ("--ranks", "1,3,...,10"): NONE,
    ("--ranks", "2,1,...,8"): NONE,
    ("--ranks", "1,2,3,...,999999999999999"): NONE,
    ("--ranks", "1,2,...,4"): r"two progressions fit the dots|the same number twice|no progression",
    ("--ranks", "8,8"): r"the same number twice \(got 8",
    ("--ranks", "0"): r"a rank is at least 1 \(got 0\)",
    ("--ranks", "-4,4"): r"a rank is at least 1 \(got -4\)",
    ("--ranks", "4097"): r"--ranks|sweep\.ranks.*equal to 4096",
    ("--ranks", "1000000000000"): r"sweep\.ranks.*equal to 4096",
    ("--ranks", ",".join(map(str, range(1, 1100)))): r"too many numbers \(got 1,099\); at most 1,000",
    ("--ranks", "x" * 3000): WHOLE,
    ("--seeds", "a,b"): rf"--seeds: {WHOLE}'a'",
    ("--seeds", "-1"): r"sweep\.seeds.*equal to 0",
    ("--seeds", "4294967296"): r"sweep\.seeds.*less than 4294967296",
    ("--seeds", "7,7"): r"--seeds: the same number twice",
    ("--seeds", "1,2,...,1000000"): rf"--seeds: {NONE}",
    ("--seeds", "1-5"): rf"--seeds: {WHOLE}'1-5'",
    ("--seeds", ",".join(map(str, range(2000)))): r"--seeds: too many numbers \(got 2,000\)",
    ("--shots", "một"): rf"--shots: {WHOLE}'một'",
    ("--shots", "-1"): r"fewshot\.shots.*equal to 0",
    ("--shots", "1000000000"): r"fewshot\.shots.*equal to 10000",
    ("--shots", "1,2,...,1000"): r"fewshot\.shots.*at most 100 items|--shots",
    ("--shots", "4,4"): r"--shots: the same number twice",
    ("--shots", "1,2,…"): rf"--shots: {DOTS}",
}


@pytest.mark.parametrize(("flag", "text"), CASES, ids=[f"{flag} {text[:20]}" for flag, text in CASES])
def test_numbers_that_make_no_list_are_refused(flag: str, text: str) -> None:
    refusal(["fewshot" if flag == "--shots" else "sweep", f"{flag}={text}"], CASES[flag, text])
