"""What the tests of the few-shot study share."""

from typing import Any

import pytest
from helpers.tiny import backbone, tokenizer

from loraft.engine import scorer
from loraft.models.load import build_encoder
from loraft.studies.fewshot import study as fewshot_study


@pytest.fixture
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies ask a tiny random backbone."""
    monkeypatch.setattr(fewshot_study, "build", lambda config: (build_encoder(config), backbone()))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The prompts of each evaluation, as text."""
    prompts: list[list[str]] = []
    score = scorer.score

    def keep(model: Any, ids: Any, *args: Any, **kwargs: Any) -> Any:
        prompts.append(tokenizer().batch_decode(ids))
        return score(model, ids, *args, **kwargs)

    monkeypatch.setattr(scorer, "score", keep)
    return prompts
