r"""A tokenizer that asks by itself: from a bare sentence it makes the token ids of the whole prompt.

What stands around a sentence is written into `tokenizer.json`, so that every program that reads this file asks with the
prompt, without code of loraft:

    normalizer      composes and strips the sentence as `data.columns.sentence` does, and puts the user message's text
                    around it, so that tokens over the border are those of the whole message
    added tokens    get secret names, so that "<|eot_id|>" in a sentence is plain text (see `models.plain_text`)
    post-processor  adds the ids before and after the message, and those with which every answer begins

The ids are those of `Encoder.encode`, followed by the begin of the answers. A sentence that is too long is the
exception: `Encoder` shortens it by whole characters. Here nothing is shortened, unless the caller asks for truncation;
that cuts the sentence's last tokens and keeps all else, where the sentence ends the message.
"""

import json
import secrets
from typing import Any

from transformers import PreTrainedTokenizerFast

from loraft.data.prompt import user_parts
from loraft.engine.layout import common_prefix
from loraft.engine.scorer import answer_tokens
from loraft.errors import BackboneError
from loraft.models.encoder import Encoder
from loraft.models.plain_text import renamed
from loraft.models.positions import NO_LIMIT

BLANK = r"[\s\x1c-\x1f]+"  # what str.strip removes
STRIPPED = (rf"\A{BLANK}", rf"(?<!{BLANK[:-1]}){BLANK}\z")  # the second one begins where blanks begin: linear time


def shared_answer(encoder: Encoder) -> tuple[list[int], list[int]]:
    """Returns the ids with which all answers begin, and the id of each of the K labels after them.

    Raises:
        BackboneError: one token does not decide between the labels.
    """
    answers = answer_tokens(encoder.completions_K, encoder.unscored)
    shared = common_prefix(answers)
    endings = [ids[shared:] for ids in answers]
    if encoder.unscored == 0 or endings[0][-1:] == [encoder.end_of_turn]:
        raise BackboneError(
            "export: the end of turn is part of the scores (got prompt.score_end_of_turn, or a label whose word begins"
            " with another's), and a classification head decides by one token; use loraft merge"
        )
    if any(len(ids) != 1 for ids in endings):
        label, ids = max(zip(encoder.task.labels, endings, strict=True), key=lambda pair: len(pair[1]))
        tokens = encoder.tokenizer.convert_ids_to_tokens(ids)
        raise BackboneError(
            f"prompt.label_words: a classification head needs labels that one token tells apart (got {tokens} for"
            f" {label!r}); train with other prompt.label_words, or use loraft merge"
        )
    return list(answers[0][:shared]), [ids[0] for ids in endings]


def prompting_tokenizer(encoder: Encoder) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of a task: a sentence becomes its prompt and the begin of the answers.

    Raises:
        BackboneError: the backbone's tokenizer has added tokens that ordinary text contains, such as runs of blanks.
    """
    given, answer = encoder.tokenizer, shared_answer(encoder)[0]
    content: dict[str, Any] = json.loads(given.backend_tokenizer.to_str())
    ordinary = [one["content"] for one in content["added_tokens"] if one["normalized"] or one["content"].isspace()]
    if ordinary:
        raise BackboneError(
            f"{given.name_or_path}: its tokenizer has added tokens that are part of ordinary text (got"
            f" {ordinary[0]!r}), so that it cannot hold the prompt; use loraft merge, or --to gguf"
        )
    secret = secrets.token_hex(8)
    tokens = sorted({one["content"] for one in content["added_tokens"]} | {*given.all_special_tokens})
    names = {token: f"loraft{secret}n{number}n" for number, token in enumerate(tokens)}
    content = json.loads(renamed(json.dumps(content), names))
    before, after = user_parts(encoder.task)
    head, tail = list(encoder.head_ids), [*encoder.tail_ids, *answer]
    content["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            *(_replace({"String": end}, "\n") for end in ("\r\n", "\r")),
            {"type": "NFC"},
            *(_replace({"Regex": pattern}, "") for pattern in STRIPPED),
            {"type": "Prepend", "prepend": encoder.before + before.lstrip()},
            _replace({"Regex": r"\z"}, after.rstrip() + encoder.after),
            *([content["normalizer"]] if content["normalizer"] else []),
        ],
    }
    around = {"head": head, "tail": tail}
    order = [{"SpecialToken": {"id": "head", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    end = [{"SpecialToken": {"id": "tail", "type_id": 0}}]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*order, *end],
        "pair": [*order, {"Sequence": {"id": "B", "type_id": 0}}, *end],
        "special_tokens": {
            name: {"id": name, "ids": ids, "tokens": given.convert_ids_to_tokens(ids)} for name, ids in around.items()
        },
    }
    cuts_well = not after.rstrip() + encoder.after and encoder.task.truncation == "tail"
    return PreTrainedTokenizerFast(
        tokenizer_object=type(given.backend_tokenizer).from_str(json.dumps(content)),
        pad_token=names.get(pad := _pad_token(encoder, (head + tail)[-1]), pad),
        padding_side="right",
        model_max_length=encoder.max_length - encoder.longest_answer + len(answer) if cuts_well else NO_LIMIT,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _replace(pattern: dict[str, str], text: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": text}


def _pad_token(encoder: Encoder, last: int) -> str:
    """The pad token; another special token, where the prompt's last token is the pad token.

    transformers' classifiers read the last token that is none.
    """
    given = encoder.tokenizer
    found = [one for one in (given.pad_token, *given.all_special_tokens) if given.convert_tokens_to_ids(one) != last]
    if not found:
        raise BackboneError(f"{given.name_or_path}: its tokenizer has no token for padding; choose another backbone")
    return str(found[0])
