"""NUL and lone surrogates, which no text holds, in every kind of key, by value and by flag."""

import pytest
from helpers.bad_input import refusal

KEYS = ["name", "output", "model.name", "model.revision", "model.cache_dir", "data.source", "data.subset",
        "data.text_column", "data.label_column", "data.train_split", "data.sheet", "data.label_separator",
        "prompt.task", "prompt.system", "prompt.answer_prefix", "prompt.date_string", "prompt.chat_template",
        "prompt.yes_word", "lora.target_modules", "train.metric"]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_nul_and_surrogates_are_refused_in_a_key(key: str) -> None:
    refusal(["config", "--set", f'{key}="a\\0b"'], rf"{key}(\.folder)?: .*(U\+0000|x00)")
    refusal(["config", "--set", f'{key}="a\\ud800"'], rf"{key}(\.folder)?: .*(U\+D800|ud800)")


LISTS = {
    'lora.modules_to_save=["a\\0"]': r"modules_to_save: holds U\+0000",
    'lora.target_parameters=["\\udc80"]': r"target_parameters: holds U\+DC80",
    'prompt.id_columns=["\\0"]': r"id_columns: holds U\+0000",
    'prompt.template_kwargs={"a\\0": 1}': r"template_kwargs: holds U\+0000",
    'prompt.template_kwargs={a: "\\ud800"}': r"template_kwargs: holds U\+D800",
    'data.label_names=[a, "\\0"]': r"label_names: holds U\+0000",
    'sweep.grid={"\\0": [1]}': r"grid: holds U\+0000",
    'sweep.grid={name: ["\\ud800"]}': r"grid: holds U\+D800",
}


@pytest.mark.parametrize("pair", LISTS)
def test_nul_and_surrogates_are_refused_inside_of_lists_and_mappings(pair: str) -> None:
    refusal(["config", "--set", pair], LISTS[pair])


@pytest.mark.parametrize("flag", ["--model", "--data", "--task", "--output"])
def test_bytes_of_the_command_line_that_are_no_utf_8_are_refused(flag: str) -> None:
    refusal(["train", flag, "b\udcff"], r"holds U\+DCFF, which is no letter of a text|no such task")
