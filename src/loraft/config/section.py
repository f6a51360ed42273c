"""The base class of all sections of the config."""

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class WrittenInt(int):
    """A whole number of a YAML file, with its text: 08 is a number for `lora.r`, and text for a label."""

    written: str


class WrittenFloat(float):
    """Any other number of a YAML file, with its text."""

    written: str


def text_of(value: Any) -> Any:
    """The text that a number of a YAML file was written as; any other value as it is."""
    return getattr(value, "written", value)


class Section(BaseModel):
    """Base of all sections: frozen, without unknown keys, infinities and NaN; defaults are validated too."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_by_accident(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads unquoted true and false as booleans, which pydantic would turn into the numbers 1 and 0.
        # For a Literal, pydantic's own message is better: it lists the allowed words.
        given = value if isinstance(value, list) else [value]
        if any(isinstance(one, bool) for one in given) and not _takes(_annotation(cls, info), bool, Literal):
            what = "holds a boolean" if isinstance(value, list) else "is a boolean"
            raise ValueError(f"{what}; YAML reads unquoted true and false so: put such a word in quotes")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _text_as_written(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = _annotation(cls, info)
        if _takes(annotation, int, float) or not _takes(annotation, str):
            return value
        return [text_of(one) for one in value] if isinstance(value, list) else text_of(value)


def _annotation(section: type[Section], info: ValidationInfo) -> Any:
    return section.model_fields[str(info.field_name)].annotation


def _takes(annotation: Any, *kinds: Any) -> bool:
    """Whether the annotation or a part of it is one of these types."""
    own = {annotation, get_origin(annotation)} & {*kinds}
    return bool(own) or any(_takes(part, *kinds) for part in get_args(annotation))
