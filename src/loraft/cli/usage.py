"""Mistakes in the use of a command, found by typer, in the form of all other errors."""

import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import typer

from loraft.config.names import show

# The base of what typer raises for unknown options, missing arguments and values of another type. Typer has a copy of
# click inside, which exports this class only as a base.
UsageError: Any = typer.BadParameter.__base__

# What typer says, and what follows the command in our message: the option, what is wrong, and what was given.
FORMS = {
    r"No such command '(.*?)'\.": r": no such command (got '\1')",
    r"No such option: (.*?)(?: \(Possible options?: .*)?$": r": no such option (got '\1')",
    r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)": r": more arguments than it takes (got '\1')",
    r"Missing command\.": r": command is missing (got none)",
    r"Missing (argument|option) '(.*)'": r": \1 \2 is missing (got none)",
    r"Option '(.*)' requires an argument": r" \1: needs a value (got none)",
    r"Option '(.*)' does not take a value": r" \1: takes no value",
    r"Invalid value for '(?:.* ')?([^']+)': Input (.*?)(?:, unable to parse .*)?$": r" \1: not allowed; \2",
    r"Invalid value for '(?:.* ')?([^']+)': (.*)": r" \1: \2",
}


def usage_message(error: Any, arguments: Sequence[str], command: Any) -> str:
    """The message in one line; empty where the help page was printed instead.

    Args:
        error: a `UsageError`.
        arguments: of the command line, in which the wrong value stands.
        command: typer's, of the program, with all others below it.
    """
    said = " ".join(str(error.format_message()).split())
    if not said:
        return ""
    names = ["loraft"]
    for word in arguments:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
        names.append(word)
    found = [match.expand(form) for pattern, form in FORMS.items() if (match := re.match(pattern, said))]
    what = re.sub(r"\w{80,}", lambda long: long[0][:60] + "...", found[0] if found else f": {said}")
    similar = re.search(r"(?:Did you mean|Possible options?:) (.*?)[?)]+$", said)
    if letter := re.fullmatch(r": no such option \(got '(-[^-])'\)", what):  # of a word such as -rank
        typed = next((word for word in arguments if word.startswith(letter[1])), letter[1])
        what = f": no such option (got {show(typed)})"
        similar = re.fullmatch(f"({'|'.join(_options(command))})", f"-{typed}")
    what, _, allowed = what.partition("; ")
    value = None if "(got " in what else _given(what.partition(":")[0].strip(), arguments)
    got = "" if value is None else f" (got {show(value)})"
    more = (f"did you mean {similar[1]}? " if similar else "") + f"`{' '.join(names)} --help` shows all"
    if what.startswith(": no such option"):
        more = _behind_hyphens(arguments, len(names) - 1, command) or more
    return f"{' '.join(names)}{what}{got}; {allowed or more}"


def _options(command: Any) -> list[str]:
    return [name for parameter in command.params for name in parameter.opts if name.startswith("-")]


def _given(option: str, arguments: Sequence[str]) -> str | None:
    """The last value of an option on the command line, written behind a space or an equals sign."""
    values = [one.removeprefix(f"{option}=") for one in arguments if one.startswith(f"{option}=")]
    values += [value for one, value in pairwise(arguments) if one == option]
    return values[-1] if option and values else None


def _behind_hyphens(arguments: Sequence[str], count: int, command: Any) -> str:
    """How to write a sentence that begins with a hyphen; empty where none does or the command takes none.

    Args:
        arguments: of the command line; the first `count` are names of commands.
        count: see above.
        command: typer's, of the last name.
    """
    if "--" in arguments or not any(parameter.name == "texts" for parameter in command.params):
        return ""
    flags = {name for parameter in command.params if getattr(parameter, "is_flag", True) for name in parameter.opts}
    texts: list[str] = []
    others, before = list(arguments[:count]), ""
    for one in arguments[count:]:
        of_option = before.startswith("-") and before not in flags and "=" not in before  # the option's value
        text = not of_option and (_begins_with_hyphen(one) or not one.startswith("-"))
        (texts if text else others).append(one)
        before = "" if text or of_option else one
    if not any(map(_begins_with_hyphen, texts)):
        return ""
    return f"a sentence that begins with - stands behind --: `{shlex.join(['loraft', *others, '--', *texts])}`"


def _begins_with_hyphen(word: str) -> bool:
    """Whether it looks like a sentence, not like an option."""
    return bool(re.match(r"-([^-\w]|\d|.*\s)", word)) and not re.match(r"--[a-z-]+=", word)
