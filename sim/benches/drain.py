"""cocotb bench of :class:`shiftwright.hw.drain.Drain` behind its :class:`shiftwright.hw.drain.DrainGate`.

The model rounds exact fractions, and takes the written pixels' places from "Activations" in ``docs/image.md``.
"""

import dataclasses
import random
from fractions import Fraction
from math import floor
from typing import Any

import cocotb

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.image import Flag
from ..yard import DRAIN_DELAY
from .agents import Bench, Scoreboard, layer_word
from .parameters import Scale

RAW_BYTES = 4
Write = tuple[int, int, int]
"""Bank, address, value."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """The output of a layer."""

    config: AcceleratorConfig
    rows: int
    height: int
    width: int
    phases: tuple[int, int]
    base: int
    qmin: int
    qmax: int
    raw: bool

    @property
    def channels(self) -> int:
        return self.rows * (RAW_BYTES if self.raw else 1)

    @property
    def row_step(self) -> int:
        return -(-self.width // (self.phases[1] * self.config.lanes_x)) * self.channels

    @property
    def plane_x(self) -> int:
        return -(-self.height // (self.phases[0] * self.config.lanes_y)) * self.row_step

    def word(self) -> int:
        return layer_word(
            tag_flags=Flag.RAW if self.raw else 0, rows=self.rows, out_h=self.height, out_w=self.width,
            out_base=self.base, out_col_step=self.channels, out_row_step=self.row_step, out_plane_x=self.plane_x,
            out_plane_y=self.phases[1] * self.plane_x, out_phases=self.phases[0] << 8 | self.phases[1],
            qmin=self.qmin, qmax=self.qmax)

    def place(self, y: int, x: int, channel: int) -> tuple[int, int]:
        """Bank and address of a pixel."""
        config, (sy, sx) = self.config, self.phases
        v, u = y // sy, x // sx
        addr = (self.base + y % sy * sx * self.plane_x + x % sx * self.plane_x + v // config.lanes_y * self.row_step
                + u // config.lanes_x * self.channels + channel)
        bank = v % config.lanes_y * config.lanes_x + u % config.lanes_x
        return bank, addr % (1 << (config.act_depth - 1).bit_length())

    def writes(self, y: int, x: int, row: int, total: int, scale: Scale) -> list[Write]:
        """What a pixel's accumulator plus bias writes."""
        bits = self.config.act_bits
        if self.raw:
            return [(*self.place(y, x, RAW_BYTES * row + n), total >> 8 * n & (1 << bits) - 1)
                    for n in range(RAW_BYTES)]
        value = min(max(requantize(total, scale), self.qmin), self.qmax)
        return [(*self.place(y, x, row), value & (1 << bits) - 1)]


def requantize(total: int, scale: Scale) -> int:
    """``total * scale >> shift``, rounded half up: the scale's terms by ascending exponent, the first one 0."""
    factor, exponent = Fraction((-1) ** scale.neg), 0
    for shift, neg in scale.further:
        exponent += shift
        factor += (-1) ** neg * 2**exponent
    return floor(total * factor / 2 ** (scale.shift + exponent) + Fraction(1, 2))


def random_scale(rng: random.Random, acc_bits: int) -> Scale:
    """Such as the compiler makes: the sum of terms stays inside the requantizer, multi-term ones end in a shift."""
    further = tuple((rng.randint(1, 5), rng.getrandbits(1)) for _ in range(rng.choice((0, 0, 1, 2, 3))))
    return Scale(rng.randint(1 if further else 0, acc_bits - 2), rng.getrandbits(1), further)


