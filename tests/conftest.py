"""What all tests share: no network, no user settings, and the marks' reasons."""

import gc
import logging
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# pytest --hypothesis-profile=fuzz, as in `make fuzz`: other examples at each call, and many.
settings.register_profile("fuzz", max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MPLBACKEND="Agg",
    TOKENIZERS_PARALLELISM="false",
)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # each worker has a core; read when torch is imported
for variable in ("LORAFT_PRESET", "LORAFT_DEBUG", "RANK", "LOCAL_RANK", "WORLD_SIZE", "FORCE_COLOR"):
    os.environ.pop(variable, None)

SIGTERM_HANDLER = signal.getsignal(signal.SIGTERM)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow")
    parser.addoption("--integration", action="store_true", help="run the tests marked integration")
    parser.addoption("--network", action="store_true", help="run the tests marked network")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {}
    if not config.getoption("--slow"):
        reasons["slow"] = "takes minutes or a browser; --slow runs it"
    if not config.getoption("--integration"):
        reasons["integration"] = "runs commands of the documentation; --integration runs it, and make check does"
    if not config.getoption("--network"):
        reasons["network"] = "reaches the hub; --network runs it"
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            reasons["gpu"] = "needs a CUDA device; there is none"
    for item in items:
        for mark, reason in reasons.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="session")
def _a_cpu_computes_in_fp32() -> Iterator[None]:
    """The same `model.dtype: auto` on every processor: the tolerances of tests are those of fp32."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            patch.setattr(torch.cpu, name, lambda: False)
        yield


@pytest.fixture(autouse=True)
def _level_of_a_librarys_logger() -> None:
    """A command sets it for its whole process, whatever test or fixture of a module called it before."""
    logging.getLogger("bitsandbytes").setLevel(logging.NOTSET)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Fails the test that leaves another handler of SIGTERM behind, in place of a later one that gets the signal."""
    yield
    if (left := signal.getsignal(signal.SIGTERM)) != SIGTERM_HANDLER:
        signal.signal(signal.SIGTERM, SIGTERM_HANDLER)
        pytest.fail(f"leaves {left} behind as the handler of SIGTERM")


def pytest_collection_finish() -> None:
    # Every training starts with a garbage collection, which would go through the objects of all imported modules.
    gc.collect()
    gc.freeze()
