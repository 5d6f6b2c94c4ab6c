"""Random layers as the tap generator sees them, and the operations that walk them.

The model knows nothing of tables and steps: it takes each tap's input pixel from the definition of a convolution, and
the pixel's bank and address from "Activations" in ``docs/image.md``.
"""

import dataclasses
import random

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.image import (
    DESCRIPTOR_WORDS,
    KEPT_AT,
    KEPT_MAX,
    MAX_POST,
    MAX_PRE,
    POSITION_WORDS,
    RECTIFY_SHIFT,
    MicroOp,
    OpKind,
)
from .agents import Bench, layer_word

__all__ = ["Axis", "Issue", "Shape", "load", "op_word", "plan", "random_row", "random_shape"]

EDGE_MAX = 15


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
    def random(cls, rng: random.Random, lanes: int, sizes: range, map_bits: int) -> "Axis":
        """A size of ``sizes``, such that the map and the edges can be told; large ones have large maps."""
        while True:
            kernel, dilation, size = rng.randint(1, 5), rng.randint(1, 3), rng.choice(sizes)
            padding, stride = rng.randrange(kernel * dilation), rng.randint(1, 4) if size < 20 else 1
            out = max(1, (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
            axis = cls(size=size, kernel=kernel, stride=stride, dilation=dilation, padding=padding, lanes=lanes,
                       out=out)
            edges = [axis.edges(position) for position in range(kernel)]
            if out < 1 << map_bits and all(axis.inside(n, o) == (first <= o < out - last)
                                           for n, (first, last) in enumerate(edges) for o in range(out)):
                return axis

    @property
    def plane_blocks(self) -> int:
        """Blocks along the axis of one polyphase plane."""
        return -(-self.size // (self.stride * self.lanes))

    def pixel(self, position: int, out: int) -> int:
        """Input coordinate of a kernel position for an output coordinate."""
        return out * self.stride + position * self.dilation - self.padding

    def inside(self, position: int, out: int) -> bool:
        return 0 <= self.pixel(position, out) < self.size

    def edges(self, position: int) -> tuple[int, int]:
        """Output coordinates at the beginning and at the end whose tap is outside, as far as a position can tell."""
        inside = [out for out in range(self.out) if self.inside(position, out)] or [self.out]
        return min(inside[0], EDGE_MAX), min(max(self.out - 1 - inside[-1], 0), EDGE_MAX)

    def place(self, position: int, plane: int, step: int) -> tuple[int, int]:
        """A kernel position's part of the offset, and its residue."""
        distance = position * self.dilation - self.padding
        unit = distance // self.stride
        return distance % self.stride * plane + unit // self.lanes * step, unit % self.lanes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A layer as the tap generator sees it: a convolution, then positions at ``extra`` of another tensor."""

    y: Axis
    x: Axis
    channels: int
    rows: int
    group_rows: int
    group_step: int
    base: int
    pitch: int
    extra: tuple[int, ...]

    @property
    def positions(self) -> int:
        return self.y.kernel * self.x.kernel + len(self.extra)

    @property
    def taps(self) -> int:
        return self.positions * self.channels

    @property
    def row_step(self) -> int:
        return self.x.plane_blocks * self.pitch

    @property
    def plane_x(self) -> int:
        return self.y.plane_blocks * self.row_step

    @property
    def plane_y(self) -> int:
        return self.x.stride * self.plane_x

    def locate(self, item: "Issue", i: int, j: int) -> tuple[bool, bool, tuple[int, int], int]:
        """For a term's lane (i, j): whether its row and its column are inside, and its bank and address if they are."""
        assert item.tap is not None
        position, channel = divmod(item.tap, self.channels)
        base = self.base + item.row // self.group_rows * self.group_step + channel
        if position >= self.y.kernel * self.x.kernel:
            offset = self.extra[position - self.y.kernel * self.x.kernel]
            steps = item.y // self.y.lanes * self.row_step + item.x // self.x.lanes * self.pitch
            return True, True, (i, j), base + offset + steps
        ky, kx = divmod(position, self.x.kernel)
        y, x = self.y.pixel(ky, item.y + i), self.x.pixel(kx, item.x + j)
        v, u = y // self.y.stride, x // self.x.stride
        address = (base + y % self.y.stride * self.plane_y + x % self.x.stride * self.plane_x
                   + v // self.y.lanes * self.row_step + u // self.x.lanes * self.pitch)
        return 0 <= y < self.y.size, 0 <= x < self.x.size, (v % self.y.lanes, u % self.x.lanes), address

    def table(self) -> list[int]:
        """The position table's words."""
        words = []
        for ky in range(self.y.kernel):
            for kx in range(self.x.kernel):
                (offset_y, residue_y), (offset_x, residue_x) = (
                    self.y.place(ky, self.plane_y, self.row_step), self.x.place(kx, self.plane_x, self.pitch))
                (first_y, last_y), (first_x, last_x) = self.y.edges(ky), self.x.edges(kx)
                words += [(offset_y + offset_x) & 0xFFFF, residue_y | residue_x << 3 | first_y << 6 | first_x << 10,
                          last_y | last_x << 4]
        return words + [word for offset in self.extra for word in (offset, 0, 0)]

    def word(self, **others: int) -> int:
        """The descriptor, but for its positions, which are only looked at when the table is loaded."""
        return layer_word(channels=self.channels, rows=self.rows, group_rows=self.group_rows,
                          group_step=self.group_step, out_h=self.y.out, out_w=self.x.out, in_col_step=self.pitch,
                          in_row_step=self.row_step, **others)


@dataclasses.dataclass(frozen=True)
class Issue:
    """An operation, with the place it happens at; ``tap`` is None without a term."""

    op: MicroOp
    tap: int | None
    row: int
    last_x: bool
    last: bool
    y: int
    x: int

    @property
    def rectify(self) -> bool:
        return self.op.kind == OpKind.SKIP and self.op.shift == RECTIFY_SHIFT


def op_word(op: MicroOp) -> int:
    """The ports' form of an operation, which has one bit more than the dictionary's."""
    return op.pack() | (op.kind == OpKind.SKIP and op.shift == RECTIFY_SHIFT) << 16


def random_shape(rng: random.Random, config: AcceleratorConfig, channels: int) -> Shape:
    groups, group_rows = rng.choice((1, 1, 2, 3)), rng.randint(1, 3)
    short, long, other = range(1, 15), range(45, 60), range(1, 4)
    sizes = short, short
    if config.map_bits > 6 and rng.random() < 0.3:
        # One axis is so long that blocks lie far from both edges.
        groups, group_rows, sizes = 1, 1, rng.choice(((long, other), (other, long)))
    while True:
        shape = Shape(y=Axis.random(rng, config.lanes_y, sizes[0], config.map_bits),
                      x=Axis.random(rng, config.lanes_x, sizes[1], config.map_bits),
                      channels=channels, rows=groups * group_rows, group_rows=group_rows, group_step=channels,
                      base=rng.randrange(config.act_depth), pitch=groups * channels + rng.randrange(3),
                      extra=tuple(rng.getrandbits(16) for _ in range(rng.choice((0, 0, 1, 2)))))
        if shape.positions <= config.positions:
            return shape


def random_row(rng: random.Random, shape: Shape, taps: list[int]) -> list[tuple[MicroOp, int | None]]:
    """Operations that make a term at each of ``taps`` (ascending, repeats allowed), each with its tap; then the end.

    The way from one tap to the next is split at random into advances after a term, skips and advances before a term,
    none of which moves further than one operation may.
    """
    limit = shape.channels if shape.channels > 1 else MAX_PRE + MAX_POST
    row: list[tuple[MicroOp, int | None]] = []
    at = carried = 0
    for tap in taps:
        left = tap - at
        if row and left:
            carried = rng.randint(0, min(MAX_POST, left, limit))
            row[-1] = dataclasses.replace(row[-1][0], post=carried), row[-1][1]
            left -= carried
        while left > min(limit - carried, MAX_PRE) or rng.random() < 0.1:
            pre = rng.randint(0 if carried or not left else 1, min(limit - carried, MAX_PRE, left))
            row.append((MicroOp(kind=OpKind.SKIP, last=True, pre=pre, shift=rng.randrange(4)), None))
            left, carried = left - pre, 0
        kind = rng.choice((OpKind.ADD, OpKind.SUB))
        row.append((MicroOp(kind=kind, last=True, shift=rng.randrange(16), pre=left), tap))
        at, carried = tap, 0
    if row:
        row[-1] = dataclasses.replace(row[-1][0], post=rng.randint(0, min(MAX_POST, limit))), row[-1][1]
    row.append((MicroOp(kind=OpKind.EOR, last=True, shift=rng.randrange(16), post=rng.randint(0, MAX_POST)), None))
    return row


def plan(rng: random.Random, shape: Shape, most: int) -> list[Issue]:
    """A layer's operations: all rows over all blocks, about ``most`` in all; some rows have no term."""
    taps = shape.taps
    places = [(y, x) for y in range(0, shape.y.out, shape.y.lanes) for x in range(0, shape.x.out, shape.x.lanes)]
    density = min(rng.choice((0.1, 0.5, 1.0)), most / (taps * len(places) * shape.rows))
    items = []
    for row in range(shape.rows):
        chosen = [tap for tap in range(taps) if rng.random() < density for _ in range(rng.choice((1, 1, 2)))]
        # The first and the last tap are the corners.
        operations = random_row(rng, shape, chosen or rng.choice(([], [0], [taps - 1])))
        for number, (y, x) in enumerate(places):
            last_x, last = x + shape.x.lanes >= shape.x.out, number == len(places) - 1
            items += [Issue(op, tap, row, last_x, last, y, x) for op, tap in operations]
    return items


async def _load_table(bench: Bench, table: list[int], kept: int) -> None:
    loaded = table[kept * POSITION_WORDS:]
    positions = kept << KEPT_AT | len(loaded) // POSITION_WORDS
    others = bench.rng.getrandbits(16 * DESCRIPTOR_WORDS) & ~layer_word(positions=0xFFFF)
    bench.ports.put(layer=others | layer_word(positions=positions))
    await bench.strobe(load_begin=1)
    for word in loaded:
        await bench.strobe(load=word, load_positions=1)
        await bench.step(bench.rng.choice((0, 0, 0, 2)))


async def load(bench: Bench, shape: Shape, **others: int) -> None:
    """Position table, at times of what a table before has left and the rest, and descriptor; then the start."""
    rng, table = bench.rng, shape.table()
    kept = rng.choice((0, rng.randint(0, min(shape.positions, KEPT_MAX))))
    if kept:
        await _load_table(bench, [word ^ rng.getrandbits(16) * (n >= kept * POSITION_WORDS)
                                  for n, word in enumerate(table)], 0)
    await _load_table(bench, table, kept)
    bench.ports.put(layer=shape.word(**others), stream_base=shape.base)
    await bench.step(2)
    await bench.strobe(start=1)
