"""cocotb bench of :class:`shiftwright.hw.parameters.ParameterReader` against "Parameters" of ``docs/image.md``."""

import dataclasses
import itertools
import random
from typing import Any

import cocotb

from ...hw.arch.image import COMPACT_BIAS_BITS, SCALE_EXTRA_MAX, Flag
from .agents import Bench, Memory, layer_word, signed


@dataclasses.dataclass(frozen=True)
class Scale:
    """The scale of a row: final shift, further terms as (right shift, sign)."""

    shift: int
    further: tuple[tuple[int, int], ...]

    @classmethod
    def random(cls, rng: random.Random, further: int) -> "Scale":
        return cls(rng.randrange(32), tuple((rng.randrange(32), rng.getrandbits(1)) for _ in range(further)))

    @property
    def words(self) -> list[int]:
        halves = [shift | neg << 5 for shift, neg in self.further]
        halves += [0] * (len(halves) % 2)
        return [self.shift | len(self.further) << 6,
                *(low | high << 8 for low, high in zip(halves[::2], halves[1::2], strict=True))]

    @classmethod
    def of(cls, word: int) -> "Scale":
        """From the reader's wide port; what the row does not use is left out."""
        terms = [(word >> 16 + 8 * n & 31, word >> 21 + 8 * n & 1) for n in range(word >> 6 & 3)]
        return cls(word & 31, tuple(terms))


class Stream:
    """One stream's words, the parameters in them, and a consumer that takes them at random times."""

    def __init__(self, bench: Bench, number: int, start: int, flags: Flag) -> None:
        self.bench, self.number, self.start = bench, number, start
        rng, streams = bench.rng, bench.config.streams
        has_bias, wide, shared = Flag.BIAS in flags, Flag.WIDE_BIAS in flags, Flag.SHARED_SCALE in flags
        compact = Flag.COMPACT in flags
        # Each number of further terms once, in random order.
        extras = rng.sample(range(SCALE_EXTRA_MAX + 1), SCALE_EXTRA_MAX + 1) * 2
        common = Scale.random(rng, rng.randrange(SCALE_EXTRA_MAX + 1))
        self.words = list(common.words) if shared else []
        self.rows: list[tuple[int, Scale, int]] = []
        self.ends: list[int] = []
        for row, extra in enumerate(extras):
            width = COMPACT_BIAS_BITS if compact else 32 if wide else 16
            bias = rng.choice((-(1 << width - 1), (1 << width - 1) - 1, -1, signed(rng.getrandbits(width), width)))
            scale = common if shared else Scale.random(rng, extra)
            if compact:
                scale = Scale(scale.shift % 16, ())
            channel = rng.getrandbits(16) if Flag.ORDER in flags else row * streams + number
            self.words += [channel] if Flag.ORDER in flags else []
            if has_bias:
                self.words += [bias & 0xFFFF] + ([bias >> 16 & 0xFFFF] if wide else [])
            if compact:
                self.words.append(bias & (1 << width) - 1 | scale.shift << width)
            else:
                self.words += [] if shared else scale.words
            self.rows.append((bias if has_bias or compact else 0, scale, channel))
        self.row = self._hold = 0
        self._advancing = False

    @property
    def done(self) -> bool:
        return self.row == len(self.rows)

    def drive(self) -> int:
        """``advance``: only when ready, and then not at once."""
        ready = self.bench.ports.get("ready") >> self.number & 1 and not self.done
        self._advancing = bool(ready and self._hold > 0 and self.bench.chance(0.3))
        return int(self._advancing)

    def sample(self) -> None:
        ports, n = self.bench.ports, self.number
        if self.done or not ports.get("ready") >> n & 1:
            assert self.done or not self._hold, f"stream {n}: ready is held"
            return
        self._hold += 1
        found = (signed(ports.get("bias") >> 32 * n, 32), Scale.of(ports.get("scale") >> 48 * n & (1 << 48) - 1),
                 ports.get("channel") >> 16 * n & 0xFFFF)
        assert found == self.rows[self.row], f"stream {n}, row {self.row}: {found}, expected {self.rows[self.row]}"
        if self._advancing:
            self.row, self._hold = self.row + 1, 0


