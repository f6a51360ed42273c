import pytest
from pydantic import ValidationError

from loraft.config import Config, LoraSection, PromptConfig, TrainConfig


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
    assert all("put a word in quotes" in message for message in found.values())


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
    ],
)
def test_the_alpha_policy_is_named(values: dict[str, float], alpha: float, words: str) -> None:
    section = LoraSection(**values)  # type: ignore[arg-type]
    assert (section.alpha, section.alpha_policy) == (alpha, words)


def test_labels_and_words_are_different_and_as_many() -> None:
    found = problems(PromptConfig, labels=["khen", "khen"], label_words=["a", "a"])
    assert set(found) == {"labels", "label_words"}
    assert "labels are 2" in problems(PromptConfig, labels=["khen", "chê"], label_words=["a", "b", "c"])[""]
    assert "at least 2" in problems(PromptConfig, labels=["khen"])["labels"]


def test_templates_hold_each_slot_once() -> None:
    found = problems(
        PromptConfig,
        template="Câu: ",
        few_shot_template="{few_shot_examples} {input} {input}",
        example_template="{input}",
    )
    assert found == {
        "template": "Value error, must hold {input} exactly once",
        "few_shot_template": "Value error, must hold {input} exactly once",
        "example_template": "Value error, must hold {label} exactly once",
    }


def test_no_training_step_at_all_is_refused() -> None:
    assert "at least 1" in problems(TrainConfig, max_steps=0)["max_steps"]
    assert TrainConfig(max_steps=-1).max_steps == -1
