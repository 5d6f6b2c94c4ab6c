"""Tap address generator: turns the advances of micro-operations into bank addresses, rotations and padding masks.

Everything is feed-forward, one operation a cycle. Stages (each ends in registers):

    1  advance = post of the operation before + pre
    2  channel += advance; at C it wraps to the next kernel column
    3  kernel column and row
    4  table read: row and column offset, residue, first and last output coordinate with the tap inside the input
    5  offset sum; base + channel; distances from the block to first and last
    6  address of the block's first tap; padding masks
    7  the four addresses that banks choose from: same or next bank row, same or next bank column

A layer with one input channel advances columns directly, so one wrap an operation is enough in either case.
"""

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .arch.config import AcceleratorConfig
from .arch.image import COORDINATE_BITS, KERNEL_ENTRY_WORDS, SHIFT_BITS, OpKind
from .blocks import BlockCounter
from .expander import OpLayout
from .layer import LayerLayout

__all__ = ["KernelTable", "TapGenerator"]


class KernelTable(wiring.Component):
    """One axis of the kernel: for each position offset, residue, first and last output coordinate.

    Members
    -------
    load_start, load_valid, load : In
        The table's words in image order.
    index, offset, residue, first, last
        Synchronous read.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.depth = max(2, config.kernel_max)
        self.offset_width = ceil_log2(config.act_depth)
        super().__init__({
            "load_start": In(1), "load_valid": In(1), "load": In(16), "index": In(ceil_log2(self.depth)),
            "offset": Out(self.offset_width), "residue": Out(3),
            "first": Out(config.map_bits), "last": Out(config.map_bits),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        word = Signal(range(KERNEL_ENTRY_WORDS))
        entry = Signal(ceil_log2(self.depth))
        widths = (self.offset_width, COORDINATE_BITS + 3, len(self.last))
        reads = []
        for n, width in enumerate(widths):
            m.submodules[f"memory{n}"] = memory = Memory(shape=width, depth=self.depth, init=[])
            write = memory.write_port()
            read = memory.read_port()
            m.d.comb += [
                write.addr.eq(entry), write.data.eq(self.load), write.en.eq(self.load_valid & (word == n)),
                read.addr.eq(self.index), read.en.eq(1),
            ]
            reads.append(read.data)
        m.d.comb += [
            self.offset.eq(reads[0]), self.first.eq(reads[1]), self.residue.eq(reads[1][COORDINATE_BITS:]),
            self.last.eq(reads[2]),
        ]
        with m.If(self.load_start):
            m.d.sync += [word.eq(0), entry.eq(0)]
        with m.Elif(self.load_valid):
            with m.If(word == KERNEL_ENTRY_WORDS - 1):
                m.d.sync += [word.eq(0), entry.eq(entry + 1)]
            with m.Else():
                m.d.sync += word.eq(word + 1)
        return m


class TapGenerator(wiring.Component):
    """Walks the taps of each row and the blocks of the map.

    Members
    -------
    start : In(1)
        Begin a layer.
    layer : In(LayerLayout)
    load_rows, load_columns, load_start, load : In
        Kernel tables' words.
    op, op_row_last, op_valid : In
        From the expander.
    addr, addr_x, addr_y, addr_xy : Out
        Bank addresses of a tap: in place, one bank column further, one bank row further, both.
    residue_y, residue_x : Out(3)
        Bank row and column of lane (0, 0); banks before them take the further address.
    mask_y, mask_x : Out
        Lane rows and columns whose tap lies inside the input; all zero at an end of row.
    term, eor, row_last, neg, shift : Out
        The operation, in step with the addresses.
    overrun : Out(1)
        A term outside the kernel (a strobe).
    probe, probe_addr, probe_y, probe_x : In
        While no layer runs: address one bank, given by its row and column.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        addr = ceil_log2(config.act_depth)
        super().__init__({
            "start": In(1), "layer": In(LayerLayout()),
            "load_start": In(1), "load_rows": In(1), "load_columns": In(1), "load": In(16),
            "op": In(OpLayout()), "op_row_last": In(1), "op_valid": In(1),
            "addr": Out(addr), "addr_x": Out(addr), "addr_y": Out(addr), "addr_xy": Out(addr),
            "residue_y": Out(3), "residue_x": Out(3),
            "mask_y": Out(config.lanes_y), "mask_x": Out(config.lanes_x),
            "term": Out(1), "eor": Out(1), "row_last": Out(1), "neg": Out(1), "shift": Out(SHIFT_BITS),
            "overrun": Out(1), "probe": In(1), "probe_addr": In(addr), "probe_y": In(3), "probe_x": In(3),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        layer = self.layer
        addr_width = len(self.addr)
        m.submodules.rows = rows = KernelTable(self.config)
        m.submodules.columns = columns = KernelTable(self.config)
        m.submodules.blocks = blocks = BlockCounter(self.config)
        for table, valid in ((rows, self.load_rows), (columns, self.load_columns)):
            m.d.comb += [table.load_start.eq(self.load_start), table.load_valid.eq(valid), table.load.eq(self.load)]

        # What travels along unchanged: term, eor, row_last, neg, shift.
        control = Cat(self.op_valid & ~self.op.kind[1], self.op_valid & (self.op.kind == OpKind.EOR),
                      self.op_row_last, self.op.kind[0], self.op.shift)
        stages = {}
        for n in range(1, 8):
            stages[n] = Signal(len(control), name=f"control{n}")
            m.d.sync += stages[n].eq(control)
            control = stages[n]
        TERM, EOR, ROW_LAST = 0, 1, 2
        m.d.comb += Cat(self.term, self.eor, self.row_last, self.neg, self.shift).eq(stages[7])

        # 1: advance.
        advance = Signal(8)
        moved = Signal()
        post = Signal(len(self.op.post))
        m.d.sync += [advance.eq(post + self.op.pre), moved.eq(self.op_valid)]
        with m.If(self.op_valid):
            m.d.sync += post.eq(Mux(self.op.kind == OpKind.EOR, 0, self.op.post))

        # 2: channel.
        single = Signal()
        # No more channels than a bank holds.
        channel = Signal(addr_width)
        sum_channel = Signal(max(addr_width, len(advance)) + 1)
        wrapped = Signal(signed(len(sum_channel) + 1))
        step = Signal(8)
        m.d.comb += [sum_channel.eq(channel + advance), wrapped.eq(sum_channel - layer.channels[:addr_width + 1])]
        m.d.sync += [single.eq(layer.channels == 1), step.eq(0)]
        with m.If(stages[1][EOR]):
            m.d.sync += channel.eq(0)
        with m.Elif(moved):
            m.d.sync += [
                step.eq(Mux(single, advance, wrapped >= 0)),
                channel.eq(Mux(single, 0, Mux(wrapped >= 0, wrapped, sum_channel))),
            ]

        # 3: kernel position.
        kernel_x = Signal(len(columns.index) + 1)
        kernel_y = Signal(len(rows.index) + 1)
        sum_x = Signal(9)
        left_x = Signal(signed(10))
        channel3 = Signal(addr_width)
        m.d.comb += [sum_x.eq(kernel_x + step), left_x.eq(sum_x - layer.kernel[:8])]
        m.d.sync += channel3.eq(channel)
        with m.If(stages[2][EOR]):
            m.d.sync += [kernel_x.eq(0), kernel_y.eq(0)]
        with m.Elif(left_x >= 0):
            m.d.sync += [kernel_x.eq(left_x), kernel_y.eq(kernel_y + ~kernel_y[-1])]
        with m.Else():
            m.d.sync += kernel_x.eq(sum_x)

        # 4: tables.
        channel4 = Signal(addr_width)
        m.d.comb += [rows.index.eq(kernel_y), columns.index.eq(kernel_x)]
        m.d.sync += [
            channel4.eq(channel3),
            self.overrun.eq(stages[3][TERM] & ((kernel_y >= layer.kernel[8:]) | (kernel_x >= layer.kernel[:8]))),
        ]

        # 5: sums; the block moves on when its end of row passes here.
        row_base = Signal(addr_width)
        group_base = Signal(addr_width)
        group_left = Signal(16)
        base = Signal(addr_width)
        m.d.comb += [
            blocks.out_h.eq(layer.out_h), blocks.out_w.eq(layer.out_w), blocks.start.eq(self.start),
            blocks.advance.eq(stages[4][EOR]),
        ]
        next_row = Signal(addr_width)
        next_group = Signal(addr_width)
        m.d.comb += [
            next_row.eq(row_base + layer.in_row_step),
            next_group.eq(group_base + Mux(group_left == 1, layer.group_step, 0)),
        ]
        with m.If(stages[4][EOR]):
            with m.If(stages[4][ROW_LAST]):
                m.d.sync += [
                    base.eq(next_group), row_base.eq(next_group), group_base.eq(next_group),
                    group_left.eq(Mux(group_left == 1, layer.group_rows, group_left - 1)),
                ]
            with m.Elif(blocks.last_x):
                m.d.sync += [base.eq(next_row), row_base.eq(next_row)]
            with m.Else():
                m.d.sync += base.eq(base + layer.in_col_step)
        with m.If(self.start):
            m.d.sync += [
                base.eq(layer.in_base), row_base.eq(layer.in_base), group_base.eq(layer.in_base),
                group_left.eq(layer.group_rows),
                # What idle cycles and an aborted layer left behind.
                post.eq(0), channel.eq(0), step.eq(0), kernel_x.eq(0), kernel_y.eq(0),
            ]
        offset5 = Signal(addr_width)
        base5 = Signal(addr_width)
        distances = []
        for table, coordinate in ((rows, blocks.y), (columns, blocks.x)):
            first = Signal(signed(self.config.map_bits + 1))
            last = Signal(signed(self.config.map_bits + 1))
            m.d.sync += [first.eq(table.first - coordinate), last.eq(table.last - coordinate)]
            distances.append((first, last))
        residues = [Signal(6, name=f"residues{n}") for n in (5, 6)]
        m.d.sync += [
            offset5.eq(rows.offset + columns.offset), base5.eq(base + channel4),
            residues[0].eq(Cat(rows.residue, columns.residue)), residues[1].eq(residues[0]),
        ]

        # 6: address and masks.
        addr6 = Signal(addr_width)
        masks = [Signal(self.config.lanes_y), Signal(self.config.lanes_x)]
        m.d.sync += addr6.eq(offset5 + base5)
        for mask, (first, last) in zip(masks, distances, strict=True):
            for n in range(len(mask)):
                m.d.sync += mask[n].eq((first <= n) & (last >= n) & stages[5][TERM])

        # 7: addresses of neighbouring bank rows and columns.
        both = Signal(addr_width)
        m.d.sync += [
            both.eq(layer.in_row_step + layer.in_col_step),
            self.addr.eq(addr6), self.addr_x.eq(addr6 + layer.in_col_step),
            self.addr_y.eq(addr6 + layer.in_row_step), self.addr_xy.eq(addr6 + both),
            Cat(self.residue_y, self.residue_x).eq(residues[1]),
            self.mask_y.eq(masks[0]), self.mask_x.eq(masks[1]),
        ]
        with m.If(self.probe):
            m.d.sync += [
                self.addr.eq(self.probe_addr), self.residue_y.eq(self.probe_y), self.residue_x.eq(self.probe_x),
            ]
        return m
