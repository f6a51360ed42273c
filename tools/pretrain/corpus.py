"""Turn plain text into the token stream that the bundled backbone is pre-trained on.

The corpus is one text file (optionally gzip) with blank lines between documents. Most documents are written in
lower case with spaces around punctuation, because that is how the feedback that the backbone will meet is written;
the rest keep their form, so that the tokenizer's upper-case tokens are learnt too.
"""

import gzip
import random
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

PUNCTUATION = re.compile(r"\s*([.,;:!?()\"“”…]+)\s*")
# Words of judgement, people, teaching and service. Documents that hold some of them are read first: an
# encyclopaedia is mostly dates and places, and the backbone will have to read opinions.
OPINION_WORDS = (
    "hay đẹp tốt tệ kém thích ghét yêu khen chê tuyệt dở xấu vui buồn chán hài lòng thất vọng nhiệt tình dễ khó "
    "chậm nhanh rõ hiểu giảng dạy học sinh sinh viên giáo viên thầy cô lớp trường bài tập thi điểm môn kiến thức "
    "thực hành phòng máy nên cần chưa không thiếu quá rất hơi đánh giá phê bình chỉ trích khán giả phản hồi ý kiến "
    "thân thiện phục vụ chất lượng tiện lợi bất tiện phù hợp hữu ích hiệu quả đáng"
)


def read_documents(path: Path) -> Iterator[str]:
    """Yields documents in NFC, without markup debris, in the order of the file."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as handle:
        lines: list[str] = []
        for line in handle:
            if line.strip():
                lines.append(line.strip())
            elif lines:
                yield unicodedata.normalize("NFC", "\n".join(lines))
                lines = []
        if lines:
            yield unicodedata.normalize("NFC", "\n".join(lines))


def feedback_style(text: str) -> str:
    """Returns the text in lower case with spaces around punctuation."""
    return re.sub(r"[ \t]+", " ", PUNCTUATION.sub(lambda m: f" {m.group(1)} ", text.lower())).strip()


def keep_best(documents: list[str], share: float) -> list[str]:
    """Returns the share of the documents (counted in characters) that is densest in words of opinion.

    Near-identical stubs (bot articles on places, asteroids, species) are thinned to a handful a kind first: two
    documents are of one kind when they agree in their words two to eight, names being mostly first.
    """
    words = set(OPINION_WORDS.split())
    kinds: dict[str, int] = {}
    scored: list[tuple[float, str]] = []
    for document in documents:
        tokens = document.lower().split()
        kind = " ".join(tokens[2:8])
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] > 5 or len(tokens) < 25:
            continue
        letters = sum(character.isalpha() or character.isspace() for character in document) / len(document)
        if letters < 0.85:
            continue
        scored.append((sum(token in words for token in tokens) / (len(tokens) + 30), document))
    scored.sort(key=lambda pair: -pair[0])
    budget = share * sum(len(document) for document in documents)
    kept: list[str] = []
    for _, document in scored:
        if budget <= 0:
            break
        kept.append(document)
        budget -= len(document)
    return kept


def encode_epoch(
    tokenizer: PreTrainedTokenizerFast, documents: list[str], seed: int, lower_share: float = 0.75
) -> np.ndarray:
    """Returns one epoch as a flat uint16 array: shuffled documents, each between begin and end of text."""
    rng = random.Random(seed)
    order = list(range(len(documents)))
    rng.shuffle(order)
    end = tokenizer.convert_tokens_to_ids("<|end_of_text|>")
    pieces: list[np.ndarray] = []
    for start in range(0, len(order), 2000):
        batch = [documents[i] for i in order[start : start + 2000]]
        batch = [feedback_style(text) if rng.random() < lower_share else text for text in batch]
        for ids in tokenizer(batch)["input_ids"]:  # adds the begin-of-text token
            pieces.append(np.asarray([*ids, end], dtype=np.uint16))
    return np.concatenate(pieces)
