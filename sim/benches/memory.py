"""cocotb bench of :class:`shiftwright.hw.fetch.ModelMemory`: priorities, latency, and writing beside fetching."""

from typing import Any

import cocotb

from ...hw.arch.timing import memory_latency
from ..yard import MEMORY_DEPTH, MEMORY_PORTS
from .agents import Bench


@cocotb.test()
async def fetches_see_the_words_written_before(dut: Any) -> None:
    """Random requests on all ports, from none to all at once, and random writes, which have precedence."""
    bench = await Bench.open(dut, "memory")
    rng = bench.rng
    words: dict[int, int] = {}
    for addr in rng.sample(range(MEMORY_DEPTH), MEMORY_DEPTH):
        words[addr] = rng.getrandbits(16)
        await bench.strobe(w_en=1, w_addr=addr, w_data=words[addr])

    coming: list[tuple[int, int] | None] = [None] * memory_latency(bench.config)
    pending: dict[int, int] = {}
    granted = [0] * MEMORY_PORTS
    checker = _Cycle(bench, coming, pending, words, granted)
    bench.agents.append(checker)
    for load, writes in ((0.1, 0.1), (0.5, 0.0), (0.9, 0.3), (1.0, 0.0), (0.3, 1.0)):
        checker.load, checker.writes = load, writes
        await bench.step(60 * bench.rounds)
    assert all(granted), f"grants by port: {granted}: a port was never served"


class _Cycle:
    """Driver, model and monitor of all ports."""

    def __init__(self, bench: Bench, coming: list[tuple[int, int] | None], pending: dict[int, int],
                 words: dict[int, int], granted: list[int]) -> None:
        self.bench, self.coming, self.pending, self.words, self.granted = bench, coming, pending, words, granted
        self.load = self.writes = 0.0
        self.write: tuple[int, int] | None = None

    def drive(self) -> None:
        bench = self.bench
        for port in range(MEMORY_PORTS):
            if port not in self.pending and bench.chance(self.load):
                self.pending[port] = bench.rng.randrange(MEMORY_DEPTH)
            bench.ports.put(**{f"port{port}__req": int(port in self.pending),
                               f"port{port}__addr": self.pending.get(port, bench.rng.randrange(MEMORY_DEPTH))})
        # A few addresses again and again: reads right before and after writes.
        self.write = (bench.rng.randrange(8), bench.rng.getrandbits(16)) if bench.chance(self.writes) else None
        addr, word = self.write or (0, 0)
        bench.ports.put(w_en=int(self.write is not None), w_addr=addr, w_data=word)

    def sample(self) -> None:
        ports = self.bench.ports
        first = None if self.write is not None else min(self.pending, default=None)
        grants = [port for port in range(MEMORY_PORTS) if ports.get(f"port{port}__gnt")]
        assert grants == ([] if first is None else [first]), f"granted {grants}, requested {sorted(self.pending)}"
        arrived = self.coming.pop(0)
        for port in range(MEMORY_PORTS):
            valid = ports.get(f"port{port}__valid")
            assert valid == (arrived is not None and arrived[0] == port), f"valid of port {port} is {valid}"
            if arrived is not None and valid:
                found = ports.get(f"port{port}__data")
                assert found == arrived[1], f"port {port} reads {found:#x}, not {arrived[1]:#x}"
        if first is None:
            self.coming.append(None)
        else:
            # What a later cycle writes does not change the word that this cycle asks for.
            self.coming.append((first, self.words[self.pending.pop(first)]))
            self.granted[first] += 1
        if self.write is not None:
            self.words[self.write[0]] = self.write[1]
