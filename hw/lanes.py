"""Shift-and-add lanes: each holds the accumulator of one output pixel and a shadow of the finished one.

    cycle 1  product: activation shifted and truncated, inverted for a negative term      -> register
    cycle 2  accumulator += product, or maximum; at an end of row the accumulator goes to its shadow and restarts
"""

from amaranth.hdl import Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arch.config import AcceleratorConfig
from .arch.image import SHIFT_BITS

__all__ = ["Lane", "LaneArray"]


class Lane(wiring.Component):
    """One lane. Padding arrives as the value 0 (or, for the maximum, the least value), so it needs no enable.

    At an end of row ``x`` is padding too: the accumulator restarts from it.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    x : In(signed)
        Activation of ``act_bits + 1`` bits.
    shift, neg : In
        The term, in step with ``x``.
    add, eor, maximum : In(1)
        What the accumulator does, a cycle after ``x``.
    neg_add : In(1)
        ``neg`` a cycle later.
    drain : In(1)
        Shadow takes ``shadow_in``.
    shadow_in, shadow : In(signed), Out(signed)
        Chain of shadows.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "x": In(signed(config.act_bits + 1)), "shift": In(SHIFT_BITS), "neg": In(1),
            "add": In(1), "eor": In(1), "maximum": In(1), "neg_add": In(1), "drain": In(1),
            "shadow_in": In(signed(config.acc_width)), "shadow": Out(signed(config.acc_width)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config = self.config
        product = Signal(signed(config.act_bits + 1 + config.max_shift - config.truncate))
        shifted = Signal(signed(config.act_bits + 1 + config.max_shift))
        shift = self.shift[:config.max_shift.bit_length()]
        m.d.comb += shifted.eq(self.x << shift if config.max_shift else self.x)
        m.d.sync += product.eq((shifted >> config.truncate) ^ self.neg.replicate(len(product)).as_signed())

        # The maximum compares activations; their products are not shifted (but for what truncation drops).
        acc = Signal(signed(config.acc_width))
        compared = config.act_bits + 1
        greater = Signal()
        m.d.comb += greater.eq(product[:compared].as_signed() > acc[:compared].as_signed())
        with m.If(self.eor | (self.add & (~self.maximum | greater))):
            m.d.sync += acc.eq(Mux(self.eor | self.maximum, 0, acc) + product + self.neg_add)
        with m.If(self.eor):
            m.d.sync += self.shadow.eq(acc)
        with m.Elif(self.drain):
            m.d.sync += self.shadow.eq(self.shadow_in)
        return m


class LaneArray(wiring.Component):
    """All lanes; their shadows form a chain that drains lane 0 first.

    Members
    -------
    x : In
        As :attr:`.activations.ActivationMemory.x`.
    shift, neg, term, eor, row_last, maximum : In
        The operation in step with ``x``.
    restart : In(1)
        Restart all accumulators as at an end of row, before a layer; no operation may be under way.
    drain : In(1)
        Shift the chain.
    head : Out(signed)
        Lane 0's shadow.
    finished, finished_row_last : Out(1)
        A row pass has just reached the shadows (strobe).
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "x": In(data.ArrayLayout(signed(config.act_bits + 1), config.lanes)),
            "shift": In(SHIFT_BITS), "neg": In(1), "term": In(1), "eor": In(1), "row_last": In(1), "maximum": In(1),
            "restart": In(1), "drain": In(1), "head": Out(signed(config.acc_width)),
            "finished": Out(1), "finished_row_last": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        term = Signal()
        eor = Signal()
        row_last = Signal()
        neg = Signal()
        done = Signal()
        # Under truncation only this shift leaves the product equal to the activation.
        shift = Mux(self.maximum, self.config.truncate, self.shift)
        m.d.sync += [
            term.eq(self.term), eor.eq(self.eor | self.restart), row_last.eq(self.row_last),
            neg.eq(self.neg & self.term), done.eq(self.eor),
            self.finished.eq(done), self.finished_row_last.eq(row_last),
        ]
        lanes: list[Lane] = []
        for n in range(self.config.lanes):
            m.submodules[f"lane{n}"] = lane = Lane(self.config)
            m.d.comb += [
                lane.x.eq(self.x[n]), lane.shift.eq(shift), lane.neg.eq(self.neg & self.term),
                lane.add.eq(term), lane.eor.eq(eor), lane.maximum.eq(self.maximum), lane.neg_add.eq(neg),
                lane.drain.eq(self.drain),
            ]
            if lanes:
                m.d.comb += lanes[-1].shadow_in.eq(lane.shadow)
            lanes.append(lane)
        m.d.comb += self.head.eq(lanes[0].shadow)
        return m
