"""The board's side of the link, by its pins, on both simulators."""

import shutil

import pytest

from shiftwright.hw.arch.link import IDENTITY
from shiftwright.hw.link import Link
from shiftwright.sim.runner import BenchResult, bench

needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog (iverilog) is not installed")
BENCH = "shiftwright.sim.benches.link"


def check(simulator: str, seed: int, *, first: int, rounds: int, only: str | None = None) -> BenchResult:
    identity = bytes(range(0x60, 0x60 + sum(IDENTITY.values())))
    data = {"seed": seed, "rounds": rounds, "first": first, "identity": identity.hex()}
    return bench(Link(first, identity), BENCH, on=simulator, data=data, seed=seed, only=only)


def test_link(seed: int) -> None:
    assert len(check("verilator", seed, first=64, rounds=1).tests) >= 14


@needs_icarus
def test_link_on_icarus(seed: int) -> None:
    assert len(check("icarus", seed, first=64, rounds=1, only="order|two_hosts|put_together").tests) == 3


@pytest.mark.regress
@pytest.mark.parametrize(("simulator", "first"), [
    ("verilator", 109), ("verilator", 1667), pytest.param("icarus", 83, marks=needs_icarus)])
def test_link_at_other_speeds(simulator: str, first: int, seed: int) -> None:
    assert check(simulator, seed + first, first=first, rounds=1 if first > 1000 or simulator == "icarus" else 4).tests
