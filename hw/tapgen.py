"""Tap address generator: turns the advances of micro-operations into bank addresses, residues and edge masks.

Everything is feed-forward, one operation a cycle, ends of row included. Stages (each ends in registers):

    1  advance = post of the operation before + pre
    2  channel += advance; at C it wraps to the next position
    3  position, which addresses the table; where an end of row takes the base
    4  table entry; base + channel; how far the block is from the first and the last output row and column
    5  address; distances from the edges
    6  the same and one bank row further; edges as lane rows and columns
    7  lane rows and columns that lie outside

A layer with one channel advances positions directly, so one wrap an operation is enough in either case.
"""

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from .activations import ActivationMemory
from .arch.config import AcceleratorConfig
from .arch.image import EDGE_BITS, KEPT_AT, MAX_POST, MAX_PRE, POSITION_WORDS, RESIDUE_BITS, SHIFT_BITS, OpKind
from .cells.use import shift_add
from .expander import OpLayout
from .layer import LayerLayout

__all__ = ["TapGenerator"]

ADVANCE_BITS = (MAX_PRE + MAX_POST).bit_length()


class TapGenerator(wiring.Component):
    """Walks the taps of each row and the blocks of the map.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    clear : In(1)
        Forget an overrun.
    start : In(1)
        Begin a layer; no operation may be under way.
    layer : In(LayerLayout)
    stream_base : In
        Where this stream's first row begins: ``in_base + s * stream_step``. Taken in the cycle after ``start``.
    load_begin, load_positions, load : In
        The position table's words, in image order, after those kept; ``load_begin`` comes before the first, with the
        descriptor's ``positions`` there.
    op, op_valid, op_last_x, op_last : In
        From the expander; an operation may come in every cycle. The flags belong to ends of row: last block of its row
        of blocks, of the map.
    addr, addr_y : Out
        A tap's bank address, and that one bank row further; :attr:`LATENCY` cycles after its operation.
    residue_y, residue_x : Out(3)
        Bank row and column of lane (0, 0), in step with ``addr``.
    outside_y, outside_x : Out
        Lane rows and columns that read 0, as late as :class:`.activations.ActivationMemory` wants them. All rows,
        when the operation is no term.
    shift, neg, term, rectify, eor, last_x, last : Out
        The operation, in step with the activations that :class:`.activations.ActivationMemory` reads. Those that do
        not belong to its kind are 0.
    overrun : Out(1)
        A term was outside the positions; high until ``clear`` or ``start``.
    probe, probe_addr, probe_y, probe_x : In
        While no layer runs: address one bank, given by its row and column, as if :attr:`PROBE_LEAD` cycles later. Lane
        (0, 0) is not outside then, until ``load_begin``.
    probing : Out(1)
    """

    LATENCY = 6
    """Cycles from an operation to its addresses."""
    PROBE_LEAD = 3
    """Cycles that a probe is ahead of an operation."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        addr = ceil_log2(config.act_depth)
        super().__init__({
            "clear": In(1), "start": In(1), "layer": In(LayerLayout()), "stream_base": In(addr),
            "load_begin": In(1), "load_positions": In(1), "load": In(16),
            "op": In(OpLayout()), "op_valid": In(1), "op_last_x": In(1), "op_last": In(1),
            "addr": Out(addr), "addr_y": Out(addr), "residue_y": Out(RESIDUE_BITS), "residue_x": Out(RESIDUE_BITS),
            "outside_y": Out(config.lanes_y), "outside_x": Out(config.lanes_x),
            "shift": Out(SHIFT_BITS), "neg": Out(1), "term": Out(1), "rectify": Out(1), "eor": Out(1),
            "last_x": Out(1), "last": Out(1), "overrun": Out(1),
            "probe": In(1), "probe_addr": In(addr), "probe_y": In(RESIDUE_BITS), "probe_x": In(RESIDUE_BITS),
            "probing": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config, layer = self.config, self.layer
        width = len(self.addr)
        control = self._control(m)
        kinds = [None, *(word[:2] for word in control)]
        eor1, eor2 = kinds[1] == OpKind.EOR, kinds[2] == OpKind.EOR
        last_x2, last2 = control[1][2], control[1][3]

        # 1: advance; none in idle cycles.
        post = Signal(len(self.op.post), reset_less=True)
        advance = Signal(ADVANCE_BITS, reset_less=True)
        with m.If(self.op_valid):
            m.d.sync += post.eq(self.op.post)
        with m.If(self.start | (self.op_valid & (self.op.kind == OpKind.EOR))):
            m.d.sync += post.eq(0)
        m.d.sync += advance.eq(post + self.op.pre)
        with m.If(~self.op_valid):
            m.d.sync += advance.eq(0)

        # 2: channel. There are no more channels than a bank holds.
        single = Signal(reset_less=True)
        channel = Signal(width, reset_less=True)
        step = Signal(ADVANCE_BITS, reset_less=True)
        moved = Signal(max(width, ADVANCE_BITS) + 1)
        wrapped = Signal(signed(len(moved) + 1))
        m.d.comb += [moved.eq(channel + advance), wrapped.eq(moved - layer.channels[:width + 1])]
        m.d.sync += [
            single.eq(layer.channels == 1), channel.eq(Mux(wrapped >= 0, wrapped, moved)),
            step.eq(Cat(Mux(single, advance[0], wrapped >= 0), advance[1:])),
        ]
        with m.If(~single):
            m.d.sync += step[1:].eq(0)
        with m.If(single | eor1 | self.start):
            m.d.sync += channel.eq(0)
        with m.If(self.start):
            m.d.sync += step.eq(0)

        # 3: position. An end of row, whose table entry does not matter, leads back to the first.
        index_bits = ceil_log2(config.positions)
        position = Signal(max(index_bits, ADVANCE_BITS), reset_less=True)
        beyond = Signal(reset_less=True)
        following = Signal(len(position) + 1)
        channel3 = Signal(width, reset_less=True)
        m.d.comb += following.eq(position + step)
        m.d.sync += [position.eq(following), beyond.eq(beyond | following[-1]), channel3.eq(channel)]
        with m.If(eor2 | self.start):
            m.d.sync += [position.eq(0), beyond.eq(0)]
        (offset, residues, first, last), positions = self._table(m, following[:index_bits])
        with m.If(~kinds[3][1] & (beyond | (position >= positions))):
            m.d.sync += self.overrun.eq(1)
        with m.If(self.clear | self.start):
            m.d.sync += self.overrun.eq(0)
        base, move, move_row, move_map = self._base(m, eor2, last_x2, last2)

        # 4 to 6: address, with an entry for the probe.
        offset4 = Signal(width, reset_less=True)
        base4 = Signal(width, reset_less=True)
        addr5 = Signal(width, reset_less=True)
        m.d.sync += [
            offset4.eq(Mux(self.probe, self.probe_addr, offset)), base4.eq(base + channel3), addr5.eq(offset4 + base4),
            self.addr.eq(addr5), self.addr_y.eq(addr5 + layer.in_row_step),
        ]
        with m.If(self.probe):
            m.d.sync += [base4.eq(0), self.probing.eq(1)]
        with m.Elif(self.load_begin):
            m.d.sync += self.probing.eq(0)
        value: Value = Mux(self.probe, Cat(self.probe_y, self.probe_x), residues)
        for n in range(4, 7):
            register = Signal(2 * RESIDUE_BITS, name=f"residues{n}", reset_less=True)
            m.d.sync += register.eq(value)
            value = register
        m.d.comb += Cat(self.residue_y, self.residue_x).eq(value)

        # 4 and on: edges. Lane rows are gated by the operation.
        rows = self._edges(m, "y", config.lanes_y, layer.out_h, first[:EDGE_BITS], last[:EDGE_BITS], move_row, move_map)
        columns = self._edges(m, "x", config.lanes_x, layer.out_w, first[EDGE_BITS:], last[EDGE_BITS:], move, move_row)
        for output, value, delay in ((self.outside_y, rows, ActivationMemory.OUTSIDE_Y_DELAY),
                                     (self.outside_x, columns, ActivationMemory.OUTSIDE_X_DELAY)):
            for n in range(8, self.LATENCY + delay):
                register = Signal(len(value), name=f"{output.name}{n}", reset_less=True)
                m.d.sync += register.eq(value)
                value = register
            m.d.sync += output.eq(value)
        with m.If(kinds[self.LATENCY + ActivationMemory.OUTSIDE_Y_DELAY - 1][1]):
            m.d.sync += self.outside_y.eq(~0)
        with m.If(self.probing):
            m.d.sync += [self.outside_y[0].eq(0), self.outside_x[0].eq(0)]
        return m

    def _control(self, m: Module) -> list[Signal]:
        """The operation on its way: kind (a skip in idle cycles) and shift (of other operations, what they carry)."""
        op = self.op
        count = self.LATENCY + ActivationMemory.LATENCY - 1
        words = [Signal(2 + SHIFT_BITS, name=f"control{n + 1}", reset_less=True) for n in range(count)]
        carried = Mux(op.kind[0], Cat(self.op_last_x, self.op_last), op.rectify)
        m.d.sync += words[0].eq(Cat(op.kind, Mux(op.kind[1], carried, op.shift)))
        with m.If(~self.op_valid):
            m.d.sync += words[0].eq(OpKind.SKIP)
        for before, word in zip(words, words[1:], strict=False):
            m.d.sync += word.eq(before)
        kind, shift = words[-1][:2], words[-1][2:]
        m.d.sync += [
            self.term.eq(~kind[1]), self.neg.eq(kind == OpKind.SUB), self.shift.eq(shift),
            self.rectify.eq((kind == OpKind.SKIP) & shift[0]), self.eor.eq(kind == OpKind.EOR),
            self.last_x.eq((kind == OpKind.EOR) & shift[0]), self.last.eq((kind == OpKind.EOR) & shift[1]),
        ]
        with m.If(kind[1]):
            m.d.sync += self.shift.eq(0)
        return words

    def _table(self, m: Module, index: Value) -> tuple[tuple[Value, Value, Value, Value], Value]:
        """The position table: offset, residues, edges at the top and left, edges at the bottom and right; and how many
        positions it has."""
        word = Signal(POSITION_WORDS, init=1)
        entry = Signal(len(index) + 1)
        kept, step = self.layer.positions[KEPT_AT:], word[-1] & ~self.load_begin
        counted = shift_add(m, Cat(step, Const(0, len(entry) - 1)), entry, kept, self.load_begin, name="entry_next")
        with m.If(self.load_begin):
            m.d.sync += word.eq(1)
        with m.Elif(self.load_positions):
            m.d.sync += word.eq(Cat(word[-1], word[:-1]))
        with m.If(self.load_begin | self.load_positions):
            m.d.sync += entry.eq(counted)
        reads = []
        for n, bits in enumerate((len(self.addr), 2 * (RESIDUE_BITS + EDGE_BITS), 2 * EDGE_BITS)):
            m.submodules[f"positions{n}"] = memory = Memory(
                shape=bits, depth=self.config.positions, init=[], attrs={"ram_style": "block"})
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.addr.eq(entry[:-1]), write.data.eq(self.load), write.en.eq(self.load_positions & word[n]),
                read.addr.eq(index), read.en.eq(1),
            ]
            reads.append(read.data)
        return (reads[0], reads[1][:2 * RESIDUE_BITS], reads[1][2 * RESIDUE_BITS:], reads[2]), entry

    def _base(self, m: Module, eor: Value, last_x: Value, last: Value) -> tuple[Signal, Signal, Signal, Signal]:
        """Input base of the row and block in stage 3, and the strobes that move it to the next block, to the next row
        of blocks, and to the next map: one addition, since an end of row moves in one way only."""
        layer, width = self.layer, len(self.addr)
        # Rows of the group, from 1.
        seen = Signal(width, reset_less=True)
        full = Signal()
        m.d.comb += full.eq(seen == layer.group_rows[:width])
        m.d.sync += seen.eq(seen + (eor & last))
        with m.If(self.start | (eor & last & full)):
            m.d.sync += seen.eq(1)

        step = Signal(width, reset_less=True)
        origin = Signal(2, reset_less=True)
        move, move_row, move_map = (Signal(name=name, reset_less=True) for name in ("move", "move_row", "move_map"))
        m.d.sync += [
            step.eq(Mux(last, layer.group_step, Mux(last_x, layer.in_row_step, layer.in_col_step))),
            origin.eq(Mux(self.start, 3, Mux(last, 2, last_x))), move.eq(self.start | eor),
            move_row.eq(self.start | (eor & (last_x | last))), move_map.eq(self.start | (eor & last)),
        ]
        with m.If(self.start | (last & ~full)):
            m.d.sync += step.eq(0)
        base, row_base, map_base = (Signal(width, name=name, reset_less=True)
                                    for name in ("base", "row_base", "map_base"))
        moved = Signal(width)
        m.d.comb += moved.eq(Mux(origin[1], Mux(origin[0], self.stream_base, map_base),
                                 Mux(origin[0], row_base, base)) + step)
        for strobe, register in ((move, base), (move_row, row_base), (move_map, map_base)):
            with m.If(strobe):
                m.d.sync += register.eq(moved)
        return base, move, move_row, move_map

    def _edges(self, m: Module, axis: str, lanes: int, out: Value, first: Value, last: Value, advance: Value,
               restart: Value) -> Value:
        """Stages 4 to 7 of one axis: which of the block's lanes have their tap outside.

        Lane i of block b is outside when ``b * lanes + i < first`` or ``out - b * lanes - last <= i``. Edges are short,
        so a block far from them needs no more than to be known as such: a reset or set that no logic overrides.
        """
        log, bits = exact_log2(lanes), self.config.map_bits

        def register(name: str, shape: object, value: Value) -> Signal:
            signal = Signal(shape, name=f"{name}_{axis}", reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        block = Signal(max(1, bits - log), name=f"block_{axis}", reset_less=True)
        m.d.sync += block.eq(block + advance)
        with m.If(restart):
            m.d.sync += block.eq(0)
        # Exact when under 32, which is more than an edge and the lanes.
        left = Signal(max(1, bits - log), name=f"left_{axis}")
        m.d.comb += left.eq(out[log:bits] - block)
        near = EDGE_BITS - log
        block4 = register("block4", near, block[:near])
        first_far = register("first_far", 1, block[near:].any() if len(block) > near else Const(0))
        left4 = register("left4", near + 1, left)
        last_far = register("last_far", 1, left[near + 1:].any() if len(left) > near + 1 else Const(0))
        first4, last4 = register("first4", EDGE_BITS, first), register("last4", EDGE_BITS, last)

        before = register("before", 1, block4 < first4[log:])
        among = register("among", 1, block4 == first4[log:])
        part = register("part", log, first4[:log]) if log else Const(0, 0)
        with m.If(first_far):
            m.d.sync += [before.eq(0), among.eq(0)]
        room = register("room", signed(EDGE_BITS + 2), Cat(out[:log], left4) - last4)
        with m.If(last_far):
            m.d.sync += room.eq((2 << EDGE_BITS) - 1)

        early = register("early", lanes, Cat(before | (among & (i < part)) for i in range(lanes)))
        ends = register("ends", 1, (room < 0) | (room[log:] == 0))
        rest = register("rest", log, room[:log]) if log else Const(0, 0)
        if log:
            with m.If(room < 0):
                m.d.sync += rest.eq(0)
        return register("outside", lanes, Cat(early[i] | (ends & (rest <= i)) for i in range(lanes)))
