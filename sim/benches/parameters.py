"""cocotb bench of :class:`shiftwright.hw.parameters.ParameterReader` against "Parameters" of ``docs/image.md``."""

import dataclasses
import itertools
import random
from typing import Any

import cocotb

from ...hw.arch.image import SCALE_EXTRA_MAX, Flag
from .agents import Bench, Memory, layer_word, signed


@dataclasses.dataclass(frozen=True)
class Scale:
    """The scale of a row: final shift, sign of the first term, further terms as (right shift, sign)."""

    shift: int
    neg: int
    further: tuple[tuple[int, int], ...]

    @classmethod
    def random(cls, rng: random.Random, further: int) -> "Scale":
        return cls(rng.randrange(64), rng.getrandbits(1),
                   tuple((rng.randrange(32), rng.getrandbits(1)) for _ in range(further)))

    @property
    def words(self) -> list[int]:
        halves = [shift | neg << 5 for shift, neg in self.further]
        halves += [0] * (len(halves) % 2)
        return [self.shift | len(self.further) << 6 | self.neg << 8,
                *(low | high << 8 for low, high in zip(halves[::2], halves[1::2], strict=True))]

    @classmethod
    def of(cls, word: int) -> "Scale":
        """From the reader's wide port; what the row does not use is left out."""
        terms = [(word >> 16 + 8 * n & 31, word >> 21 + 8 * n & 1) for n in range(word >> 6 & 3)]
        return cls(word & 63, word >> 8 & 1, tuple(terms))


@cocotb.test()
async def rows_get_their_parameters(dut: Any) -> None:
    """All combinations of flags, all numbers of scale terms, idle and stalling memory; layers one after another."""
    bench = await Bench.open(dut, "parameters")
    ports, rng = bench.ports, bench.rng
    memory = Memory(bench, "mem")
    flags = list(itertools.product((False, True), repeat=3))
    for number, (has_bias, wide, shared) in enumerate(flags * bench.rounds):
        memory.stall = (0.0, 0.6)[(number + number // 8) % 2]
        # Each number of further terms once, in random order.
        extras = rng.sample(range(SCALE_EXTRA_MAX + 1), SCALE_EXTRA_MAX + 1) * 2
        common = Scale.random(rng, number % (SCALE_EXTRA_MAX + 1))
        start = rng.randrange(64)
        words = [rng.getrandbits(16) for _ in range(start)] + (common.words if shared else [])
        rows = []
        for extra in extras:
            width = 32 if wide else 16
            bias = rng.choice((-(1 << width - 1), (1 << width - 1) - 1, -1, signed(rng.getrandbits(width), width)))
            scale = common if shared else Scale.random(rng, extra)
            if has_bias:
                words += [bias & 0xFFFF] + ([bias >> 16 & 0xFFFF] if wide else [])
            words += [] if shared else scale.words
            rows.append((bias if has_bias else 0, scale))
        memory.words, memory.filler = words, rng.getrandbits(16)
        ports.put(layer=layer_word(tag_flags=Flag.BIAS * has_bias | Flag.WIDE_BIAS * wide | Flag.SHARED_SCALE * shared))
        await bench.strobe(clear=1)
        await bench.step(3)
        before = len(memory.requests)
        await bench.strobe(start=1, start_addr=start)
        for row, wanted in enumerate(rows):
            if row:
                await bench.strobe(advance=1)
            await bench.until(lambda: bool(ports.get("ready")), 200, f"the parameters of row {row}")
            for _ in range(rng.randrange(1, 6)):
                found = signed(ports.get("bias"), 32), Scale.of(ports.get("scale"))
                assert found == wanted, f"flags {has_bias, wide, shared}, row {row}: {found}, expected {wanted}"
                assert ports.get("ready"), "ready is held"
                await bench.step()
        assert memory.requests[before:] == list(range(start, len(words))), "each word is read once, in order"


@cocotb.test()
async def clear_stops_a_fetch(dut: Any) -> None:
    """A layer given up while its parameters are on their way leaves nothing behind."""
    bench = await Bench.open(dut, "parameters")
    ports, rng = bench.ports, bench.rng
    memory = Memory(bench, "mem")
    ports.put(layer=layer_word(tag_flags=Flag.BIAS | Flag.WIDE_BIAS))
    for _ in range(12):
        bias, scale = signed(rng.getrandbits(32), 32), Scale.random(rng, 3)
        memory.words = [bias & 0xFFFF, bias >> 16 & 0xFFFF, *scale.words]
        await bench.strobe(start=1, start_addr=0)
        await bench.step(rng.randrange(12))
        await bench.strobe(clear=1)
        await bench.step(5)
        assert ports.get("ready")
        before = len(memory.requests)
        await bench.step(5)
        assert len(memory.requests) == before, "requests after clear"
        await bench.strobe(start=1, start_addr=0)
        await bench.until(lambda: bool(ports.get("ready")), 100, "the parameters after clear")
        assert (signed(ports.get("bias"), 32), Scale.of(ports.get("scale"))) == (bias, scale)
