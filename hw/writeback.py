"""Where the drain's pixels go: walks the output map block by block, for each stream on its own."""

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from .arch.config import AcceleratorConfig
from .arch.image import PHASE_BITS, Flag
from .cells.use import select, shift_add
from .layer import LayerLayout

__all__ = ["WriteAxis", "WriteBack"]


class WriteAxis(wiring.Component):
    """One coordinate of the written pixel: its bank row (or column), and its share of the bank address.

    Members
    -------
    phases, plane, turn, wrap : In
        Layout of the output tensor along this axis (``docs/image.md``, Writing).
    straight : In(1)
        Each step is ``plane``.
    step : In(1)
        To the next pixel; with ``load``, to the position ``begin``.
    load, begin : In
    bank, offset : Out
        Of the present pixel.
    following : Out
        Position of the next pixel.
    """

    def __init__(self, lanes: int, addr_width: int) -> None:
        self.lanes, self.addr_width = lanes, addr_width
        self.position_bits = PHASE_BITS + exact_log2(lanes) + addr_width
        super().__init__({
            "phases": In(PHASE_BITS), "plane": In(addr_width), "turn": In(addr_width), "wrap": In(addr_width),
            "straight": In(1), "step": In(1), "load": In(1), "begin": In(self.position_bits),
            "bank": Out(exact_log2(lanes)), "offset": Out(addr_width), "following": Out(self.position_bits),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        phase = Signal(PHASE_BITS)
        last_phase = Signal()
        m.d.comb += last_phase.eq(~self.straight & ((phase + 1)[:PHASE_BITS] == self.phases))
        turned = Mux(self.bank.all(), self.wrap, self.turn) if self.lanes > 1 else self.wrap
        stepped = shift_add(m, self.offset, self.plane, turned, last_phase, name="stepped")
        m.d.comb += self.following.eq(Cat(Mux(last_phase, 0, phase + 1)[:PHASE_BITS],
                                          (self.bank + last_phase)[:len(self.bank)], stepped))
        with m.If(self.step):
            m.d.sync += Cat(phase, self.bank, self.offset).eq(Mux(self.load, self.begin, self.following))
        return m


class WriteBack(wiring.Component):
    """Addresses of the drain's writes, and what is done when.

    Members
    -------
    clear : In(1)
        Nothing is written any more.
    start : In(1)
        Begin a layer, at the map's first block.
    layer, image : In
        As :class:`.drain.Drain`.
    images : In(6)
        Lanes that are written with ``BATCH``, less one.
    block, last_x, last : In(1)
        A pass over a block's pixels begins in the next cycle; whether it is the block row's and the map's last.
    stream : In
        With ``block``: whose.
    channel_addr : In
        Address of the output channel in the first pixel, :attr:`BASE_LATENCY` cycles after ``block``.
    pixel, block_end : In(1)
        A pixel is written; the block is done.
    w_en, w_bank, w_addr : Out
        :attr:`LATENCY` cycles after ``pixel``.
    row_done : Out(1)
        With ``block_end``: so is its output channel.
    """

    LATENCY = 2
    BASE_LATENCY = 1

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.addr_width = ceil_log2(config.act_depth)
        super().__init__({
            "clear": In(1), "start": In(1), "layer": In(LayerLayout()), "image": In(6), "images": In(6),
            "block": In(1), "last_x": In(1), "last": In(1), "stream": In(range(max(2, config.streams))),
            "channel_addr": In(self.addr_width), "pixel": In(1), "block_end": In(1),
            "w_en": Out(1), "w_bank": Out(range(max(2, config.lanes))), "w_addr": Out(self.addr_width),
            "row_done": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config, layer = self.config, self.layer
        lane_bits_y, lane_bits_x = exact_log2(config.lanes_y), exact_log2(config.lanes_x)
        flatten, batch = ((layer.tag_flags & flag).any() for flag in (Flag.FLATTEN, Flag.BATCH))
        lane = Signal(lane_bits_y + lane_bits_x)
        last_x, last = Signal(), Signal()
        column_end = Signal()
        stream = Signal.like(self.stream)
        m.d.comb += [
            column_end.eq(lane[:lane_bits_x].all() if lane_bits_x else 1), self.row_done.eq(self.block_end & last),
        ]
        with m.If(self.block):
            m.d.sync += [lane.eq(0), last_x.eq(self.last_x), last.eq(self.last), stream.eq(self.stream)]
        with m.Elif(self.pixel):
            m.d.sync += lane.eq(lane + 1)

        m.submodules.axis_y = axis_y = WriteAxis(config.lanes_y, self.addr_width)
        m.submodules.axis_x = axis_x = WriteAxis(config.lanes_x, self.addr_width)
        # Beginnings of the streams' present blocks. The number of the block row comes with the y axis; it counts from 1
        # if the last block row is whole, so that the last one's is the quotient.
        line_bits = max(1, config.map_bits - lane_bits_y)
        position_bits = axis_y.position_bits
        whole = Signal()
        m.d.comb += whole.eq(layer.out_h[:lane_bits_y] == 0 if lane_bits_y else 1)
        whose = Mux(self.block, self.stream, stream) if config.streams > 1 else self.stream
        begin_x = self._beginnings(m, "x", whose, Const(0), axis_x.following, self.block_end, last_x)
        line = Signal(line_bits)
        begin_y = self._beginnings(m, "y", whose, Cat(Const(0, position_bits), whole),
                                   Cat(axis_y.following, (line + 1)[:line_bits]), self.block_end & last_x, last)
        m.d.comb += line.eq(begin_y[position_bits:])
        m.d.comb += [
            axis_x.begin.eq(begin_x), axis_y.begin.eq(begin_y),
            axis_y.load.eq(self.block), axis_y.step.eq(self.block | (self.pixel & column_end)),
            axis_x.load.eq(self.block | column_end), axis_x.step.eq(self.block | self.pixel),
            axis_y.phases.eq(layer.out_phases[8:]), axis_x.phases.eq(layer.out_phases[:8]),
            axis_y.straight.eq(flatten), axis_x.straight.eq(flatten),
        ]
        for name in ("plane", "turn", "wrap"):
            m.d.comb += [getattr(axis_y, name).eq(getattr(layer, f"out_{name}_y")),
                         getattr(axis_x, name).eq(getattr(layer, f"out_{name}_x"))]

        rest_y, rest_x = Signal(lane_bits_y), Signal(lane_bits_x)
        lines = layer.out_h[lane_bits_y:lane_bits_y + line_bits]
        m.d.sync += [rest_y.eq(layer.out_h - 1), rest_x.eq(layer.out_w - 1)]
        inside: Value = Const(1, 1)
        if lane_bits_x:
            inside &= ~last_x | (lane[:lane_bits_x] <= rest_x)
        if lane_bits_y:
            inside &= (line != lines) | (lane[lane_bits_x:] <= rest_y)
        if config.shadow_chain:
            inside &= ~batch | (lane <= self.images)
        base, offset = Signal(self.addr_width), Signal(self.addr_width, reset_less=True)
        valid, bank = Signal(), Signal(len(self.w_bank), reset_less=True)
        block = Signal()
        m.d.sync += [
            valid.eq(self.pixel & inside), offset.eq(axis_y.offset + axis_x.offset),
            bank.eq(Mux(flatten, self.image, Cat(axis_x.bank, axis_y.bank))), block.eq(self.block),
            self.w_en.eq(valid), self.w_addr.eq(offset + base), self.w_bank.eq(bank),
        ]
        with m.If(block):
            m.d.sync += base.eq(self.channel_addr)
        with m.If(self.clear):
            m.d.sync += [valid.eq(0), self.w_en.eq(0)]
        return m

    def _beginnings(self, m: Module, name: str, stream: Value, first: Value, following: Value, store: Value,
                    turn: Value) -> Value:
        """A register a stream: takes ``following`` at ``store``, or ``first`` if it ``turn``s; that of ``stream``."""
        streams = self.config.streams
        stores = [Signal(len(following), name=f"begin_{name}_{s}") for s in range(streams)]
        for s, begin in enumerate(stores):
            mine = store & (stream == s) if streams > 1 else store
            with m.If(self.start | (mine & turn)):
                m.d.sync += begin.eq(first)
            with m.Elif(mine):
                m.d.sync += begin.eq(following)
        return select(m, stores, stream, name=f"begin_{name}")
