"""One sub-stream's window on the weight stream: three words, filled from memory, consumed by up to 15 bits."""

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .fetch import FetchSignature

__all__ = ["BitReader"]


class BitReader(wiring.Component):
    """Prefetches a sub-stream and keeps its read position; can save the position and return to it at once.

    The window is the first two words; the position is a bit offset in the first. A snapshot keeps both words, so that
    after a return the decoder goes on without waiting for memory (the third word is fetched again).

    Members
    -------
    start, start_addr : In
        Begin at bit 15 of a word; takes a cycle.
    window, offset, ready : Out(32), Out(4), Out(1)
        The first two words (first word in the high half), the position, and whether both words are there.
    take, length : In(1), In(4)
        Consume ``length`` bits.
    save, restore : In(1)
        Keep the position as it is at the start of this cycle; return to it (overrides ``take``).
    next_addr : Out
        Address of the next word to request, for the overrun check.
    enable : In(1)
        Allows prefetching.
    mem : Out(FetchSignature)
    """

    def __init__(self, addr_width: int) -> None:
        self.addr_width = addr_width
        super().__init__({
            "start": In(1), "start_addr": In(addr_width), "enable": In(1),
            "window": Out(32), "offset": Out(4), "ready": Out(1),
            "take": In(1), "length": In(4), "save": In(1), "restore": In(1),
            "next_addr": Out(addr_width), "mem": Out(FetchSignature(addr_width)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        words = [Signal(16, name=f"word{n}") for n in range(3)]
        count = Signal(range(4))
        offset = Signal(4)
        addr = Signal(self.addr_width)
        pending = Signal(range(3))
        stale = Signal(range(3))
        saved_words = Signal(32)
        saved_count = Signal(range(3))
        saved_offset = Signal(4)
        saved_addr = Signal(self.addr_width)
        ahead = Signal(range(4))

        moved = Signal(5)
        shift = Signal()
        request = Signal()
        arrive = Signal()
        kept = Signal(range(4))
        m.d.comb += [
            self.window.eq(Cat(words[1], words[0])),
            self.offset.eq(offset),
            self.ready.eq(count >= 2),
            self.next_addr.eq(addr),
            moved.eq(offset + self.length),
            shift.eq(self.take & moved[4]),
            arrive.eq(self.mem.valid & (stale == 0)),
            kept.eq(count - shift),
            # Two requests at a time, and only when their words are sure to find a place.
            self.mem.req.eq(self.enable & (pending + count < 3) & (pending + stale < 2)),
            self.mem.addr.eq(addr),
            request.eq(self.mem.req & self.mem.gnt),
            ahead.eq(pending + (count == 3)),
        ]
        with m.If(self.take):
            m.d.sync += offset.eq(moved[:4])
        with m.If(shift):
            m.d.sync += [words[0].eq(words[1]), words[1].eq(words[2])]
        with m.If(arrive):
            for n, word in enumerate(words):
                with m.If(kept == n):
                    m.d.sync += word.eq(self.mem.data)
        m.d.sync += [
            count.eq(kept + arrive),
            addr.eq(addr + request),
            pending.eq(pending + request - arrive),
            stale.eq(stale - (self.mem.valid & (stale != 0))),
        ]

        with m.If(self.save):
            m.d.sync += [
                saved_words.eq(self.window), saved_offset.eq(offset),
                saved_count.eq(Mux(count == 3, 2, count)), saved_addr.eq(addr - ahead),
            ]
        with m.If(self.restore):
            m.d.sync += [
                words[0].eq(saved_words[16:]), words[1].eq(saved_words[:16]), offset.eq(saved_offset),
                count.eq(saved_count), addr.eq(saved_addr),
            ]
        with m.If(self.start):
            m.d.sync += [count.eq(0), offset.eq(0), addr.eq(self.start_addr)]
        with m.If(self.restore | self.start):
            # Words under way belong to the position that was left.
            m.d.sync += [pending.eq(0), stale.eq(stale + pending + request - self.mem.valid)]
        return m
