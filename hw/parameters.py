"""Fetches each output channel's bias and requantization scale from the model memory."""

import enum

from amaranth.hdl import Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, flipped

from .arch.config import AcceleratorConfig
from .arch.image import SCALE_EXTRA_AT, SCALE_EXTRA_MAX, SCALE_SHIFT_BITS, Flag
from .fetch import FetchSignature
from .layer import LayerLayout

__all__ = ["ScaleLayout", "ParameterReader"]

BIAS_WIDTH = 32
SCALE_WORDS = 3


class State(enum.IntEnum):
    """What is being fetched; the scale words are numbered on from SCALE_0."""

    READY = 0
    CHOOSE = 1
    BIAS_LOW = 2
    BIAS_HIGH = 3
    SCALE_0 = 4


class ScaleLayout(data.StructLayout):
    """The scale words of one output channel (``docs/image.md``, Parameters), in order."""

    def __init__(self) -> None:
        term = data.StructLayout({"shift": 5, "neg": 1, "unused": 2})
        super().__init__({
            "final_shift": SCALE_SHIFT_BITS, "unused_shift": SCALE_EXTRA_AT - SCALE_SHIFT_BITS, "extra": 2,
            "neg": 1, "unused": 7,
            "terms": data.ArrayLayout(term, SCALE_EXTRA_MAX + 1),
        })


class ParameterReader(wiring.Component):
    """Holds the parameters of each stream's output channel that is next to be drained.

    Members
    -------
    clear : In(1)
    start : In(1)
        Begin a layer: fetch what each stream's first output channel needs. ``addr`` and ``rows`` are there, and stay.
    layer : In(LayerLayout())
    addr, rows : In
        Arrays: where a stream's parameters are, and its number of output channels; nothing is fetched for more.
    advance : In(streams)
        Fetch the stream's next output channel's parameters.
    ready : Out(streams)
        The stream's parameters are there.
    bias, scale, channel : Out
        Arrays of signed(32), :class:`ScaleLayout` and 16 bits.
    mem : Out(FetchSignature)
    """

    def __init__(self, config: AcceleratorConfig, addr_width: int) -> None:
        self.config, self.addr_width = config, addr_width
        s = config.streams
        super().__init__({
            "clear": In(1), "start": In(1), "layer": In(LayerLayout()), "addr": In(data.ArrayLayout(addr_width, s)),
            "rows": In(data.ArrayLayout(16, s)), "advance": In(s), "ready": Out(s),
            "bias": Out(data.ArrayLayout(signed(BIAS_WIDTH), s)), "scale": Out(data.ArrayLayout(ScaleLayout(), s)),
            "channel": Out(data.ArrayLayout(16, s)), "mem": Out(FetchSignature(addr_width)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        mem = flipped(self.mem)
        flags = self.layer.tag_flags
        has_bias, wide, shared = ((flags & flag).any() for flag in (Flag.BIAS, Flag.WIDE_BIAS, Flag.SHARED_SCALE))
        words = data.View(data.ArrayLayout(16, SCALE_WORDS), self.scale.as_value())

        state = Signal(range(State.SCALE_0 + SCALE_WORDS))
        addr = Signal(self.addr_width)
        waiting = Signal()
        first = Signal()
        m.d.comb += [
            self.ready.eq((state == State.READY) & ~self.advance),
            mem.addr.eq(addr),
            mem.req.eq((state != State.READY) & (state != State.CHOOSE) & ~waiting),
        ]
        with m.If(mem.req & mem.gnt):
            m.d.sync += [waiting.eq(1), addr.eq(addr + 1)]
        with m.Elif(mem.valid):
            m.d.sync += waiting.eq(0)

        # A shared scale comes before the first bias; a scale of its own after each bias.
        with m.Switch(state):
            with m.Case(State.READY):
                with m.If(self.advance):
                    m.d.sync += [first.eq(0), state.eq(State.CHOOSE)]
            with m.Case(State.CHOOSE):
                m.d.sync += state.eq(Mux(shared & first, State.SCALE_0, Mux(has_bias, State.BIAS_LOW, Mux(
                    shared, State.READY, State.SCALE_0))))
            with m.Case(State.BIAS_LOW):
                with m.If(mem.valid):
                    m.d.sync += [
                        self.bias.eq(mem.data.as_signed()),
                        state.eq(Mux(wide, State.BIAS_HIGH, Mux(shared, State.READY, State.SCALE_0))),
                    ]
            with m.Case(State.BIAS_HIGH):
                with m.If(mem.valid):
                    m.d.sync += [self.bias[16:].eq(mem.data), state.eq(Mux(shared, State.READY, State.SCALE_0))]
            for n in range(SCALE_WORDS):
                with m.Case(State.SCALE_0 + n):
                    after = Mux(shared & has_bias, State.BIAS_LOW, State.READY)
                    with m.If(mem.valid):
                        m.d.sync += [words[n].eq(mem.data), state.eq(after)]
                        if n == 0:
                            with m.If(mem.data[SCALE_EXTRA_AT:SCALE_EXTRA_AT + 2] != 0):
                                m.d.sync += state.eq(State.SCALE_0 + 1)
                        elif n == 1:
                            with m.If(self.scale.extra == SCALE_EXTRA_MAX):
                                m.d.sync += state.eq(State.SCALE_0 + 2)
        with m.If(self.start):
            m.d.sync += [addr.eq(self.start_addr), first.eq(1), self.bias.eq(0), state.eq(State.CHOOSE)]
        with m.If(self.clear):
            m.d.sync += [state.eq(State.READY), waiting.eq(0)]
        return m
