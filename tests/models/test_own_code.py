"""Python code that comes with a backbone: it never runs without the flag, and the flag asks for what can be checked."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import CONFIGS, tokenizer
from transformers import AutoModelForCausalLM

from loraft.config.resolve import resolve
from loraft.config.schema import ModelConfig, QuantConfig
from loraft.config.yaml_io import dump_config
from loraft.errors import BackboneError, ConfigError, RunError
from loraft.models import manifest
from loraft.models.backbone import load_backbone, load_config, load_tokenizer, without_weights
from loraft.runs.bundle import config_of
from loraft.runs.environment import custom_code, environment
from loraft.runs.hashes import sha256_of
from loraft.runs.run import Run
from loraft.training.outcome import of_code_that_ran

LOADERS = {
    "tokenizer": load_tokenizer,
    "config": load_config,
    "weights": lambda section: load_backbone(section, QuantConfig()),
    "shape": without_weights,
}
CODE = """
open({mark!r}, "w").close()
from transformers import LlamaConfig, LlamaForCausalLM
class Config(LlamaConfig):
    model_type = "của-em"
class Model(LlamaForCausalLM):
    config_class = Config
"""
AUTO_MAP = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mã")
    AutoModelForCausalLM.from_config(CONFIGS["llama"]).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def backbone(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with code that leaves a file "ran" beside it."""
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("a library asked the user"))
    folder = tmp_path / "mô hình"
    folder.mkdir()
    for file in made.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "mine.py").write_text(CODE.format(mark=str(tmp_path / "ran")), encoding="utf-8")
    return folder


def put(folder: Path, file: str, **settings: Any) -> ModelConfig:
    """Changes a JSON file of the folder; returns the section that names the folder."""
    content = json.loads((folder / file).read_text(encoding="utf-8")) | settings
    (folder / file).unlink()
    (folder / file).write_text(json.dumps(content), encoding="utf-8")
    return ModelConfig(name=str(folder))


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_where_transformers_has_a_class_the_code_beside_it_never_runs(backbone: Path, load: Any) -> None:
    put(backbone, "tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.Tokenizer", None]})
    found = load(put(backbone, "config.json", auto_map=AUTO_MAP))
    assert type(found).__module__.startswith("transformers.")
    assert not (backbone.parent / "ran").exists()


@pytest.mark.parametrize(
    ("load", "file", "settings", "named"),
    [
        ("config", "config.json", {"model_type": "của-em", "auto_map": AUTO_MAP}, "mine.Config, mine.Model in config"),
        ("weights", "config.json", {"model_type": "của-em", "auto_map": AUTO_MAP}, "mine.Config, mine.Model in config"),
        ("shape", "config.json", {"model_type": "của-em", "auto_map": {"AutoModel": "mine.A"}}, "mine.A in config"),
        (
            "tokenizer", "tokenizer_config.json",
            {"tokenizer_class": "CủaEm", "auto_map": {"AutoTokenizer": ["mine.T", None]}}, "mine.T in tokenizer_config",
        ),
    ],
)  # fmt: skip
def test_a_backbone_that_needs_its_code_is_refused_with_the_key(
    backbone: Path, load: str, file: str, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(BackboneError, match=rf"mô hình needs Python code .*auto_map .*got {named}.*trust_remote_code="):
        LOADERS[load](put(backbone, file, **settings))
    assert not (backbone.parent / "ran").exists()


def test_with_the_flag_it_runs_and_the_run_names_it(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(backbone.parent / "modules"))
    put(backbone, "config.json", model_type="của-em", auto_map=AUTO_MAP)
    section = ModelConfig(name=str(backbone), trust_remote_code=True)
    assert type(without_weights(section)).__name__ == "Model"
    assert (backbone.parent / "ran").exists()
    code = {"mine.py": sha256_of(backbone / "mine.py")}
    config = resolve(overrides=[f"model.name={backbone}", "model.trust_remote_code=true"])
    assert environment(config).custom_code == code
    assert custom_code(ModelConfig(name=str(backbone))) == {}
    assert of_code_that_ran(config)[0].startswith(f"model.trust_remote_code: Python code of {backbone} ran")
    put(backbone, "config.json", auto_map={"AutoConfig": "ai/khác--mine.Config"})
    with pytest.raises(BackboneError, match=r"code in another repository \(got ai/khác--mine\.Config in auto_map"):
        load_config(section)


def test_changed_code_does_not_run_under_an_adapter(backbone: Path) -> None:
    section = ModelConfig(name=str(backbone), trust_remote_code=True)
    identity = manifest.BackboneIdentity(str(backbone), None, "", {}, custom_code=custom_code(section))
    content = manifest.Manifest((), (), "", "", "", identity, {}, manifest.DataIdentity("", {}), {}, {})
    manifest.check_code(content, backbone, section)
    (backbone / "mine.py").write_text("khác", encoding="utf-8")
    with pytest.raises(RunError, match=r"is not that of the training \(got other mine\.py\)"):
        manifest.check_code(content, backbone, section)


@pytest.mark.parametrize("revision", [None, "main", "0" * 39, "g" * 40])
def test_a_hub_id_is_trusted_only_at_a_commit(revision: str | None, tmp_path: Path) -> None:
    given = ["model.name=ai/của-em", "model.trust_remote_code=true", f"model.revision={revision or 'null'}"]
    with pytest.raises(ConfigError, match=r"trust_remote_code runs code of ai/của-em.*40 hexadecimal digits"):
        resolve(overrides=given)
    pinned = resolve(overrides=[*given[:2], f"model.revision='{'a1' * 20}'"])
    assert custom_code(pinned.model) == {"ai/của-em": "a1" * 20}
    # The trust belongs to that backbone, and a run's folder cannot give it.
    (tmp_path / "config.yaml").write_text(dump_config(pinned), encoding="utf-8")
    other = resolve(config_file=tmp_path / "config.yaml", flags={"model.name": "ai/khác"})
    assert not other.model.trust_remote_code
    assert not config_of(Run(tmp_path)).model.trust_remote_code
