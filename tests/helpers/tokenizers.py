"""Tiny tokenizers of the kinds that backbones have, trained in place on a few sentences."""

import json
from functools import lru_cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from helpers.tiny import SENTENCES, encoder

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + system + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIALS = ["<unk>", "<s>", "</s>"]
METASPACES = {"first": "first", "always": "always", "unigram first": "first", "unigram always": "always"}


@lru_cache
def made(kind: str, template: str | None = LLAMA2) -> PreTrainedTokenizerBase:
    """A tokenizer: first, always, legacy (SentencePiece BPE), unigram ..., wordpiece, byte-level or stripping."""
    task = encoder().task
    corpus = [*SENTENCES, task.system, task.template, "positive negative neutral", LLAMA2, ZEPHYR, CHATML] * 3
    alphabet = sorted({letter for text in corpus for letter in text if letter != " "})
    space = decoders.Replace("▁", " ")
    if kind.startswith("unigram"):
        core = Tokenizer(models.Unigram([("<unk>", -20.0)], unk_id=0))
        trainer = trainers.UnigramTrainer(
            vocab_size=500, special_tokens=SPECIALS, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
        )
    elif kind == "wordpiece":
        core = Tokenizer(models.WordPiece(unk_token="<unk>"))
        trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=SPECIALS, show_progress=False)
        core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        core.decoder = decoders.WordPiece()
    else:
        core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        fallback = [f"<0x{byte:02X}>" for byte in range(256)]
        letters = pre_tokenizers.ByteLevel.alphabet() if kind in ("byte-level", "stripping") else ["▁", *alphabet]
        trainer = trainers.BpeTrainer(
            vocab_size=800, special_tokens=[*SPECIALS, *fallback], initial_alphabet=letters, show_progress=False
        )
    if kind in METASPACES:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=METASPACES[kind])
        core.decoder = decoders.Sequence([space, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    elif kind == "legacy":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        core.decoder = decoders.Sequence([space, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    elif kind in ("byte-level", "stripping"):
        core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.train_from_iterator(corpus, trainer)
    content = json.loads(core.to_str())  # the trainer makes the bytes special tokens, which they are not elsewhere
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    core = Tokenizer.from_str(json.dumps(content))
    if kind in ("first", "always"):  # no token reaches over a space, and nothing is split: as SentencePiece's BPE
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=METASPACES[kind], split=False)
    if template == CHATML:  # as Phi-3's, the stripping ones take the spaces after them
        strips = kind == "stripping"
        core.add_special_tokens([AddedToken(word, rstrip=strips) for word in ("<|im_start|>", "<|im_end|>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer
