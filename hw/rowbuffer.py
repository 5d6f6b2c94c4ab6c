"""Keeps a stream's symbols between decoding and use, and replays each row for every block of output pixels."""

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .arch.config import AcceleratorConfig
from .arch.image import Flag
from .blocks import BlockCounter
from .layer import LayerLayout

__all__ = ["RowBuffer"]


class RowBuffer(wiring.Component):
    """A ring of symbols.

    Over a map of one block it is a FIFO, and rows may be longer than it. Otherwise a row stays until its last pass, and
    its symbols make room as that pass reads them; the decoder may write the next row meanwhile, but for its end. With
    :attr:`.Flag.SHARED_ROW` the first row is replayed for all of the stream's rows.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    clear, start : In(1)
        Empty it; empty it and begin a layer.
    layer, rows : In(LayerLayout()), In(16)
        ``rows``: of this stream, at least 1.
    symbol, end, valid, ready : In(8), In(1), In(1), Out(1)
        A symbol is written in each cycle with ``valid`` and ``ready``, which depends on ``end``: it is the end of its
        row.
    stop : Out(1)
        The symbol is the stream's last.
    next : In(1)
        To the next symbol, given on the outputs below from the next cycle on.
    read_symbol, read_valid, read_last_x, read_last : Out
        The symbol, if there was any; whether it belongs to the last block of its row of blocks, of the map.
    waiting : Out(1)
        There are symbols to read.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "clear": In(1), "start": In(1), "layer": In(LayerLayout()), "rows": In(16),
            "symbol": In(8), "end": In(1), "valid": In(1), "ready": Out(1), "stop": Out(1),
            "next": In(1), "read_symbol": Out(8), "read_valid": Out(1), "read_last_x": Out(1), "read_last": Out(1),
            "waiting": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        depth = self.config.row_depth
        m.submodules.memory = memory = Memory(shape=8, depth=depth, init=[])
        write_port = memory.write_port()
        read_port = memory.read_port()
        m.submodules.blocks = blocks = BlockCounter(self.config)

        # With one bit more than an address: equal only when nothing lies between them.
        write = Signal(ceil_log2(depth) + 1)
        read = Signal(len(write))
        begin = Signal(len(write))
        row_end = Signal(ceil_log2(depth))
        # Whether the row that is read is complete, and row_end tells its end. Never in a FIFO.
        complete = Signal()
        level = Signal(range(depth + 1))
        row = Signal(16)
        shared = Signal()
        starting = Signal()
        replay = Signal()
        read_next = Signal(len(read))
        push, take, release = Signal(), Signal(), Signal()
        at_end, row_done, last_row = Signal(), Signal(), Signal()
        m.d.comb += [
            blocks.out_h.eq(self.layer.out_h), blocks.out_w.eq(self.layer.out_w), blocks.start.eq(self.start),
            shared.eq((self.layer.tag_flags & Flag.SHARED_ROW).any()),
            self.ready.eq(~level[-1] & ~(self.end & complete)),
            push.eq(self.valid & self.ready),
            last_row.eq(row == self.rows), self.stop.eq(self.end & (shared | last_row)),
            write_port.addr.eq(write), write_port.data.eq(self.symbol), write_port.en.eq(push),
            read_port.addr.eq(read), read_port.en.eq(self.next), self.read_symbol.eq(read_port.data),

            self.waiting.eq(complete | (read != write)), take.eq(self.waiting & self.next),
            at_end.eq(complete & (read[:-1] == row_end)), read_next.eq(read + 1),
            row_done.eq(blocks.last & (~shared | last_row)), release.eq(take & blocks.last & ~shared),
            blocks.advance.eq(take & at_end),
        ]
        with m.If(push):
            m.d.sync += write.eq(write + 1)
        with m.If(push ^ release):
            m.d.sync += level.eq(level + Cat(1, release.replicate(len(level) - 1)))
        with m.If(self.next):
            m.d.sync += [self.read_valid.eq(self.waiting), self.read_last_x.eq(blocks.last_x),
                         self.read_last.eq(blocks.last)]
        with m.If(take):
            m.d.sync += read.eq(Mux(at_end & ~row_done, begin, read_next))
            with m.If(at_end & row_done):
                m.d.sync += [begin.eq(read_next), complete.eq(0)]
        with m.If(push & self.end & replay):
            m.d.sync += [row_end.eq(write), complete.eq(1)]
        with m.If(Mux(shared, take & at_end & blocks.last, push & self.end)):
            m.d.sync += row.eq(row + 1)

        m.d.sync += starting.eq(self.start)
        with m.If(starting):
            m.d.sync += replay.eq(~blocks.last | shared)
        with m.If(self.start | self.clear):
            m.d.sync += [
                write.eq(0), read.eq(0), begin.eq(0), complete.eq(0), level.eq(0), row.eq(1), self.read_valid.eq(0),
            ]
        return m
