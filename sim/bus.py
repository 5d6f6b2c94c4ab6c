"""Bench-side models of the accelerator's word bus: a driver, a monitor, and a register-level view of the device."""

from collections.abc import Sequence
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from ..hw.arch.bus import BANK_SHIFT, STATUS_AT, STATUS_MASK, Control, Region, Register, Status, StatusBit, bus_address

__all__ = ["BusDriver", "BusMonitor", "address", "bank_address", "start_clock", "status_of"]

READ_LATENCY_LIMIT = 64
"""Cycles that a read may take before the driver calls it lost."""


def address(region: Region, offset: int) -> int:
    """Bus address of word ``offset`` of a region."""
    return bus_address(region, offset)


def bank_address(bank: int, offset: int) -> int:
    """Bus address of activation ``offset`` of a bank."""
    return address(Region.ACTIVATIONS, bank << BANK_SHIFT | offset)


def status_of(word: int) -> tuple[bool, bool, Status]:
    """``(busy, done, status)`` of a STATUS word."""
    return bool(word & StatusBit.BUSY), bool(word & StatusBit.DONE), Status(word >> STATUS_AT & STATUS_MASK)


async def start_clock(dut: Any, *, period_ns: int = 10, reset_cycles: int = 3) -> None:
    """Start ``clk`` (driven without entering Python) and pulse ``rst``; returns after a rising edge out of reset."""
    Clock(dut.clk, period_ns, unit="ns").start()
    dut.rst.value = 1
    for _ in range(reset_cycles):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)


class BusDriver:
    """Drives the bus ports of a device: one word at a time, or a write a cycle in bursts.

    Parameters
    ----------
    dut
        Has ``clk`` and the ``bus_*`` ports.
    """

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self._edge = RisingEdge(dut.clk)
        dut.bus_w_en.value = 0
        dut.bus_r_en.value = 0

    async def write(self, bus_address: int, word: int) -> None:
        """Write one word."""
        await self.write_burst(bus_address, [word])

    async def write_burst(self, bus_address: int, words: Sequence[int] | np.ndarray) -> None:
        """Write words to consecutive addresses, one each cycle."""
        dut = self.dut
        dut.bus_w_en.value = 1
        for offset, word in enumerate(words):
            dut.bus_addr.value = bus_address + offset
            dut.bus_w_data.value = int(word) & 0xffff
            await self._edge
        dut.bus_w_en.value = 0

    async def read(self, bus_address: int) -> int:
        """Read one word; an ``AssertionError`` when no answer comes."""
        dut = self.dut
        dut.bus_addr.value = bus_address
        dut.bus_r_en.value = 1
        await self._edge
        dut.bus_r_en.value = 0
        for _ in range(READ_LATENCY_LIMIT):
            await ReadOnly()
            valid, word = int(dut.bus_r_valid.value), dut.bus_r_data.value
            await self._edge
            if valid:
                return int(word.to_unsigned())
        raise AssertionError(f"reading bus address {bus_address:#08x}: no answer within {READ_LATENCY_LIMIT} cycles")

    async def read_burst(self, bus_address: int, count: int) -> np.ndarray:
        """Read ``count`` words from consecutive addresses, uint16."""
        return np.array([await self.read(bus_address + offset) for offset in range(count)], dtype=np.uint16)

    async def register(self, register: Register) -> int:
        """Read a register."""
        return await self.read(address(Region.REGISTERS, register))

    async def control(self, control: Control) -> None:
        """Write the control register."""
        await self.write(address(Region.REGISTERS, Register.CONTROL), control)


class BusMonitor:
    """Records every transfer on the bus, as (address, word): ``writes``, and ``reads`` in order of answer."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.writes: list[tuple[int, int]] = []
        self.reads: list[tuple[int, int]] = []
        self._open: list[int] = []
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        dut, edge = self.dut, RisingEdge(self.dut.clk)
        while True:
            # Before an edge, the ports hold what the design samples at that edge.
            await ReadOnly()
            if int(dut.bus_w_en.value):
                self.writes.append((int(dut.bus_addr.value), int(dut.bus_w_data.value)))
            if int(dut.bus_r_valid.value):
                assert self._open, "the bus answered a read that was not asked"
                self.reads.append((self._open.pop(0), int(dut.bus_r_data.value)))
            if int(dut.bus_r_en.value):
                assert not self._open, f"read of {int(dut.bus_addr.value):#08x} before the last one was answered"
                self._open.append(int(dut.bus_addr.value))
            await edge
