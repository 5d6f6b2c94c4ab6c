"""Fetches a stream's words ahead of their use."""

from amaranth.hdl import Array, Cat, Const, Elaboratable, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .arch.config import AcceleratorConfig
from .arch.timing import prefetch_words
from .cells.use import shift_add
from .fetch import FetchSignature

__all__ = ["WordReader"]

SPAN_BITS = 5
"""The overrun check looks at address bits from here up."""


class WordReader(wiring.Component):
    """Reads words from an address on, through a FIFO.

    With four contexts the FIFO is 16 words of distributed RAM, which an FPGA with LUT RAM has almost for nothing; with
    fewer it is four registers, for FPGAs that have none.

    A decoder may take a few words behind its stream's last, and the FIFO runs ahead of it: so what is fetched may lie
    somewhat past the words in use, but not two spans of 32 words.

    Parameters
    ----------
    config : AcceleratorConfig
    addr_width : int
        Bits of a word address.

    Members
    -------
    start, addr : In(1), In(addr_width)
        Begin at an address with the next cycle; ``run`` is low until then, and has been for as long as fetched words
        are under way.
    run : In(1)
        While low, the FIFO is empty and nothing is fetched.
    limit : In(addr_width + 1)
        Words in use.
    word, valid, take : Out(16), Out(1), In(1)
        The next word; it is taken in a cycle with ``valid`` and ``take``.
    overrun : Out(1)
        A word from 33 to 64 words or more past the words in use has been asked for.
    mem : Out(FetchSignature)
    """

    def __init__(self, config: AcceleratorConfig, addr_width: int) -> None:
        self.addr_width = addr_width
        self.distributed = config.interleave == 4
        self.depth = prefetch_words(config)
        super().__init__({
            "start": In(1), "addr": In(addr_width), "run": In(1), "limit": In(addr_width + 1),
            "word": Out(16), "valid": Out(1), "take": In(1), "overrun": Out(1), "mem": Out(FetchSignature(addr_width)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        addr = Signal(self.addr_width + 1)
        # Places that are full or waited for, 0 to depth; words that are there less one, -1 to depth - 1.
        used = Signal(range(self.depth + 1))
        last = Signal(range(2 * self.depth), init=2 * self.depth - 1)
        passed = Signal(2)
        request, arrive, pop = Signal(), Signal(), Signal()
        m.d.comb += [
            self.mem.req.eq(self.run & ~used[-1]), self.mem.addr.eq(addr),
            request.eq(self.mem.req & self.mem.gnt), arrive.eq(self.mem.valid),
            self.valid.eq(~last[-1]), pop.eq(self.valid & self.take), self.overrun.eq(passed[1]),
        ]
        # From 0, what starts it is an addition as well.
        target = shift_add(m, addr, Const(1, 2), Cat(self.addr, Const(0, 1)), self.start, name="target")
        with m.If(request | self.start):
            m.d.sync += addr.eq(target)
        with m.If(request):
            with m.If(addr[:SPAN_BITS].all()):
                m.d.sync += passed.eq(Cat(addr[SPAN_BITS:] == self.limit[SPAN_BITS:], passed[0]))
        with m.If(request ^ pop):
            m.d.sync += used.eq(used + Cat(Const(1, 1), pop.replicate(len(used) - 1)))
        with m.If(arrive ^ pop):
            m.d.sync += last.eq(last + Cat(Const(1, 1), pop.replicate(len(last) - 1)))
        if self.distributed:
            self._ram(m, arrive, pop)
        else:
            self._registers(m, arrive, pop, last)
        with m.If(~self.run):
            m.d.sync += [used.eq(0), last.eq(-1), passed.eq(0)]
        with m.If(~self.run & ~self.start):
            m.d.sync += addr.eq(0)
        return m

    def _ram(self, m: Module, arrive: Signal, pop: Signal) -> None:
        m.submodules.fifo = fifo = Memory(shape=16, depth=self.depth, init=[])
        write = fifo.write_port()
        read = fifo.read_port(domain="comb")
        head = Signal(range(self.depth))
        tail = Signal(range(self.depth))
        m.d.comb += [
            write.addr.eq(tail), write.data.eq(self.mem.data), write.en.eq(arrive),
            read.addr.eq(head), self.word.eq(read.data),
        ]
        with m.If(pop):
            m.d.sync += head.eq(head + 1)
        with m.If(arrive):
            m.d.sync += tail.eq(tail + 1)
        with m.If(~self.run):
            m.d.sync += [head.eq(0), tail.eq(0)]

    def _registers(self, m: Module, arrive: Signal, pop: Signal, last: Signal) -> None:
        words = Array(Signal(16, name=f"word{n}") for n in range(self.depth))
        m.d.comb += self.word.eq(words[0])
        for n, word in enumerate(words):
            with m.If(pop):
                m.d.sync += word.eq(words[min(n + 1, self.depth - 1)])
            # The word that comes goes behind those that stay.
            with m.If(arrive & (last[:len(last) - 1] == Mux(pop, n, (n - 1) % self.depth))):
                m.d.sync += word.eq(self.mem.data)
