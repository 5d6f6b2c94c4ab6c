"""cocotb bench of :class:`shiftwright.hw.drain.Drain` behind its gates (:mod:`shiftwright.sim.stand`).

The model rounds exact fractions, and takes the written pixels' places from "Writing" in ``docs/image.md``.
"""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from math import floor
from typing import Any

import cocotb

from ...hw.arch.config import ROUNDINGS, AcceleratorConfig
from ...hw.arch.image import RAW_BYTES, Flag
from ...hw.arch.timing import read_latency
from .agents import Bench, layer_word
from .parameters import Scale

Write = tuple[int, int, int]
"""Bank, address, value."""
Pass = tuple[list[int], bool, bool]
"""Accumulators of a block; whether it is the block row's and the map's last."""


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
    raw: bool = False
    batch: bool = False
    flatten: bool = False
    image: int = 0
    images: int = 1

    @property
    def pitch(self) -> int:
        return self.rows * (RAW_BYTES if self.raw else 1)

    @property
    def steps(self) -> tuple[int, int]:
        """Of a column and a row of blocks."""
        row = -(-self.width // (self.phases[1] * self.config.lanes_x)) * self.pitch
        return self.pitch, row

    @property
    def planes(self) -> tuple[int, int]:
        """Steps to the next vertical and horizontal phase (or pixel, when the output is a vector)."""
        if self.flatten:
            return self.width * self.rows, self.rows
        plane = -(-self.height // (self.phases[0] * self.config.lanes_y)) * self.steps[1]
        return self.phases[1] * plane, plane

    def word(self) -> int:
        turn_y, turn_x = (-(phases - 1) * plane for phases, plane in zip(self.phases, self.planes, strict=True))
        return layer_word(
            tag_flags=(Flag.RAW * self.raw | Flag.BATCH * self.batch | Flag.FLATTEN * self.flatten), rows=self.rows,
            out_h=self.height, out_w=self.width, out_base=self.base, out_phases=self.phases[0] << 8 | self.phases[1],
            out_plane_y=self.planes[0], out_turn_y=turn_y, out_wrap_y=turn_y + self.steps[1],
            out_plane_x=self.planes[1], out_turn_x=turn_x, out_wrap_x=turn_x + self.steps[0],
            qmin=self.qmin, qmax=self.qmax)

    def place(self, y: int, x: int, channel: int) -> tuple[int, int]:
        """Bank and address of a pixel."""
        config, (sy, sx), (plane_y, plane_x) = self.config, self.phases, self.planes
        if self.flatten:
            bank, addr = self.image, y * plane_y + x * plane_x
        else:
            v, u = y // sy, x // sx
            bank = v % config.lanes_y * config.lanes_x + u % config.lanes_x
            addr = (y % sy * plane_y + x % sx * plane_x + v // config.lanes_y * self.steps[1]
                    + u // config.lanes_x * self.steps[0])
        return bank, (self.base + addr + channel) % (1 << (config.act_depth - 1).bit_length())

    def writes(self, y: int, x: int, row: int, total: int, scale: Scale) -> Iterator[Write]:
        """What a pixel's accumulator plus bias writes."""
        mask = (1 << self.config.act_bits) - 1
        if self.raw:
            for n in range(RAW_BYTES):
                yield *self.place(y, x, RAW_BYTES * row + n), total >> 8 * n & mask
        else:
            yield *self.place(y, x, row), self.activation(total, scale, self.config.rounding) & mask

    def activation(self, total: int, scale: Scale, rounding: str) -> int:
        factor, shift = product_of(scale)
        exact = Fraction(total * factor, 1 << shift)
        rounded = round(exact) if rounding == "half_even" else floor(exact + Fraction(1, 2))
        return min(max(rounded, self.qmin), self.qmax)


def product_of(scale: Scale) -> tuple[int, int]:
    """Odd factor and right shift: the scale's terms by ascending exponent, the first one 0."""
    factor, exponent = 1, 0
    for shift, neg in scale.further:
        exponent += shift
        factor += (-1) ** neg * 2**exponent
    return factor, scale.shift + exponent


def random_tie(rng: random.Random, scale: Scale, most: int) -> int:
    """A total whose multiple lies at a half, or beyond by what the steps of the scale shift out, or by one bit."""
    factor, shift = product_of(scale)
    if not shift:
        return rng.randint(-most, most)
    bits = [1 << shift - 1 - n for n in range(min(shift, 8))]
    beyond = rng.choice((0, 0, rng.randrange(1 << shift - scale.shift), rng.choice(bits), 1 << rng.randrange(shift)))
    total = ((1 << shift - 1) + beyond) * pow(factor, -1, 1 << shift) % (1 << shift)
    # Near 0, so that it is not clamped.
    return min((total + (n << shift) for n in rng.sample(range(-2, 2), 2)), key=abs)


def random_scale(rng: random.Random, acc_bits: int, extra: tuple[int, ...] = (0, 0, 1, 2, 3)) -> Scale:
    """Such as the compiler makes: the sum of terms stays inside the requantizer, multi-term ones end in a shift."""
    step = rng.choice((1, 2, 5))  # a half times a large scale is clamped
    further = tuple((rng.randint(1, step), rng.getrandbits(1)) for _ in range(rng.choice(extra)))
    return Scale(rng.randint(1 if further else 0, min(31, acc_bits - 2)), further)


class Stream:
    """One stream of a layer: its rows' parameters and passes, its shadows and parameter registers."""

    def __init__(self, bench: Bench, target: Target, number: int, *, eager: float, fetch: tuple[int, ...],
                 extra: tuple[int, ...], ties: float) -> None:
        self.bench, self.target, self.number, self.eager, self.fetch = bench, target, number, eager, fetch
        config, rng = bench.config, bench.rng
        channels = range(number, target.rows, config.streams)
        # The sum of accumulator and bias must fit; so must its multiple by up to 2 (1 + 1/2 + 1/4 ...).
        most = 1 << config.acc_width - 2
        self.rows = [(rng.randint(-most // 2, most // 2), random_scale(rng, config.acc_width, extra), channel)
                     for channel in channels]
        self.passes: list[Pass] = []
        self.writes: list[Write] = []
        self.ties = 0
        for bias, scale, channel in self.rows:
            for top in range(0, target.height, config.lanes_y):
                for left in range(0, target.width, config.lanes_x):
                    span = rng.choice((most // 2, 300, 1 << max(2, scale.shift)))
                    middle = rng.choice((0, -bias))
                    acc = [random_tie(rng, scale, most) - bias if rng.random() < ties else
                           middle + rng.randint(-span, span) for _ in range(config.lanes)]
                    acc = [max(-most, min(most, value)) for value in acc]
                    last_x = left + config.lanes_x >= target.width
                    self.passes.append((acc, last_x, last_x and top + config.lanes_y >= target.height))
                    self._expect(acc, bias, scale, channel, top, left)
        self.row = self.issued = self.arrived = self._fetching = 0
        self.shadows = [0] * config.lanes

    def _expect(self, acc: list[int], bias: int, scale: Scale, channel: int, top: int, left: int) -> None:
        target, config = self.target, self.bench.config
        for n, value in enumerate(acc):
            y, x = top + n // config.lanes_x, left + n % config.lanes_x
            if y < target.height and x < target.width and (n < target.images or not target.batch):
                self.writes += target.writes(y, x, channel, value + bias, scale)
                up, even = (target.activation(value + bias, scale, rounding) for rounding in ROUNDINGS)
                self.ties += up != even

    def drive(self) -> tuple[int, int, int, int, int, int, int]:
        """``want``, its two flags, ``parameters_ready``, ``bias``, ``scale`` and ``channel``."""
        rng = self.bench.rng
        want = self.issued < len(self.passes) and not self.bench.chance(self.eager)
        last_x, last = self.passes[self.issued][1:] if want else (rng.getrandbits(1), rng.getrandbits(1))
        if self._fetching:
            self._fetching -= 1
        if self._fetching or self.row >= len(self.rows):
            return int(want), int(last_x), int(last), 0, rng.getrandbits(32), rng.getrandbits(48), rng.getrandbits(16)
        bias, scale, channel = self.rows[self.row]
        word = sum(value << 16 * n for n, value in enumerate(scale.words))
        return int(want), int(last_x), int(last), 1, bias & 0xFFFF_FFFF, word, channel

    def sample(self, ports: dict[str, int]) -> None:
        if ports["arrived"]:
            self.shadows = list(self.passes[self.arrived][0])
            self.arrived += 1
        elif ports["drain_shift"] and self.bench.config.shadow_chain:
            self.shadows = self.shadows[1:] + self.shadows[:1]
        self.issued += ports["issued"]
        if ports["advance"]:
            self.row += 1
            self._fetching = self.bench.rng.choice(self.fetch) + 1


class Layer:
    """Issues row passes, holds shadows and parameters of all streams, and checks the writes."""

    def __init__(self, bench: Bench, target: Target, *, eager: float = 0.0, fetch: tuple[int, ...] = (1, 2, 5, 20),
                 extra: tuple[int, ...] = (0, 0, 1, 2, 3), ties: float = 0.1) -> None:
        self.bench, self.target = bench, target
        self.streams = [Stream(bench, target, s, eager=eager, fetch=fetch, extra=extra, ties=ties)
                        for s in range(bench.config.streams)]
        self.expected = Counter(write for stream in self.streams for write in stream.writes)
        self.ended = 0
        self.idle = True
        latency = read_latency(bench.config)
        self._heads: list[list[int]] = [[0] * len(self.streams)] * latency
        bench.agents.append(self)

    @property
    def passes(self) -> int:
        return sum(len(stream.passes) for stream in self.streams)

    def drive(self) -> None:
        ports, acc_width = self.bench.ports, self.bench.config.acc_width
        values = [stream.drive() for stream in self.streams]
        names = {"want": 1, "want_last_x": 1, "want_last": 1, "parameters_ready": 1, "bias": 32, "scale": 48,
                 "channel": 16}
        for place, (name, width) in enumerate(names.items()):
            ports.put(**{name: sum(value[place] << s * width for s, value in enumerate(values))})
        if self.idle:
            ports.put(want=0)
        # Of a multiplexer, the head is what was chosen some cycles ago; of a ring, the first shadow.
        heads = self._heads.pop(0) if self._heads else [stream.shadows[0] for stream in self.streams]
        ports.put(head=sum((head & (1 << acc_width) - 1) << s * acc_width for s, head in enumerate(heads)))

    def sample(self) -> None:
        ports = self.bench.ports
        together = {name: ports.get(name) for name in ("arrived", "issued", "advance", "drain_shift")}
        lane = ports.get("drain_lane")
        for s, stream in enumerate(self.streams):
            own = {name: value >> s & 1 for name, value in together.items()}
            if own["arrived"]:
                stream.sample(own)
        if read_latency(self.bench.config):
            self._heads.append([stream.shadows[lane % len(stream.shadows)] for stream in self.streams])
        for s, stream in enumerate(self.streams):
            own = {name: value >> s & 1 for name, value in together.items()}
            if not own["arrived"]:
                stream.sample(own)
        if ports.get("w_en"):
            write = ports.get("w_bank"), ports.get("w_addr"), ports.get("w_data")
            assert self.expected[write] > 0, f"bank, address, value {write} is written, of which none is left to write"
            self.expected[write] -= 1
        self.ended += ports.get("layer_done")


def random_target(bench: Bench, *, size: int, **changes: Any) -> Target:
    """Of up to ``size`` blocks a side; a pixel when that is 0."""
    rng, config = bench.rng, bench.config
    bits = rng.randint(2, config.act_bits)
    low, high = rng.choice(((-(1 << bits - 1), (1 << bits - 1) - 1), (0, (1 << bits) - 1)))
    height, width = 1, 1
    if size:
        height, width = (min(rng.randint(1, size * lanes), (1 << config.map_bits) - 1)
                         for lanes in (config.lanes_y, config.lanes_x))
    given = {"rows": rng.randint(1, 4 * config.streams), "height": height, "width": width, "qmin": low, "qmax": high,
             "phases": (rng.randint(1, 3), rng.randint(1, 3)), "base": rng.randrange(config.act_depth)}
    return Target(config=config, **{**given, **changes})


async def begin(bench: Bench, layer: Layer) -> None:
    """Start a layer as the sequencer does: its descriptor stands long before, its first end of row comes long after."""
    target = layer.target
    bench.ports.put(layer=target.word(), image=target.image, images=target.images - 1)
    await bench.strobe(clear=1)
    await bench.step(2)
    await bench.strobe(start=1)
    await bench.step(2)
    layer.idle = False


async def run(bench: Bench, layer: Layer, what: str) -> int:
    """Run a layer to its end; returns the cycles it took."""
    target = layer.target
    await begin(bench, layer)
    limit = 200 + layer.passes * (24 * bench.config.lanes + 60)
    taken = await bench.until(lambda: layer.ended > 0, limit, f"{what}: the end of the layer")
    left = {write: number for write, number in layer.expected.items() if number}
    assert not left, f"{what}: {len(left)} values are not written, such as {next(iter(left.items()))}"
    assert bench.ports.get("row") == target.rows, f"{what}: rows done"
    await bench.step(10)
    assert layer.ended == 1, f"{what}: the layer ends {layer.ended} times"
    bench.agents.remove(layer)
    return taken


@cocotb.test()
async def layers_are_written(dut: Any) -> None:
    """Random maps, polyphase layouts, scales and limits; with ends of row always waiting, and with few."""
    bench = await Bench.open(dut, "stand")
    for number in range(6 * bench.rounds):
        eager = (0.0, 0.0, 0.9)[number % 3]
        extra = ((0,), (0, 0, 1, 2, 3))[number % 2]
        layer = Layer(bench, random_target(bench, size=number % 4), eager=eager, extra=extra)
        await run(bench, layer, f"layer {number}")


@cocotb.test()
async def halves_are_rounded(dut: Any) -> None:
    """Sums that lie at a half, and a little beyond."""
    bench = await Bench.open(dut, "stand")
    config, most = bench.config, 1 << bench.config.act_bits - 1
    ties = 0
    for number in range(3 * bench.rounds):
        target = random_target(bench, size=1, rows=4 * config.streams, height=max(4, config.lanes_y),
                               width=max(4, config.lanes_x), qmin=-most, qmax=most - 1)
        layer = Layer(bench, target, extra=(0, 1, 2, 3), ties=0.9)
        await run(bench, layer, f"layer {number}")
        ties += sum(stream.ties for stream in layer.streams)
    assert ties >= 8 * bench.rounds, f"{ties} values that the rounding of halves matters to are few"


@cocotb.test()
async def raw_and_batches_and_vectors(dut: Any) -> None:
    """Four bytes a pixel; a lane an image; everything in one bank."""
    bench = await Bench.open(dut, "stand")
    config, rng = bench.config, bench.rng
    for number in range(3 * bench.rounds):
        batch = {"height": config.lanes_y, "width": config.lanes_x, "phases": (1, 1), "batch": True,
                 "images": rng.randint(1, config.lanes)}
        cases = {
            "raw": random_target(bench, size=2, raw=True), "raw pixel": random_target(bench, size=0, raw=True),
            "batch": random_target(bench, size=1, **batch),
            "raw batch": random_target(bench, size=1, raw=True, **batch),
            "vector": random_target(bench, size=2, flatten=True, phases=(1, 1), image=rng.randrange(config.lanes)),
        }
        for name, target in cases.items():
            await run(bench, Layer(bench, target, eager=rng.choice((0.0, 0.8))), f"{name} {number}")


@cocotb.test()
async def a_pixel_a_cycle(dut: Any) -> None:
    """With rows always waiting, a pass over a block takes a cycle more than it has pixels."""
    bench = await Bench.open(dut, "stand")
    config = bench.config
    height, width = (min(size, (1 << config.map_bits) - 1) for size in (4 * config.lanes_y, 3 * config.lanes_x))
    target = random_target(bench, size=1, rows=3 * config.streams, height=height, width=width)
    layer = Layer(bench, target, fetch=(4,), extra=(0,))
    taken = await run(bench, layer, "a map of whole blocks")
    wanted = layer.passes * max(config.lanes + 1, 4 if config.streams == 1 else 20 / config.streams)
    assert taken <= wanted + 40, f"{layer.passes} passes took {taken} cycles, more than {wanted}"


@cocotb.test()
async def clear_stops_a_layer(dut: Any) -> None:
    """A layer given up at any moment leaves nothing behind."""
    bench = await Bench.open(dut, "stand")
    for number in range(4 * bench.rounds):
        layer = Layer(bench, random_target(bench, size=2))
        await begin(bench, layer)
        await bench.step(bench.rng.randrange(20, 80))
        bench.agents.remove(layer)
        bench.ports.put(want=0)
        await bench.strobe(clear=1)
        for _ in range(20):
            await bench.step()
            assert not bench.ports.get("w_en"), "written after clear"
        await run(bench, Layer(bench, random_target(bench, size=1)), f"the layer after clear {number}")
