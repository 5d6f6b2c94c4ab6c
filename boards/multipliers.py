"""An array of multiplier-accumulators, to measure the lanes against."""

from amaranth.hdl import Elaboratable, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..hw.arch.config import AcceleratorConfig
from ..hw.cells.use import select
from ..hw.lanes import READ_WORDS

__all__ = ["MultiplierArray"]


class MultiplierArray(wiring.Component):
    """What stands in the place of :class:`shiftwright.hw.lanes.LaneArray` in an accelerator without shifts.

    Each lane multiplies its activation by the weight that all share, and has the same registers otherwise: product,
    accumulator and shadow; shadows are read in the same way.

    Parameters
    ----------
    config : AcceleratorConfig
        Lanes, bits of an activation (also of a weight) and of an accumulator.

    Members
    -------
    x : In
        An activation a lane, two's complement.
    weight : In(signed)
    clear, keep : In(1)
        Accumulators to 0; accumulators to their shadows.
    drain_lane : In
    head : Out(signed)
        Shadow of ``drain_lane``.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "x": In(data.ArrayLayout(signed(config.act_bits), config.lanes)), "weight": In(signed(config.act_bits)),
            "clear": In(1), "keep": In(1), "drain_lane": In(range(max(2, config.lanes))),
            "head": Out(signed(config.acc_width)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        shadows = []
        for n in range(self.config.lanes):
            product = Signal(signed(2 * self.config.act_bits), name=f"product{n}", reset_less=True)
            acc, shadow = (Signal(signed(self.config.acc_width), name=f"{name}{n}", reset_less=True)
                           for name in ("acc", "shadow"))
            m.d.sync += [product.eq(self.x[n] * self.weight), acc.eq(acc + product)]
            with m.If(self.clear):
                m.d.sync += acc.eq(0)
            with m.If(self.keep):
                m.d.sync += shadow.eq(acc)
            shadows.append(shadow)
        rows = [select(m, shadows[n:n + READ_WORDS], self.drain_lane[:4], name=f"chosen{n}")
                for n in range(0, len(shadows), READ_WORDS)]
        m.d.sync += self.head.eq(select(m, rows, self.drain_lane[4:]))
        return m
