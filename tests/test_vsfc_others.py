"""The rows beside LoRA in `make bench-vsfc`: what is trained, no effect of padding, and plain losses and scores."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.plain_scoring import score_plainly
from helpers.tiny import backbone, tokenizer

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.data.dataset import load_data
from loraft.engine.probabilities import to_probs
from loraft.models.load import build_encoder

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import vsfc
import vsfc_others
from vsfc_others import Way


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("tiny")
    backbone().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    small = ["data.max_train_rows=16", "data.max_eval_rows=6", "data.max_test_rows=6", "train.max_steps=6"]
    small += ["train.eval_steps=2", "train.per_device_train_batch_size=4", "eval.bootstrap_samples=100"]
    return resolve(config_file=vsfc.CONFIG, overrides=small, flags={"model.name": str(folder)})


def test_a_head_is_trained_with_the_same_adapter_and_padding_changes_no_sentence(config: Config) -> None:
    train, test = load_data(config, "train"), load_data(config, "test")
    found = vsfc_others.head(config, train)
    trained = {name for name, one in found.model.named_parameters() if one.requires_grad}
    assert {"lora_" in name for name in trained} == {True, False}
    (own,) = (name for name in trained if "lora_" not in name)
    assert own.endswith("score.modules_to_save.default.weight")
    together = found.probs_of(test)
    for i, text in enumerate(test.texts):  # without padding, pooled at the last token by hand
        ids = torch.tensor([tokenizer()(text, split_special_tokens=True).input_ids])
        with torch.no_grad():
            base = found.model.get_base_model()
            logits_K = base.score(base.model(ids).last_hidden_state[0, -1])
        np.testing.assert_allclose(together[i], logits_K.softmax(-1).numpy(), atol=1e-5)


def test_full_fine_tuning_trains_all_weights_on_the_loss_of_the_answers(config: Config) -> None:
    train, test = load_data(config, "train"), load_data(config, "test")
    found, encoder = vsfc_others.full(config, train), build_encoder(config)
    assert all(one.requires_grad for one in found.model.parameters())
    expected = []
    for prompt, label in zip(encoder.encode(train.texts[:4]), train.labels, strict=False):
        answer = encoder.completions_K[label]
        log_probs = found.model(torch.tensor([[*prompt.ids, *answer]])).logits[0].log_softmax(-1)
        expected += [-log_probs[len(prompt.ids) - 1 + t, token].item() for t, token in enumerate(answer)]
    assert found.loss(range(4)).item() == pytest.approx(np.mean(expected), rel=1e-5)

    before = [one.detach().clone() for one in found.model.parameters()]
    vsfc_others.fit(found, config, train, load_data(config, "validation"))
    assert all(not torch.equal(one, other) for one, other in zip(before, found.model.parameters(), strict=True))
    ids = [prompt.ids for prompt in encoder.encode(test.texts)]
    plain = to_probs(score_plainly(found.model, ids, encoder.completions_K))
    np.testing.assert_allclose(found.probs_of(test), plain, atol=1e-4)  # nothing of the old weights is left


@pytest.mark.parametrize("way", list(Way))
def test_a_training_ends_with_the_step_that_was_best_on_validation_and_the_table_shows_it(
    way: Way, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    found = vsfc_others.run(way, config)
    train: dict[str, Any] = found["train"]
    assert train["learning_rate"] == pytest.approx({Way.HEAD: 2e-3, Way.FULL: 2e-4}[way])
    assert train["steps"] == 6
    assert train["last_loss"] < train["first_loss"]
    scores = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert train["validation_macro_f1"] == pytest.approx(max(scores), abs=1e-4)
    assert train["best_step"] == 2 * (1 + scores.index(max(scores)))
    baseline = dict.fromkeys(vsfc.METRICS, 0.5)
    vsfc.show({"runs": {way: [{**found, "intervals": found["after"]["intervals"]}]}, "baseline": baseline})
    assert vsfc.OTHERS[way] in capsys.readouterr().out
