"""Which modules and parameters of a backbone the `lora` section names, and errors for names that it does not have.

peft ignores a name that matches nothing, as long as another one matches something.
"""

import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from loraft.config.names import show
from loraft.config.schema import LoraSection
from loraft.engine.quantized_linear import is_4bit
from loraft.errors import BackboneError

SECONDS = 20  # for a regular expression and all module names; it takes milliseconds
# The settings whose texts peft takes for regular expressions, and what it matches where each may hold several.
EXPRESSIONS = {
    "target_modules": "",
    "exclude_modules": "",
    "layers_pattern": r"(?:^|.*?\.)()\.(\d+)\.",
    "rank_pattern": r"(.*\.)?()$",
    "alpha_pattern": r"(.*\.)?()$",
    "modules_to_save": r"(^|.*\.)()($|\..*)",
}
PLAIN = re.compile(r"[\w.-]+")


def matches(targets: str | Collection[str], name: str) -> bool:
    """Says whether peft's `target_modules` name this module: as a regular expression, or as the end of its name."""
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(f".{name}".endswith(f".{target}") for target in targets)


def refuse_endless(place: str, settings: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuses regular expressions that take too long: Python's have no limit, and nothing else runs meanwhile.

    Args:
        place: of the settings, for the message.
        settings: of an adapter, with peft's keys.
        names: of the backbone's modules.

    Raises:
        BackboneError: another process did not match those of a setting with the names within `SECONDS`.
    """
    code = (
        "import json, re, sys; from contextlib import suppress; patterns, names = json.load(sys.stdin)\n"
        "for pattern in patterns:\n with suppress(re.error, OverflowError, RecursionError):\n"
        "  [(re.match(pattern, name), re.fullmatch(pattern, name)) for name in names]"
    )
    for key, form in EXPRESSIONS.items():
        given = settings.get(key)
        items = [given] if isinstance(given, str) else given if form and isinstance(given, list | dict) else ()
        patterns = [form.replace("()", f"({one})") or one for one in map(str, items) if not PLAIN.fullmatch(one)]
        if not patterns:
            continue
        try:
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", code],
                input=json.dumps([patterns, [*names]]),
                text=True,
                timeout=SECONDS,
                capture_output=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BackboneError(
                f"{place}{key}: the regular expression takes too long (got {show(given)}); write no repetition of"
                " a repetition, or list the names"
            ) from None


def special_linears(base: PreTrainedModel) -> list[str]:
    """Returns the names of linear layers whose output is not one tensor of their size: Llama 4's and Phi-MoE's routers.

    peft's `all-linear` takes them, and then its layer fails on their output.
    """
    found: dict[type, list[str]] = {}
    special: set[type] = set()
    for name, module in base.named_modules():
        kind = type(module)
        if not isinstance(module, torch.nn.Linear) or kind.forward is torch.nn.Linear.forward or is_4bit(module):
            continue
        if kind not in found and not _is_linear(module):
            special.add(kind)
        found.setdefault(kind, []).append(name)
    return [name for kind in special for name in found[kind]]


@torch.no_grad()
def _is_linear(module: torch.nn.Linear) -> bool:
    try:
        output = module(module.weight.new_zeros(1, module.in_features))
    except Exception:  # it wants another shape
        return False
    return isinstance(output, torch.Tensor) and output.shape == (1, module.out_features)


def check_targets(base: PreTrainedModel, section: LoraSection) -> None:
    """Checks that the backbone has every module and every parameter that the section names.

    Raises:
        BackboneError: it has not; the message holds the name, and the kinds of modules or parameters that there are.
    """
    modules = {name: module for name, module in base.named_modules() if name}
    weights = {name: module.weight for name, module in modules.items() if _has_weight(module)}
    _check_modules_to_save(section.modules_to_save, modules, _kinds(weights))
    # peft adapts nothing that is trained whole, and nothing inside of it.
    left = [name for name in modules if not any(f".{one}." in f".{name}." for one in section.modules_to_save)]
    special = special_linears(base)
    matrices = [name for name in left if name in weights and weights[name].ndim > 1 and name not in special]
    _check_target_modules(section, left, matrices)
    # The loss and the scores are computed from the output layer's weight: an adapter on it would never be trained.
    head = next((name for name, module in modules.items() if module is base.get_output_embeddings()), None)
    given = section.target_modules
    if head is not None and head in left and given not in ("default", "all-linear") and matches(given, head):
        raise BackboneError(
            f"lora.target_modules: {head} is the output layer, which takes no adapter (got {show(given)}); leave it"
            f" out, or train it whole: lora.modules_to_save=[{head}]"
        )
    parameters = {name: parameter for name, parameter in base.named_parameters() if parameter.ndim in (2, 3)}
    experts = _kinds((name for name, parameter in parameters.items() if parameter.ndim == 3), parts=3)
    for given in section.target_parameters:
        if not any(matches([given], name) for name in parameters):
            raise BackboneError(
                f"lora.target_parameters: no such parameter (got {given!r}); stacked experts: {experts}"
            )


def _check_modules_to_save(given: Collection[str], modules: dict[str, torch.nn.Module], kinds: str) -> None:
    for one in given:
        found = [name for name in modules if matches([one], name)]
        if not found:
            raise BackboneError(f"lora.modules_to_save: no such module (got {one!r}); this backbone has {kinds}")
        more = [name for name in modules if name.endswith(one) and name not in found]  # as peft reads it
        if more:
            raise BackboneError(
                f"lora.modules_to_save: {more[0]} ends in it too (got {one!r}); give more of the name: {found[0]}"
            )
        if any(is_4bit(part) for name in found for part in modules[name].modules()):
            raise BackboneError(
                f"lora.modules_to_save: is stored in 4 bits and cannot be trained (got {one!r}); use --quant none, or "
                "adapt it with lora.target_modules"
            )


def _check_target_modules(section: LoraSection, names: list[str], adaptable: list[str]) -> None:
    """Checks `target_modules`; `names` are those of all modules, `adaptable` of those with a matrix of weights."""
    given, there = section.target_modules, f"this backbone has {_kinds(adaptable)}"
    if not given and not section.target_parameters:
        raise BackboneError(f"lora.target_modules: names no module (got {given!r}); {there}")
    if given in ("default", "all-linear"):
        return
    if isinstance(given, str):
        refuse_endless("lora.", {"target_modules": given}, names)
    for targets in [given] if isinstance(given, str) else [[target] for target in given]:
        found = [name for name in names if matches(targets, name)]
        got = targets if isinstance(targets, str) else targets[0]
        if not found and isinstance(given, str):
            raise BackboneError(
                f"lora.target_modules: the regular expression matches no module's whole name (got {got!r}), such as "
                f"{adaptable[0]}; {there}; a list of names needs brackets"
            )
        if not found:
            raise BackboneError(f"lora.target_modules: no such module (got {got!r}); {there}")
        without = [name for name in found if name not in adaptable]
        if without:
            raise BackboneError(
                f"lora.target_modules: {without[0]} has no matrix that peft adapts (got {got!r}); {there}"
            )


def _has_weight(module: torch.nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), torch.Tensor)


def _kinds(names: Iterable[str], parts: int = 1) -> str:
    """The different last parts of dotted names, in their order."""
    return ", ".join(dict.fromkeys(".".join(name.split(".")[-parts:]) for name in names)) or "none"
