"""What each section of the config accepts, and which values it refuses."""

from typing import get_args

import pytest
from pydantic import ValidationError
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.training_args import OptimizerNames

from loraft.config.prompt_section import PromptConfig
from loraft.config.schema import Config, LoraSection, Optimizer, Tracker, TrainConfig


def problems(section: type, **values: object) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        section(**values)
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().lora.r = 8  # type: ignore[misc]


def test_unknown_keys_are_refused_in_every_section() -> None:
    found = problems(Config, lora={"rank": 8}, typo=1)
    assert found == {
        "lora.rank": "Extra inputs are not permitted",
        "typo": "Extra inputs are not permitted",
    }


def test_a_boolean_is_neither_a_number_nor_a_word() -> None:
    # bool is a subclass of int: without the check `lora.r: yes` would be rank 1.
    found = problems(Config, seed=True, lora={"r": True, "lora_alpha": True}, prompt={"system": False})
    assert set(found) == {"seed", "lora.r", "lora.lora_alpha", "prompt.system"}
    assert all("put such a word in quotes" in message for message in found.values())


def test_a_boolean_in_a_list_is_said_once_for_the_list() -> None:
    found = problems(Config, prompt={"labels": [True, False]}, train={"report_to": [True]}, sweep={"ranks": [True]})
    assert set(found) == {"prompt.labels", "train.report_to.0", "sweep.ranks"}
    assert found.pop("train.report_to.0").startswith("Input should be 'azure_ml'")
    assert all("put such a word in quotes" in message for message in found.values())
    assert Config(sweep={"grid": {"lora.use_dora": [True, False]}}).sweep.grid == {"lora.use_dora": [True, False]}


def test_a_boolean_is_a_boolean_where_one_is_asked_for() -> None:
    assert LoraSection(use_rslora=True).use_rslora is True


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    assert "finite" in problems(LoraSection, lora_alpha=value)["lora_alpha"]


@pytest.mark.parametrize(
    ("values", "alpha", "words"),
    [
        ({"r": 8, "lora_alpha": 32}, 32, "fixed, alpha 32"),
        ({"r": 8, "alpha_per_rank": 2}, 16, "proportional, alpha 2 r"),
        ({"r": 8, "use_rslora": True}, 32, "rsLoRA, alpha 32"),
        ({"r": 8, "use_rslora": True, "alpha_per_rank": 0.5}, 4, "rsLoRA, alpha 0.5 r"),
    ],
)
def test_the_alpha_policy_is_named(values: dict[str, float], alpha: float, words: str) -> None:
    section = LoraSection(**values)  # type: ignore[arg-type]
    assert (section.alpha, section.alpha_policy) == (alpha, words)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"r": 3, "init_lora_weights": "orthogonal"}, "needs an even rank, and r is 3"),
        ({"target_parameters": ["experts.up"], "lora_dropout": 0.1}, "does not work with lora_dropout"),
        ({"target_parameters": ["experts.up"], "use_dora": True}, "does not work with use_dora"),
        ({"target_parameters": ["experts.up"], "init_lora_weights": "pissa"}, "does not work with init_lora_weights"),
        ({"target_modules": "(q_proj"}, "is no regular expression"),
    ],
    ids=str,
)
def test_what_peft_would_refuse_later_is_refused_at_once(values: dict[str, object], message: str) -> None:
    assert message in " ".join(problems(LoraSection, **values).values())
    assert LoraSection(r=4, init_lora_weights="orthogonal").r == 4


def test_labels_and_words_are_different_and_as_many() -> None:
    found = problems(PromptConfig, labels=["khen", "khen"], label_words=["a", "a"])
    assert set(found) == {"labels", "label_words"}
    assert (
        "3 label_words for 2 labels"
        in problems(PromptConfig, labels=["khen", "chê"], label_words=["a", "b", "c"])["label_words"]
    )
    same = problems(PromptConfig, labels=["tích cực", "ti\u0301ch c\u01b0\u0323c"])["labels"]
    assert "composed form (NFC); 'tích cực' does not" in same
    assert "at least 2" in problems(PromptConfig, labels=["khen"])["labels"]


@pytest.mark.parametrize("name", ["chê ", " chê", "chê\u00a0"])
def test_labels_and_words_have_no_space_around(name: str) -> None:
    found = problems(PromptConfig, labels=["khen", name], label_words=["khen", name])
    assert set(found) == {"labels", "label_words"}
    assert all(f"{name!r} has spaces around it" in message for message in found.values())
    assert PromptConfig(labels=["khen", "góp ý"]).labels == ["khen", "góp ý"]


def test_templates_hold_each_slot_once() -> None:
    found = problems(
        PromptConfig,
        template="Câu: ",
        few_shot_template="{few_shot_examples} {input} {input}",
        example_template="{input}",
    )
    assert found == {
        "template": "Value error, must contain {input} exactly once",
        "few_shot_template": "Value error, must contain {input} exactly once",
        "example_template": "Value error, must contain {label} exactly once",
    }


def test_no_training_step_at_all_is_refused() -> None:
    assert "at least 1" in problems(TrainConfig, max_steps=0)["max_steps"]
    assert TrainConfig(max_steps=-1).max_steps == -1


def test_optimizers_and_trackers_are_upstreams() -> None:
    assert set(get_args(Optimizer)) <= {name.value for name in OptimizerNames}
    assert set(get_args(Tracker)) == set(INTEGRATION_TO_CALLBACK)
    found = problems(TrainConfig, optim="adamw", report_to=["wandb", "wandbb"])
    assert set(found) == {"optim", "report_to.1"}
    assert "'adamw_torch'" in found["optim"]
    assert "'wandb'" in found["report_to.1"]


def test_balancing_twice_is_refused() -> None:
    assert (
        "both correct the class imbalance" in problems(TrainConfig, class_weights="balanced", sampling="balanced")[""]
    )
    assert TrainConfig(class_weights="balanced").sampling == "natural"
    assert TrainConfig(sampling="balanced").class_weights == "none"


@pytest.mark.parametrize("name", [".", "..", "../ngoài", "a/../../b", "/tmp/x", "a//b", "a/", r"a\..\b", r"C:\x"])
def test_a_name_stays_inside_the_output_folder(name: str) -> None:
    assert "inside output" in problems(Config, name=name)["name"]
    assert Config(name="luận văn/r8").name == "luận văn/r8"
