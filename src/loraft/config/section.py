"""The base class of all sections of the config."""

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """Base of all sections: frozen, without unknown keys, infinities and NaN; defaults are validated too."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_by_accident(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads unquoted true and false as booleans, which pydantic would turn into the numbers 1 and 0.
        given = value if isinstance(value, list) else [value]
        if any(isinstance(one, bool) for one in given) and not _takes_booleans(
            cls.model_fields[str(info.field_name)].annotation
        ):
            what = "holds a boolean" if isinstance(value, list) else "is a boolean"
            raise ValueError(f"{what}; YAML reads unquoted true and false so: put such a word in quotes")
        return value


def _takes_booleans(annotation: Any) -> bool:
    # For a Literal, pydantic's own message is better: it lists the allowed words.
    return annotation is bool or get_origin(annotation) is Literal or any(map(_takes_booleans, get_args(annotation)))
