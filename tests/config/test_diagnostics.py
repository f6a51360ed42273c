"""Validation errors as lines that name the key, the value, where it came from, and what is allowed."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from loraft.config.diagnostics import OTHER_NAMES, as_section, known_keys, mistake, nearest, report, together
from loraft.config.names import show
from loraft.config.prompt_section import PromptConfig
from loraft.config.schema import Config, LoraSection


def lines(values: dict[str, Any], model: type[BaseModel] = Config, origin: str = "a.yaml") -> list[str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return report(caught.value, model, lambda key: origin)


def test_the_known_keys_are_exactly_the_leaves_of_a_dump() -> None:
    dumped = Config().model_dump()
    leaves = [
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in dumped.items()
        for key in (value if isinstance(value, dict) else [name])
    ]
    assert known_keys() == leaves
    assert known_keys(LoraSection) == list(LoraSection.model_fields)


def test_a_section_is_told_from_a_value() -> None:
    assert as_section(Config.model_fields["lora"].annotation) is LoraSection
    assert as_section(Config.model_fields["seed"].annotation) is None
    assert as_section(dict[str, int]) is None


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("r", "did you mean lora.r?"),  # the last part of a known key
        ("train.r", "did you mean lora.r?"),
        ("lora.epochs", "did you mean train.num_train_epochs?"),  # another tool's name
        ("lora.target_module", "did you mean lora.target_modules?"),  # a similar key
        ("eval.learnin_rate", "did you mean train.learning_rate?"),  # a similar last part
        ("xyzzy", ""),
    ],
)
def test_the_most_similar_key_is_suggested(key: str, expected: str) -> None:
    assert nearest(key, known_keys()) == expected


def test_the_right_key_in_a_wrong_section_comes_before_a_similar_one() -> None:
    assert nearest("data.name", ["data.names", "model.name"]) == "did you mean model.name?"


def test_other_tools_names_lead_to_known_keys() -> None:
    assert set(OTHER_NAMES.values()) <= set(known_keys())


def test_a_long_value_is_shortened() -> None:
    assert show("a" * 58) == repr("a" * 58)  # 60 characters with the quotes
    assert show("a" * 59) == "'" + "a" * 55 + "...'"
    assert show(["nhãn"] * 7, 20) == "['nhãn', 'nhãn', ..."


def test_a_line_leaves_out_what_is_not_known() -> None:
    assert mistake("a.b", "is wrong", 5, "--set", "give 6") == "a.b: is wrong (got 5, from --set); give 6"
    assert mistake("a.b", "is wrong", None, "", "") == "a.b: is wrong (got None)"
    assert mistake("a", "is wrong", {"b": 5}, "--set", "give 6") == "a: is wrong; give 6"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lora": {"r": 0}}, "lora.r: not allowed (got 0, from a.yaml); should be greater than or equal to 1"),
        ({"lora": 8}, "lora: is a section, not a value (got 8, from a.yaml); set a key in it, for example lora.r"),
        (
            {"lora.r": 8},
            "lora.r: is a dotted key (got 8, from a.yaml); in a file, write the section and indent the key below it",
        ),
        ({"lroa": {"r": 8}}, "lroa: unknown key; did you mean lora?"),
        ({"xyzzy": 8}, "xyzzy: unknown key (got 8, from a.yaml); `loraft config` shows the known keys"),
        ({"sweep": {"ranks": [1, 0]}}, "sweep.ranks[1]: not allowed (got 0, from a.yaml); should be greater than or "),
        (
            {"lora": {"target_modules": 3}},
            "lora.target_modules: not allowed (got 3, from a.yaml); should be a valid string or should be a valid",
        ),
        (
            {5: 8},
            "5: is a key that is not text (got 5, from a.yaml); YAML reads unquoted true, false and numbers",
        ),
        ({"train": {"max_steps": 0}}, "train.max_steps: would train no step (got 0, from a.yaml); set -1 (then num_"),
    ],
)
def test_each_kind_of_mistake_has_its_line(values: dict[str, Any], expected: str) -> None:
    (found,) = lines(values)
    assert found.startswith(expected)


def test_a_key_with_several_errors_has_one_line_and_each_hint_once() -> None:
    (found,) = lines({"data": {"max_test_rows": "nhiều"}, "seed": 1})
    assert found.count("data.max_test_rows") == 1
    # Keys of a mapping are not part of a dotted key, so both lists have the same errors at the same key.
    (found,) = lines({"sweep": {"grid": {"a": [[]], "b": [[]]}}})
    assert found.startswith("sweep.grid[0]: not allowed (got [], from a.yaml); should be a valid string or ")
    assert found.count("valid string") == 1


def test_an_unknown_origin_is_left_out_and_keys_follow_the_validated_model() -> None:
    found = lines({"labels": ["a", "a"], "sytem": "x"}, PromptConfig, "")
    assert found == [
        "labels: must differ from each other, also in composed form (NFC) (got ['a', 'a']); 'a' does not",
        "sytem: unknown key (got 'x'); did you mean system?",
    ]


def test_a_hint_is_told_once_and_no_line_is_cut_inside_a_value() -> None:
    bad = [mistake(f"train.{key}", "bad", f"{key}; b'", "", "give a number") for key in ("x", "y")]
    assert together(bad).splitlines() == [bad[0], """train.y: bad (got "y; b'")"""]
    plain = ["train.x: bad (got 'a; b')", "train.y: bad (got 'c; b')"]
    assert together(plain) == "\n".join(plain)
    assert together([one.within("cấu hình.yaml") for one in bad]).count("give a number") == 1
