"""Which of preset, file, --set and flags wins, what a task fills in, and all mistakes in one message."""

import re
from pathlib import Path
from typing import Any

import pytest

from loraft.config.resolve import SHIPPED, TASK_KEYS, WORKED_EXAMPLE, load_config, resolve
from loraft.config.yaml_io import dump_config
from loraft.errors import ConfigError

TASK = """
labels: [khen, chê]
label_words: [tích cực, tiêu cực]
system: Bạn là trợ lý.
template: "Câu này tích cực hay tiêu cực? {input}"
few_shot_template: "{few_shot_examples}Câu này tích cực hay tiêu cực? {input}"
example_template: "{input} là {label}\\n"
answer_prefix: "Ý: "
"""


def mistakes(**given: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(**given)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def file(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# --- precedence -------------------------------------------------------------------------------------------------------


def test_flags_and_set_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    mine = file(tmp_path, "lora: {r: 4, lora_alpha: 8, lora_dropout: 0.2}\ntrain: {learning_rate: 1.0e-3}")
    config = resolve(
        preset="tutorial", config_file=mine, overrides=["lora.lora_alpha=64"], flags={"lora.r": "2", "seed": None}
    )
    assert (config.lora.r, config.lora.lora_alpha, config.lora.lora_dropout) == (2, 64, 0.2)
    assert (config.train.learning_rate, config.train.max_steps) == (1e-3, 5000)
    assert config.preset == "tutorial"


@pytest.mark.parametrize("given", ["#", "|", "\t", ";", '"|"', r'"\t"'])
def test_a_delimiter_is_text_although_yaml_reads_it_otherwise(given: str) -> None:
    expected = {'"|"': "|", r'"\t"': "\t"}.get(given, given)
    assert resolve(overrides=[f"data.delimiter={given}"]).data.delimiter == expected


def test_the_preset_comes_from_the_flag_else_the_file_else_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tutorial = file(tmp_path, "preset: tutorial")
    assert resolve(config_file=tutorial).lora.r == 8
    assert resolve(config_file=tutorial, preset="quickstart").lora.r == 16
    monkeypatch.setenv("LORAFT_PRESET", "tutorial")
    assert resolve().preset == "tutorial"
    assert resolve(preset="quickstart").preset == "quickstart"
    monkeypatch.setenv("LORAFT_PRESET", "")
    assert resolve().preset == "quickstart"


def test_a_grid_is_replaced_not_merged(tmp_path: Path) -> None:
    mine = file(tmp_path, "sweep: {grid: {lora.r: [1, 2]}}")
    config = resolve(config_file=mine, overrides=["sweep.grid={train.learning_rate: [1e-4, 0.001]}"])
    assert config.sweep.grid == {"train.learning_rate": [0.0001, 0.001]}


def test_an_empty_file_or_section_changes_nothing(tmp_path: Path) -> None:
    assert resolve(config_file=file(tmp_path, "")) == resolve()
    assert resolve(config_file=file(tmp_path, "\ufefflora:\n")) == resolve()


@pytest.mark.parametrize(("key", "revision"), [("data.source", "data.revision"), ("model.name", "model.revision")])
def test_a_revision_does_not_outlive_the_name_it_belongs_to(key: str, revision: str, tmp_path: Path) -> None:
    section, name = key.split(".")
    mine = file(tmp_path, f"{section}: {{{name}: một/kho, revision: v1}}")
    assert resolve(config_file=mine).model_dump()[section]["revision"] == "v1"
    assert resolve(config_file=mine, flags={key: "một/kho"}).model_dump()[section]["revision"] == "v1"
    assert resolve(config_file=mine, flags={key: "khác"}).model_dump()[section]["revision"] is None
    both = resolve(config_file=mine, flags={key: "khác"}, overrides=[f"{revision}=v2"])
    assert both.model_dump()[section]["revision"] == "v2"


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_all_mistakes_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFT_PRESET", "tutoral")
    mine = file(tmp_path, "lora: {rank: 8, lora_dropout: 1.5}\nmodle: {name: x}\nprompt: {task: sentimnt}")
    found = mistakes(
        config_file=mine,
        overrides=["train.learnin_rate=1e-4", "junk", "eval.decode=[", "train.max_steps=many"],
        flags={"quant.method": "int8"},
    )
    assert [line.split(":")[0] for line in found] == [
        "--set", "eval.decode", "preset", "prompt.task", "quant.method", "lora.lora_dropout", "lora.rank",
        "train.max_steps", "train.learnin_rate", "modle",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora.rank=8", r"lora.rank: unknown key \(got 8, from --set\); did you mean lora.r\?"),
        ("lr=1e-4", r"lr: unknown key \(got 1e-4, from --set\); did you mean train.learning_rate\?"),
        ("learning_rate=1", r"learning_rate: unknown key .*; did you mean train.learning_rate\?"),
        ("train.r=8", r"train.r: unknown key .*; did you mean lora.r\?"),
        ("lora.target_module=x", r"lora.target_module: unknown key .*; did you mean lora.target_modules\?"),
        ("quantt.method=nf4", r"quantt: unknown key; did you mean quant\?"),
        ("xyzzy=1", r"xyzzy: unknown key .*; `loraft config` shows the known keys"),
        ("lora.r=0", r"lora.r: not allowed \(got 0, from --set\); should be greater than or equal to 1"),
        ("lora.r=0.5", r"lora.r: not allowed \(got 0.5, .*integer.*"),
        ("seed=true", r"seed: is a boolean \(got True, from --set\); .*put such a word in quotes"),
        ("train.shared_prefix=false", r"train.shared_prefix: not allowed \(got False, .*\); should be 'auto' or 'off'"),
        ("quant.method=int8", r"quant.method: not allowed \(got 'int8', from --set\); should be 'none' or 'nf4'"),
        ("lora.target_modules=null", r"lora.target_modules: .*should be a valid string or .*valid list"),
        ("sweep.ranks=[1, 0]", r"sweep.ranks\[1\]: not allowed \(got 0, .*"),
        ("lora=8", r"lora: is a section, not a value \(got 8, from --set\); set a key in it, for example lora.r"),
        ("model.name=", r"model.name: not allowed \(got None, from --set\); should be a valid string"),
        ("preset=tutoral", r"preset: unknown preset \(got 'tutoral', from --set\); did you mean tutorial\?.*"),
        (
            "prompt.task=topics",
            r"prompt.task: no such task .*; did you mean topic\? allowed: app-reviews, .*",
        ),
        ("prompt.task=[a]", r"prompt.task: is a list \(got \['a'\], .*put such a text in quotes"),
        (
            "prompt.template=Câu: {input}",
            r"prompt.template: is a mapping \(got {'Câu': {'input': None}}, .*reads unquoted `a: b` .* text in quotes",
        ),
        ("prompt.labels=[a: b, c]", r"prompt.labels: holds a mapping \(got \[{'a': 'b'}, 'c'\], .* text in quotes"),
        ("prompt.labels=[null, x]", r"prompt.labels: holds null \(got \[None, 'x'\], .* word in quotes"),
        ("data={label_column: {a: 08}}", r"data.label_column: is a mapping \(got {'a': 08}, .*"),
        (
            "prompt.labels=[true, false]",
            r"prompt.labels: holds a boolean \(got \[True, False\], .*put such a word in quotes",
        ),
        (
            "prompt.template_kwargs={enable_thinking: no}",
            r"prompt.template_kwargs: enable_thinking: 'no' is text, which .*for true .*; write true or false",
        ),
        (
            "prompt.template_kwargs={a: {b: no}}",
            r"prompt.template_kwargs: not allowed \(got {'b': 'no'}, from --set\); should be a valid boolean or .*",
        ),
        (
            "train.optim=adam",
            r"train.optim: not allowed \(got 'adam', from --set\); should be one of adamw_torch, .* and 1 more",
        ),
        (
            "train.report_to=[tensorbord]",
            r"train.report_to\[0\]: not allowed \(got 'tensorbord', .*; did you mean tensorboard.*",
        ),
        (
            "train={class_weights: balanced, sampling: balanced}",
            r"train: class_weights and sampling both correct the class imbalance; set one of them .*",
        ),
        (
            "name=../x",
            r"name: is not the name of a folder inside output \(got '../x', from --set\); use letters and digits",
        ),
    ],
)
def test_a_mistake_names_key_value_place_and_remedy(override: str, message: str) -> None:
    assert re.fullmatch(message, mistakes(overrides=[override])[0])


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    mine = file(tmp_path, "lora: {r: many}")
    assert f"from {mine}" in mistakes(config_file=mine)[0]


def test_a_value_in_the_place_of_a_section_is_reported_also_under_a_flag() -> None:
    assert mistakes(overrides=["lora=8"], flags={"lora.r": "4"})[0].startswith("lora: is a section")
    assert mistakes(overrides=["lora=8", "lora.r=4"])[0].startswith("lora.r: its section is set to a value")


# --- YAML traps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "'1e-4'"])
def test_every_way_to_write_a_number_is_the_number(text: str) -> None:
    assert resolve(overrides=[f"train.learning_rate={text}"]).train.learning_rate == 1e-4


@pytest.mark.parametrize("labels", ["['yes', 'no']", "[yes, no]"])
def test_words_that_yaml_1_1_takes_for_booleans_are_words(labels: str, tmp_path: Path) -> None:
    config = resolve(overrides=[f"prompt.labels={labels}", "prompt.template='yes or no? {input}'"])
    assert config.prompt.labels == config.prompt.label_words == ["yes", "no"]
    assert load_config(file(tmp_path, dump_config(config))) == config


def test_on_and_off_mean_themselves_and_are_still_booleans_where_one_is_asked_for(tmp_path: Path) -> None:
    text = "train: {shared_prefix: off}\nsweep: {joint: on}\nquant: {double_quant: off}\nlora: {use_dora: yes}"
    pairs = ["train.shared_prefix=off", "sweep.joint=on", "quant.double_quant=off", "lora.use_dora=yes"]
    for config in (resolve(config_file=file(tmp_path, text)), resolve(overrides=pairs)):
        assert (config.train.shared_prefix, config.sweep.joint) == ("off", "on")
        assert (config.quant.double_quant, config.lora.use_dora) == (False, True)
        assert load_config(file(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize("word", ["yes", "No", "ON", "off", "'true'", '"false"'])
def test_words_for_booleans_are_refused_where_a_template_would_take_them_for_true(word: str, tmp_path: Path) -> None:
    for given in (
        {"overrides": [f"prompt.template_kwargs={{enable_thinking: {word}}}"]},
        {"config_file": file(tmp_path, f"prompt: {{template_kwargs: {{enable_thinking: {word}}}}}")},
    ):
        with pytest.raises(ConfigError, match=r"prompt\.template_kwargs: enable_thinking: .* is text, .*true or false"):
            resolve(**given)
    kept = resolve(overrides=["prompt.template_kwargs={a: false, b: nonsense, c: 1, d: 0.5}"]).prompt.template_kwargs
    assert list(map(repr, kept.values())) == ["False", "'nonsense'", "1", "0.5"]


@pytest.mark.parametrize("word", ["on", "Off", "yes", "no"])
def test_such_a_word_in_quotes_is_text_for_a_template_that_compares_with_it(word: str, tmp_path: Path) -> None:
    config = resolve(overrides=[f"prompt.template_kwargs={{thinking: '{word}'}}"])
    assert config.prompt.template_kwargs == {"thinking": word}
    assert load_config(file(tmp_path, dump_config(config))) == config


def test_an_equals_sign_and_a_colon_in_a_value_are_text() -> None:
    assert resolve(overrides=["name=a=b"]).name == "a=b"
    assert resolve(overrides=["prompt.system='Ý: '"]).prompt.system == "Ý: "


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_a_task_file_fills_the_prompt(tmp_path: Path) -> None:
    prompt = resolve(flags={"prompt.task": str(file(tmp_path, TASK, "ý-kiến.yaml"))}).prompt
    assert (prompt.labels, prompt.label_words) == (["khen", "chê"], ["tích cực", "tiêu cực"])
    assert prompt.label_column == "ý-kiến"
    assert all(getattr(prompt, key) is not None for key in TASK_KEYS)


def test_what_is_given_wins_over_the_task(tmp_path: Path) -> None:
    path = str(file(tmp_path, TASK + "max_length: 64\ndate_string: hôm nay"))
    prompt = resolve(flags={"prompt.task": path}, overrides=["prompt.system=Chào.", "prompt.max_length=128"]).prompt
    assert (prompt.system, prompt.answer_prefix) == ("Chào.", "Ý: ")
    assert (prompt.max_length, prompt.date_string) == (128, "hôm nay")


def test_a_task_file_is_looked_for_beside_the_config_that_names_it(tmp_path: Path) -> None:
    file(tmp_path, TASK, "opinion.yaml")
    assert resolve(config_file=file(tmp_path, "prompt: {task: opinion.yaml}")).prompt.labels == ["khen", "chê"]


def test_another_task_takes_its_whole_prompt_along(tmp_path: Path) -> None:
    run = file(tmp_path, dump_config(resolve(overrides=["prompt.system=Chào."])))
    assert (
        resolve(config_file=run, flags={"prompt.task": "topic"}).prompt
        == resolve(flags={"prompt.task": "topic"}).prompt
    )
    assert resolve(config_file=run, flags={"prompt.task": "sentiment"}).prompt.system == "Chào."


def test_a_prompt_key_given_without_a_task_stays_with_another_task(tmp_path: Path) -> None:
    mine = file(tmp_path, "prompt: {system: Chào.}")
    prompt = resolve(config_file=mine, flags={"prompt.task": "topic"}).prompt
    assert (prompt.system, prompt.answer_prefix) == ("Chào.", "Topic: ")


def test_a_resolved_config_needs_its_task_file_no_more(tmp_path: Path) -> None:
    task = file(tmp_path, TASK)
    config = resolve(flags={"prompt.task": str(task)})
    task.unlink()
    assert resolve(config_file=file(tmp_path, dump_config(config), "config.yaml")) == config


def test_labels_that_the_tasks_prompt_does_not_offer_are_refused() -> None:
    assert mistakes(overrides=["prompt.labels=[08, 1e3]"])[0].startswith(
        "prompt.template: the prompt of task sentiment does not name every label word (got '08');"
    )
    same = mistakes(overrides=["prompt.labels=[08, 08]"])
    assert any(line.startswith("prompt.labels: must differ ") and "(got [08, 08], from --set)" in line for line in same)
    assert mistakes(overrides=["prompt.labels=[a, b]"]) == [
        "prompt.template: the prompt of task sentiment does not name every label word (got 'a'); set prompt.template"
        f" and prompt.few_shot_template too, or write a task file like {WORKED_EXAMPLE}"
    ]
    # A path from the working folder would exist in a checkout only, none of an installed package.
    assert WORKED_EXAMPLE.is_absolute()
    assert WORKED_EXAMPLE.is_relative_to(SHIPPED)
    assert WORKED_EXAMPLE.is_file()
    assert resolve(overrides=["prompt.labels=[positive, negative]"]).prompt.label_words == ["positive", "negative"]
    # A template of one's own may ask for the words in any way.
    own = ["prompt.labels=[a, b]", "prompt.template='Nhãn của câu {input}?'"]
    assert resolve(overrides=own).prompt.template == "Nhãn của câu {input}?"


def test_a_task_files_mistakes_come_together_with_its_name(tmp_path: Path) -> None:
    path = file(tmp_path, "labels: [khen, khen]\nsytem: x\ntemplate: Câu\nfew_shot_template: x\nanswer_prefix: 'Ý: '")
    found = mistakes(flags={"prompt.task": str(path)}, overrides=["lora.r=0"])
    assert all(line.startswith(f"{path}: ") for line in found[:-1])
    assert found[-1].startswith("lora.r: ")
    keys = [line.removeprefix(f"{path}: ").split(":")[0] for line in found[:-1]]
    assert sorted(keys) == ["few_shot_template", "labels", "sytem", "template"]


def test_a_missing_label_word_is_told_with_the_other_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "tệp.yaml"
    path.write_text("labels: [khen, chê]\nlabel_words: [tốt]\nfoo: 3\ntemplate: x\n", encoding="utf-8")
    with pytest.raises(ConfigError) as found:
        resolve(flags={"prompt.task": str(path)})
    lines = str(found.value).split("\n")
    assert lines[0] == (f"{path}: label_words: 1 label_words for 2 labels (got ['tốt']); give one word for each label")
    assert [line.split(": ")[1] for line in lines] == ["label_words", "template", "foo"]


def test_unquoted_true_and_false_as_a_task_files_labels_are_one_mistake(tmp_path: Path) -> None:
    path = file(tmp_path, TASK.replace("[khen, chê]", "[true, false]").replace("label_words", "#"))
    (found,) = mistakes(flags={"prompt.task": str(path)})
    assert found.startswith(f"{path}: labels: holds a boolean (got [True, False]); YAML reads unquoted true and false")


def test_a_task_needs_labels_only(tmp_path: Path) -> None:
    prompt = resolve(flags={"prompt.task": str(file(tmp_path, "labels: [khen, lỗi, góp ý]"))}).prompt
    assert all(getattr(prompt, key) is not None for key in TASK_KEYS)
    assert prompt.answer_prefix == "Loại: "
    assert str(prompt.template).startswith("Hãy xếp loại")
    assert '"khen", "lỗi" hoặc "góp ý"' in str(prompt.few_shot_template)
    assert prompt.id_columns is None
    english = resolve(flags={"prompt.task": str(file(tmp_path, "labels: [bug, wish]"))}).prompt
    assert english.answer_prefix == "Label: "


def test_a_template_that_asks_for_another_begin_than_the_answer_prefix_is_told(tmp_path: Path) -> None:
    template = 'template: |-\n  Bắt đầu bằng "Loại: ", rồi "khen" hoặc "chê".\n  Câu: {input}'
    path = file(tmp_path, f"labels: [khen, chê]\nanswer_prefix: 'Kết quả: '\n{template}")
    found = mistakes(flags={"prompt.task": str(path)})
    assert [line.partition(";")[0] for line in found] == [
        f"prompt.{key}: asks for an answer that begins otherwise than answer_prefix (got 'Loại:' and 'Kết quả: ')"
        for key in ("template", "few_shot_template")
    ]


@pytest.mark.parametrize(
    "end", ["Câu: {input}\n  Loại:", "Bắt đầu bằng «Loại: ».\n  {input}", "Bắt đầu bằng `Loại:`: {input}"]
)
def test_the_begin_of_the_answer_is_what_the_template_asks_for(end: str, tmp_path: Path) -> None:
    path = file(tmp_path, f"labels: [a, b]\ntemplate: |-\n  a hay b?\n  {end}\n")
    assert resolve(flags={"prompt.task": str(path)}).prompt.answer_prefix == "Loại: "
    other = mistakes(flags={"prompt.task": str(path)}, overrides=["prompt.answer_prefix='Ý: '"])
    assert other[0].startswith("prompt.template: asks for an answer that begins otherwise")


def test_label_words_stand_where_the_template_says_and_follow_the_users(tmp_path: Path) -> None:
    own = "labels: [0, 1]\nlabel_words: [chê, khen]\ntemplate: 'Câu này {label_words}? {input}'"
    given: dict[str, Any] = {"flags": {"prompt.task": str(file(tmp_path, own))}}
    prompt = resolve(**given).prompt
    assert (prompt.labels, prompt.template) == (["0", "1"], 'Câu này "chê" or "khen"? {input}')
    assert str(prompt.few_shot_template).startswith('Here are a few examples:\n\n{few_shot_examples}\nCâu này "chê" or')
    more = resolve(**given, overrides=["prompt.labels=[0, 1, 2]"]).prompt
    assert (more.label_words, more.template) == (["0", "1", "2"], 'Câu này "0", "1" or "2"? {input}')
    run = file(tmp_path, dump_config(resolve(**given)), "config.yaml")
    again = resolve(config_file=run, overrides=["prompt.template='Đúng là {label_words}? {input}'"]).prompt
    assert again.template == 'Đúng là "chê" hoặc "khen"? {input}'


def test_the_language_of_the_wording_is_the_templates_before_the_words(tmp_path: Path) -> None:
    path = file(tmp_path, "labels: [chê, khen]\ntemplate: 'Which of {label_words}? {input}'")
    assert resolve(flags={"prompt.task": str(path)}).prompt.answer_prefix == "Label: "


# --- dump and load ----------------------------------------------------------------------------------------------------


def test_resolving_a_resolved_config_is_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve(preset="tutorial", overrides=["lora.r=2"])
    monkeypatch.setenv("LORAFT_PRESET", "quickstart")
    path = file(tmp_path, dump_config(config))
    assert resolve(config_file=path) == load_config(path) == config


def test_loading_a_damaged_config_names_the_file(tmp_path: Path) -> None:
    path = file(tmp_path, "lora: {r: 0}", "config.yaml")
    with pytest.raises(ConfigError, match=re.escape(f"lora.r: not allowed (got 0, from {path})")):
        load_config(path)
