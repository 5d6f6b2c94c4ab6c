"""Counts output-pixel blocks: columns of blocks inner, rows of blocks outer."""

from amaranth.hdl import Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arch.config import AcceleratorConfig

__all__ = ["BlockCounter"]


class BlockCounter(wiring.Component):
    """Tells the last blocks of a map; blocks may follow each other in every cycle.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    out_h, out_w : In
        Output map in pixels, stable from ``start`` on.
    start, advance : In(1)
        To the first block; to the next one, after the last to the first.
    last_x, last : Out(1)
        Whether the block is the last of its row of blocks; of the map.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "out_h": In(config.map_bits), "out_w": In(config.map_bits), "start": In(1), "advance": In(1),
            "last_x": Out(1), "last": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        last_y = Signal()
        for name, size, lanes, last, step in (
                ("x", self.out_w, self.config.lanes_x, self.last_x, self.advance),
                ("y", self.out_h, self.config.lanes_y, last_y, self.advance & self.last_x)):
            low = lanes.bit_length() - 1
            # Blocks from 1 when the last is whole, from 0 when only a part of it lies in the map: so the last one's
            # number is the size without its low bits.
            whole: Value = ~size[:low].any()
            block = Signal(max(1, len(size) - low), name=f"block_{name}")
            m.d.comb += last.eq(block == size[low:])
            with m.If(step):
                m.d.sync += block.eq(block + 1)
            with m.If(self.start | step & last):
                m.d.sync += block.eq(whole)
        m.d.comb += self.last.eq(self.last_x & last_y)
        return m
