"""The base class of all sections of the config."""

import os
import re
import unicodedata
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator

from loraft.config.names import LONGEST
from loraft.visible import visible

UNWRITABLE = re.compile("[\0\ud800-\udfff]")  # NUL and lone surrogates
LONGEST_NAME, LONGEST_PATH = 255, 4096  # bytes in UTF-8 on common file systems
# Names that would leave the output folder; on Windows a backslash divides folders too, and C: is another drive.
OUTSIDE = re.compile(r"\\|^[A-Za-z]:|(^|/)\.{0,2}(/|\Z)")
WINDOWS = os.name == "nt"
# What Windows cannot call a folder: these characters, a dot or a blank at the end, and the names of its devices.
NO_FOLDER = re.compile(r'[<>:"|?*]|[. ](/|\Z)|(^|/)(con|prn|aux|nul|(com|lpt)\d) *(\.[^/]*)?(/|\Z)', re.IGNORECASE)


class WrittenInt(int):
    """A whole number of a YAML file, with its text: 08 is a number for `lora.r`, and text for a label."""

    written: str

    def __repr__(self) -> str:
        return self.written

    __str__ = int.__repr__


class WrittenFloat(float):
    """Any other number of a YAML file, with its text."""

    written: str

    def __repr__(self) -> str:
        return self.written

    __str__ = float.__repr__


class BareWord(str):
    """A word of a YAML file that YAML 1.1 takes for a boolean, without quotes: yes, no, on or off."""


def text_of(value: Any) -> Any:
    """The text that a number of a YAML file was written as; any other value as it is."""
    return getattr(value, "written", value)


def shown(name: str) -> str:
    """The name, if people can see all of it that matters.

    Raises:
        ValueError: it is blank, or holds characters that act on a terminal; what to do stands after a semicolon.
    """
    if not name.strip():
        raise ValueError("is blank; give a name")
    if visible(name) != name:
        raise ValueError("holds a control character, which nobody would see; take it out of the name")
    if all(unicodedata.category(character)[0] in "CZ" for character in name):
        raise ValueError("holds no character that anybody would see; give a name")
    return name


def _one_line(name: str) -> str:
    if re.search(r"[\n\r\t]", name):
        raise ValueError("holds a line break or a tab; take it out of the name")
    return name


def _inside_output(name: str) -> str:
    if OUTSIDE.search(name):
        raise ValueError("is not the name of a folder inside output; use letters and digits")
    if WINDOWS and NO_FOLDER.search(name):
        raise ValueError("is not the name of a folder on Windows; use letters, digits and -")
    return name


def _at_most(longest: int) -> AfterValidator:
    def short(name: str) -> str:
        lengths = [len(part.encode(errors="replace")) for part in (name, *name.split("/"))]
        if lengths[0] > LONGEST_PATH or max(lengths[1:]) > longest:
            raise ValueError(f'is too long; at most {longest} bytes a name and {LONGEST_PATH:,} a path, "ữ" takes 3')
        return name

    return AfterValidator(short)


ColumnName = Annotated[str, AfterValidator(shown)]  # headers of tables may have line breaks
Name = Annotated[ColumnName, AfterValidator(_one_line)]
FileName = Annotated[Name, _at_most(LONGEST_NAME)]  # a path or a name that becomes one
RunName = Annotated[Name, AfterValidator(_inside_output), _at_most(LONGEST)]


class Section(BaseModel):
    """Base of all sections: frozen, without unknown keys, infinities and NaN; defaults are validated too."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_written(cls, value: Any, info: ValidationInfo) -> Any:
        wrong = None if _is_section(_annotation(cls, info)) else _unwritable(value)
        if wrong is not None:
            raise ValueError(f"holds U+{ord(wrong):04X}, which is no letter of a text; remove it")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_accident_of_yaml(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads some text without quotes as something else, and pydantic would turn booleans into 1 and 0.
        # For a Literal, pydantic's own message is better: it lists the allowed words.
        annotation = _annotation(cls, info)
        listed = isinstance(value, list) and _takes(annotation, list)
        given = value if listed else [value]
        text = _takes(annotation, str)
        if any(isinstance(one, bool) for one in given) and not _takes(annotation, bool, Literal):
            found, written = "a boolean", "unquoted true and false"
        elif text and any(isinstance(one, dict) for one in given) and not _takes(annotation, dict):
            found, written = "a mapping", "unquoted `a: b` and {a}"
        elif text and any(isinstance(one, list) for one in given) and not _takes(annotation, dict):
            found, written = "a list", "unquoted [a] and `- a`"
        elif text and listed and None in given:
            found, written = "null", "null, ~ and nothing"
        else:
            return value
        what = "word" if found in ("a boolean", "null") else "text"
        raise ValueError(f"{'holds' if listed else 'is'} {found}; YAML reads {written} so: put such a {what} in quotes")

    @field_validator("*", mode="before")
    @classmethod
    def _text_as_written(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = _annotation(cls, info)
        if _takes(annotation, int, float) or not _takes(annotation, str):
            return value
        return [text_of(one) for one in value] if isinstance(value, list) else text_of(value)


def is_folder_alone(output: Any) -> bool:
    """Whether this value of `output` is short for `output.folder`, as all were before there was `output.texts`."""
    return not isinstance(output, dict | Section)


def _unwritable(value: Any) -> str | None:
    """The first character of the texts in a value that no file can hold."""
    if isinstance(value, str):
        found = UNWRITABLE.search(value)
        return found[0] if found else None
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((wrong for part in parts if (wrong := _unwritable(part)) is not None), None)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _annotation(section: type[Section], info: ValidationInfo) -> Any:
    return section.model_fields[str(info.field_name)].annotation


def _takes(annotation: Any, *kinds: Any) -> bool:
    """Whether the annotation or a part of it is one of these types."""
    own = {annotation, get_origin(annotation)} & {*kinds}
    return bool(own) or any(_takes(part, *kinds) for part in get_args(annotation))
