"""The sections `fewshot` and `sweep` of the config."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from loraft.config.section import Section


class FewshotConfig(Section):
    """The few-shot study: numbers of demonstrations, draws of each, and how they are selected."""

    shots: list[Annotated[int, Field(ge=0, le=10_000)]] = Field(
        default_factory=lambda: [1, 2, 4, 8],
        min_length=1,
        max_length=100,
        description="numbers of demonstrations in the prompt; 0 is always measured",
    )
    repeats: int = Field(5, ge=1, le=1000, description="random draws of demonstrations for each number of them")
    selection: Literal["random", "balanced", "nearest"] = Field(
        "random", description="of demonstrations; balanced: over the labels; nearest: most similar to the row"
    )
    order: Literal["shuffled", "drawn"] = Field(
        "shuffled", description="of a prompt's demonstrations; drawn: as they were drawn, the first n of one list"
    )

    @model_validator(mode="after")
    def _draws_differ(self) -> "FewshotConfig":
        if self.selection == "nearest" and self.order == "drawn" and self.repeats > 1:
            raise ValueError(
                f"order=drawn makes all draws of selection=nearest the same, and repeats is {self.repeats}; set"
                " repeats=1 or order=shuffled"
            )
        return self


class SweepConfig(Section):
    """The sweep: a grid over config keys; `ranks` is short for `lora.r`."""

    ranks: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        default_factory=lambda: [1, 2, 4, 8, 16, 32, 64, 128],
        max_length=1000,
        description="LoRA ranks, one trial each",
    )
    grid: dict[str, list[str | int | float | bool | None]] = Field(
        default_factory=dict, description="config keys with their values; every combination is a trial"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        default_factory=list, max_length=1000, description="seeds of every trial; []: the config's seed"
    )
    joint: Literal["auto", "on", "off"] = Field(
        "auto", description="train trials in one pass; auto: where it is faster"
    )
    search: dict[str, str] = Field(
        default_factory=dict, description="config keys with a range or list of values that Optuna draws from"
    )
    trials: int = Field(20, ge=1, le=10_000, description="trials of a search")
    prune: bool = Field(True, description="end trials of a search that fall behind on validation")
    engine: Literal["local", "ray"] = Field(
        "local", description="where trials run: in this process, or on the workers of a Ray cluster"
    )
    address: str | None = Field(
        None, min_length=1, description="host:port of the Ray cluster; null: RAY_ADDRESS, else one on this machine"
    )
    cpus: float = Field(1, ge=0.01, le=1024, description="CPUs of a Ray worker, which computes with as many threads")
    gpus: float | None = Field(
        None, ge=0, le=1, description="GPU of a Ray worker; 0.25: four share one; null: 1 where the cluster has any"
    )

    @model_validator(mode="after")
    def _searches_here(self) -> "SweepConfig":
        if self.search and self.engine != "local":
            raise ValueError(
                f"engine={self.engine} runs trials side by side, and each trial of search follows from those before it;"
                " set engine=local"
            )
        return self
