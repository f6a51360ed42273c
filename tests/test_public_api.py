import subprocess
import sys

import pytest

import loraft


def test_the_public_names_are_these() -> None:
    assert sorted(loraft.__all__) == [
        "BackboneError",
        "Config",
        "ConfigError",
        "DataError",
        "LoraftError",
        "RunError",
        "__version__",
        "compare",
        "dump_yaml",
        "evaluate",
        "fewshot",
        "load_resolved",
        "predict",
        "resolve",
        "sweep",
        "train",
    ]
    assert dir(loraft) == sorted(loraft.__all__)


@pytest.mark.parametrize("name", loraft.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(loraft, name)
    assert name == "__version__" or (callable(value) and value.__name__ == name and value.__doc__)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'finetune'; public names: .*train"):
        loraft.finetune  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    script = "import sys, loraft; print([name for name in sys.modules if name.startswith('loraft')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['loraft']"
