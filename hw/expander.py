"""Dictionary expander: a symbol becomes the micro-operations of its entry, one a cycle.

Two RAMs, and nothing that is read from one decides what is read from it next:

    symbol -> entry RAM -> address counter -> operation RAM -> register -> issue

An entry's word is the address of its first operation and the low bits of the address of its last one.
"""

from amaranth.hdl import Cat, Elaboratable, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .arch.config import SYMBOLS_MAX, AcceleratorConfig
from .arch.image import ENTRY_OPS_MAX, POST_BITS, PRE_BITS, RECTIFY_SHIFT, SHIFT_BITS, OpKind

__all__ = ["OpLayout", "Expander"]


class OpLayout(data.StructLayout):
    """A micro-operation: its word's bits from bit 0 up (:class:`.arch.image.MicroOp`), and what was found in them.

    ``rectify``: the kind is :attr:`.OpKind.SKIP` and the shift :data:`.RECTIFY_SHIFT`.
    """

    def __init__(self) -> None:
        super().__init__({"kind": 2, "last": 1, "shift": SHIFT_BITS, "pre": PRE_BITS, "post": POST_BITS, "rectify": 1})


class Expander(wiring.Component):
    """Reads entries and issues their micro-operations.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    clear : In(1)
        Forget operations in flight.
    load_begin, load_dictionary, load : In(1), In(1), In(16)
        Begin a new dictionary; its words in image order. Nothing may be in flight.
    symbol, last_x, last, valid, next : In(8), In(1), In(1), In(1), Out(1)
        A symbol with its flags, if ``valid``, is taken in each cycle with ``next``.
    op, op_last_x, op_last, op_valid : Out(OpLayout()), Out(1), Out(1), Out(1)
        An operation is issued in each cycle with ``op_valid``; its symbol's flags.
    eor_ready : In(1)
        Whether an end of row may be issued; until then nothing is.
    stalled : Out(1)
        An end of row waits.

    Attributes
    ----------
    LATENCY : int
        Cycles from taking a symbol to issuing its first operation.
    """

    LATENCY = 4

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "clear": In(1), "load_begin": In(1), "load_dictionary": In(1), "load": In(16),
            "symbol": In(8), "last_x": In(1), "last": In(1), "valid": In(1), "next": Out(1),
            "op": Out(OpLayout()), "op_last_x": Out(1), "op_last": Out(1), "op_valid": Out(1),
            "eor_ready": In(1), "stalled": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        depth = self.config.dict_depth
        low = ceil_log2(ENTRY_OPS_MAX)
        entry_layout = data.StructLayout({"begin": ceil_log2(depth), "end": low})
        m.submodules.entries = entries = Memory(shape=entry_layout, depth=SYMBOLS_MAX, init=[])
        m.submodules.operations = operations = Memory(shape=16, depth=depth, init=[])
        write_entry, write_operation = entries.write_port(), operations.write_port()
        read_entry, read_operation = entries.read_port(), operations.read_port()

        # Flags of the symbol whose entry has been read, of the address, of the operation that has been read and of the
        # one that is ready to issue.
        valid = [Signal(name=f"valid{n}") for n in range(4)]
        flags = [Signal(2, name=f"flags{n}") for n in range(4)]
        addr = Signal(ceil_log2(depth))
        end = Signal(low)
        following = Signal(len(addr))
        more, flow, is_end = Signal(), Signal(), Signal()
        ready = Signal(16)
        m.d.comb += [
            following.eq(addr + 1), more.eq(valid[1] & (addr[:low] != end)),
            self.stalled.eq(is_end & ~self.eor_ready), flow.eq(~self.stalled), self.next.eq(flow & ~more),
            read_entry.addr.eq(self.symbol), read_entry.en.eq(self.next),
            read_operation.addr.eq(addr), read_operation.en.eq(flow),
            self.op.eq(Cat(ready, (self.op.kind == OpKind.SKIP) & (self.op.shift == RECTIFY_SHIFT))),
            self.op_valid.eq(valid[3] & flow), Cat(self.op_last_x, self.op_last).eq(flags[3]),
        ]
        with m.If(self.next):
            m.d.sync += [valid[0].eq(self.valid), flags[0].eq(Cat(self.last_x, self.last)),
                         valid[1].eq(valid[0]), flags[1].eq(flags[0]), end.eq(read_entry.data.end)]
        with m.If(flow):
            m.d.sync += [
                valid[2].eq(valid[1]), flags[2].eq(flags[1]), valid[3].eq(valid[2]), flags[3].eq(flags[2]),
                ready.eq(read_operation.data), is_end.eq(valid[2] & (read_operation.data[:2] == OpKind.EOR)),
            ]

        # The counter that walks an entry's operations walks the whole dictionary when it is loaded.
        number = Signal(range(SYMBOLS_MAX))
        begin = Signal(len(addr))
        m.d.comb += [
            write_operation.addr.eq(addr), write_operation.data.eq(self.load),
            write_operation.en.eq(self.load_dictionary),
            write_entry.addr.eq(number), write_entry.data.eq(Cat(begin, addr[:low])),
            write_entry.en.eq(self.load_dictionary),
        ]
        with m.If(self.next & valid[0]):
            m.d.sync += addr.eq(read_entry.data.begin)
        with m.Elif(self.load_dictionary | (flow & more)):
            m.d.sync += addr.eq(following)
        with m.If(self.load_dictionary & self.load[2]):
            m.d.sync += [number.eq(number + 1), begin.eq(following)]
        with m.If(self.load_begin):
            m.d.sync += [addr.eq(0), number.eq(0), begin.eq(0)]
        with m.If(self.clear):
            m.d.sync += [is_end.eq(0), *(signal.eq(0) for signal in valid)]
        return m
