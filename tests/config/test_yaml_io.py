"""Configs written as YAML and read back, and what is refused as YAML."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config
from loraft.config.section import OUTSIDE
from loraft.config.yaml_io import Loader, dump_config, read_mapping, yaml_problem
from loraft.errors import ConfigError

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
NAME = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=12).filter(str.strip)
WORD = NAME.map(str.strip)
POSITIVE = st.floats(min_value=1e-12, max_value=1e6)
CONFIGS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "name": st.none() | NAME.filter(lambda name: not OUTSIDE.search(name)),
        "model": st.fixed_dictionaries({"name": NAME, "revision": st.none() | NAME}),
        "lora": st.fixed_dictionaries(
            {
                "r": st.integers(1, 4096),
                "lora_alpha": POSITIVE,
                "target_modules": st.sampled_from(["default", "all-linear"]) | st.lists(TEXT),
                "use_dora": st.booleans(),
            }
        ),
        "prompt": st.fixed_dictionaries(
            {
                "task": WORD,
                "labels": st.lists(WORD, min_size=2, max_size=4, unique=True),
                "system": TEXT,
                "template": st.builds("{}{{input}}{}".format, TEXT, TEXT),
                "answer_prefix": TEXT,
            }
        ),
        "train": st.fixed_dictionaries(
            {"learning_rate": POSITIVE, "report_to": st.lists(st.sampled_from(["wandb", "mlflow"]))}
        ),
        "sweep": st.fixed_dictionaries(
            {"grid": st.dictionaries(NAME, st.lists(TEXT | st.integers() | st.booleans() | st.none() | POSITIVE))}
        ),
    }
)


def file(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_mapping(path)
    return str(caught.value)


@given(values=CONFIGS)
@settings(max_examples=60, deadline=None)
def test_loading_what_was_dumped_is_the_identity(
    values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = Config.model_validate(values)
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(text := dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert yaml.safe_load(text) == yaml.load(text, Loader=Loader)  # readers of YAML 1.1 and 1.2 agree


@pytest.mark.parametrize(
    "text", ["a\u0085b", "a\u2028b", "a\n\u0085", "\ufeff", "a\tb\n", "\n", " \n", "1e-4", "yes", "true"]
)
def test_text_that_yaml_would_change_survives(text: str, tmp_path: Path) -> None:
    config = Config.model_validate({"prompt": {"system": text}})
    assert load_config(file(tmp_path, dump_config(config))).prompt.system == text


def test_a_dump_is_for_people() -> None:
    lines = "Câu sau tích cực hay tiêu cực?\n\n{input}"
    text = dump_config(Config.model_validate({"prompt": {"system": "Bạn là trợ lý.", "template": lines}}))
    assert "  system: Bạn là trợ lý.\n" in text
    assert "  template: |-\n    Câu sau tích cực hay tiêu cực?\n\n    {input}\n" in text
    keys = [line.partition(":")[0] for line in text.splitlines() if line[0:1].isalpha()]
    assert keys == list(Config.model_fields)  # in the order of the model, not of the alphabet


def test_a_mapping_is_read_as_it_is(tmp_path: Path) -> None:
    text = "\ufefflora: {r: 8, use_dora: true}\nname: chạy\nseed:\n"
    expected = {"lora": {"r": 8, "use_dora": True}, "name": "chạy", "seed": None}
    assert read_mapping(file(tmp_path, text)) == expected


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n"])
def test_an_empty_file_is_an_empty_mapping(text: str, tmp_path: Path) -> None:
    assert read_mapping(file(tmp_path, text)) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora: {r: 1, r: 2}", "not valid YAML (line 1, column 14: the key 'r' twice); correct it there"),
        ("a: 1\nb:\n  c: 1\na: 2", "not valid YAML (line 4, column 1: the key 'a' twice)"),
        ("lora: [", "not valid YAML (line 1, column 8: "),
        ("- lora", "not a mapping (got ['lora']); write `key: value` lines"),
        ("lora", "not a mapping (got 'lora')"),
    ],
)
def test_a_file_that_is_no_config_is_refused_with_the_position(text: str, message: str, tmp_path: Path) -> None:
    path = file(tmp_path, text)
    assert refusal(path).startswith(f"{path}: {message}")


def test_one_key_may_stand_in_two_sections(tmp_path: Path) -> None:
    assert read_mapping(file(tmp_path, "model: {revision: a}\ndata: {revision: b}")) == {
        "model": {"revision": "a"},
        "data": {"revision": "b"},
    }


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory); give a YAML file" in refusal(tmp_path / "không-có.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: café".encode("latin-1"))
    assert refusal(latin) == f"{latin}: not UTF-8 text; save it as UTF-8"


def test_of_words_only_true_and_false_are_booleans() -> None:
    words = ["yes", "No", "on", "OFF", "y", "truely", "2024-07-26", "auto"]
    text = f"[{', '.join(words)}, true, False, TRUE, 'true', 1, 1.5, null]"
    assert yaml.load(text, Loader=Loader) == [*words, True, False, True, "true", 1, 1.5, None]


def test_numbers_are_those_of_yaml_1_2_and_text_that_looks_like_one_survives(tmp_path: Path) -> None:
    # YAML 1.2.2, section 10.3.2; PyYAML alone reads 14, 8, 90, 11400.0, 1000, 3, "0o17", 1e-4 as text ...
    numbers = {
        "016": 16, "-010": -10, "0o17": 15, "0x1F": 31, "+7": 7, "1e-4": 1e-4, "1E5": 1e5, "2.": 2.0, ".5": 0.5,
        "-.inf": float("-inf"),
    }  # fmt: skip
    texts = ["1:30", "190:20:30.5", "1_000", "0b11", "0o8", "1e", "=", "2024-07-26 10:00:00"]
    assert yaml.load(f"[{', '.join(numbers)}]", Loader=Loader) == list(numbers.values())
    assert all(isinstance(yaml.load(text, Loader=Loader), type(one)) for text, one in numbers.items())
    assert [yaml.load(text, Loader=Loader) for text in texts] == texts
    for text in [*numbers, *texts]:
        dumped = dump_config(Config.model_validate({"prompt": {"system": text}}))
        assert load_config(file(tmp_path, dumped)).prompt.system == text
    assert resolve(overrides=["data.text_column=016"]).data.text_column == "016"
    assert resolve(overrides=["lora.r=016"]).lora.r == 16


def test_a_setting_that_is_text_takes_a_number_as_it_is_written(tmp_path: Path) -> None:
    task = "labels: [08, 1e3]\nlabel_column: 2024\nsystem: 0o7\ntemplate: 08 hay 1e3? {input}\nanswer_prefix: 016\n"
    more = "few_shot_template: '{few_shot_examples} 08 hay 1e3? {input}'\nexample_template: '{input} {label}'\n"
    (tmp_path / "8").write_text(task + more, encoding="utf-8")
    prompt = resolve(config_file=file(tmp_path, "lora: {r: 08, target_modules: [0, 1]}\nprompt: {task: 8}")).prompt
    assert (prompt.labels, prompt.label_words, prompt.label_column) == (["08", "1e3"], ["08", "1e3"], "2024")
    assert (prompt.task, prompt.system, prompt.answer_prefix) == ("8", "0o7", "016")
    given = ["lora.r=08", "lora.target_modules=[08]", "prompt.template_kwargs={a: 08, b: 1e3}", "data.label_column=1e3"]
    config = resolve(overrides=given)
    assert (config.lora.r, config.lora.target_modules, config.data.label_column) == (8, ["08"], "1e3")
    assert config.prompt.template_kwargs == {"a": 8, "b": 1000.0}
    assert load_config(file(tmp_path, dump_config(config))) == config


def test_a_problem_without_a_position_is_told_in_one_line() -> None:
    assert yaml_problem(yaml.YAMLError("hỏng\n  ở đây")) == "hỏng ở đây"
    with pytest.raises(yaml.YAMLError) as caught:
        yaml.load("a: 1\nb: {", Loader=Loader)
    assert yaml_problem(caught.value).startswith("line 2, column 5: ")