class Layer:
    """All streams of a layer."""

    def __init__(self, bench: Bench, memory: Memory, flags: Flag) -> None:
        self.bench = bench
        rng = bench.rng
        words = [rng.getrandbits(16) for _ in range(rng.randrange(64))]
        self.streams: list[Stream] = []
        for s in range(bench.config.streams):
            stream = Stream(bench, s, len(words), flags)
            words += stream.words
            self.streams.append(stream)
        memory.words, memory.filler = words, rng.getrandbits(16)
        width = (bench.config.weight_depth - 1).bit_length()
        bench.ports.put(layer=layer_word(tag_flags=flags),
                        addr=sum(stream.start << width * s for s, stream in enumerate(self.streams)))
        bench.agents.append(self)

    @property
    def done(self) -> bool:
        return all(stream.done for stream in self.streams)

    def drive(self) -> None:
        self.bench.ports.put(advance=sum(stream.drive() << s for s, stream in enumerate(self.streams)))

    def sample(self) -> None:
        for stream in self.streams:
            stream.sample()


async def run(bench: Bench, memory: Memory, flags: Flag) -> None:
    await bench.strobe(clear=1)
    await bench.step(12)
    before = len(memory.requests)
    layer = Layer(bench, memory, flags)
    bench.agents.remove(layer)
    await bench.strobe(start=1)
    bench.agents.append(layer)
    await bench.until(lambda: layer.done, 1500 * len(layer.streams), f"the rows of a layer with {flags!r}")
    bench.agents.remove(layer)
    bench.ports.put(advance=0)
    await bench.step(40)
    for stream in layer.streams:
        own = [addr for addr in memory.requests[before:] if stream.start <= addr < stream.start + len(stream.words)]
        # Beyond its last row a stream may read what is the next one's.
        assert own[-len(stream.words):] == list(range(stream.start, stream.start + len(stream.words))) or (
            stream.number and sorted(set(own)) == list(range(stream.start, stream.start + len(stream.words)))), (
            f"stream {stream.number}: each word is read in order")


@cocotb.test()
async def rows_get_their_parameters(dut: Any) -> None:
    """All combinations of flags, all numbers of scale terms, idle and stalling memory; layers one after another."""
    bench = await Bench.open(dut, "parameters")
    memory = Memory(bench, "mem")
    flags = [Flag(Flag.ORDER * order | Flag.BIAS * has_bias | Flag.WIDE_BIAS * wide | Flag.SHARED_SCALE * shared)
             for order, has_bias, wide, shared in itertools.product((False, True), repeat=4)]
    flags += [Flag.COMPACT, Flag.COMPACT | Flag.ORDER]
    for number, chosen in enumerate(flags * bench.rounds):
        memory.stall = (0.0, 0.6)[(number + number // 8) % 2]
        await run(bench, memory, chosen)


@cocotb.test()
async def clear_stops_a_fetch(dut: Any) -> None:
    """A layer given up while its parameters are on their way leaves nothing behind."""
    bench = await Bench.open(dut, "parameters")
    memory = Memory(bench, "mem", stall=0.3)
    for _ in range(6 * bench.rounds):
        bench.ports.put(layer=layer_word(tag_flags=Flag.BIAS | Flag.WIDE_BIAS | Flag.ORDER))
        await bench.strobe(start=1)
        await bench.step(bench.rng.randrange(12))
        await bench.strobe(clear=1)
        await bench.step(5)
        before = len(memory.requests)
        await bench.step(5)
        assert len(memory.requests) == before, "requests after clear"
        await run(bench, memory, Flag.BIAS | Flag.WIDE_BIAS)
