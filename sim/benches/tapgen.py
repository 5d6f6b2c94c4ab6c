"""cocotb bench of :class:`shiftwright.hw.tapgen.KernelTable` and :class:`shiftwright.hw.tapgen.TapGenerator`.

The model knows nothing of tables and steps: it takes each tap's input pixel from the definition of a convolution, and
the pixel's bank and address from "Activations" in ``docs/image.md``.
"""

import dataclasses
import random
from typing import Any

import cocotb

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.image import COORDINATE_BITS, MAX_POST, MAX_PRE, MicroOp, OpKind
from .agents import Bench, Ports, layer_word

LATENCY = 7
OVERRUN_LATENCY = 4
EOR_SPACING = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a convolution."""

    size: int
    kernel: int
    stride: int
    dilation: int
    padding: int
    lanes: int
    out: int

    @classmethod
    def random(cls, rng: random.Random, lanes: int, kernel_max: int) -> "Axis":
        kernel = rng.randint(1, min(kernel_max, 6))
        stride, dilation = rng.randint(1, 4), rng.randint(1, 3)
        padding = rng.randrange(kernel * dilation)
        size = rng.randint(1, 14)
        span = dilation * (kernel - 1) + 1
        out = max(1, (size + 2 * padding - span) // stride + 1)
        return cls(size=size, kernel=kernel, stride=stride, dilation=dilation, padding=padding, lanes=lanes, out=out)

    @property
    def plane_blocks(self) -> int:
        """Blocks along the axis of one polyphase plane."""
        return -(-self.size // (self.stride * self.lanes))

    def pixel(self, position: int, out: int) -> int:
        """Input coordinate of a kernel position for an output coordinate."""
        return out * self.stride + position * self.dilation - self.padding

    def entry(self, position: int, plane: int, step: int) -> list[int]:
        """The kernel table's three words."""
        distance = position * self.dilation - self.padding
        unit = distance // self.stride
        inside = [out for out in range(self.out) if 0 <= self.pixel(position, out) < self.size]
        first, last = (inside[0], inside[-1]) if inside else (1, 0)
        offset = distance % self.stride * plane + unit // self.lanes * step
        return [offset & 0xFFFF, unit % self.lanes << COORDINATE_BITS | first, last]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A layer as the tap generator sees it."""

    y: Axis
    x: Axis
    channels: int
    rows: int
    group_rows: int
    group_step: int
    base: int
    tensor_channels: int

    @property
    def taps(self) -> int:
        return self.y.kernel * self.x.kernel * self.channels

    @property
    def col_step(self) -> int:
        return self.tensor_channels

    @property
    def row_step(self) -> int:
        return self.x.plane_blocks * self.tensor_channels

    @property
    def plane_x(self) -> int:
        return self.y.plane_blocks * self.row_step

    @property
    def plane_y(self) -> int:
        return self.x.stride * self.plane_x

    def address(self, y: int, x: int, channel: int) -> int:
        """Bank address of an input pixel."""
        v, u = y // self.y.stride, x // self.x.stride
        return (self.base + y % self.y.stride * self.plane_y + x % self.x.stride * self.plane_x
                + v // self.y.lanes * self.row_step + u // self.x.lanes * self.col_step + channel)

    def word(self) -> int:
        return layer_word(channels=self.channels, kernel=self.y.kernel << 8 | self.x.kernel, rows=self.rows,
                          group_rows=self.group_rows, group_step=self.group_step, out_h=self.y.out, out_w=self.x.out,
                          in_base=self.base, in_col_step=self.col_step, in_row_step=self.row_step)


def random_shape(rng: random.Random, config: AcceleratorConfig, channels: int) -> Shape:
    groups = rng.choice((1, 1, 2, 3))
    group_rows = rng.randint(1, 2)
    return Shape(y=Axis.random(rng, config.lanes_y, config.kernel_max),
                 x=Axis.random(rng, config.lanes_x, config.kernel_max),
                 channels=channels, rows=groups * group_rows, group_rows=group_rows, group_step=channels,
                 base=rng.randrange(config.act_depth), tensor_channels=groups * channels)


def random_row(rng: random.Random, shape: Shape, taps: list[int]) -> list[tuple[MicroOp, int | None]]:
    """Operations that make a term at each of ``taps`` (ascending, repeats allowed), each with its tap; then the end.

    The way from one tap to the next is split at random into advances after a term, skips and advances before a term,
    none of which moves further than one operation may.
    """
    limit = shape.channels if shape.channels > 1 else shape.x.kernel
    row: list[tuple[MicroOp, int | None]] = []
    at = carried = 0
    for tap in taps:
        left = tap - at
        if row and left:
            carried = rng.randint(0, min(MAX_POST, left, limit))
            row[-1] = dataclasses.replace(row[-1][0], post=carried), row[-1][1]
            left -= carried
        while left > min(limit - carried, MAX_PRE) or left and rng.random() < 0.1:
            pre = rng.randint(0 if carried else 1, min(limit - carried, MAX_PRE, left))
            row.append((MicroOp(kind=OpKind.SKIP, last=True, pre=pre, shift=rng.randrange(16)), None))
            left, carried = left - pre, 0
        kind = rng.choice((OpKind.ADD, OpKind.SUB))
        row.append((MicroOp(kind=kind, last=True, shift=rng.randrange(16), pre=left), tap))
        at, carried = tap, 0
    if row:
        row[-1] = dataclasses.replace(row[-1][0], post=rng.randint(0, min(MAX_POST, limit))), row[-1][1]
    row.append((MicroOp(kind=OpKind.EOR, last=True, shift=rng.randrange(16), post=rng.randint(0, MAX_POST)), None))
    return row


@dataclasses.dataclass(frozen=True)
class Expectation:
    """An operation, with the place it happens at."""

    op: MicroOp
    tap: int | None
    row: int
    row_last: int
    y: int
    x: int


class Walker:
    """Issues operations with gaps, and checks what comes out seven cycles later."""

    def __init__(self, bench: Bench, shape: Shape) -> None:
        self.bench, self.shape = bench, shape
        self.items: list[Expectation] = []
        self.gap = 0.0
        self.checked = 0
        self._since_eor = EOR_SPACING
        self._pipe: list[Expectation | None] = [None] * LATENCY
        self._overruns: list[bool] = [False] * OVERRUN_LATENCY
        self._now: Expectation | None = None
        bench.agents.append(self)

    @property
    def idle(self) -> bool:
        return not self.items and not any(self._pipe)

    def drive(self) -> None:
        bench, item = self.bench, None
        if self.items and not bench.chance(self.gap):
            item = self.items[0]
            if item.op.kind == OpKind.EOR and self._since_eor < EOR_SPACING:
                item = None
        self._since_eor += 1
        if item is not None:
            self.items.pop(0)
            if item.op.kind == OpKind.EOR:
                self._since_eor = 1
        word = item.op.pack() if item else bench.rng.getrandbits(16)
        bench.ports.put(op=word, op_valid=int(item is not None),
                        op_row_last=item.row_last if item else bench.rng.getrandbits(1))
        self._now = item

    def sample(self) -> None:
        ports = self.bench.ports
        item = self._pipe.pop(0)
        self._pipe.append(self._now)
        self._overruns.append(self._now is not None and self._now.tap is not None and self._now.tap >= self.shape.taps)
        assert ports.get("overrun") == self._overruns.pop(0), "overrun"
        term, eor = item is not None and item.tap is not None, item is not None and item.op.kind == OpKind.EOR
        assert (ports.get("term"), ports.get("eor")) == (term, eor), f"{item}: term, eor"
        if item is None:
            return
        if eor:
            assert ports.get("row_last") == item.row_last
            assert ports.get("mask_y") == ports.get("mask_x") == 0, "an end of row is masked"
        elif item.tap is not None and item.tap < self.shape.taps:
            assert (ports.get("neg"), ports.get("shift")) == (item.op.kind == OpKind.SUB, item.op.shift)
            self._check_lanes(item)

    def _check_lanes(self, item: Expectation) -> None:
        shape, ports = self.shape, self.bench.ports
        assert item.tap is not None
        position, channel = divmod(item.tap, shape.channels)
        ky, kx = divmod(position, shape.x.kernel)
        mask_y, mask_x = ports.get("mask_y"), ports.get("mask_x")
        residue_y, residue_x = ports.get("residue_y"), ports.get("residue_x")
        choices = {(0, 0): "addr", (0, 1): "addr_x", (1, 0): "addr_y", (1, 1): "addr_xy"}
        addresses = {place: ports.get(name) for place, name in choices.items()}
        depth = 1 << (self.bench.config.act_depth - 1).bit_length()
        group = item.row // shape.group_rows * shape.group_step
        for i in range(shape.y.lanes):
            y = shape.y.pixel(ky, item.y + i)
            if item.y + i >= shape.y.out:
                continue
            assert mask_y >> i & 1 == (0 <= y < shape.y.size), f"{item}: mask of lane row {i}, input row {y}"
            for j in range(shape.x.lanes):
                x = shape.x.pixel(kx, item.x + j)
                if item.x + j >= shape.x.out:
                    continue
                assert mask_x >> j & 1 == (0 <= x < shape.x.size), f"{item}: mask of lane column {j}, input column {x}"
                if not (0 <= y < shape.y.size and 0 <= x < shape.x.size):
                    continue
                bank = (residue_y + i) % shape.y.lanes, (residue_x + j) % shape.x.lanes
                wanted_bank = y // shape.y.stride % shape.y.lanes, x // shape.x.stride % shape.x.lanes
                assert bank == wanted_bank, f"{item}: lane {i, j} reads bank {bank}, its pixel lies in {wanted_bank}"
                found = addresses[int(residue_y > bank[0]), int(residue_x > bank[1])]
                wanted = (group + shape.address(y, x, channel)) % depth
                assert found == wanted, f"{item}: lane {i, j} reads address {found} for pixel {y, x}, not {wanted}"
                self.checked += 1


def plan(rng: random.Random, shape: Shape, most: int) -> list[Expectation]:
    """A layer's operations: all rows over all blocks, about ``most`` in all."""
    taps = shape.taps
    places = [(y, x) for y in range(0, shape.y.out, shape.y.lanes) for x in range(0, shape.x.out, shape.x.lanes)]
    density = min(rng.choice((0.1, 0.5, 1.0)), most / (taps * len(places) * shape.rows))
    items = []
    for row in range(shape.rows):
        chosen = [tap for tap in range(taps) if rng.random() < density for _ in range(rng.choice((1, 1, 2)))]
        # The first and the last tap are the corners.
        operations = random_row(rng, shape, chosen or rng.choice(([], [0], [taps - 1])))
        for number, (y, x) in enumerate(places):
            items += [Expectation(op, tap, row, int(number == len(places) - 1), y, x) for op, tap in operations]
    return items


