"""Counters of what a layer's cycles were spent on."""

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2

from .arch.bus import COUNTER_WORDS, Counter
from .arch.config import AcceleratorConfig
from .arch.image import LAYERS_MAX

__all__ = ["LayerCounters"]

WORD_BITS = ceil_log2(COUNTER_WORDS)

# The 32-bit sums lie in a small RAM, a half a word. A round of COUNTER_WORDS cycles adds to each half in turn what came
# in since the last round, with one 16-bit adder: to the low half, then its carry to the high half. In between, what
# comes in is counted in a few bits. When a layer has ended, the sums of a round go to the model memory too, and the
# next round begins from zero.


class LayerCounters(wiring.Component):
    """Counts the cycles of :class:`.arch.bus.Counter` and writes them to the model memory, layer by layer.

    Busy cycles are counted in whole rounds of ``COUNTER_WORDS``; what a layer's count leaves out, the next one's has.

    Parameters
    ----------
    config : AcceleratorConfig
    addr_width : int
        Bits of a model memory address.

    Members
    -------
    clear : In(1)
        Forget; high for at least ``COUNTER_WORDS + 4`` cycles before the first layer.
    term, starved, stalled : In(streams)
        What each stream does in this cycle.
    layer_number : In
        The current layer.
    limit : In(addr_width + 1)
        Words in use. Counters that would lie below are not written.
    flush : In(1)
        Held high until ``flushed``, at most ``3 * COUNTER_WORDS`` cycles: write the layer's counts, begin anew.
    flushed : Out(1)
        The last word is being written.
    w_en, w_addr, w_data : Out
        Of the model memory.
    """

    def __init__(self, config: AcceleratorConfig, addr_width: int) -> None:
        self.config = config
        self.addr_width = addr_width
        super().__init__({
            "clear": In(1), "term": In(config.streams), "starved": In(config.streams), "stalled": In(config.streams),
            "layer_number": In(LAYERS_MAX.bit_length()), "limit": In(addr_width + 1), "flush": In(1), "flushed": Out(1),
            "w_en": Out(1), "w_addr": Out(addr_width), "w_data": Out(16),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.halves = halves = Memory(shape=16, depth=COUNTER_WORDS, init=[])
        read, write = halves.read_port(), halves.write_port()

        # A word is read in one cycle, held in the second, added to and written in the third.
        phases = [Signal(WORD_BITS, name=f"phase{n}") for n in range(3)]
        flushing = [Signal(name=f"flushing{n}") for n in range(3)]
        fresh = [Signal(name=f"fresh{n}") for n in range(2)]
        phase, at = phases[0], phases[-1]
        m.d.sync += phase.eq(phase + 1)
        with m.If(phase == COUNTER_WORDS - 1):
            m.d.sync += [flushing[0].eq(self.flush & ~flushing[0]), fresh[0].eq(flushing[0])]
        for stages in (phases, flushing):
            m.d.sync += [after.eq(before) for before, after in zip(stages, stages[1:], strict=False)]
        m.d.sync += fresh[1].eq(fresh[0] | self.clear)
        held = Signal(16)
        m.d.comb += [read.addr.eq(phase), read.en.eq(1)]
        m.d.sync += held.eq(Mux(fresh[1], 0, read.data))

        operand = Signal(bits_for(COUNTER_WORDS * self.config.streams))
        with m.Switch(at):
            for counter, value in self._coming(m, at):
                with m.Case(2 * counter):
                    m.d.comb += operand.eq(value)
        # The carry of the low half enters below the adder's lowest bit.
        total = Signal(18)
        carried = Signal()
        m.d.comb += total.eq(Cat(Const(1, 1), held) + Cat(carried, operand))
        m.d.sync += carried.eq(total[17] & ~at[0])
        m.d.comb += [write.addr.eq(at), write.data.eq(total[1:]), write.en.eq(1), self.w_data.eq(total[1:])]

        base, below = self._place()
        fits = Signal()
        m.d.sync += fits.eq(~below & (base >= self.limit))
        m.d.comb += [
            self.w_addr.eq(base | at if self.config.weight_depth % COUNTER_WORDS == 0 else base + at),
            self.w_en.eq(flushing[-1] & fits), self.flushed.eq(flushing[-1] & (at == COUNTER_WORDS - 1)),
        ]
        return m

    def _coming(self, m: Module, at: Value) -> list[tuple[Counter, Value]]:
        """What the low half of each counter is to be given when its turn comes."""
        streams = self.config.streams
        coming: list[tuple[Counter, Value]] = [(Counter.BUSY, Const(COUNTER_WORDS))]
        for counter, strobes in ((Counter.TERMS, self.term), (Counter.STARVED, self.starved),
                                 (Counter.STALLED, self.stalled)):
            name = counter.name.lower()
            now = Signal(range(streams + 1), name=f"{name}_now")
            since = Signal(range(COUNTER_WORDS * streams + 1), name=f"{name}_since")
            m.d.sync += [
                now.eq(sum((strobes[s] for s in range(streams)), start=Const(0, 1))),
                since.eq(Mux(at == 2 * counter, 0, since) + now),
            ]
            coming.append((counter, since))
        return coming

    def _place(self) -> tuple[Value, Value]:
        """Address of the layer's counters, and whether it is below the memory."""
        depth, layer = self.config.weight_depth, self.layer_number
        if depth & depth - 1:
            base = Const(depth - COUNTER_WORDS) - Cat(Const(0, WORD_BITS), layer)
            return base[:self.addr_width], base[-1]
        # All ones less the layer's number: its complement.
        blocks = self.addr_width - WORD_BITS
        block = Cat(~layer, Const((1 << blocks) - 1, blocks))[:blocks]
        return Cat(Const(0, WORD_BITS), block), layer[blocks:].any()
