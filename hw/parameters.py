"""Fetches each output channel's number, bias and requantization scale from the model memory."""

from typing import Any

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, flipped

from .arch.config import AcceleratorConfig
from .arch.image import COMPACT_BIAS_BITS, SCALE_EXTRA_AT, SCALE_EXTRA_MAX, SCALE_SHIFT_BITS, Flag
from .cells.use import select, shift_add
from .fetch import FetchSignature
from .layer import LayerLayout

__all__ = ["BIAS_WIDTH", "ScaleLayout", "ParameterReader"]

BIAS_WIDTH = 32
SCALE_WORDS = 3
CHANNEL_BITS = 16
CHANNEL, BIAS_LOW, BIAS_HIGH, SCALE = range(4)
"""Words of a row in their order; further scale words follow."""
WORDS = SCALE + SCALE_WORDS


class ScaleLayout(data.StructLayout):
    """The scale words of one output channel (``docs/image.md``, Parameters), in order."""

    def __init__(self) -> None:
        term = data.StructLayout({"shift": 5, "neg": 1, "unused": 2})
        super().__init__({
            "final_shift": SCALE_SHIFT_BITS, "unused_shift": SCALE_EXTRA_AT - SCALE_SHIFT_BITS, "extra": 2,
            "unused": 8, "terms": data.ArrayLayout(term, SCALE_EXTRA_MAX + 1),
        })


