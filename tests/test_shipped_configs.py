"""Every shipped config resolves, starts with the command that launches it, and says what it is meant to say."""

import shlex
from pathlib import Path

import pytest
import yaml

from loraft.config.resolve import TASK_KEYS, WORKED_EXAMPLE, presets, resolve, task_names
from loraft.config.schema import Config
from loraft.data.dataset import load_split

ROOT = Path(__file__).parents[1]
OF_ACCELERATE = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))  # tests/test_distributed.py launches them
SHIPPED = sorted({*(ROOT / "configs").rglob("*.yaml")} - {*OF_ACCELERATE})


def launch_command(path: Path) -> list[str]:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# loraft "), f"{path}: the first line must be the command that launches it"
    return shlex.split(first.removeprefix("# loraft "))


def resolved_by(command: list[str]) -> Config:
    keys = {"--preset": "preset", "--task": "prompt.task", "--data": "data.source"}
    flags: dict[str, str] = {}
    overrides: list[str] = []
    for flag, value in zip(command[1::2], command[2::2], strict=True):
        if flag == "--set":
            overrides.append(value)
        else:
            flags[keys[flag]] = value
    return resolve(preset=flags.pop("preset", None), overrides=overrides, flags=flags)


def test_the_worked_tasks_command_finds_its_three_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = resolved_by(launch_command(ROOT / WORKED_EXAMPLE))
    labels, column = config.prompt.labels or [], config.prompt.label_column or ""
    folder = tmp_path / config.data.source
    folder.mkdir()
    rows = [f"Ứng dụng chạy rất mượt,{labels[0]}", "Cứ mở lên là thoát,1"]
    for split in ("train", "validation", "test"):
        content = "\n".join([f"{config.data.text_column},{column}", *rows])
        (folder / f"{split}.csv").write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for split in ("train", "validation", "test"):
        loaded = load_split(config.data, split, labels=labels, label_column=column)
        assert loaded.labels.tolist() == [0, 1]


def test_the_presets_are_quickstart_and_tutorial() -> None:
    assert list(presets()) == ["quickstart", "tutorial"]
    assert {path.parent for path in presets().values()} == {ROOT / "configs"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_launch_command_resolves(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = launch_command(path)
    assert command[0] == "train"
    assert str(path.relative_to(ROOT)) in command or path.stem in command
    config = resolved_by(command)
    assert all(getattr(config.prompt, key) is not None for key in TASK_KEYS)


@pytest.mark.parametrize(
    "path", [path for path in SHIPPED if path.parent.name == "configs"], ids=lambda path: path.stem
)
def test_every_value_of_a_preset_arrives(path: Path) -> None:
    config = resolve(preset=path.stem).model_dump()
    for section, values in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        assert {key: config[section][key] for key in values} == values


def test_quickstart_is_the_default_and_reaches_no_network() -> None:
    config = resolve()
    assert config == resolve(preset="quickstart")
    assert (config.model.name, config.data.source) == ("loraft-vi-tiny", "feedback")


def test_the_tutorial_is_the_tutorials_recipe() -> None:
    # Expected values: the arguments in the code of the tutorial.
    config = resolve(preset="tutorial")
    assert config.model.name == "meta-llama/Llama-3.2-1B-Instruct"
    assert (config.model.cache_dir, config.data.cache_dir) == ("./cache", "./cache")
    assert config.data.source == "uitnlp/vietnamese_students_feedback"
    assert config.data.revision == "refs/convert/parquet"
    assert (config.data.max_train_rows, config.data.max_eval_rows) == (20_000, 2_000)
    lora = config.lora
    assert (lora.r, lora.alpha, lora.lora_dropout, lora.target_modules) == (8, 32, 0.1, "default")
    assert (lora.use_rslora, lora.use_dora, lora.init_lora_weights) == (False, False, "default")
    train = config.train
    assert (train.per_device_train_batch_size, train.gradient_accumulation_steps) == (4, 1)
    assert (train.max_steps, train.eval_steps, train.save_total_limit, train.logging_steps) == (5000, 500, 2, 10)
    assert (train.learning_rate, train.lr_scheduler_type, train.warmup_steps) == (5e-5, "linear", 0)
    assert (train.weight_decay, train.max_grad_norm, train.report_to) == (0, 1, [])
    assert config.eval.max_new_tokens == 16
    assert config.fewshot.shots == [1, 2, 4, 8]
    assert config.sweep.ranks == [1, 2, 4, 8, 16, 32, 64, 128]


def test_the_tutorials_qlora_is_nested_nf4_with_bf16_products() -> None:
    quant = resolve(preset="tutorial", flags={"quant.method": "nf4"}).quant
    assert (quant.method, quant.double_quant, quant.compute_dtype) == ("nf4", True, "auto")


def test_the_sentiment_prompt_is_the_tutorials_to_the_letter() -> None:
    # Expected strings: the prompts as the tutorial prints them.
    prompt = resolve(flags={"prompt.task": "sentiment"}).prompt
    ask = (
        'The response must begin with "Sentiment: ", followed by one of these keywords: "positive", "negative", or '
        '"neutral", to reflect the sentiment of the input sentence.'
    )
    first = "Predict the sentiment of the following input sentence."
    assert prompt.labels == prompt.label_words == ["negative", "neutral", "positive"]
    assert prompt.label_column == "sentiment"
    assert prompt.system == "You are a helpful assistant. You must fulfill the user request."
    assert prompt.template == f"{first}\n\n{ask}\n\nSentence: {{input}}"
    assert prompt.few_shot_template == (
        f"{first}\n{ask}\n\nHere are a few examples:\n\n{{few_shot_examples}}\nSentence: {{input}}"
    )
    assert prompt.example_template == "Sentence: {input}\nSentiment: {label}\n"
    assert prompt.answer_prefix == "Sentiment: "


def test_the_topic_prompt_is_worded_like_the_sentiment_prompt() -> None:
    sentiment = resolve(flags={"prompt.task": "sentiment"}).prompt
    topic = resolve(flags={"prompt.task": "topic"}).prompt
    words = {
        '"positive", "negative", or "neutral"': '"lecturer", "training program", "facility", or "others"',
        "sentiment": "topic",
        "Sentiment": "Topic",
    }
    for key in ("system", "template", "few_shot_template", "example_template", "answer_prefix", "label_column"):
        expected = getattr(sentiment, key)
        for old, new in words.items():
            expected = expected.replace(old, new)
        assert getattr(topic, key) == expected
    assert topic.labels == ["lecturer", "training program", "facility", "others"]  # UIT-VSFC's ids 0 to 3
    assert task_names() == ["app-reviews", "sentiment", "topic"]


@pytest.mark.parametrize("path", sorted((ROOT / "configs/tasks").glob("*.yaml")))
def test_task_prompts_offer_every_answer(path: Path) -> None:
    prompt = resolve(flags={"prompt.task": str(path)}).prompt
    for word in prompt.label_words or []:
        assert f'"{word}"' in str(prompt.template)
        assert f'"{word}"' in str(prompt.few_shot_template)
