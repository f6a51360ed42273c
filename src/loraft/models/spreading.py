"""A backbone that is larger than one GPU, its layers spread over several (`model.device_map: auto`), by accelerate."""

from transformers import PreTrainedModel

from loraft import distributed
from loraft.errors import BackboneError, ConfigError, listed

NO_DEVICE = ("cpu", "disk")


def device_map() -> str:
    """Returns what tells transformers to spread a backbone.

    Raises:
        ConfigError: there are several processes, each of which would take all devices.
    """
    if distributed.is_distributed():
        raise ConfigError(
            "model.device_map: auto gives one process all GPUs (got WORLD_SIZE above 1); start without a launcher, or"
            " set none and share the backbone out with configs/accelerate/fsdp2.yaml"
        )
    return "auto"


def refuse_offloaded(base: PreTrainedModel) -> None:
    """Refuses a backbone a part of which has no place on the GPUs: it would be copied there for every batch.

    Raises:
        BackboneError: accelerate has put layers into the host's memory or on the disk.
    """
    places = getattr(base, "hf_device_map", None) or {}
    left = [name for name, place in places.items() if str(place) in NO_DEVICE]
    if "disk" in map(str, places.values()) or 0 < len(left) < len(places):
        raise BackboneError(
            f"model.device_map: the GPUs do not hold the backbone (no room for {len(left)} of {len(places)} parts:"
            f" {listed(left, 3)}); use --quant nf4, model.dtype=bf16, or more GPUs"
        )
