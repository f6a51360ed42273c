"""Train the backbone's tokenizer: byte-level BPE in the Llama-3 style, with its special tokens and chat template.

python tools/pretrain/tokenizer.py CORPUS OUT --vocab 8192
"""

import random
from pathlib import Path

import typer
from corpus import feedback_style, read_documents
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
]
# Llama 3's word boundaries: contractions, words with one leading mark, digits by up to three, punctuation, space.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Text that the prompts consist of; repeated so that each of its words becomes one token.
PROMPTS = """You are a helpful assistant. You must fulfill the user request.
Predict the sentiment of the following input sentence.
The response must begin with "Sentiment: ", followed by one of these keywords: "positive", "negative", or "neutral", to reflect the sentiment of the input sentence.
Here are a few examples:
Predict the topic of the following input sentence.
The response must begin with "Topic: ", followed by one of these keywords: "lecturer", "training program", "facility", or "others", to reflect the topic of the input sentence.
Sentence: Sentiment: positive
Sentence: Sentiment: negative
Sentence: Sentiment: neutral
Topic: lecturer
Topic: training program
Topic: facility
Topic: others
positive negative neutral lecturer training program facility others yes no true false good bad
system user assistant
Cutting Knowledge Date: December 2023 Today Date: 26 Jul 2024
January February March April May June July August September October November December Jan Feb Mar Apr Jun Jul Aug Sep Oct Nov Dec
Classify the review. Answer with one word. Label: Rating: Review: Text: Question: Answer: Domain: Opinion:
Hãy phân loại cảm xúc của câu sau. Câu: Cảm xúc: tích cực tiêu cực trung tính
"""
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- if date_string is not defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system_message = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}"
    "{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
    "{{- 'Cutting Knowledge Date: December 2023\\nToday Date: ' + date_string + '\\n\\n' }}"
    "{{- system_message + '<|eot_id|>' }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)


def train_tokenizer(corpus: Path, vocab: int, megabytes: int, seed: int) -> PreTrainedTokenizerFast:
    """Returns a tokenizer trained on a sample of the corpus, three quarters of it in the style of feedback."""
    rng = random.Random(seed)
    documents = list(read_documents(corpus))
    rng.shuffle(documents)

    def texts() -> list[str]:
        sample: list[str] = []
        budget = megabytes * 1_000_000
        for document in documents:
            text = feedback_style(document) if rng.random() < 0.75 else document
            sample.append(text)
            budget -= len(text.encode())
            if budget < 0:
                break
        return sample + [PROMPTS] * 1500

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # every byte is a token: nothing is unknown
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer=trainer)
    begin = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{begin} $A",
                pair=f"{begin} $A {begin} $B",
                special_tokens=[(begin, tokenizer.token_to_id(begin))],
            ),
        ]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        additional_special_tokens=["<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"],
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def main(corpus: Path, out: Path, vocab: int = 8192, megabytes: int = 40, seed: int = 1) -> None:
    """Train on CORPUS and save into the folder OUT."""
    tokenizer = train_tokenizer(corpus, vocab, megabytes, seed)
    tokenizer.save_pretrained(out)
    for text in (*PROMPTS.splitlines()[:3], "thầy dạy rất nhiệt tình , dễ hiểu nhưng hơi nhanh ."):
        print(len(tokenizer(text)["input_ids"]), tokenizer.tokenize(text))


if __name__ == "__main__":
    typer.run(main)
