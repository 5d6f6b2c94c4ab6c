"""Counts output-pixel blocks: columns of blocks inner, rows of blocks outer."""

from amaranth.hdl import Elaboratable, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arch.config import AcceleratorConfig

__all__ = ["BlockCounter"]


class BlockCounter(wiring.Component):
    """Position of the current block of output pixels.

    ``last_x`` and ``last`` are registered. Two cycles after ``start`` or ``advance`` they are right; until then they
    are those of a map of one block, low for any other map. So advances stand at least two cycles apart, but for the
    first block of a map (and every block of a map of one).

    Members
    -------
    out_h, out_w : In
        Output map, stable while in use.
    start : In(1)
        Back to the first block.
    advance : In(1)
        To the next block, after the last to the first.
    y, x : Out
        Output coordinates of the block's first pixel.
    last_x, last : Out(1)
        Whether the block is the last of its row of blocks; of the map.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        bits = config.map_bits
        super().__init__({
            "out_h": In(bits), "out_w": In(bits), "start": In(1), "advance": In(1),
            "y": Out(bits), "x": Out(bits), "last_x": Out(1), "last": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        single_x = Signal()
        single = Signal()
        next_x = Signal(self.config.map_bits + 1)
        next_y = Signal(self.config.map_bits + 1)
        m.d.comb += [next_x.eq(self.x + self.config.lanes_x), next_y.eq(self.y + self.config.lanes_y)]
        m.d.sync += [
            single_x.eq(self.out_w <= self.config.lanes_x),
            single.eq((self.out_w <= self.config.lanes_x) & (self.out_h <= self.config.lanes_y)),
        ]
        # Rows may end in consecutive cycles when a map has one block; the flags of others have time to settle.
        m.d.sync += [
            self.last_x.eq(single_x | (next_x >= self.out_w)),
            self.last.eq(single | ((next_x >= self.out_w) & (next_y >= self.out_h))),
        ]
        with m.If(self.advance):
            m.d.sync += [self.x.eq(Mux(self.last_x, 0, next_x)), self.last_x.eq(single_x), self.last.eq(single)]
            with m.If(self.last_x):
                m.d.sync += self.y.eq(Mux(self.last, 0, next_y))
        with m.If(self.start):
            m.d.sync += [self.x.eq(0), self.y.eq(0), self.last_x.eq(single_x), self.last.eq(single)]
        return m
