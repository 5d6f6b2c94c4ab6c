"""A plain multiply-and-accumulate lane, to compare the shift-and-add lane with."""

from amaranth.hdl import Elaboratable, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from shiftwright.hw.arch.config import AcceleratorConfig

__all__ = ["MultiplierLane"]

WEIGHT_BITS = 8


class MultiplierLane(wiring.Component):
    """Accumulates ``x * weight``: a :class:`shiftwright.hw.lanes.Lane` with an 8-bit weight in place of a term.

    As there, the product is registered, ``clear`` and ``keep`` come a cycle later, and a shadow takes what is finished.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths of activations and accumulators.

    Members
    -------
    x, weight : In(signed)
    clear, keep : In(1)
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
        product = Signal(signed(len(self.x) + WEIGHT_BITS), reset_less=True)
        acc = Signal(signed(self.config.acc_width), reset_less=True)
        m.d.sync += [product.eq(self.x * self.weight), acc.eq(acc + product)]
        with m.If(self.clear):
            m.d.sync += acc.eq(0)
        with m.If(self.keep):
            m.d.sync += self.shadow.eq(acc)
        return m
