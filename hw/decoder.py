"""Canonical Huffman decoder: one codeword a cycle from two sub-streams dealt codeword by codeword.

The loop of a Huffman decoder is: look at the window, find the codeword's length, move the window. Here it is 2-slow:
the layer's codewords alternate between sub-streams A and B, so each has two cycles for its loop and one set of
comparators serves both.

    extract   window of the sub-stream in turn, at its bit offset            -> register
    length    compare with the limit of each length; move the sub-stream     -> register
    symbol    codeword + offset of its length                                -> FIFO

An output channel's row is decoded once for each block of output pixels. The end of a row is recognized in the symbol
stage, beside the adder: there both bit readers still stand right behind the end-of-row codeword (the following ones are
in the extract and length stages and have not moved their readers), so saving or restoring the readers in that cycle
needs no correction. A return costs the two codewords in flight.
"""

from amaranth.hdl import Array, Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, flipped

from .arch.config import AcceleratorConfig
from .bitreader import BitReader
from .blocks import BlockCounter
from .fetch import FetchSignature

__all__ = ["CodeTable", "Decoder"]

PREFETCH = 5
"""Words past the end of a sub-stream that are requested before its last codeword is decoded, at most, and one."""


class CodeTable(wiring.Component):
    """Limits and symbol offsets of a canonical code, computed from the number of codewords of each length.

    A window whose first ``l`` bits are below ``limit[l]`` begins with a codeword of at most ``l`` bits.

    Members
    -------
    start, eor : In
        Begin a new table, whose end-of-row symbol is ``eor``.
    count_valid, count : In
        Codewords of length 1, 2, ... in turn.
    limits : Out
        Concatenated from length 1, ``l + 1`` bits each.
    length, offset : In, Out(8)
        What turns codewords of this length into symbols, modulo 256; a synchronous read.
    eor_code, eor_mask : Out
        The end-of-row codeword and the bits it takes, left-aligned.
    """

    def __init__(self, max_bits: int) -> None:
        self.max_bits = max_bits
        super().__init__({
            "start": In(1), "eor": In(8), "count_valid": In(1), "count": In(9),
            "limits": Out(sum(length + 1 for length in range(1, max_bits + 1))),
            "length": In(4), "offset": Out(8),
            "eor_code": Out(max_bits), "eor_mask": Out(max_bits),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        limits = [Signal(length + 1, name=f"limit{length}") for length in range(1, self.max_bits + 1)]
        m.submodules.offsets = offsets = Memory(shape=8, depth=16, init=[])
        write = offsets.write_port()
        read = offsets.read_port()
        length = Signal(range(self.max_bits + 1))
        first = Signal(self.max_bits + 1)
        index = Signal(10)
        limit = Signal(self.max_bits + 1)
        # Symbols from the first of this length to the end of row; negative when it has passed.
        passed = Signal(signed(11))
        distance = Signal(signed(11))
        beyond = Signal(signed(12))
        m.d.comb += [
            self.limits.eq(Cat(limits)), limit.eq(first + self.count),
            distance.eq(Mux(length == 0, self.eor, passed)), beyond.eq(distance - self.count),
            write.addr.eq(length + 1), write.data.eq(index - first), write.en.eq(self.count_valid),
            read.addr.eq(self.length), self.offset.eq(read.data), read.en.eq(1),
        ]
        with m.If(self.start):
            m.d.sync += [length.eq(0), first.eq(0), index.eq(0), self.eor_mask.eq(0)]
        with m.Elif(self.count_valid):
            for n in range(self.max_bits):
                with m.If(length == n):
                    m.d.sync += limits[n].eq(limit)
            m.d.sync += [length.eq(length + 1), first.eq(limit << 1), index.eq(index + self.count)]
            m.d.sync += passed.eq(beyond)
            with m.If((distance >= 0) & (beyond < 0)):
                m.d.sync += [self.eor_code.eq(first + distance), self.eor_mask.eq(-1)]
            with m.Else():
                m.d.sync += [self.eor_code.eq(self.eor_code << 1), self.eor_mask.eq(self.eor_mask << 1)]
        return m


class Decoder(wiring.Component):
    """Decodes a layer's rows, each as often as there are blocks of output pixels.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    clear : In(1)
        Stop and empty everything.
    table_start, eor, count_valid, count : In
        Code table, see :class:`CodeTable`.
    start : In(1)
        Begin the layer; ``addr_a``, ``addr_b`` are the first words of the sub-streams, ``end_a``, ``end_b`` the words
        after their last; ``rows``, ``out_h``, ``out_w``, ``shared_row`` stay stable while it runs.
    symbol, row_last, valid, ready : Out(8), Out(1), Out(1), In(1)
        Decoded symbols; ``row_last`` marks an end of row in the map's last block.
    bad_codeword, overrun : Out(1)
        Errors, held until ``clear``.
    row : Out(16)
        Rows done.
    mem_a, mem_b : Out(FetchSignature)
    """

    FIFO_DEPTH = 4

    def __init__(self, config: AcceleratorConfig, addr_width: int) -> None:
        self.config = config
        self.addr_width = addr_width
        addr = addr_width
        super().__init__({
            "clear": In(1), "table_start": In(1), "eor": In(8), "count_valid": In(1), "count": In(9),
            "start": In(1), "addr_a": In(addr), "addr_b": In(addr), "end_a": In(addr), "end_b": In(addr),
            "rows": In(16), "out_h": In(config.map_bits), "out_w": In(config.map_bits), "shared_row": In(1),
            "symbol": Out(8), "row_last": Out(1), "valid": Out(1), "ready": In(1),
            "bad_codeword": Out(1), "overrun": Out(1), "row": Out(16),
            "mem_a": Out(FetchSignature(addr)), "mem_b": Out(FetchSignature(addr)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        max_bits = self.config.max_code_bits
        m.submodules.table = table = CodeTable(max_bits)
        m.submodules.reader_a = reader_a = BitReader(self.addr_width)
        m.submodules.reader_b = reader_b = BitReader(self.addr_width)
        m.submodules.blocks = blocks = BlockCounter(self.config)
        readers = (reader_a, reader_b)
        wiring.connect(m, reader_a.mem, flipped(self.mem_a))
        wiring.connect(m, reader_b.mem, flipped(self.mem_b))

        running = Signal()
        starting = Signal()
        saved_phase = Signal()
        restore = Signal()
        save = Signal()
        m.d.comb += [
            table.start.eq(self.table_start), table.eor.eq(self.eor),
            table.count_valid.eq(self.count_valid), table.count.eq(self.count),
            reader_a.start_addr.eq(self.addr_a), reader_b.start_addr.eq(self.addr_b),
            blocks.out_h.eq(self.out_h), blocks.out_w.eq(self.out_w), blocks.start.eq(self.start),
        ]
        for reader in readers:
            m.d.comb += [reader.start.eq(self.start), reader.enable.eq(running),
                         reader.save.eq(save), reader.restore.eq(restore)]

        # Extract: the sub-streams take turns, whatever the stalls.
        phase = Signal()
        level = Signal(range(self.FIFO_DEPTH + 1))
        fire = Signal()
        window = Signal(32)
        offset = Signal(4)
        extracted = Signal(max_bits)
        length_valid = Signal()
        length_phase = Signal()
        symbol_valid = Signal()
        symbol_phase = Signal()
        m.d.comb += [
            window.eq(Mux(phase, reader_b.window, reader_a.window)),
            offset.eq(Mux(phase, reader_b.offset, reader_a.offset)),
            # A place in the FIFO for this codeword and those in flight.
            fire.eq(running & ~starting & Mux(phase, reader_b.ready, reader_a.ready) & ~restore
                    & (level + length_valid + symbol_valid < self.FIFO_DEPTH)),
        ]
        m.d.sync += length_valid.eq(fire)
        with m.If(fire):
            m.d.sync += [
                extracted.eq((window << offset)[32 - max_bits:32]), length_phase.eq(phase), phase.eq(~phase),
            ]

        # Length.
        below = Signal(max_bits)
        length = Signal(4)
        onehot = Signal(max_bits)
        code = Signal(max_bits)
        is_eor = Signal()
        invalid = Signal()
        start = 0
        for n in range(max_bits):
            m.d.comb += below[n].eq(extracted[max_bits - n - 1:] < table.limits[start:start + n + 2])
            start += n + 2
        m.d.comb += [length.eq(max_bits), invalid.eq(length_valid & ~below[-1])]
        for n in reversed(range(max_bits)):
            with m.If(below[n]):
                m.d.comb += length.eq(n + 1)
        for p, reader in enumerate(readers):
            m.d.comb += [reader.take.eq(length_valid & (length_phase == p)), reader.length.eq(length)]
        m.d.sync += [
            symbol_valid.eq(length_valid & ~restore & below[-1]),
            symbol_phase.eq(length_phase),
            code.eq(extracted),
            onehot.eq(below & ~(below << 1)),
            is_eor.eq(((extracted ^ table.eor_code) & table.eor_mask).any() == 0),
        ]

        # Symbol: the codeword's low eight bits, right-aligned, plus the offset of its length.
        symbol = Signal(8)
        aligned = Const(0, 8)
        for n in range(max_bits):
            aligned = aligned | (code[max_bits - n - 1:][:8] & onehot[n].replicate(8))
        m.d.comb += [table.length.eq(length), symbol.eq(aligned + table.offset)]
        row_end = Signal()
        go_on = Signal()
        proceed = Signal()
        finish = Signal()
        rows_left = Signal(16)
        m.d.comb += [
            row_end.eq(symbol_valid & is_eor),
            finish.eq(row_end & blocks.last & (rows_left == 1)),
            proceed.eq(starting & reader_a.ready & reader_b.ready),
            go_on.eq(row_end & blocks.last & ~self.shared_row),
            save.eq(go_on | proceed),
            restore.eq(row_end & ~go_on & ~finish),
            blocks.advance.eq(row_end),
        ]
        with m.If(row_end & blocks.last):
            m.d.sync += [rows_left.eq(rows_left - 1), self.row.eq(self.row + 1)]
        with m.If(go_on):
            m.d.sync += saved_phase.eq(~symbol_phase)
        with m.If(proceed):
            m.d.sync += starting.eq(0)
        with m.If(restore):
            m.d.sync += phase.eq(saved_phase)

        # FIFO: a shift register, so that its head is a register.
        entries = Array(Signal(9, name=f"entry{n}") for n in range(self.FIFO_DEPTH))
        pop = Signal()
        tail = Signal(range(self.FIFO_DEPTH + 1))
        m.d.comb += [
            self.valid.eq(level != 0), self.symbol.eq(entries[0][:8]), self.row_last.eq(entries[0][8]),
            pop.eq(self.valid & self.ready), tail.eq(level - pop),
        ]
        with m.If(pop):
            m.d.sync += [entries[n].eq(entries[n + 1]) for n in range(self.FIFO_DEPTH - 1)]
        with m.If(symbol_valid):
            for n in range(self.FIFO_DEPTH):
                with m.If(tail == n):
                    m.d.sync += entries[n].eq(Cat(symbol, row_end & blocks.last))
        m.d.sync += level.eq(tail + symbol_valid)

        # Reading a few words past the end is the prefetch's right; decoding from there is an error.
        ends = (self.end_a, self.end_b)
        for reader, end in zip(readers, ends, strict=True):
            limit = Signal(self.addr_width)
            m.d.sync += limit.eq(end + PREFETCH)
            with m.If(running & ~starting & (reader.next_addr == limit)):
                m.d.sync += self.overrun.eq(1)
        with m.If(invalid & running & ~restore & ~finish):
            m.d.sync += self.bad_codeword.eq(1)
        with m.If(finish | self.bad_codeword | self.overrun):
            m.d.sync += [running.eq(0), length_valid.eq(0), symbol_valid.eq(0)]
        with m.If(self.start):
            m.d.sync += [
                running.eq(1), starting.eq(1), phase.eq(0), saved_phase.eq(0), rows_left.eq(self.rows),
                self.row.eq(0),
                length_valid.eq(0), symbol_valid.eq(0),
            ]
        with m.If(self.clear):
            m.d.sync += [
                running.eq(0), level.eq(0), length_valid.eq(0), symbol_valid.eq(0),
                self.bad_codeword.eq(0), self.overrun.eq(0),
            ]
        return m
