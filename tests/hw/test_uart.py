"""Bytes on a line, on both simulators."""

import shutil

import pytest

from shiftwright.sim.runner import BenchResult, bench
from shiftwright.sim.uartstand import UartStand

needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog (iverilog) is not installed")


def check(simulator: str, seed: int, *, first: int, rounds: int) -> BenchResult:
    data = {"seed": seed, "rounds": rounds, "first": first}
    return bench(UartStand(first), "shiftwright.sim.benches.uart", on=simulator, data=data, seed=seed)


@needs_icarus
def test_uart(seed: int) -> None:
    assert len(check("icarus", seed, first=67, rounds=1).tests) == 4


@pytest.mark.regress
@pytest.mark.parametrize("first", [64, 109, 1667])
def test_uart_on_verilator(first: int, seed: int) -> None:
    assert len(check("verilator", seed + first, first=first, rounds=5 if first < 1000 else 1).tests) == 4
