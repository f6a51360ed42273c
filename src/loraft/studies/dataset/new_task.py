"""Writes a short task file for a data source, from what `overview` finds in it: `loraft task new`."""

import json
import re
import shlex
import textwrap
from collections.abc import Sequence

import yaml

from loraft.config.data_section import DataConfig
from loraft.config.schema import Config
from loraft.config.section import shown
from loraft.config.wording import EN, VI, questions_of, template_of, with_words, worded
from loraft.config.yaml_io import Dumper
from loraft.data.guess import is_label_name
from loraft.errors import DataError, listed
from loraft.studies.dataset.overview import ENCODINGS, Overview

# Label names that many data sets share, in the words of the language that the prompt is in.
VIETNAMESE_WORDS = {
    "positive": "tích cực", "pos": "tích cực", "negative": "tiêu cực", "neg": "tiêu cực", "neutral": "trung tính",
    "neu": "trung tính", "other": "khác", "others": "khác", "yes": "có", "no": "không",
}  # fmt: skip
ENGLISH_WORDS = {"pos": "positive", "neg": "negative", "neu": "neutral"}
WIDTH = 110


def task_text(found: Overview, *, language: str, train: str) -> str:
    """The YAML of a task for the labels of a data source.

    Args:
        found: what is in the source.
        language: "vi" or "en", of the prompt.
        train: the command that trains on it, for the first line.

    Raises:
        DataError: no column was found that holds labels, there is one label only, or a config refuses the name of a
            column or a label.
    """
    if found.label_column is None or len(found.labels) < 2:
        names = listed(column.name for column in found.columns)
        none = found.label_column is None
        what = f"no label column (got {names})" if none else f"one label (got {listed(found.labels)})"
        alike = [one for one in found.columns if one.different == 1 and is_label_name(one.name)]
        if none and alike:
            what = f"one label in column {alike[0].name!r} (got {alike[0].example!r} in all rows), and a task needs two"
        more = f", or the encoding with {ENCODINGS}" if found.undecodable else ""
        raise DataError(f"{found.source}: {what}; name another column with --set data.label_column=NAME{more}")
    labels = list(found.labels)
    _refuse_hidden(found)
    rows = ", ".join(f"{name} ({sum(counts.values()):,})" for name, counts in found.labels.items())
    words = "the words that the model answers, one for each label in the same order, as a reader of the texts says them"
    if found.ids:
        words += "; the data holds numbers and does not say what they mean: write words in their place"
    template = "the user message: say what the texts are and what is asked"
    template += "; {label_words} and {input} stand for the words above and the text"
    parts = [
        "# " + train.replace("\n", "\n# "),
        _entry(f"the labels as the data has them, with their rows: {rows}", labels=labels),
        _entry(words, label_words=label_words(labels, language)),
        _entry("the column of the labels", label_column=found.label_column),
    ]
    wording = VI if language == "vi" else EN
    lines = template_of(wording)
    if found.several:
        parts.append(_entry("rows have several labels: the model is asked about each of them", kind="multilabel"))
        what = "the answers where a label applies and where it does not; the message below names them, too"
        parts.append(_entry(what, yes_word=wording.yes, no_word=wording.no))
        lines = questions_of(None, wording, wording.yes, wording.no)
    message = textwrap.indent(lines, "  ", lambda line: bool(line.strip()))
    parts.append(f"{_comment(template)}\ntemplate: |-\n{message}")
    return "\n\n".join(parts) + "\n"


def guessed(config: Config, found: Overview) -> Config:
    """The config with the columns, labels and prompt of what was found, for reading rows before a task exists.

    Raises:
        DataError: no column was found that holds texts, or none that holds labels.
    """
    columns = {"text_column": found.text_column, "label_column": found.label_column}
    for key, column in columns.items():
        if column is None:
            names = listed(one.name for one in found.columns)
            raise DataError(f"{found.source}: no {key.replace('_', ' ')} (got {names}); name it: --set data.{key}=NAME")
    labels = list(found.labels)
    words = label_words(labels, found.language)
    template = template_of(VI if found.language == "vi" else EN)
    prompt = worded({"labels": labels, "label_words": words, "template": template})
    prompt |= {key: with_words(prompt[key], words) for key in ("template", "few_shot_template")}
    prompt |= {"kind": "multilabel" if found.several else "single", "id_columns": None}
    data = config.data.model_copy(update={**columns, "unlabelled": "skip"})
    return config.model_copy(update={"data": data, "prompt": config.prompt.model_copy(update=prompt)})


def label_words(labels: Sequence[str], language: str) -> list[str]:
    """A proposal for the words of labels: those of common names in the language, else the names, `_` as spaces.

    Braces are left out, since `{input}` in a word would be a second place for the text.
    """
    known = VIETNAMESE_WORDS if language == "vi" else ENGLISH_WORDS
    words = [known.get(label.casefold(), re.sub(r"[\s_{}]+", " ", label).strip() or label) for label in labels]
    return words if len(set(words)) == len(words) else list(labels)


def train_command(found: Overview, task: str, sets: Sequence[str]) -> str:
    """The command that trains on the source with a task file.

    Args:
        found: what is in the source.
        task: the file.
        sets: the values of `--set` with which the source was read.
    """
    own = [pair for pair in sets if pair.partition("=")[0].strip() not in ("data.text_column", "data.label_column")]
    if found.text_column not in (None, DataConfig.model_fields["text_column"].default):
        own.append(f"data.text_column={found.text_column}")
    if found.separator is not None and not any(pair.startswith("data.label_separator=") for pair in own):
        own.append(f"data.label_separator={json.dumps(found.separator)}")
    if len(found.rows) < 3 and not any(pair.startswith("data.split=") for pair in own):
        own.append("data.split=[0.8, 0.1, 0.1]")
    given = [word for pair in own for word in ("--set", pair)]
    return shlex.join(["loraft", "train", "--task", task, "--data", found.source, *given])


def _refuse_hidden(found: Overview) -> None:
    names = {"column": [found.text_column, found.label_column], "label": found.labels}
    for kind, name in ((kind, name) for kind, of_kind in names.items() for name in of_kind if name is not None):
        try:
            shown(name)
        except ValueError as error:
            what, way = str(error).partition(";")[0], "the header" if kind == "column" else "it in the data"
            raise DataError(f"{found.source}: a {kind}'s name {what} (got {name!r}); rename {way}") from None


def _comment(text: str) -> str:
    return textwrap.fill(
        text[0].upper() + text[1:] + ".", WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False
    )


def _entry(comment: str, **entry: str | list[str]) -> str:
    flow = any(isinstance(value, list) for value in entry.values())
    style = None if flow else False
    line = yaml.dump(entry, Dumper=Dumper, allow_unicode=True, default_flow_style=style, sort_keys=False, width=WIDTH)
    return f"{_comment(comment)}\n{line.rstrip()}"
