"""The scripts that make the backbone: token files, batches, optimizer, resuming, and the one command from text to weights."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "pretrain"))  # scripts, no package

import instruct
import optimizers
import pretrain
import run
import tokens
from opinions import load_material, sample_opinion

from loraft.bundled import bundled_backbones

MATERIAL = load_material(Path(pretrain.__file__).parent / "opinions")
SHAPE = run.SMOKE_SHAPE
VOCAB = 8192


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the one command makes of sixty documents of twelve opinions each."""
    folder = tmp_path_factory.mktemp("backbone")
    rng = random.Random(1)
    documents = ("\n".join(sample_opinion(MATERIAL, rng).text for _ in range(12)) for _ in range(60))
    (folder / "corpus.txt").write_text("\n\n".join(documents), encoding="utf-8")
    run.main(folder / "corpus.txt", folder, device="cpu", smoke=True)
    return folder


def test_one_command_goes_from_text_to_bf16_weights_that_are_evaluated(made: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(made / "weights")
    assert weights.dtype == torch.bfloat16
    trained = AutoModelForCausalLM.from_pretrained(made / "stage2/model", dtype=torch.float32)
    assert {name: p.bfloat16() for name, p in trained.state_dict().items()}.keys() == weights.state_dict().keys()
    assert all(torch.equal(p.bfloat16(), weights.state_dict()[name]) for name, p in trained.state_dict().items())
    assert AutoTokenizer.from_pretrained(made / "weights").get_vocab() == tokenizer().get_vocab()
    log = json.loads((made / "weights/log.json").read_text(encoding="utf-8"))
    assert [rows[-1]["step"] for rows in log.values()] == [4, 4]
    assert all(rows[-1]["held_out_loss"] > 0 for rows in log.values())
    assert not list((made / "weights").glob("*.pt"))
