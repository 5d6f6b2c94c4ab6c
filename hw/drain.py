"""Requantizes finished accumulators one by one and writes them back, behind the terms of the next row.

    head       shadow + bias
    sign       negated when the scale's first term is negative
    shift      one barrel shifter: Horner steps over the scale's further terms, then the final shift
    round      half up
    clamp
    write

A pixel takes one cycle with a scale of one term, two more with each further one, and four when raw (one a byte).
"""

from amaranth.hdl import Array, Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .arch.config import AcceleratorConfig
from .arch.image import PHASE_BITS, SCALE_SHIFT_BITS, Flag
from .blocks import BlockCounter
from .expander import EOR_SPACING
from .layer import LayerLayout
from .parameters import BIAS_WIDTH, ScaleLayout

__all__ = ["DrainGate", "WriteAxis", "Drain"]

RAW_BYTES = 4


class DrainGate(wiring.Component):
    """Spaces ends of row so far apart that each finds the shadows drained and its parameters there.

    The drain starts a fixed time after an end of row is issued, so spacing at the issue is spacing at the shadows.

    Members
    -------
    clear : In(1)
    pixels : In
        Pixels that a row pass drains.
    steps : In
        Cycles a pixel takes, less one.
    issue, row_last : In(1)
        An end of row is issued in this cycle; the output channel's last.
    parameters_ready : In(1)
        Parameters of the next output channel are there. Looked at again only after ``row_done``.
    row_done : In(1)
    ready : Out(1)
        An end of row may be issued.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__({
            "clear": In(1), "pixels": In(range(lanes + 1)), "steps": In(3), "issue": In(1), "row_last": In(1),
            "parameters_ready": In(1), "row_done": In(1), "ready": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        pixels = Signal(range(self.lanes + 1))
        steps = Signal(3)
        gap = Signal(range(EOR_SPACING))
        row_pending = Signal()
        settled = Signal()
        m.d.sync += settled.eq(self.parameters_ready)
        m.d.comb += self.ready.eq((pixels == 0) & (gap == 0) & ~row_pending & settled)
        with m.If(gap != 0):
            m.d.sync += gap.eq(gap - 1)
        with m.If(pixels != 0):
            with m.If(steps == 0):
                m.d.sync += [pixels.eq(pixels - 1), steps.eq(self.steps)]
            with m.Else():
                m.d.sync += steps.eq(steps - 1)
        with m.If(self.row_done):
            m.d.sync += row_pending.eq(0)
        with m.If(self.issue):
            m.d.sync += [pixels.eq(self.pixels), steps.eq(self.steps), gap.eq(EOR_SPACING - 1),
                         row_pending.eq(self.row_last)]
        with m.If(self.clear):
            m.d.sync += [pixels.eq(0), gap.eq(0), row_pending.eq(0)]
        return m


class WriteAxis(wiring.Component):
    """One coordinate of the written pixel: which bank row (or column), and its share of the bank address.

    Members
    -------
    phases, plane_step, bank_step : In
        Layout of the output tensor along this axis.
    start : In(1)
        To the map's first pixel.
    advance : In(1)
        To the next pixel.
    keep : In(1)
        With or without ``advance``: the position after this cycle begins the block.
    back : In(1)
        To the beginning of the block (instead of ``advance``).
    wrap : In(1)
        To the map's first pixel, which begins the block.
    bank, plane, offset : Out
        Bank row or column; the two parts of the address.
    """

    def __init__(self, lanes: int, addr_width: int) -> None:
        self.lanes = lanes
        self.addr_width = addr_width
        super().__init__({
            "phases": In(PHASE_BITS), "plane_step": In(addr_width), "bank_step": In(addr_width),
            "start": In(1), "advance": In(1), "keep": In(1), "back": In(1), "wrap": In(1),
            "bank": Out(range(max(2, lanes))), "plane": Out(addr_width), "offset": Out(addr_width),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        phase = Signal(PHASE_BITS)
        position = Cat(phase, self.bank, self.plane, self.offset)
        following = Signal(len(position))
        begin = Signal(len(position))
        last_phase = Signal()
        last_bank = Signal()
        m.d.comb += [
            last_phase.eq(phase + 1 >= self.phases),
            last_bank.eq(self.bank == self.lanes - 1),
            following.eq(Cat(
                Mux(last_phase, 0, phase + 1)[:PHASE_BITS],
                Mux(last_phase, Mux(last_bank, 0, self.bank + 1), self.bank)[:len(self.bank)],
                Mux(last_phase, 0, self.plane + self.plane_step)[:self.addr_width],
                Mux(last_phase & last_bank, self.offset + self.bank_step, self.offset)[:self.addr_width])),
        ]
        current = Mux(self.back, begin, Mux(self.advance, following, position))
        m.d.sync += position.eq(current)
        with m.If(self.keep):
            m.d.sync += begin.eq(current)
        with m.If(self.start | self.wrap):
            m.d.sync += [position.eq(0), begin.eq(0)]
        return m


class Drain(wiring.Component):
    """Empties the shadows after each row pass.

    Members
    -------
    clear, start : In(1)
        Stop; begin a layer.
    finished, row_last : In(1)
        A row pass has reached the shadows; the output channel's last.
    head, shift : In(signed), Out(1)
        The shadow chain.
    bias, scale : In
        Parameters, stable while :attr:`row_done` has not come.
    steps, pixels : Out
        For :class:`DrainGate`.
    row_done : Out(1)
        The output channel is written, or will be without its parameters.
    layer_done : Out(1)
        Strobe: the last output channel is written.
    row : Out(16)
        Output channels done.
    w_en, w_bank, w_addr, w_data : Out
        To the activation memory.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        addr = ceil_log2(config.act_depth)
        super().__init__({
            "clear": In(1), "start": In(1), "layer": In(LayerLayout()), "finished": In(1), "row_last": In(1),
            "head": In(signed(config.acc_width)), "shift": Out(1),
            "bias": In(signed(BIAS_WIDTH)), "scale": In(ScaleLayout()),
            "steps": Out(3), "pixels": Out(range(config.lanes + 1)),
            "row_done": Out(1), "layer_done": Out(1), "row": Out(16),
            "w_en": Out(1), "w_bank": Out(config.lanes), "w_addr": Out(addr), "w_data": Out(config.act_bits),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        layer, scale = self.layer, self.scale
        lanes_y, lanes_x, act_bits = self.config.lanes_y, self.config.lanes_x, self.config.act_bits
        addr_width = len(self.w_addr)
        raw = Signal()
        single = Signal()
        m.d.sync += [
            raw.eq((layer.tag_flags & Flag.RAW).any()),
            single.eq((layer.out_h == 1) & (layer.out_w == 1)),
            self.steps.eq(Mux(raw, RAW_BYTES - 1, scale.extra << 1)),
        ]
        m.d.comb += self.pixels.eq(Mux(single, 1, self.config.lanes))

        # Where the next pixel goes.
        m.submodules.blocks = blocks = BlockCounter(self.config)
        m.submodules.axis_y = axis_y = WriteAxis(lanes_y, addr_width)
        m.submodules.axis_x = axis_x = WriteAxis(lanes_x, addr_width)
        lane_y = Signal(range(max(2, lanes_y)))
        lane_x = Signal(range(max(2, lanes_x)))
        active = Signal()
        row_last = Signal()
        step = Signal()
        column_end = Signal()
        block_end = Signal()
        m.d.comb += [
            self.shift.eq(step),
            column_end.eq(single | (lane_x == lanes_x - 1)),
            block_end.eq(column_end & (single | (lane_y == lanes_y - 1))),
            blocks.out_h.eq(layer.out_h), blocks.out_w.eq(layer.out_w),
            blocks.start.eq(self.start), blocks.advance.eq(step & block_end),
            axis_y.phases.eq(layer.out_phases[8:]), axis_x.phases.eq(layer.out_phases[:8]),
            axis_y.plane_step.eq(layer.out_plane_y), axis_x.plane_step.eq(layer.out_plane_x),
            axis_y.bank_step.eq(layer.out_row_step), axis_x.bank_step.eq(layer.out_col_step),
            axis_y.start.eq(self.start), axis_x.start.eq(self.start),
        ]
        with m.If(step):
            m.d.sync += lane_x.eq(Mux(column_end, 0, lane_x + 1))
            with m.If(column_end):
                m.d.sync += lane_y.eq(Mux(block_end, 0, lane_y + 1))
            m.d.comb += [
                axis_x.advance.eq(1),
                axis_x.back.eq(column_end & ~block_end),
                axis_x.keep.eq(block_end),
                axis_x.wrap.eq(block_end & blocks.last_x),
                axis_y.advance.eq(column_end),
                axis_y.back.eq(block_end & ~blocks.last_x),
                axis_y.keep.eq(block_end & blocks.last_x),
                axis_y.wrap.eq(block_end & row_last),
            ]

        # Head: one pixel leaves the chain.
        base = Signal(addr_width)
        head_valid = Signal()
        head_free = Signal()
        head = Signal(signed(self.config.acc_width + 1))
        head_inside = Signal()
        head_bank = Signal(self.config.lanes)
        head_parts = [Signal(addr_width, name=f"head_part{n}") for n in range(2)]
        head_end = Signal()
        m.d.comb += step.eq(active & head_free)
        with m.If(self.finished):
            m.d.sync += [active.eq(1), row_last.eq(self.row_last)]
        with m.If(step):
            m.d.sync += [
                head.eq(self.head + self.bias),
                head_inside.eq((blocks.y + lane_y < layer.out_h) & (blocks.x + lane_x < layer.out_w)),
                head_parts[0].eq(axis_y.plane + axis_y.offset), head_parts[1].eq(axis_x.plane + axis_x.offset),
                head_end.eq(block_end & row_last),
            ]
            for r in range(lanes_y):
                for s in range(lanes_x):
                    m.d.sync += head_bank[r * lanes_x + s].eq((axis_y.bank == r) & (axis_x.bank == s))
            with m.If(block_end):
                m.d.sync += active.eq(0)

        # Sign.
        value_valid = Signal()
        value_free = Signal()
        value = Signal(signed(self.config.acc_width + 2))
        value_inside = Signal()
        value_bank = Signal(self.config.lanes)
        value_addr = Signal(addr_width)
        value_end = Signal()
        move = Signal()
        m.d.comb += [head_free.eq(~head_valid | value_free), move.eq(head_valid & value_free)]
        with m.If(head_free):
            m.d.sync += head_valid.eq(active)
        with m.If(value_free):
            m.d.sync += value_valid.eq(head_valid)
        negate = scale.neg & ~raw
        with m.If(move):
            m.d.sync += [
                value.eq((head ^ negate.replicate(len(head)).as_signed()) + negate),
                value_inside.eq(head_inside), value_bank.eq(head_bank), value_end.eq(head_end),
                value_addr.eq(head_parts[0] + head_parts[1]),
            ]

        # Shift: even steps shift, odd steps add the next term; the last step's shift is the final one (or a raw byte).
        count = Signal(3)
        last = Signal()
        horner = Signal(signed(self.config.acc_width + 2))
        shifted = Signal(signed(self.config.acc_width + 3))
        term = Array(scale.terms[n] for n in range(4))[count[1:]]
        amount = Signal(SCALE_SHIFT_BITS)
        next_count = Signal(3)
        shifted_valid = Signal()
        shifted_bank = Signal(self.config.lanes)
        shifted_addr = Signal(addr_width)
        shifted_end = Signal()
        m.d.comb += [
            last.eq(count == self.steps),
            value_free.eq(~value_valid | last),
            next_count.eq(Mux(value_valid & ~last, count + 1, 0)),
        ]
        # The shift amount is chosen a cycle ahead.
        following = Array(scale.terms[n].shift for n in range(4))[next_count[1:]]
        m.d.sync += [
            count.eq(next_count),
            amount.eq(Mux(raw, Cat(Const(0, 3), next_count[:2]),
                          Mux(next_count == self.steps, scale.final_shift, following))),
        ]
        barrel_in = Signal(signed(self.config.acc_width + 2))
        m.d.comb += barrel_in.eq(Mux(raw | (count == 0), value, horner))
        m.d.sync += [
            shifted.eq((barrel_in << 1) >> amount),
            shifted_valid.eq(value_valid & (raw | last) & value_inside),
            shifted_bank.eq(value_bank),
            shifted_addr.eq(value_addr + base + Mux(raw, count[:2], 0)),
            shifted_end.eq(value_valid & last & value_end),
        ]
        with m.If(value_valid & count[0]):
            subtract = term.neg ^ scale.neg
            m.d.sync += horner.eq((shifted >> 1) + (value ^ subtract.replicate(len(value)).as_signed()) + subtract)

        # Round, then clamp.
        rounded = Signal(signed(self.config.acc_width + 3))
        rounded_valid = Signal()
        rounded_bank = Signal(self.config.lanes)
        rounded_addr = Signal(addr_width)
        narrow = Signal(signed(act_bits + 2))
        sign = rounded[-1]
        upper = rounded[act_bits + 1:]
        qmin = layer.qmin[:act_bits + 1].as_signed()
        qmax = layer.qmax[:act_bits + 1].as_signed()
        m.d.sync += [
            rounded.eq((shifted + ~raw) >> 1),
            rounded_valid.eq(shifted_valid), rounded_bank.eq(shifted_bank), rounded_addr.eq(shifted_addr),
            self.w_en.eq(rounded_valid), self.w_bank.eq(rounded_bank), self.w_addr.eq(rounded_addr),
        ]
        m.d.comb += narrow.eq(rounded)
        fits = upper.all() | ~upper.any()
        with m.If(raw):
            m.d.sync += self.w_data.eq(rounded)
        with m.Elif(Mux(fits, narrow < qmin, sign)):
            m.d.sync += self.w_data.eq(qmin)
        with m.Elif(Mux(fits, narrow > qmax, ~sign)):
            m.d.sync += self.w_data.eq(qmax)
        with m.Else():
            m.d.sync += self.w_data.eq(narrow)

        # Rows.
        next_row = Signal(16)
        closing = Signal(2)
        m.d.comb += [self.row_done.eq(shifted_end), next_row.eq(self.row + 1)]
        m.d.sync += [
            closing.eq(Cat(shifted_end & (next_row == layer.rows), closing)), self.layer_done.eq(closing[-1]),
        ]
        with m.If(shifted_end):
            m.d.sync += [
                self.row.eq(next_row), base.eq(base + Mux(raw, RAW_BYTES, 1)),
            ]
        with m.If(self.start):
            m.d.sync += [
                self.row.eq(0), base.eq(layer.out_base),
                lane_x.eq(0), lane_y.eq(0),
            ]
        with m.If(self.clear):
            m.d.sync += [active.eq(0), head_valid.eq(0), value_valid.eq(0), shifted_valid.eq(0), shifted_end.eq(0),
                         rounded_valid.eq(0), closing.eq(0), self.layer_done.eq(0), self.w_en.eq(0)]
        return m
