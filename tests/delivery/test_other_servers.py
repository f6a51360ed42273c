"""What vLLM and Ollama get for a run: command lines that a shell reads back, a Modelfile with the run's prompt."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.serving import read_modelfile, tiny_runs
from helpers.tiny import SENTENCES, tokenizer

from loraft.config.schema import Config
from loraft.delivery import other_servers
from loraft.errors import ConfigError, RunError
from loraft.models import manifest
from loraft.models.load import build_encoder
from loraft.runs.bundle import config_of
from loraft.runs.peft_folder import CONFIG_FILE, WEIGHTS_FILE
from loraft.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_runs(tmp_path_factory.mktemp("thư mục có dấu cách"), "chạy 'một'")[0]


@pytest.fixture
def config(run: Run) -> Config:
    return config_of(run)


def changed(run: Run, folder: Path, **settings: Any) -> Run:
    """A copy of the run whose adapter has other settings."""
    other = Run(folder / "khác")
    other.adapter.mkdir(parents=True)
    for path in (run.config_path, run.results_path, run.adapter / "loraft.json", run.adapter / WEIGHTS_FILE):
        target = other.path / path.relative_to(run.path)
        target.write_bytes(path.read_bytes())
    known = json.loads((run.adapter / CONFIG_FILE).read_text(encoding="utf-8"))
    (other.adapter / CONFIG_FILE).write_text(json.dumps({**known, **settings}), encoding="utf-8")
    return other


def options(arguments: list[str]) -> dict[str, str]:
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return {flag: "" if value.startswith("--") else value for flag, value in pairs if flag.startswith("--")}


def test_vllm_gets_the_backbone_and_the_adapter_and_a_shell_reads_them_back(run: Run, config: Config) -> None:
    arguments = other_servers.vllm_command(run, config)
    assert shlex.split(shlex.join(arguments)) == arguments
    assert arguments[:3] == ["vllm", "serve", config.model.name]
    found = options(arguments)
    assert json.loads(found.pop("--lora-modules")) == {"name": run.name, "path": str(run.adapter)}
    assert found == {"--dtype": "float32", "--max-model-len": "1024", "--enable-lora": "", "--max-lora-rank": "8"}


@pytest.mark.parametrize(("rank", "least"), [(1, "1"), (8, "8"), (9, "16"), (257, "320")])
def test_the_rank_is_the_least_that_vllm_allows(
    run: Run, config: Config, tmp_path: Path, rank: int, least: str
) -> None:
    assert options(other_servers.vllm_command(changed(run, tmp_path, r=rank), config))["--max-lora-rank"] == least


def test_a_quantised_backbone_and_a_revision_are_named(run: Run, config: Config) -> None:
    quantised = config.model_copy(
        update={
            "quant": config.quant.model_copy(update={"method": "nf4"}),
            "model": config.model.model_copy(update={"revision": "abc"}),
            "prompt": config.prompt.model_copy(update={"chat_template": "{{ messages[0] }}"}),
        }
    )
    found = options(other_servers.vllm_command(run, quantised))
    assert (found["--quantization"], found["--revision"]) == ("bitsandbytes", "abc")
    assert found["--chat-template"].endswith("{{ messages[0] }}")


@pytest.mark.parametrize(
    "settings", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}, {"r": 513}], ids=str
)
def test_an_adapter_that_vllm_cannot_load_is_refused(
    run: Run, config: Config, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(RunError, match=rf"got ({next(iter(settings))}|r above 512)\); merge it first: loraft merge "):
        other_servers.vllm_command(changed(run, tmp_path, **settings), config)


def test_a_merged_folder_is_served_by_itself(run: Run, config: Config, tmp_path: Path) -> None:
    merged = tmp_path / "gộp"
    merged.mkdir()
    manifest.write_record(merged / "loraft.json", replace(manifest.read(run.adapter), merged={"base": "dequantised"}))
    arguments = other_servers.vllm_command(Run.open(merged), config)
    assert arguments[:5] == ["vllm", "serve", str(merged), "--served-model-name", "gộp"]
    assert "--enable-lora" not in arguments
    (merged / "model.gguf").touch()
    with pytest.raises(RunError, match=r"vLLM loads safetensors \(got model.gguf\); name a folder that loraft merge"):
        other_servers.vllm_command(Run.open(merged), config)


def test_a_request_to_vllm_holds_the_runs_prompt_and_allows_its_answers_only(run: Run, config: Config) -> None:
    arguments = other_servers.vllm_request(run, config, "câu 'này'")
    assert shlex.split(shlex.join(arguments)) == arguments
    body = json.loads(arguments[-1])
    assert body["messages"][-1]["content"].endswith("Sentence: câu 'này'")
    assert body["structured_outputs"]["choice"] == [
        f"Sentiment: {word}" for word in ("negative", "neutral", "positive")
    ]
    # The chat template makes the ids of the run's own prompt of it.
    ids = tokenizer().apply_chat_template(
        body["messages"], add_generation_prompt=True, return_dict=False, **body["chat_template_kwargs"]
    )
    assert ids == build_encoder(config).encode(["câu 'này'"])[0].ids


@pytest.mark.parametrize("changes", [
    {}, {"system_role": "user"}, {"system": 'nói """thế""" nhé'},
    {"template": 'Trả lời {{.Prompt}} """ở""" {input} đây'},
], ids=str)  # fmt: skip
def test_ollama_gets_the_runs_prompt(run: Run, config: Config, changes: dict[str, str]) -> None:
    config = config.model_copy(update={"prompt": config.prompt.model_copy(update=changes)})
    text = other_servers.modelfile(run, config, "./model.gguf")
    found = read_modelfile(text)
    names = [name for name, _ in found]
    assert names == ["from", "template", *(["system"] if not changes or "template" in changes else []), "temperature",
                     "num_ctx", "num_predict", "stop"]  # fmt: skip
    values = dict(found)
    assert (values["from"], values["temperature"], values["stop"]) == ("./model.gguf", "0", "<|eot_id|>")
    rendered = (
        values["template"].replace("{{ .Prompt }}", SENTENCES[0]).replace("{{ .System }}", values.get("system", ""))
    )
    rendered = rendered.replace('{{ "{{" }}', "{{").replace(r'{{ "\"\"\"" }}', '"""')
    ids = tokenizer()(tokenizer().bos_token + rendered, add_special_tokens=False)["input_ids"]
    assert ids == build_encoder(config).encode(SENTENCES[:1])[0].ids


def test_several_labels_a_row_are_no_modelfile(run: Run, config: Config) -> None:
    prompt = config.prompt.model_copy(update={"kind": "multilabel", "yes_word": "có", "no_word": "không"})
    with pytest.raises(ConfigError, match=r"multilabel asks a question for each label"):
        other_servers.modelfile(run, config.model_copy(update={"prompt": prompt}), "x.gguf")


def test_the_grammar_refuses_what_ollama_refuses() -> None:
    for wrong in ('FROM x\nTEMPLATE """a\nb', "TEMPLATE x\n", "FROM x\nBEFEHL y\n"):
        with pytest.raises(ValueError, match=r"no FROM|no instruction|open quotes"):
            read_modelfile(wrong)
