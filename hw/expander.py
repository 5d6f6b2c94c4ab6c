"""Dictionary expander: a symbol becomes the micro-operations of its entry, one a cycle.

The term RAM holds the first micro-operation of entry n at address n and all further ones from address 256 up. Each word
carries the address of its successor, so that the next read depends on nothing but the word just read and the FIFO's
head.
"""

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .arch.config import DICT_HEADS, AcceleratorConfig
from .arch.image import POST_BITS, PRE_BITS, SHIFT_BITS, OpKind

__all__ = ["OpLayout", "Expander"]

EOR_SPACING = 4
"""Least cycles between two ends of row, so that block counters behind the expander settle."""


class OpLayout(data.StructLayout):
    """A micro-operation (see :class:`.arch.image.MicroOp`), as its word's bits from bit 0 up."""

    def __init__(self) -> None:
        super().__init__({"kind": 2, "last": 1, "shift": SHIFT_BITS, "pre": PRE_BITS, "post": POST_BITS})


class Expander(wiring.Component):
    """Reads entries and issues their micro-operations.

    Members
    -------
    clear : In(1)
        Forget operations in flight.
    load_start, load_valid, load : In
        Dictionary words in image order; ``load_start`` comes before the first.
    symbol, row_last, valid, ready
        From the decoder.
    op, op_row_last, op_valid : Out
        An operation is issued in every cycle with ``op_valid``.
    eor_ready : In(1)
        Whether an end of row may be issued.
    eor_issue, eor_row_last : Out(1)
        An end of row leaves the expander in this cycle (a cycle before ``op_valid``).
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "clear": In(1), "load_start": In(1), "load_valid": In(1), "load": In(16),
            "symbol": In(8), "row_last": In(1), "valid": In(1), "ready": Out(1),
            "op": Out(OpLayout()), "op_row_last": Out(1), "op_valid": Out(1),
            "eor_ready": In(1), "eor_issue": Out(1), "eor_row_last": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        # The successor of a head or continuation is always a continuation: nine address bits, the highest always 1.
        m.submodules.memory = memory = Memory(shape=24, depth=self.config.dict_depth, init=[])
        write = memory.write_port()
        read = memory.read_port()
        with_tail = self.config.dict_depth > DICT_HEADS

        head = Signal(8)
        tail = Signal(8)
        in_tail = Signal()
        loaded = data.View(OpLayout(), self.load)
        m.d.comb += [
            write.en.eq(self.load_valid),
            write.addr.eq(Mux(in_tail, Cat(tail, 1), head) if with_tail else head),
            write.data.eq(Cat(self.load, (tail + in_tail)[:8])),
        ]
        with m.If(self.load_start):
            m.d.sync += [head.eq(0), tail.eq(0), in_tail.eq(0)]
        with m.Elif(self.load_valid):
            m.d.sync += in_tail.eq(~loaded.last)
            with m.If(in_tail):
                m.d.sync += tail.eq(tail + 1)
            with m.Else():
                m.d.sync += head.eq(head + 1)

        current = data.View(OpLayout(), read.data[:16])
        present = Signal()
        row_last = Signal()
        issue = Signal()
        advance = Signal()
        more = Signal()
        m.d.comb += [
            more.eq(present & ~current.last) if with_tail else more.eq(0),
            issue.eq(present & ((current.kind != OpKind.EOR) | self.eor_ready)),
            advance.eq(issue | ~present),
            self.eor_issue.eq(issue & (current.kind == OpKind.EOR)),
            self.eor_row_last.eq(row_last),
            read.addr.eq(Mux(more, Cat(read.data[16:], Const(1, 1)), self.symbol) if with_tail else self.symbol),
            read.en.eq(advance & (more | self.valid)),
            self.ready.eq(advance & ~more),
        ]
        with m.If(advance):
            m.d.sync += present.eq(more | self.valid)
            with m.If(~more):
                m.d.sync += row_last.eq(self.row_last)
        m.d.sync += [
            self.op_valid.eq(issue), self.op.eq(current), self.op_row_last.eq(row_last),
        ]
        with m.If(self.clear):
            m.d.sync += [present.eq(0), self.op_valid.eq(0)]
        return m
