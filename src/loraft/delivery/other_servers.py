"""What other servers need for a run, as text: the command line of vLLM, the Modelfile of Ollama; loads no weights."""

import json
import shlex
from pathlib import Path

from loraft.config.schema import Config
from loraft.data.prompt import INPUT_SLOT, answers, messages, user_parts
from loraft.delivery.pinned_template import pinned_template
from loraft.errors import ConfigError, RunError, listed
from loraft.models import manifest
from loraft.models.backbone import load_tokenizer
from loraft.models.chat_template import ChatTemplate, chosen_template
from loraft.models.encoder import Encoder
from loraft.models.load import build_encoder
from loraft.models.source import is_gguf, located, resolve_name
from loraft.runs.peft_folder import read_peft_folder
from loraft.runs.run import Bundle, Run

GGUF = "model.gguf"  # as `loraft export` names it
# vllm/config/lora.py, `MaxLoRARanks`.
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# vllm/lora/peft_helper.py refuses adapters with these; `target_parameters` and DoRA are no layers that it knows.
NOT_IN_VLLM = ("use_dora", "modules_to_save", "target_parameters", "trainable_token_indices")
VLLM_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def vllm_command(run: Run, config: Config) -> list[str]:
    """Returns the arguments of the command that serves a run's adapter over its backbone, or merged weights.

    Raises:
        RunError: the run is not finished, or vLLM cannot load such an adapter; the message names `loraft merge`.
    """
    content = manifest.read(_finished(run).adapter)
    dtype = [] if content.backbone.dtype is None else ["--dtype", VLLM_DTYPES[content.backbone.dtype]]
    common = [*dtype, "--max-model-len", str(config.prompt.max_length)]
    if isinstance(run, Bundle) and content.merged is not None and run_gguf(run) is None:
        return ["vllm", "serve", str(run.path.absolute()), "--served-model-name", run.name, *common]
    if run_gguf(run) is not None:
        raise RunError(f"{run.path}: vLLM loads safetensors (got {GGUF}); name a folder that loraft merge wrote")
    settings = read_peft_folder(run.adapter).settings
    base = resolve_name(located(run.adapter, config, needed=True).model.name)
    rank = max([settings["r"], *(settings.get("rank_pattern") or {}).values()])
    refused = [key for key in NOT_IN_VLLM if settings.get(key)]
    refused += ["bias"] if settings.get("bias", "none") != "none" else []
    refused += [f"r above {VLLM_RANKS[-1]}"] if rank > VLLM_RANKS[-1] else []
    refused += ["a GGUF backbone"] if is_gguf(base) else []
    if refused:
        raise RunError(
            f"{run.adapter}: vLLM loads no such adapter (got {listed(refused)}); merge it first: loraft merge"
            f" {shlex.quote(str(run.path))} --output FOLDER"
        )
    revision = [] if config.model.revision is None else ["--revision", config.model.revision]
    quantised = ["--quantization", "bitsandbytes"] if config.quant.method == "nf4" else []
    least = next(allowed for allowed in VLLM_RANKS if allowed >= rank)
    module = json.dumps({"name": run.name, "path": str(run.adapter.absolute())}, ensure_ascii=False)
    lora = ["--enable-lora", "--max-lora-rank", str(least), "--lora-modules", module]
    return ["vllm", "serve", base, *revision, *quantised, *common, *_chat_template(config), *lora]


def _chat_template(config: Config) -> list[str]:
    """The flag for a chat template that vLLM would not take by itself, or that would print the date of the day."""
    tokenizer = load_tokenizer(config.model)
    template = chosen_template(tokenizer, config.prompt.chat_template)
    reads_the_clock = "strftime_now" in template and "date_string" not in template
    if template == tokenizer.chat_template and not reads_the_clock:
        return []
    return ["--chat-template", pinned_template(tokenizer, config.prompt)]


def run_gguf(run: Run) -> Path | None:
    """The GGUF file in a folder that `loraft export` wrote; None where there is none."""
    return run.path.absolute() / GGUF if (run.path / GGUF).is_file() else None


def vllm_request(run: Run, config: Config, text: str) -> list[str]:
    """Returns the arguments of the curl command that asks vLLM for the label of a text.

    vLLM's `/classify` is for models with a classification head. A causal model generates; `structured_outputs` (in vLLM
    "Structured Outputs") keeps it to the answers of the task.
    """
    encoder = build_encoder(located(run.adapter, config))
    chat = messages(encoder.task, text)
    body = {
        "model": run.name,
        "messages": [{**one, "content": one["content"].strip()} for one in chat],
        "temperature": 0,
        "max_tokens": encoder.longest_answer,
        "structured_outputs": {"choice": answers(encoder.task)},
        "chat_template_kwargs": {"date_string": encoder.date_string, **encoder.task.template_kwargs},
    }
    sent = json.dumps(body, ensure_ascii=False)
    url = "http://127.0.0.1:8000/v1/chat/completions"
    return ["curl", url, "-H", "Content-Type: application/json", "-d", sent]


def modelfile(run: Run, config: Config, gguf: str) -> str:
    """Returns the Modelfile with which Ollama answers a text with the answer to the run's prompt.

    Its template holds the whole prompt, so that what a user types is the text alone. Special tokens in that text are
    special tokens to Ollama, unlike here.

    Args:
        run: finished.
        config: of the run.
        gguf: file of the merged weights.

    Raises:
        ConfigError: a row may have several labels, each of which is a question of its own.

    Source:
        docs.ollama.com/modelfile; quotes as in ollama's parser/parser.go; templates are those of Go's text/template.
    """
    encoder = build_encoder(located(_finished(run).adapter, config))
    if encoder.task.kind == "multilabel":
        raise ConfigError(
            "prompt.kind: multilabel asks a question for each label, which a Modelfile cannot (got"
            f" {len(encoder.task.labels)} labels); use loraft serve"
        )
    left, right = _around_the_text(encoder)
    system = encoder.task.system.strip()
    own = bool(system) and left.count(system) == 1 and '"""' not in system
    head = (_literal(left) if not own else "{{ .System }}".join(map(_literal, left.split(system)))) + "{{ .Prompt }}"
    end = encoder.tokenizer.convert_ids_to_tokens(encoder.end_of_turn)
    lines = [
        f"FROM {gguf}",
        f'TEMPLATE """{head}{_literal(right)}"""',
        *([f'SYSTEM """{system}"""'] if own else []),
        "PARAMETER temperature 0",
        f"PARAMETER num_ctx {encoder.max_length}",
        f"PARAMETER num_predict {encoder.longest_answer}",
        f'PARAMETER stop "{end}"',
    ]
    return "\n".join(lines) + "\n"


def _around_the_text(encoder: Encoder) -> tuple[str, str]:
    """The prompt before and after the user's text; without the token of the begin, which llama.cpp adds itself."""
    task = encoder.task
    template = ChatTemplate(encoder.tokenizer, encoder.date_string, task.chat_template, task.template_kwargs)
    template.fit(system=bool(task.system), role=task.system_role)
    frame = template.frame(messages(task, INPUT_SLOT))
    before, after = user_parts(task)
    left = (frame.head + frame.before).removeprefix(encoder.tokenizer.bos_token or "")
    return left + before.lstrip(), after.rstrip() + frame.after + frame.tail


def _literal(text: str) -> str:
    """Text in a template of Go inside three quotes."""
    return text.replace("{{", '{{ "{{" }}').replace('"""', r'{{ "\"\"\"" }}')


def _finished(run: Run) -> Run:
    if not run.finished:
        raise RunError(f"{run.path}: the run is not finished (no {run.results_file}); {run.way_on}")
    return run