async def load(bench: Bench, shape: Shape) -> None:
    """Kernel tables and descriptor, then the start."""
    bench.ports.put(layer=shape.word())
    await bench.strobe(load_start=1)
    for name, axis, plane, step in (("load_rows", shape.y, shape.plane_y, shape.row_step),
                                    ("load_columns", shape.x, shape.plane_x, shape.col_step)):
        for position in range(axis.kernel):
            for word in axis.entry(position, plane, step):
                await bench.strobe(load=word, **{name: 1})
                await bench.step(bench.rng.choice((0, 0, 2)))
    await bench.strobe(start=1)
    await bench.step(3)


@cocotb.test()
async def every_lane_finds_its_pixel(dut: Any) -> None:
    """Random convolutions: kernels, strides, dilations, paddings, groups, any number of channels; some given up."""
    bench = await Bench.open(dut, "tapgen")
    checked = 0
    for number in range(16 * bench.rounds):
        channels = (1, 1, 2, bench.rng.randint(3, 9), bench.rng.randint(8, 80))[number % 5]
        shape = random_shape(bench.rng, bench.config, channels)
        await load(bench, shape)
        walker = Walker(bench, shape)
        walker.gap = (0.0, 0.3)[number % 2]
        items = plan(bench.rng, shape, 250)
        # Every fourth layer is left in the middle of a row.
        walker.items = items[:len(items) * 2 // 3] if number % 4 == 3 else items
        await bench.until(lambda walker=walker: walker.idle, 12 * len(items) + 100, f"layer {number}")  # type: ignore[misc]
        bench.agents.remove(walker)
        bench.ports.put(op_valid=0)
        checked += walker.checked
    assert checked > 200 * bench.rounds, f"only {checked} addresses were looked at"


@cocotb.test()
async def terms_outside_the_kernel_are_reported(dut: Any) -> None:
    """A term behind the last tap strobes ``overrun``; every other one does not."""
    bench = await Bench.open(dut, "tapgen")
    for number in range(6 * bench.rounds):
        shape = random_shape(bench.rng, bench.config, (1, 5)[number % 2])
        await load(bench, shape)
        walker = Walker(bench, shape)
        taps = shape.taps
        # Also where a row counter of the tables' depth would have come around.
        around = 2 * max(2, bench.config.kernel_max) * shape.x.kernel * shape.channels
        beyond = [bench.rng.randrange(taps, 2 * taps + 2), 2 * taps + 2, around + bench.rng.randrange(taps)]
        row = random_row(bench.rng, shape, [*range(0, taps, 3), taps - 1, *beyond])
        walker.items = [Expectation(op, tap, 0, 1, 0, 0) for op, tap in row]
        await bench.until(lambda walker=walker: walker.idle, 8000, f"case {number}")  # type: ignore[misc]
        bench.agents.remove(walker)
        bench.ports.put(op_valid=0)


@cocotb.test()
async def a_probe_addresses_one_bank(dut: Any) -> None:
    """While no layer runs, the host reads bank by bank."""
    bench = await Bench.open(dut, "tapgen")
    for _ in range(10):
        addr, y, x = (bench.rng.randrange(limit) for limit in
                      (bench.config.act_depth, bench.config.lanes_y, bench.config.lanes_x))
        await bench.strobe(probe=1, probe_addr=addr, probe_y=y, probe_x=x)
        assert tuple(bench.ports.get(name) for name in ("addr", "residue_y", "residue_x")) == (addr, y, x)


@cocotb.test()
async def kernel_tables_read_back(dut: Any) -> None:
    """Entries of three words with pauses between them; loading starts again at the first entry."""
    bench = await Bench.open(dut, "kerneltable")
    ports, rng = Ports(dut, "kerneltable"), bench.rng
    offset_bits, most = (bench.config.act_depth - 1).bit_length(), (1 << bench.config.map_bits) - 1
    for size in (1, 2, bench.config.kernel_max):
        entries = [[rng.getrandbits(16), rng.randrange(bench.config.lanes_y) << COORDINATE_BITS | rng.getrandbits(12),
                    rng.getrandbits(12)] for _ in range(size)]
        await bench.strobe(load_start=1)
        for entry in entries:
            for word in entry:
                await bench.strobe(load_valid=1, load=word)
                await bench.step(rng.randrange(2))
        for index in rng.sample(range(size), size):
            ports.put(index=index)
            await bench.step()
            offset, middle, last = entries[index]
            found = [ports.get(name) for name in ("offset", "residue", "first", "last")]
            assert found == [offset & (1 << offset_bits) - 1, middle >> COORDINATE_BITS, middle & most, last & most]
