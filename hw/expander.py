"""Dictionary expander: a symbol becomes the micro-operations of its entry, one a cycle.

    entry      entry RAM: where the entry's operations begin, how many there are, whether it ends a row
    address    counts through them; an end of row waits here until it may be issued
    operation  operation RAM                                                      -> register

No stage looks at what it reads to decide what to read next: the counts come from the entry RAM, so neither RAM lies in
a loop.
"""

from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .arch.config import DICT_HEADS, AcceleratorConfig
from .arch.image import POST_BITS, PRE_BITS, SHIFT_BITS, OpKind

__all__ = ["EntryLayout", "OpLayout", "Expander"]

ADDR_BITS = 9
COUNT_BITS = 6
EOR_SPACING = 4
"""Least cycles between two ends of row, so that block counters behind the expander settle."""


class OpLayout(data.StructLayout):
    """A micro-operation (see :class:`.arch.image.MicroOp`), as its word's bits from bit 0 up."""

    def __init__(self) -> None:
        super().__init__({"kind": 2, "last": 1, "shift": SHIFT_BITS, "pre": PRE_BITS, "post": POST_BITS})


class EntryLayout(data.StructLayout):
    """Where an entry's operations begin, how many follow the first, and whether it ends a row."""

    def __init__(self) -> None:
        super().__init__({"begin": ADDR_BITS, "further": COUNT_BITS, "eor": 1})


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
        An end of row leaves the expander in this cycle (two cycles before ``op_valid``).
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
        m.submodules.entries = entries = Memory(shape=EntryLayout(), depth=DICT_HEADS, init=[])
        m.submodules.operations = operations = Memory(shape=16, depth=self.config.dict_depth, init=[])
        entry_write = entries.write_port()
        operation_write = operations.write_port()

        # Loading: an entry is written when its last operation arrives.
        number = Signal(8)
        place = Signal(ADDR_BITS)
        begin = Signal(ADDR_BITS)
        loaded = data.View(OpLayout(), self.load)
        m.d.comb += [
            operation_write.addr.eq(place), operation_write.data.eq(self.load),
            operation_write.en.eq(self.load_valid),
            entry_write.addr.eq(number), entry_write.en.eq(self.load_valid & loaded.last),
            entry_write.data.begin.eq(begin), entry_write.data.further.eq(place - begin),
            entry_write.data.eor.eq(loaded.kind == OpKind.EOR),
        ]
        with m.If(self.load_start):
            m.d.sync += [number.eq(0), place.eq(0), begin.eq(0)]
        with m.Elif(self.load_valid):
            m.d.sync += place.eq(place + 1)
            with m.If(loaded.last):
                m.d.sync += [number.eq(number + 1), begin.eq(place + 1)]

        entry_read = entries.read_port()
        operation_read = operations.read_port()
        entry_valid = Signal()
        entry_row_last = Signal()
        addr = Signal(ADDR_BITS)
        further = Signal(COUNT_BITS)
        last = Signal()
        eor = Signal()
        ends = Signal()
        row_last = Signal()
        valid = Signal()
        issue = Signal()
        free = Signal()
        reading = Signal()
        reading_row_last = Signal()
        m.d.comb += [
            ends.eq(valid & eor & last),
            issue.eq(valid & (~ends | self.eor_ready)),
            free.eq(~valid | (issue & last)),
            self.ready.eq(~entry_valid | free),
            entry_read.addr.eq(self.symbol), entry_read.en.eq(self.ready),
            operation_read.addr.eq(addr), operation_read.en.eq(issue),
            self.eor_issue.eq(ends & self.eor_ready), self.eor_row_last.eq(row_last),
        ]
        with m.If(self.ready):
            m.d.sync += [entry_valid.eq(self.valid), entry_row_last.eq(self.row_last)]
        with m.If(free):
            m.d.sync += [
                valid.eq(entry_valid), addr.eq(entry_read.data.begin), further.eq(entry_read.data.further),
                last.eq(entry_read.data.further == 0), eor.eq(entry_read.data.eor), row_last.eq(entry_row_last),
            ]
        with m.Elif(issue):
            m.d.sync += [addr.eq(addr + 1), further.eq(further - 1), last.eq(further == 1)]
        m.d.sync += [
            reading.eq(issue), reading_row_last.eq(row_last),
            self.op.as_value().eq(operation_read.data), self.op_valid.eq(reading),
            self.op_row_last.eq(reading_row_last),
        ]
        with m.If(self.clear):
            m.d.sync += [entry_valid.eq(0), valid.eq(0), reading.eq(0), self.op_valid.eq(0)]
        return m
