"""The reference of config keys: complete, and the same as what validation takes."""

import pytest
from pydantic import ValidationError

from loraft.config.diagnostics import as_section, known_keys, value_of
from loraft.config.reference import matching, reference, written
from loraft.config.resolve import presets, resolve
from loraft.config.schema import Config
from loraft.errors import ConfigError


def test_every_key_has_a_type_a_default_and_one_line_of_description() -> None:
    assert list(reference()) == known_keys()
    for key in reference().values():
        assert key.type
        assert key.default == value_of(Config(), key.key)
        assert key.description.strip() == key.description != ""
        assert "\n" not in key.description
        assert not key.description.endswith(".")


def test_presets_differ_where_it_says_so() -> None:
    for name in presets():
        config = resolve(preset=name)
        for key in reference().values():
            # a task fills the keys of prompt, and a run is named by its preset
            if not key.key.startswith("prompt.") and key.key != "preset":
                assert value_of(config, key.key) == key.presets.get(name, key.default), (name, key.key)


@pytest.mark.parametrize("key", [key for key in reference() if reference()[key].choices])
def test_every_choice_is_taken_and_no_other(key: str) -> None:
    section, _, leaf = key.partition(".")
    kind = as_section(Config.model_fields[section].annotation)
    assert kind is not None
    for choice in reference()[key].choices:
        assert str(getattr(kind.model_validate({leaf: choice}), leaf)).lower() == choice
    with pytest.raises(ConfigError, match=f"{key}: not allowed"):
        resolve(overrides=[f"{key}=không-có"])


@pytest.mark.parametrize(
    ("key", "bounds", "taken", "refused"),
    [
        ("lora.r", "1 to 4096", [1, 4096], [0, 4097]),
        ("seed", "0 to 4294967295", [0, 2**32 - 1], [-1, 2**32]),
        ("lora.lora_dropout", "0 to below 1", [0, 0.99], [1]),
        ("eval.confidence", "above 0 to below 1", [0.01], [0, 1]),
        ("data.max_train_rows", "1 to 1000000000", [1], [0]),
    ],
)
def test_bounds_are_those_of_the_validation(key: str, bounds: str, taken: list[float], refused: list[float]) -> None:
    assert reference()[key].bounds == bounds
    section, _, leaf = key.rpartition(".")
    for value, right in [*((one, True) for one in taken), *((one, False) for one in refused)]:
        try:
            Config.model_validate({section: {leaf: value}} if section else {leaf: value})
        except ValidationError:
            assert not right, value
        else:
            assert right, value


def test_types_are_words() -> None:
    types = {key: one.type for key, one in reference().items()}
    assert types["lora.r"] == "whole number 1 to 4096"
    assert types["train.learning_rate"] == "number 1e-12 to 1000000 or null"
    assert types["quant.method"] == "none | nf4"
    assert types["lora.use_dora"] == "true | false"
    assert types["fewshot.shots"] == "list of: whole number 0 to 10000"
    assert types["sweep.grid"] == "mapping"


def test_defaults_are_written_as_set_takes_them() -> None:
    assert [written(value) for value in (None, True, 0.05, [1, 2], "tốt")] == ["null", "true", "0.05", "[1, 2]", "tốt"]
    assert reference()["lora.r"].default_words == "16; preset tutorial: 8"


def test_a_filter_is_a_key_or_a_section() -> None:
    assert [one.key for one in matching("lora.r")] == ["lora.r"]
    assert {one.key.partition(".")[0] for one in matching("fewshot")} == {"fewshot"}
    assert len(matching(None)) == len(known_keys())
    with pytest.raises(ConfigError, match=r"--describe: unknown key or section \(got 'rank'\); did you mean lora\.r\?"):
        matching("rank")
