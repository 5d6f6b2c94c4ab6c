"""The current layer as the sequencer holds it for all units: its descriptor, and each stream's share of it."""

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arch.image import DESCRIPTOR

__all__ = ["LayerLayout", "StreamShares"]


class LayerLayout(data.StructLayout):
    """One 16-bit field for each descriptor word (:data:`.arch.image.DESCRIPTOR`), in order.

    Units use the bits they need; synthesis removes the others.
    """

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(DESCRIPTOR, 16))


class StreamShares(wiring.Component):
    """What each stream has of a layer: its number of rows and the base address of its input.

    Rows are dealt in turn, so that stream s has ``ceil((rows - s) / streams)``: the quotient, and one more in the first
    streams. A number of streams that is no power of two divides bit by bit.

    Parameters
    ----------
    streams : int

    Members
    -------
    start : In(1)
        ``rows``, ``in_base`` and ``stream_step`` are there, to stay; outputs are right
        :attr:`latency` cycles later.
    rows, in_base, stream_step : In(16)
        Of the descriptor.
    rows_<s>, base_<s> : Out(16)
        Rows of stream s, which may be none; ``in_base + s * stream_step`` modulo 2^16.
    """

    def __init__(self, streams: int) -> None:
        self.streams = streams
        members = {name: In(16) for name in ("rows", "in_base", "stream_step")}
        for s in range(streams):
            members |= {f"rows_{s}": Out(16), f"base_{s}": Out(16)}
        super().__init__({"start": In(1), **members})

    @property
    def latency(self) -> int:
        """Cycles from ``start`` until the outputs are right."""
        if self.streams == 1:
            return 0
        return self.streams + (1 if self._shift is not None else 17)

    @property
    def _shift(self) -> int | None:
        """Logarithm of the number of streams, if that is a power of two."""
        return None if self.streams & self.streams - 1 else self.streams.bit_length() - 1

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        if self.streams == 1:
            m.d.comb += [self.rows_0.eq(self.rows), self.base_0.eq(self.in_base)]
            return m
        stream = Signal(range(self.streams + 1), init=self.streams)
        dividing = Signal()
        quotient, rest = self.rows[self._shift or 0:], self.rows[:self._shift or 0]
        if self._shift is None:
            quotient, rest, dividing = self._divide(m)
        # The shares enter a chain one by one, that of the last stream at the end.
        base = Signal(16)
        rows_chain = [getattr(self, f"rows_{s}") for s in range(self.streams)]
        base_chain = [getattr(self, f"base_{s}") for s in range(self.streams)]
        with m.If(self.start):
            m.d.sync += [stream.eq(0), base.eq(self.in_base)]
        with m.Elif(~dividing & (stream != self.streams)):
            m.d.sync += [stream.eq(stream + 1), base.eq(base + self.stream_step)]
            for chain, value in ((rows_chain, quotient + (stream < rest)), (base_chain, base)):
                m.d.sync += [to.eq(of) for to, of in zip(chain, [*chain[1:], value], strict=True)]
        return m

    def _divide(self, m: Module) -> tuple[Value, Value, Value]:
        """Rows by streams: quotient, rest, and whether that is under way."""
        quotient, rest, steps = Signal(16), Signal(range(self.streams)), Signal(range(17))
        trial = Cat(quotient[-1], rest)
        fits = Signal()
        m.d.comb += fits.eq(trial >= self.streams)
        with m.If(self.start):
            m.d.sync += [quotient.eq(self.rows), rest.eq(0), steps.eq(16)]
        with m.Elif(steps != 0):
            m.d.sync += [quotient.eq(Cat(fits, quotient)), rest.eq(Mux(fits, trial - self.streams, trial)),
                         steps.eq(steps - 1)]
        return quotient, rest, steps != 0