class ParameterReader(wiring.Component):
    """Holds the parameters of each stream's output channel that is next to be drained.

    All words of a row are requested one after another, further scale words when the first has come. After a stream's
    last row it fetches what follows, which nobody uses.

    Members
    -------
    clear : In(1)
        Stop. ``start`` may come when words on their way have arrived, ten cycles later at the earliest.
    start : In(1)
        Begin a layer: fetch what each stream's first output channel needs. ``addr`` is there.
    layer : In(LayerLayout())
    addr : In
        Array: where a stream's parameters are.
    advance : In(streams)
        Fetch the stream's next output channel's parameters.
    ready : Out(streams)
        The stream's parameters are there. Low from the cycle after ``advance``.
    bias, scale, channel : Out
        Arrays of signed(32), :class:`ScaleLayout` and 16 bits.
    mem : Out(FetchSignature)
    """

    def __init__(self, config: AcceleratorConfig, addr_width: int) -> None:
        self.config, self.addr_width = config, addr_width
        s = config.streams
        super().__init__({
            "clear": In(1), "start": In(1), "layer": In(LayerLayout()), "addr": In(data.ArrayLayout(addr_width, s)),
            "advance": In(s), "ready": Out(s),
            "bias": Out(data.ArrayLayout(signed(BIAS_WIDTH), s)), "scale": Out(data.ArrayLayout(ScaleLayout(), s)),
            "channel": Out(data.ArrayLayout(CHANNEL_BITS, s)), "mem": Out(FetchSignature(addr_width)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        mem = flipped(self.mem)
        streams = self.config.streams
        order, has_bias, wide, shared, compact = ((self.layer.tag_flags & flag).any() for flag in (
            Flag.ORDER, Flag.BIAS, Flag.WIDE_BIAS, Flag.SHARED_SCALE, Flag.COMPACT))
        wanted = Signal(streams)
        first = Signal(streams)
        who = Signal(range(max(2, streams)))
        busy = Signal()
        begin, end, only_scale, half_done = Signal(), Signal(), Signal(), Signal()
        # Words still to come and still to request: the lowest bit is the next.
        coming, asking = Signal(WORDS), Signal(WORDS)
        row_words = Cat(order, has_bias, has_bias & wide, ~shared, Const(0, SCALE_WORDS - 1))
        words = Mux(only_scale, 1 << SCALE, row_words)
        chosen = Signal(range(max(2, streams)))
        for s in reversed(range(streams)):
            with m.If(wanted[s]):
                m.d.comb += chosen.eq(s)
        addresses = [self._address(m, s, mem.req & mem.gnt & (who == s)) for s in range(streams)]
        # The shared scale comes once, before the first row.
        m.d.comb += [
            self.ready.eq(~wanted),
            begin.eq(~busy & wanted.any()), only_scale.eq(shared & select(m, [*first], chosen, name="first_of_next")),
            end.eq(busy & (coming == 0)),
            mem.req.eq(asking.any()), mem.addr.eq(select(m, addresses, who, name="addr")),
        ]
        further = Signal(SCALE_WORDS - 1)
        extra = mem.data[SCALE_EXTRA_AT:SCALE_EXTRA_AT + 2] & ~compact.replicate(2)
        m.d.comb += further.eq(Mux(_lowest(coming, SCALE) & mem.valid, Cat(extra.any(), extra == SCALE_EXTRA_MAX), 0))
        with m.If(begin):
            m.d.sync += [busy.eq(1), who.eq(chosen), coming.eq(words), asking.eq(words), half_done.eq(only_scale)]
        with m.Elif(end & half_done):
            m.d.sync += [half_done.eq(0), coming.eq(row_words), asking.eq(row_words)]
        with m.Else():
            m.d.sync += [
                coming.eq(Mux(mem.valid, _rest(coming), coming) | Cat(Const(0, SCALE + 1), further)),
                asking.eq(Mux(mem.gnt, _rest(asking), asking) | Cat(Const(0, SCALE + 1), further)),
            ]
            with m.If(end):
                m.d.sync += busy.eq(0)
        for s in range(streams):
            with m.If(self.advance[s]):
                m.d.sync += wanted[s].eq(1)
            with m.Elif(end & ~half_done & (who == s)):
                m.d.sync += [wanted[s].eq(0), first[s].eq(0)]
            self._registers(m, s, mem, coming, who == s, begin & (chosen == s), compact)
        with m.If(self.start):
            m.d.sync += [wanted.eq(~0), first.eq(~0)]
        with m.If(self.clear):
            m.d.sync += [wanted.eq(0), busy.eq(0), coming.eq(0), asking.eq(0)]
        return m

    def _address(self, m: Module, s: int, step: Value) -> Value:
        """Where stream ``s`` reads next."""
        addr = Signal(self.addr_width, name=f"addr_{s}")
        m.d.sync += addr.eq(shift_add(m, Cat(step & ~self.start, Const(0, self.addr_width - 1)), addr, self.addr[s],
                                      self.start, name=f"addr_{s}_next"))
        return addr

    def _registers(self, m: Module, s: int, mem: Any, coming: Value, mine: Value, begin: Value,
                   compact: Value) -> None:
        """The parameters of stream ``s``; ``mine`` while they come, ``begin`` when a row's are about to."""
        taken = [Signal(name=f"taken_{s}_{n}") for n in range(WORDS)]
        m.d.comb += [taken[n].eq(mem.valid & mine & _lowest(coming, n)) for n in range(WORDS)]
        # Its rows are every streams-th channel, if no word says otherwise.
        channel, streams = self.channel[s], self.config.streams
        step = Const(streams, CHANNEL_BITS) & begin.replicate(CHANNEL_BITS)
        counted = shift_add(m, step, channel, mem.data, taken[CHANNEL], name=f"channel_{s}_next")
        with m.If(begin | taken[CHANNEL]):
            m.d.sync += channel.eq(counted)
        bias, short, final = self.bias[s], mem.data[:COMPACT_BIAS_BITS], mem.data[COMPACT_BIAS_BITS:]
        low = Mux(compact, short.as_signed(), mem.data.as_signed())
        taken_low = taken[BIAS_LOW] | (taken[SCALE] & compact)
        with m.If(taken_low):
            m.d.sync += bias[:16].eq(low)
        with m.If(taken_low | taken[BIAS_HIGH]):
            m.d.sync += bias[16:].eq(Mux(taken[BIAS_HIGH], mem.data, low[-1].replicate(16)))
        for n in range(SCALE_WORDS):
            with m.If(taken[SCALE + n]):
                word = mem.data if n else Mux(compact, final, mem.data)
                m.d.sync += self.scale[s].as_value().word_select(n, 16).eq(word)
        with m.If(self.start):
            m.d.sync += [channel.eq(s - streams), bias.eq(0)]


def _lowest(mask: Value, n: int) -> Value:
    """Whether bit ``n`` is the lowest that is set."""
    return mask[n] & ~mask[:n].any() if n else mask[0]


def _rest(mask: Value) -> Value:
    """``mask`` without the lowest bit that is set."""
    return Cat(Const(0, 1), *(mask[n] & mask[:n].any() for n in range(1, len(mask))))
