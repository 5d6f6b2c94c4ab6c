"""Multiplier-accumulators, to measure the lanes against."""

from amaranth.hdl import Elaboratable, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.timing import READ_WORDS
from ..hw.cells.use import select

__all__ = ["MultiplierArray", "MultiplierLane"]

WEIGHT_BITS = 8


class MultiplierLane(wiring.Component):
    """Accumulates ``x * weight``: a :class:`shiftwright.hw.lanes.Lane` with an 8-bit weight in place of a term.

    As there, activations may be signed or unsigned, the product is registered, and a shadow takes what is finished.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths of activations and accumulators.

    Members
    -------
    x, weight : In(signed)
    clear, keep : In(1)
        Accumulator to 0; accumulator to the shadow.
    shadow : Out(signed)
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "x": In(signed(config.act_bits + 1)), "weight": In(signed(WEIGHT_BITS)), "clear": In(1), "keep": In(1),
            "shadow": Out(signed(config.acc_width)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        # An activation of act_bits bits, signed or not, never is the most negative number of its act_bits + 1.
        product = Signal(signed(len(self.x) + WEIGHT_BITS - 1), reset_less=True)
        acc = Signal(signed(self.config.acc_width), reset_less=True)
        m.d.sync += [product.eq(self.x * self.weight), acc.eq(acc + product)]
        with m.If(self.clear):
            m.d.sync += acc.eq(0)
        with m.If(self.keep):
            m.d.sync += self.shadow.eq(acc)
        return m


class MultiplierArray(wiring.Component):
    """What stands in the place of :class:`shiftwright.hw.lanes.LaneArray` in an accelerator without shifts.

    Members
    -------
    x : In
        An activation a lane, two's complement, ``act_bits + 1`` bits each.
    weight : In(signed)
        For all lanes.
    eor, restart : In(1)
        Accumulators to their shadows and to 0; to 0.
    drain_lane : In
    head : Out(signed)
        Shadow of ``drain_lane``.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "x": In(data.ArrayLayout(signed(config.act_bits + 1), config.lanes)), "weight": In(signed(WEIGHT_BITS)),
            "eor": In(1), "restart": In(1), "drain_lane": In(range(max(2, config.lanes))),
            "head": Out(signed(config.acc_width)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        clear, keep = Signal(), Signal()
        m.d.sync += [clear.eq(self.eor | self.restart), keep.eq(self.eor)]
        lanes = [MultiplierLane(self.config) for _ in range(self.config.lanes)]
        for n, lane in enumerate(lanes):
            m.submodules[f"lane{n}"] = lane
            m.d.comb += [lane.x.eq(self.x[n]), lane.weight.eq(self.weight), lane.clear.eq(clear), lane.keep.eq(keep)]
        rows = [select(m, [lane.shadow for lane in lanes[n:n + READ_WORDS]], self.drain_lane[:4], name=f"chosen{n}")
                for n in range(0, len(lanes), READ_WORDS)]
        m.d.sync += self.head.eq(select(m, rows, self.drain_lane[4:]))
        return m
