"""What all component benches share: the clocked loop, ports by name, and agents that drive, monitor and check them.

A bench's cycle begins at the falling edge: there registers hold what the last rising edge gave them, on any simulator.
Every agent drives its inputs; when all has settled, every agent samples what the design will sample at the coming
rising edge. So handshakes are seen exactly.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cocotb.triggers import FallingEdge, ReadOnly

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.image import DESCRIPTOR
from ...hw.arch.timing import memory_latency
from ..bus import start_clock
from ..runner import bench_data

__all__ = ["Agent", "Bench", "Memory", "Ports", "Scoreboard", "fill_banks", "layer_word", "signed"]

class Agent(Protocol):
    """Takes part in every cycle."""

    def drive(self) -> None:
        """Set inputs at the beginning of a cycle."""

    def sample(self) -> None:
        """Look at settled values at its end."""


class Ports:
    """A component's ports in the yard.

    Outside an agent's ``sample``, outputs that depend on inputs in the same cycle show the inputs of the cycle before.
    """

    def __init__(self, dut: Any, unit: str) -> None:
        self._dut, self._unit = dut, unit
        self._handles: dict[str, Any] = {}

    def _handle(self, name: str) -> Any:
        if name not in self._handles:
            self._handles[name] = getattr(self._dut, f"{self._unit}__{name}")
        return self._handles[name]

    def put(self, **values: int) -> None:
        """Drive inputs; a negative value is taken as two's complement."""
        for name, value in values.items():
            handle = self._handle(name)
            handle.value = value & (1 << len(handle)) - 1 if value < 0 else value

    def get(self, name: str) -> int:
        """An output, unsigned; undefined bits are an ``AssertionError``."""
        value = self._handle(name).value
        try:
            return int(value)
        except ValueError:
            raise AssertionError(f"{self._unit}.{name} is undefined: {value}") from None


class Bench:
    """A test's clock, seed and agents.

    Parameters
    ----------
    dut
        The yard.
    unit : str
        Component under test; ``ports`` are its.

    Members
    -------
    config : AcceleratorConfig
        Of the yard.
    rng : random.Random
        Named by the run's seed and the component, so that a failure can be run again.
    rounds : int
        How many random cases a test makes.
    """

    def __init__(self, dut: Any, unit: str) -> None:
        given = bench_data()
        self.dut = dut
        self.config = AcceleratorConfig.from_dict(given["config"])
        self.rounds: int = given["rounds"]
        self.rng = random.Random(f"{given['seed']} {unit}")
        self.ports = Ports(dut, unit)
        self.cycle = 0
        self.agents: list[Agent] = []
        self._inputs: list[str] = given["inputs"]
        self._edge, self._settled = FallingEdge(dut.clk), ReadOnly()

    @classmethod
    async def open(cls, dut: Any, unit: str) -> "Bench":
        """Reset the yard with all inputs low."""
        bench = cls(dut, unit)
        for name in bench._inputs:
            getattr(dut, name).value = 0
        await start_clock(dut)
        await bench._edge
        return bench

    async def step(self, count: int = 1) -> None:
        """Run cycles."""
        for _ in range(count):
            for agent in self.agents:
                agent.drive()
            await self._settled
            for agent in self.agents:
                agent.sample()
            await self._edge
            self.cycle += 1

    async def until(self, condition: Callable[[], bool], limit: int, what: str) -> int:
        """Run until ``condition`` holds; returns the cycles it took. More than ``limit`` is an ``AssertionError``."""
        for taken in range(limit + 1):
            if condition():
                return taken
            await self.step()
        raise AssertionError(f"{what}: not within {limit} cycles")

    async def strobe(self, ports: Ports | None = None, /, **values: int) -> None:
        """Drive inputs for one cycle, then their names' inputs to 0."""
        ports = ports or self.ports
        ports.put(**values)
        await self.step()
        ports.put(**dict.fromkeys(values, 0))

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return self.rng.random() < probability


class Memory:
    """Answers a fetch port: grants at random, and gives the word :func:`.memory_latency` cycles later.

    Parameters
    ----------
    bench : Bench
    name : str
        Prefix of the port.
    words : sequence of int
        Contents; addresses beyond give ``filler``.
    stall : float
        Probability with which a request waits a cycle.
    """

    def __init__(self, bench: Bench, name: str, words: Sequence[int] = (), *, stall: float = 0.0,
                 filler: int = 0) -> None:
        self.bench, self.name, self.words, self.stall, self.filler = bench, name, words, stall, filler
        self.requests: list[int] = []
        self._latency = memory_latency(bench.config)
        self._coming: list[int | None] = [None] * (self._latency - 1)
        self._granting = False
        bench.agents.append(self)

    def drive(self) -> None:
        self._granting = not self.bench.chance(self.stall)
        addr = self._coming.pop(0) if len(self._coming) == self._latency else None
        word = self.filler if addr is None or addr >= len(self.words) else self.words[addr]
        self.bench.ports.put(**{f"{self.name}__gnt": int(self._granting), f"{self.name}__valid": int(addr is not None),
                                f"{self.name}__data": word if addr is not None else self.bench.rng.getrandbits(16)})

    def sample(self) -> None:
        addr = None
        if self._granting and self.bench.ports.get(f"{self.name}__req"):
            addr = self.bench.ports.get(f"{self.name}__addr")
            self.requests.append(addr)
        self._coming.append(addr)


class Scoreboard:
    """Compares what comes with what is expected, in order."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.expected: list[Any] = []
        self.found = 0

    def expect(self, items: Sequence[Any]) -> None:
        """Add to what is expected, forgetting what has been found."""
        self.expected = self.expected[self.found:] + list(items)
        self.found = 0

    def take(self, item: Any) -> None:
        """The next item; an ``AssertionError`` when it is not the expected one."""
        assert self.found < len(self.expected), f"{self.what}: {item} after all {self.found} that were expected"
        wanted = self.expected[self.found]
        assert item == wanted, f"{self.what} {self.found}: found {item}, expected {wanted}"
        self.found += 1

    @property
    def complete(self) -> bool:
        """Whether all has come."""
        return self.found == len(self.expected)


def signed(value: int, bits: int) -> int:
    """The low ``bits`` bits as two's complement."""
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)


async def fill_banks(bench: Bench) -> list[list[int]]:
    """Write random activations everywhere through the ports ``w_*``; gives them, by bank and address."""
    config = bench.config
    banks = [[bench.rng.getrandbits(config.act_bits) for _ in range(config.act_depth)] for _ in range(config.lanes)]
    for bank, values in enumerate(banks):
        bench.ports.put(w_en=1, w_bank=bank)
        for addr, value in enumerate(values):
            bench.ports.put(w_addr=addr, w_data=value)
            await bench.step()
    bench.ports.put(w_en=0)
    return banks


def layer_word(**fields: int) -> int:
    """A descriptor as the units' wide ``layer`` port, from fields by name; others are 0."""
    word = 0
    for name, value in fields.items():
        word |= (value & 0xFFFF) << 16 * DESCRIPTOR.index(name)
    return word
