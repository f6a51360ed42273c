"""Which packages the trackers of `train.report_to` need."""

from importlib.util import find_spec

from loraft.config.schema import Config
from loraft.errors import ConfigError

# Modules that transformers imports for a tracker, and what pip installs, where these are not the tracker's own name.
MODULES = {"azure_ml": ("azureml", "mlflow"), "dagshub": ("dagshub", "mlflow"), "flyte": ("flytekit",), "kubeflow": ()}
PIP = {"azureml": "azureml-core", "comet_ml": "comet-ml"}


def refuse_missing_trackers(config: Config) -> None:
    """Refuses a training whose trackers are not installed; transformers would only say so after the loading.

    Raises:
        ConfigError: with each tracker and the packages to install.
    """
    mistakes = []
    for tracker in config.train.report_to:
        missing = [one for one in MODULES.get(tracker, (tracker,)) if not _is_there(one)]
        if missing:
            packages = " ".join(PIP.get(one, one) for one in missing)
            mistakes.append(
                f"train.report_to: is not installed (got {tracker!r}); pip install {packages}, or leave it out"
            )
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))


def _is_there(module: str) -> bool:
    names = ("tensorboard", "tensorboardX") if module == "tensorboard" else (module,)
    try:
        return any(find_spec(name) is not None for name in names)
    except ValueError:  # a module that was made while Python ran
        return True
