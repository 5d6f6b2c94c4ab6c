"""A receiver and a transmitter of bytes: speeds with fractions, other ends that are off, glitches, breaks."""

import random
from collections.abc import Sequence
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, Timer

from ...hw.arch.link import BREAK_BITS, DIVISOR_FRACTION
from ...hw.uart import LEAST_DIVISOR, largest_divisor
from ..bus import start_clock
from ..runner import bench_data
from .line import CLOCK_PS, LineDriver, LineMonitor, bit_ps


class Ends:
    """The receiver's bytes (None for a framing error), and the other end of each line."""

    def __init__(self, dut: Any) -> None:
        given = bench_data()
        self.dut, self.first, self.rounds = dut, given["first"], given["rounds"]
        self.rng = random.Random(f"{given['seed']} uart")
        self.taken: list[int | None] = []
        dut.receiver__divisor.value = dut.transmitter__divisor.value = self.first
        dut.transmitter__valid.value = dut.transmitter__data.value = 0
        self.line = LineDriver(dut.receiver__rx, self.first)
        self.monitor = LineMonitor(dut.transmitter__tx, self.first)

    @classmethod
    async def open(cls, dut: Any) -> "Ends":
        """After a reset."""
        ends = cls(dut)
        await start_clock(dut, period_ns=CLOCK_PS // 1000)
        cocotb.start_soon(ends._take())
        await ends.line.hold(1, 3)
        return ends

    async def _take(self) -> None:
        edge = FallingEdge(self.dut.clk)
        while True:
            await edge
            if int(self.dut.receiver__valid.value):
                self.taken.append(int(self.dut.receiver__data.value))
            if int(self.dut.receiver__error.value):
                self.taken.append(None)

    def divisor(self, value: int) -> None:
        """Of the components, and of the other ends."""
        self.dut.receiver__divisor.value = self.dut.transmitter__divisor.value = value
        self.line.divisor = self.monitor.divisor = value

    async def give(self, data: bytes) -> None:
        """Bytes to the transmitter as fast as it takes them, and until it is idle."""
        dut, edge = self.dut, FallingEdge(self.dut.clk)
        await edge
        dut.transmitter__valid.value = 1
        for byte in data:
            dut.transmitter__data.value = byte
            await Timer(1, unit="ps")
            while not int(dut.transmitter__ready.value):
                await edge
                await Timer(1, unit="ps")
            await edge
        dut.transmitter__valid.value = 0
        await Timer(1, unit="ps")
        while not int(dut.transmitter__idle.value):
            await edge
            await Timer(1, unit="ps")

    async def expect(self, expected: Sequence[int | None], what: str) -> None:
        """What has been taken by the end of the last byte."""
        await self.line.hold(1, 3)
        assert self.taken == list(expected), f"{what}: took {self.taken}, expected {list(expected)}"
        self.taken.clear()


def divisors(ends: Ends) -> list[int]:
    """The ends of the range, and random ones with fractions."""
    most = largest_divisor(ends.first)
    return [LEAST_DIVISOR, LEAST_DIVISOR + 1, LEAST_DIVISOR + 15, most,
            *(ends.rng.randint(LEAST_DIVISOR, most) for _ in range(2 * ends.rounds))]


@cocotb.test()
async def bytes_at_any_speed(dut: Any) -> None:
    """Also from another end that is 2 % too slow or too fast, whose bytes follow each other at once."""
    ends = await Ends.open(dut)
    for divisor in divisors(ends):
        ends.divisor(divisor)
        for wrong in (1, 0.98, 1.02):
            data = bytes([0x00, 0xFF, 0x55, *(ends.rng.getrandbits(8) for _ in range(9))])
            ends.line.divisor = divisor * wrong
            await ends.line.send(data)
            await ends.expect(data, f"divisor {divisor}, other end {wrong}")


@cocotb.test()
async def sent_bytes_keep_the_time(dut: Any) -> None:
    """Fractions of a cycle add up: many bytes take what their divisor says, to a cycle."""
    ends = await Ends.open(dut)
    for divisor in divisors(ends):
        ends.divisor(divisor)
        data = bytes(ends.rng.getrandbits(8) for _ in range(24))
        ends.monitor.bytes.clear()
        start = cocotb.simtime.get_sim_time("ps")
        await ends.give(data)
        cycles = (cocotb.simtime.get_sim_time("ps") - start) / CLOCK_PS
        assert bytes(ends.monitor.bytes) == data, f"divisor {divisor}: {bytes(ends.monitor.bytes).hex(' ')}"
        expected = 10 * len(data) * divisor / 16
        assert abs(cycles - expected) <= 2, f"divisor {divisor}: {cycles} cycles, expected {expected}"


@cocotb.test()
async def glitches(dut: Any) -> None:
    """What is shorter than a quarter of a bit, in whole cycles, is no start bit, and changes no bit."""
    ends = await Ends.open(dut)
    for divisor in (40 * LEAST_DIVISOR // 16 + 3, 3 * LEAST_DIVISOR):
        ends.divisor(divisor)
        short = ((divisor >> DIVISOR_FRACTION + 2) - 0.1) * (1 << DIVISOR_FRACTION) / divisor
        for _ in range(6 * ends.rounds):
            await ends.line.hold(0, short)
            await ends.line.hold(1, ends.rng.uniform(1.0, 2.0))
            byte = ends.rng.getrandbits(8)
            bits = [0, *(byte >> n & 1 for n in range(8)), 1]
            for bit in bits:
                before = ends.rng.uniform(0.05, 0.95 - short)
                await ends.line.hold(bit, before)
                await ends.line.hold(bit ^ 1, short)
                await ends.line.hold(bit, 1 - short - before)
            await ends.line.hold(1, 1)
            await ends.expect([byte], f"divisor {divisor}")


@cocotb.test()
async def framing_errors_and_breaks(dut: Any) -> None:
    """A byte without a stop bit is told once, however long the line is low; a break while it lasts."""
    ends = await Ends.open(dut)
    for divisor in (ends.first, LEAST_DIVISOR, largest_divisor(ends.first)):
        ends.divisor(divisor)
        await ends.line.hold(0, 10.5)
        await ends.expect([None], f"divisor {divisor}, a byte without a stop bit")
        await ends.line.send(b"\x00")
        assert not int(dut.receiver__broken.value), f"divisor {divisor}: a byte is no break"
        await ends.expect(b"\x00", f"divisor {divisor}, the slowest byte")
        dut.receiver__rx.value = 0
        # The synchronizer takes up to three cycles.
        await Timer(round(BREAK_BITS * bit_ps(ends.first)), unit="ps")
        assert not int(dut.receiver__broken.value)
        await Timer(4 * CLOCK_PS, unit="ps")
        for _ in range(3):
            assert int(dut.receiver__broken.value)
            await Timer(round(BREAK_BITS * bit_ps(ends.first)), unit="ps")
        dut.receiver__rx.value = 1
        await Timer(4 * CLOCK_PS, unit="ps")
        assert not int(dut.receiver__broken.value)
        await ends.expect([None], f"divisor {divisor}, a break")
        await ends.line.send(b"ok")
        await ends.expect(b"ok", f"divisor {divisor}, after a break")
