"""A serial line's other end: sends and takes bytes by pins, in simulated time."""

import random
from collections.abc import Iterable
from typing import Any

import cocotb
from cocotb.triggers import Event, FallingEdge, Timer, with_timeout

from ...hw.arch.link import DIVISOR_FRACTION

__all__ = ["CLOCK_PS", "LineMonitor", "LineDriver"]

CLOCK_PS = 10_000
"""Of :func:`..bus.start_clock`."""
SAMPLE = 0.5


def bit_ps(divisor: float) -> float:
    """Length of a bit of a divisor, in ps."""
    return divisor * CLOCK_PS / (1 << DIVISOR_FRACTION)


class LineDriver:
    """Drives a line.

    Parameters
    ----------
    pin
        High when idle.
    divisor : float
        Clock cycles of the device in a bit, times 16.
    """

    def __init__(self, pin: Any, divisor: float) -> None:
        self.pin, self.divisor = pin, divisor
        pin.value = 1

    async def hold(self, level: int, bits: float) -> None:
        """A level for some bits."""
        self.pin.value = level
        await Timer(max(1, round(bits * bit_ps(self.divisor))), unit="ps")

    async def send(self, data: Iterable[int], *, gap: float = 0.0) -> None:
        """Bytes, and idle bits after each."""
        for byte in data:
            await self.hold(0, 1)
            for n in range(8):
                await self.hold(byte >> n & 1, 1)
            await self.hold(1, 1 + gap)


class LineMonitor:
    """Takes bytes off a line; a byte without a stop bit is an ``AssertionError``.

    Parameters
    ----------
    pin
        High when idle.
    divisor : float
        As the :class:`LineDriver`'s.
    """

    def __init__(self, pin: Any, divisor: float) -> None:
        self.pin, self.divisor = pin, divisor
        self.bytes: list[int] = []
        self._more = Event()
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        while True:
            await FallingEdge(self.pin)
            bit = bit_ps(self.divisor)
            await Timer(round(bit * (1 + SAMPLE)), unit="ps")
            byte = 0
            for n in range(8):
                byte |= int(self.pin.value) << n
                await Timer(round(bit), unit="ps")
            assert int(self.pin.value), f"byte {len(self.bytes)} of the line ({byte:#04x}) has no stop bit"
            self.bytes.append(byte)
            self._more.set()

    async def more(self, timeout_ps: float) -> None:
        """Wait for a byte; ``cocotb.triggers.SimTimeoutError`` when none comes."""
        self._more.clear()
        await with_timeout(self._more.wait(), round(timeout_ps), "ps")


def noise(rng: random.Random, count: int) -> bytes:
    """Bytes, more often than not those that mean something."""
    return bytes(rng.choice((0x7E, 0x7D, 0x00, 0xFF, rng.getrandbits(8))) for _ in range(count))
