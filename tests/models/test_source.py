"""GGUF files as backbones: with the tokenizer inside, whole and in NF4; and what is no backbone."""

from pathlib import Path

import pytest
import torch
from helpers.gguf_files import TEMPLATE, bpe, llama, write_gguf
from helpers.tiny import SENTENCES
from safetensors.torch import load_file, save_file

from loraft.config.resolve import resolve
from loraft.config.schema import ModelConfig, QuantConfig
from loraft.engine.quantized_linear import dense_weight
from loraft.errors import BackboneError
from loraft.models.backbone import fingerprint, load_backbone, load_tokenizer, without_weights
from loraft.models.source import resolve_name
from loraft.runs.run import default_name


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mô hình") / "tí hon.Q8.gguf"
    write_gguf(path)
    return path


def test_a_gguf_file_is_loaded_with_the_weights_and_the_tokenizer_inside(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    section = ModelConfig(name=str(file), dtype="fp32")
    found, tokenizer = load_backbone(section, QuantConfig()), load_tokenizer(section)
    assert tokenizer.name_or_path == str(file)  # of messages
    expected = llama().state_dict()
    assert {name: tensor.shape for name, tensor in found.state_dict().items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())
    for text in SENTENCES:
        assert tokenizer(text, add_special_tokens=False).input_ids == bpe().encode(text).ids
    assert (tokenizer.chat_template, tokenizer.eos_token_id, tokenizer.convert_ids_to_tokens(1)) == (
        TEMPLATE, 2, "<|im_start|>",
    )  # fmt: skip
    assert found.config.max_position_embeddings == 512
    assert {name: p.shape for name, p in without_weights(section).named_parameters()} == {
        name: p.shape for name, p in found.named_parameters()
    }
    assert capfd.readouterr().err == ""  # no progress bar, no report of transformers


def test_a_gguf_file_in_nf4_is_what_its_weights_give_in_nf4(file: Path, tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    quant = QuantConfig(method="nf4", compute_dtype="fp32")
    of_folder = load_backbone(ModelConfig(name=str(tmp_path), dtype="fp32"), quant)
    of_file = load_backbone(ModelConfig(name=str(file), dtype="fp32"), quant)
    assert fingerprint(of_file) == fingerprint(of_folder)
    layer, other = (model.model.layers[1].mlp.up_proj for model in (of_file, of_folder))
    assert torch.equal(dense_weight(layer, torch.float32), dense_weight(other, torch.float32))
    assert of_file.is_loaded_in_4bit


def test_a_folder_with_one_gguf_file_stands_for_it(file: Path, tmp_path: Path) -> None:
    assert resolve_name(str(file.parent)) == resolve_name(str(file)) == str(file)
    assert default_name(resolve(overrides=[f"model.name={file}"])).startswith("tí hon.Q8-feedback-")
    (tmp_path / "B.GGUF").symlink_to(file)
    assert resolve_name(str(tmp_path)) == str(tmp_path / "B.GGUF")
    assert resolve(overrides=[f"model.name={tmp_path / 'B.GGUF'}"]).model.label == "B"
    assert load_tokenizer(ModelConfig(name=str(tmp_path / "B.GGUF"))).chat_template == TEMPLATE
    (tmp_path / "a.gguf").write_bytes(b"")
    with pytest.raises(BackboneError, match=r"holds several GGUF files \(B\.GGUF, a\.gguf\); name one of them"):
        resolve_name(str(tmp_path))
    with pytest.raises(BackboneError, match=r"no such backbone \(got 'owner/x\.gguf'\)"):
        resolve_name("owner/x.gguf")
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(BackboneError, match="is a file, but no GGUF file; name its folder"):
        resolve_name(str(tmp_path / "x.bin"))


def test_a_damaged_gguf_file_and_a_missing_package_are_one_clear_error(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "hỏng.gguf"
    broken.write_bytes(file.read_bytes()[:900])
    for load in (load_tokenizer, lambda section: load_backbone(section, QuantConfig())):
        with pytest.raises(BackboneError, match=r"model\.name: cannot load .*hỏng\.gguf: .*; the files are damaged"):
            load(ModelConfig(name=str(broken)))
    write_gguf(tmp_path / "thiếu.gguf", leave_out="blk.1.ffn_up.weight")
    with pytest.raises(BackboneError, match=r"do not fit its architecture: 1 missing \(model\.layers\.1\.mlp\.up_proj"):
        load_backbone(ModelConfig(name=str(tmp_path / "thiếu.gguf")), QuantConfig())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="needs a package: pip install gguf"):
        load_tokenizer(ModelConfig(name=str(file)))


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_weights_that_are_not_those_of_the_architecture_are_refused(
    tmp_path: Path, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    llama().save_pretrained(tmp_path)
    path, section, quant = tmp_path / "model.safetensors", ModelConfig(name=str(tmp_path)), QuantConfig(method=method)
    weights = load_file(path)
    half = {name: tensor for name, tensor in weights.items() if ".layers.1." not in name}
    save_file(half, path, {"format": "pt"})
    with pytest.raises(BackboneError, match=r"9 missing \(model\.layers\.1\.\S+, \S+, \S+, \.\.\.\); get the whole"):
        load_backbone(section, quant)
    save_file({**weights, "score.weight": torch.zeros(3, 64)}, path, {"format": "pt"})
    with pytest.raises(BackboneError, match=r"fit its architecture: 1 unexpected \(score\.weight\)"):
        load_backbone(section, quant)
    save_file({**weights, "lm_head.weight": torch.zeros(7, 64)}, path, {"format": "pt"})
    with pytest.raises(BackboneError, match=r"do not fit its architecture: 1 of another shape \(lm_head\.weight\)"):
        load_backbone(section, quant)
    assert capfd.readouterr().err == ""  # transformers' report of the same
    # As checkpoints of 2023 have them: transformers computes both itself.
    old = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(8) for i in range(2)}
    old |= {"model.layers.0.attn.masked_bias": torch.tensor(-1e4), "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4)}
    save_file({**weights, **old}, path, {"format": "pt"})
    assert load_backbone(section, quant).num_parameters() > 0


def test_tied_weights_may_lie_in_the_file_once(tmp_path: Path) -> None:
    model = llama()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    found = load_backbone(ModelConfig(name=str(tmp_path)), QuantConfig())
    assert found.lm_head.weight is found.model.embed_tokens.weight
