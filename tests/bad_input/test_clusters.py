"""Flags and keys of the Ray engine of a sweep, and clusters that are not there."""

import socket
import sys

import pytest
from helpers.bad_input import refusal

SWEEP = ["sweep", "--ranks", "1,2"]
FLAGS = {
    "--engine spark": r"sweep\.engine: not allowed \(got 'spark', from --engine\); should be 'local' or 'ray'",
    "--engine ray --address=": r"sweep\.address: not allowed \(got '', from --address\)",
    "--address 127.0.0.1:6379": r"--address: is of a Ray cluster \(got --engine local\); add --engine ray",
    "--engine ray --set sweep.cpus=0": r"sweep\.cpus: not allowed \(got 0.*greater than or equal to 0.01",
    "--engine ray --set sweep.cpus=.inf": r"sweep\.cpus: not allowed \(got \.inf",
    "--engine ray --set sweep.gpus=-0.5": r"sweep\.gpus: not allowed \(got -0\.5",
    "--engine ray --set sweep.gpus=2": r"sweep\.gpus: not allowed \(got 2.*less than or equal to 1",
    "--from x --engine ray": r"--engine",
}


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_that_do_not_fit_are_refused(flags: str) -> None:
    refusal([*SWEEP[: 1 if "--from" in flags else 3], *flags.split()], FLAGS[flags])


def test_without_ray_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    refusal(
        [*SWEEP, "--engine", "ray"], r"loraft sweep --engine ray: needs ray \(got .*\); pip install 'loraft\[ray\]'"
    )


@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "không-có.invalid:6379", "sai", "127.0.0.1:99999", ":"])
def test_an_address_without_a_cluster_is_refused_and_nothing_is_written(address: str) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = address.format(free=taken.getsockname()[1])
        refusal(
            [*SWEEP, "--engine", "ray", "--address", address], r"no Ray cluster answers at .*; give the address that"
        )
