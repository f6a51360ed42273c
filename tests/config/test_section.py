"""Tests of `loraft.config.section` and of short forms of sections."""

from pathlib import Path

import pytest

from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config, OutputSection
from loraft.errors import ConfigError


@pytest.mark.parametrize("text", ["output: kết quả\n", "output:\n  folder: kết quả\n"])
def test_output_as_text_is_short_for_its_folder(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text + "model: {}\nlora: {}\ndata: {}\nprompt: {}\ntrain: {}\n", encoding="utf-8")
    loaded = load_config(tmp_path / "c.yaml")
    assert loaded.output == OutputSection(folder="kết quả", texts=True) == Config(output="kết quả").output  # type: ignore[arg-type]
    changed = resolve(config_file=tmp_path / "c.yaml", overrides=["output.texts=false"], flags={"output": "2024"})
    assert (changed.output.folder, changed.output.texts) == ("2024", False)
    assert resolve(overrides=["output=007", "output.texts=false"]).output == OutputSection(folder="007", texts=False)


@pytest.mark.parametrize(
    ("key", "name", "what"),
    [
        ("name", "", "is blank"),
        ("name", " \t", "is blank"),
        ("name", "r\x1b[31m8", "holds a control character"),
        ("name", "quét\n", "holds a line break or a tab"),
        ("name", "ề" * 67, "is too long"),
        ("output.folder", "a/" + "b" * 256, "is too long"),
        ("output.folder", "", "is blank"),
        ("data.source", "a\x7fb", "holds a control character"),
        ("data.text_column", "câu\u202e", "holds a control character"),
        ("data.label_column", "  ", "is blank"),
        ("prompt.labels", ["khen", "c\x9bhê"], "holds a control character"),
        ("prompt.label_words", ["khen", "chê\u2066"], "holds a control character"),
        ("name", "\u200b\u2060 ", "holds no character that anybody would see"),
        ("data.label_column", "\u200b", "holds no character that anybody would see"),
        *(("prompt.labels", ["khen", f"chê{mark}"], "holds a control") for mark in "\u061c\u200e\u200f\u2028\u2029"),
        ("prompt.id_columns", [""], "is blank"),
        ("prompt.system", "xin\0chào", r"holds U\+0000"),
        ("prompt.template_kwargs", {"a": "\udfff"}, r"holds U\+DFFF"),
    ],
)
def test_a_name_that_nobody_could_see_or_write_is_refused(key: str, name: object, what: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?m)^{key}(\[\d\])?: {what}.* \(got .*; "):
        resolve(flags={key: name})


def test_names_may_hold_what_people_write() -> None:
    config = resolve(flags={"name": "luận văn/" + "ề" * 66, "data.text_column": "câu\n(ghi rõ)", "output": "a" * 255})
    assert config.data.text_column == "câu\n(ghi rõ)"


@pytest.mark.parametrize("name", ["", "a\x1bb", "t" * 300])
def test_a_task_that_no_file_can_have_is_told_once(name: str) -> None:
    with pytest.raises(ConfigError, match=r"\Aprompt\.task: no such task and no such file \(got [^\n]*\Z"):
        resolve(flags={"prompt.task": name})


def test_output_without_keys_has_the_defaults_in_a_file_and_is_a_mistake_as_a_value(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("output:\n", encoding="utf-8")
    assert resolve(config_file=tmp_path / "c.yaml").output == OutputSection()
    with pytest.raises(ConfigError, match=r"^output\.folder: not allowed \(got None, from --set\)"):
        resolve(overrides=["output=null"])
    (tmp_path / "c.yaml").write_text("output: ' '\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^output\.folder: is blank \(got ' ', from .*c\.yaml\); give a name"):
        resolve(config_file=tmp_path / "c.yaml")
