"""What bash hands over for completion, in the form that other shells hand it over.

Bash divides words at `=` (COMP_WORDBREAKS) and replaces only the part behind it, so that `--set quant.method=n` arrives
as four words.
"""

import os

INSTRUCTION = "_LORAFT_COMPLETE"  # set by the shell's completion function, which typer writes


def for_bash() -> None:
    """Puts the words of COMP_WORDS together again, and gives the part behind the last `=` as a word of its own.

    `--quant=n` becomes `--quant n`, and `--set KEY=n` becomes `--set KEY= --set n`, for which
    `options.complete_pairs` returns values alone.
    """
    if os.environ.get(INSTRUCTION) != "complete_bash":
        return
    given = os.environ.setdefault("COMP_WORDS", "")
    if not os.environ.get("COMP_CWORD", "").isdecimal():  # bash sets both; the last word then
        os.environ["COMP_CWORD"] = str(given.count("\n"))
    if "\n=" not in given:
        return
    words: list[str] = []
    after_equals = False
    for word in given.split("\n")[: int(os.environ["COMP_CWORD"]) + 1]:
        if words and (after_equals or word == "="):
            words[-1] += word
        else:
            words.append(word)
        after_equals = word == "="
    name, equals, value = words[-1].partition("=")
    if equals:
        words[-1:] = [name, value] if name.startswith("-") else [f"{name}=", words[-2], value]
    os.environ |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