class Layer:
    """Issues row passes, holds the shadow chain and the parameters, and checks the writes."""

    def __init__(self, bench: Bench, target: Target, *, eager: float) -> None:
        self.bench, self.target, self.eager = bench, target, eager
        config = bench.config
        self.board = Scoreboard("write")
        rng = bench.rng
        # Sum of a few accumulators and the bias must fit; so must its multiple by up to 2 (1 + 1/2 + 1/4 ...).
        most = 1 << config.acc_width - 2
        self.rows = []
        self.passes: list[tuple[list[int], int]] = []
        for row in range(target.rows):
            bias, scale = rng.randint(-most // 2, most // 2), random_scale(rng, config.acc_width)
            self.rows.append((bias, scale))
            places = [(y, x) for y in range(0, target.height, config.lanes_y)
                      for x in range(0, target.width, config.lanes_x)]
            for number, (top, left) in enumerate(places):
                span = rng.choice((most // 2, 300, 1 << max(2, scale.shift)))
                middle = rng.choice((0, -bias))
                acc = [max(-most, min(most, middle + rng.randint(-span, span))) for _ in range(config.lanes)]
                self.passes.append((acc, int(number == len(places) - 1)))
                for i in range(config.lanes_y):
                    for j in range(config.lanes_x):
                        y, x = top + i, left + j
                        if y < target.height and x < target.width:
                            total = acc[i * config.lanes_x + j] + bias
                            self.board.expect(target.writes(y, x, row, total, scale))
        self.finished = self.ended = 0
        self.row = 0
        self.fetching = 0
        self._pass = 0
        self._shadows: list[int] = []
        self._single = target.height == target.width == 1
        bench.agents.append(self)

    def _put_parameters(self) -> None:
        bias, scale = self.rows[min(self.row, len(self.rows) - 1)]
        word = sum(value << 16 * n for n, value in enumerate(scale.words))
        self.bench.ports.put(bias=bias, scale=word, parameters_ready=1)

    def drive(self) -> None:
        bench, rng = self.bench, self.bench.rng
        if self.fetching:
            self.fetching -= 1
            bench.ports.put(parameters_ready=0, bias=rng.getrandbits(32), scale=rng.getrandbits(48))
        if not self.fetching:
            self._put_parameters()
        want = self._pass < len(self.passes) and not bench.chance(self.eager)
        bench.ports.put(want=int(want), row_last=self.passes[self._pass][1] if want else rng.getrandbits(1),
                        head=self._shadows[0] if self._shadows else rng.getrandbits(bench.config.acc_width))

    def sample(self) -> None:
        ports = self.bench.ports
        if ports.get("shift") and self._shadows:
            self._shadows.pop(0)
        if ports.get("finished"):
            left = self._shadows if not self._single else []
            assert not left, f"a row pass arrived while {len(left)} pixels of the one before were in the shadows"
            self._shadows = list(self.passes[self.finished][0])
            self.finished += 1
        if ports.get("issued"):
            self._pass += 1
        if ports.get("w_en"):
            banks = ports.get("w_bank")
            assert banks.bit_count() == 1, f"banks {banks:b} are written at once"
            self.board.take((banks.bit_length() - 1, ports.get("w_addr"), ports.get("w_data")))
        if ports.get("row_done"):
            self.row += 1
            self.fetching = self.bench.rng.choice((1, 2, 5, 20))
        self.ended += ports.get("layer_done")


def random_target(bench: Bench, *, raw: bool, size: int) -> Target:
    rng, config = bench.rng, bench.config
    bits = rng.randint(2, config.act_bits)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if rng.getrandbits(1) else (0, (1 << bits) - 1)
    height, width = 1, 1
    if size:
        height, width = rng.randint(1, size * config.lanes_y), rng.randint(1, size * config.lanes_x)
    return Target(config=config, rows=rng.randint(1, 4), height=height, width=width,
                  phases=(rng.randint(1, 3), rng.randint(1, 3)), base=rng.randrange(config.act_depth),
                  qmin=low, qmax=high, raw=raw)


async def begin(bench: Bench, layer: Layer) -> None:
    """Start a layer as the sequencer does: its descriptor stands long before, its first end of row comes long after."""
    bench.ports.put(layer=layer.target.word())
    layer.eager, eager = 1.0, layer.eager
    await bench.strobe(clear=1)
    await bench.step(2)
    await bench.strobe(start=1)
    await bench.step(2)
    layer.eager = eager


async def run(bench: Bench, layer: Layer, what: str) -> None:
    """Run a layer to its end."""
    ports, target = bench.ports, layer.target
    await begin(bench, layer)
    limit = 200 + len(layer.passes) * (8 * bench.config.lanes + DRAIN_DELAY + 60)
    await bench.until(lambda: layer.ended > 0, limit, f"{what}: the end of the layer")
    assert layer.board.complete, f"{what}: {layer.board.found} of {len(layer.board.expected)} values are written"
    assert ports.get("row") == target.rows
    await bench.step(30)
    assert layer.ended == 1, f"{what}: the layer ended {layer.ended} times"
    bench.agents.remove(layer)


@cocotb.test()
async def values_are_requantized_and_placed(dut: Any) -> None:
    """Maps of a pixel to several blocks, any number of scale terms, phases, clamps; late ends of row and parameters."""
    bench = await Bench.open(dut, "drain")
    for number in range(10 * bench.rounds):
        target = random_target(bench, raw=False, size=(0, 1, 2, 3, 2)[number % 5])
        await run(bench, Layer(bench, target, eager=(0.0, 0.8)[number // 5 % 2]), f"layer {number}")


@cocotb.test()
async def raw_values_are_four_bytes(dut: Any) -> None:
    """Accumulator plus bias, sign-extended, lowest byte first (only with 8-bit activations)."""
    bench = await Bench.open(dut, "drain")
    for number in range(4 * bench.rounds if bench.config.act_bits == 8 else 0):
        target = random_target(bench, raw=True, size=(0, 1, 0, 2)[number % 4])
        await run(bench, Layer(bench, target, eager=(0.0, 0.5)[number % 2]), f"raw layer {number}")


@cocotb.test()
async def clear_gives_a_layer_up(dut: Any) -> None:
    """After a clear in the middle of a drain nothing is written, and the next layer is right."""
    bench = await Bench.open(dut, "drain")
    for number in range(5 * bench.rounds):
        layer = Layer(bench, random_target(bench, raw=False, size=2), eager=0.0)
        await begin(bench, layer)
        await bench.step(bench.rng.randrange(20, 80))
        bench.agents.remove(layer)
        bench.ports.put(want=0)
        await bench.strobe(clear=1)
        for _ in range(20):
            await bench.step()
            assert not bench.ports.get("w_en"), "written after clear"
        await run(bench, Layer(bench, random_target(bench, raw=False, size=1), eager=0.0),
                  f"the layer after clear {number}")
