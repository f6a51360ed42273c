"""Load a backbone with the encoder of a task, bare or with the adapter of a finished run."""

from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.data.prompt import Task
from loraft.errors import RunError
from loraft.models import manifest
from loraft.models.adapter import apply_adapter, load_adapter
from loraft.models.backbone import load_backbone, load_tokenizer
from loraft.models.encoder import Encoder
from loraft.models.positions import NO_LIMIT, longest_prompt
from loraft.runs.run import Run


def build(config: Config) -> tuple[Encoder, PreTrainedModel]:
    """Returns the encoder of the config's task and the backbone without adapter."""
    return build_encoder(config), load_backbone(config.model, config.quant)


def build_encoder(config: Config, *, whole: bool = False) -> Encoder:
    """Returns the encoder of the config's task for the backbone's tokenizer; loads no weights.

    With `whole` it shortens no sentence; else to `prompt.max_length` and the backbone's positions.
    """
    section, task = config.prompt, Task.from_config(config.prompt)
    most = NO_LIMIT if whole else longest_prompt(config)
    return Encoder(load_tokenizer(config.model), task, date_string=section.date_string, max_length=most)


def load_run(run: Run, config: Config, *, for_good: bool = False) -> tuple[Encoder, PreTrainedModel]:
    """Returns the encoder and the backbone with the run's adapter, after checking that they belong together.

    Args:
        run: a finished run.
        config: its `model`, `quant` and `prompt` sections must be those that the adapter was trained with.
        for_good: returns the backbone itself with the adapter built in, which loads faster; otherwise a PeftModel,
            whose adapter can be switched off.

    Raises:
        RunError: the run is not finished, or the adapter was trained with another backbone or prompt.
        BackboneError: the backbone or the adapter cannot be loaded.
    """
    if not run.finished:
        raise RunError(f"{run.path}: the run is not finished (no {run.results_file}); {run.how_to_resume} finishes it")
    content = manifest.read(run.adapter)
    encoder, base = build(config)
    manifest.check(content, run.adapter, encoder, base)
    return encoder, (apply_adapter if for_good else load_adapter)(base, run.adapter)
