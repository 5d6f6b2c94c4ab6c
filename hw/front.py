"""A stream's way from words of the model memory to micro-operations."""

from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, flipped

from .arch.config import AcceleratorConfig
from .arch.image import OpKind
from .decoder import Decoder
from .expander import Expander, OpLayout
from .fetch import FetchSignature
from .layer import LayerLayout
from .rowbuffer import RowBuffer

__all__ = ["Front"]


class Front(wiring.Component):
    """Decoder, row buffer and expander of one stream.

    Parameters
    ----------
    config : AcceleratorConfig
    addr_width : int
        Bits of a word address of the model memory.

    Members
    -------
    clear : In(1)
        Stop, forget everything in flight and errors. Not in the last cycles before ``start``: fetched words that are
        under way must have arrived.
    layer : In(LayerLayout())
        Stable from ``start`` on.
    load_begin, load_codes, load_dictionary, load : In(1), In(1), In(1), In(16)
        Tables begin anew; a word of the code table, of the dictionary.
    start, addr, rows, limit : In(1), In(addr_width), In(16), In(addr_width + 1)
        Begin a layer: the first word of the stream's codewords, its rows (0: it does nothing), words in use.
    mem : Out(FetchSignature)
    op, op_last_x, op_last, op_valid : Out
        Micro-operations, see :class:`.expander.Expander`.
    eor_ready, eor_issue, eor_last : In(1), Out(1), Out(1)
        Whether an end of row may be issued; one is issued in this cycle; it is that of the map's last block.
    bad_codeword, overrun : Out(1)
        Errors, held until ``clear``.
    issue_term, starved, stalled : Out(1)
        An operation with a term is issued; nothing is, because there is none, although the stream has not ended; an end
        of row waits.
    """

    def __init__(self, config: AcceleratorConfig, addr_width: int) -> None:
        self.config = config
        self.addr_width = addr_width
        super().__init__({
            "clear": In(1), "layer": In(LayerLayout()), "load": In(16), "load_begin": In(1), "load_codes": In(1),
            "load_dictionary": In(1), "start": In(1), "addr": In(addr_width), "rows": In(16),
            "limit": In(addr_width + 1), "mem": Out(FetchSignature(addr_width)),
            "op": Out(OpLayout()), "op_valid": Out(1), "op_last_x": Out(1), "op_last": Out(1),
            "eor_ready": In(1), "eor_issue": Out(1), "eor_last": Out(1), "bad_codeword": Out(1), "overrun": Out(1),
            "issue_term": Out(1), "starved": Out(1), "stalled": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.decoder = decoder = Decoder(self.config, self.addr_width)
        m.submodules.buffer = buffer = RowBuffer(self.config)
        m.submodules.expander = expander = Expander(self.config)
        wiring.connect(m, decoder.mem, flipped(self.mem))
        start = Signal()
        m.d.comb += [
            start.eq(self.start & self.rows.any()),
            decoder.load_codes.eq(self.load_codes), decoder.eor.eq(self.layer.eor), decoder.addr.eq(self.addr),
            decoder.limit.eq(self.limit), decoder.start.eq(start), decoder.ready.eq(buffer.ready),
            decoder.stop.eq(buffer.stop),
            buffer.start.eq(start), buffer.layer.eq(self.layer), buffer.rows.eq(self.rows),
            buffer.symbol.eq(decoder.symbol), buffer.end.eq(decoder.end), buffer.valid.eq(decoder.valid),
            buffer.next.eq(expander.next),
            expander.load_dictionary.eq(self.load_dictionary), expander.symbol.eq(buffer.read_symbol),
            expander.valid.eq(buffer.read_valid), expander.last_x.eq(buffer.read_last_x),
            expander.last.eq(buffer.read_last), expander.eor_ready.eq(self.eor_ready),
            self.op.eq(expander.op), self.op_valid.eq(expander.op_valid), self.op_last_x.eq(expander.op_last_x),
            self.op_last.eq(expander.op_last), self.eor_last.eq(expander.op_last),
            self.eor_issue.eq(expander.op_valid & (expander.op.kind == OpKind.EOR)),
            self.bad_codeword.eq(decoder.bad_codeword), self.overrun.eq(decoder.overrun),
            self.issue_term.eq(expander.op_valid & ~expander.op.kind[1]), self.stalled.eq(expander.stalled),
            self.starved.eq((decoder.running | buffer.waiting) & ~expander.op_valid & ~expander.stalled),
        ]
        for unit in (decoder, buffer, expander):
            m.d.comb += unit.clear.eq(self.clear)
        for loaded in (decoder, expander):
            m.d.comb += [loaded.load_begin.eq(self.load_begin), loaded.load.eq(self.load)]
        return m
