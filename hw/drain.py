"""Requantizes finished accumulators one by one and writes them back, behind the terms of the next row."""

from amaranth.hdl import Array, Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .arch.config import AcceleratorConfig
from .arch.image import RAW_BYTES, SCALE_EXTRA_MAX, SCALE_SHIFT_BITS, Flag
from .arch.timing import PASS_SPACING, RELEASE_BITS, read_latency
from .cells.use import select, shift_add
from .layer import LayerLayout
from .parameters import BIAS_WIDTH, ScaleLayout
from .requantize import Requantizer
from .writeback import WriteBack

__all__ = ["Drain", "Gate"]


class Gate(wiring.Component):
    """Lets a stream issue an end of row only when its shadows will have been read as it reaches them.

    Members
    -------
    clear : In(1)
    walk : In
        Pixels that a row pass drains, less one (of :class:`Drain`).
    quick : In(1)
        The drain is this stream's alone and takes a pixel a cycle with the present parameters (of :class:`Drain`).
    parameters_ready : In(1)
        Of :class:`.parameters.ParameterReader`, this stream's bit.
    advance, release : In(1)
        Of :class:`Drain`, this stream's bit.
    issue, issue_last : In(1)
        An end of row is issued in this cycle; that of the map's last block.
    ready : Out(1)
        An end of row may be issued (a register).
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "clear": In(1), "walk": In(range(max(2, config.lanes))), "quick": In(1), "parameters_ready": In(1),
            "advance": In(1), "release": In(1), "issue": In(1), "issue_last": In(1), "ready": Out(1, init=1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        # Of the end of row in flight: its parameters are not known to be there; it waits for its release; pixels less
        # one until it needs none.
        waiting, held = Signal(), Signal()
        last = Signal()
        # Passes begin PASS_SPACING cycles apart, also those of one or two pixels.
        short = self.config.lanes < PASS_SPACING - 1
        left = Signal(range(PASS_SPACING - 1)) if short else Signal.like(self.walk)
        # An earlier row's parameters have not been copied.
        pending = Signal()
        known = Signal()
        m.d.comb += known.eq(self.parameters_ready & ~pending)
        with m.If(waiting & known):
            m.d.sync += [waiting.eq(0), held.eq(~self.quick), pending.eq(last & ~self.advance)]
        with m.Elif(self.advance):
            m.d.sync += pending.eq(0)
        with m.If(Mux(waiting, known & self.quick, ~held) & ~self.ready):
            m.d.sync += [left.eq(left - 1), self.ready.eq(left == 0)]
        with m.If(self.release):
            m.d.sync += [self.ready.eq(1), held.eq(0)]
        with m.If(self.issue):
            m.d.sync += [self.ready.eq(0), waiting.eq(1), last.eq(self.issue_last),
                         left.eq(PASS_SPACING - 2 if short else self.walk)]
        with m.If(self.clear):
            m.d.sync += [self.ready.eq(1), waiting.eq(0), held.eq(0), pending.eq(0)]
        return m


class Drain(wiring.Component):
    """Empties the shadows of all streams after each row pass. One bit, or one element of an array, a stream.

    Members
    -------
    clear, start : In(1)
        Stop; begin a layer.
    layer : In(LayerLayout())
    image, images : In(6)
        Bank that is written with ``FLATTEN``; lanes that are drained with ``BATCH``, less one.
    finished, finished_last_x, finished_last : In(streams)
        Of the streams' :class:`.lanes.LaneArray`.
    head : In
        Array of signed(acc_width).
    drain_lane, drain_shift : Out, Out(streams)
        To the lanes: the lane's number is common to all.
    parameters_ready, bias, scale, channel : In
        Of :class:`.parameters.ParameterReader`.
    advance : Out(streams)
        Strobe, to :class:`.parameters.ParameterReader` and :class:`Gate`: the stream's parameters are copied.
    release, quick, walk : Out(streams), Out(streams), Out
        To :class:`Gate`; ``walk`` is common to all.
    layer_done : Out(1)
        Strobe: the last output channel is written.
    row : Out(16)
        Output channels done.
    w_en, w_bank, w_addr, w_data : Out
        To the activation memories; ``w_bank`` is a number.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        s = config.streams
        super().__init__({
            "clear": In(1), "start": In(1), "layer": In(LayerLayout()), "image": In(6), "images": In(6),
            "finished": In(s), "finished_last_x": In(s), "finished_last": In(s),
            "head": In(data.ArrayLayout(signed(config.acc_width), s)),
            "drain_lane": Out(range(max(2, config.lanes))), "drain_shift": Out(s),
            "parameters_ready": In(s), "bias": In(data.ArrayLayout(signed(BIAS_WIDTH), s)),
            "scale": In(data.ArrayLayout(ScaleLayout(), s)), "channel": In(data.ArrayLayout(16, s)), "advance": Out(s),
            "release": Out(s), "quick": Out(s), "walk": Out(range(max(2, config.lanes))),
            "layer_done": Out(1), "row": Out(16),
            "w_en": Out(1), "w_bank": Out(range(max(2, config.lanes))), "w_addr": Out(ceil_log2(config.act_depth)),
            "w_data": Out(config.act_bits),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config, layer = self.config, self.layer
        streams, latency = config.streams, read_latency(config)
        raw, batch = ((layer.tag_flags & flag).any() for flag in (Flag.RAW, Flag.BATCH))
        # A ring of shadows has to go round for each byte.
        whole = raw if config.shadow_chain else Const(0, 1)
        single = Signal()
        m.d.sync += [
            single.eq((layer.out_h[:config.map_bits] == 1) & (layer.out_w[:config.map_bits] == 1)),
            self.walk.eq((self.images | (~batch | whole).replicate(len(self.images))) if config.lanes > 1 else 0),
        ]
        with m.If(single):
            m.d.sync += self.walk.eq(0)

        # A pass over a block begins: of a stream whose shadows are full, or of the next byte.
        active, begin, begin_byte, final = Signal(), Signal(), Signal(), Signal()
        byte, next_byte = Signal(2), Signal(2)
        next_final = ~raw | (next_byte == RAW_BYTES - 1)
        recent = Signal(PASS_SPACING - 1)
        stream, next_stream = Signal(range(max(2, streams))), Signal(range(max(2, streams)))
        eligible = self._eligible(m, begin & ~begin_byte, next_stream)
        m.d.comb += begin.eq(~active & ~recent.any() & (begin_byte | eligible.any()))
        if streams > 1:
            self._next_stream(m, eligible, stream, begin_byte, next_stream)
        with m.If(begin_byte):
            m.d.comb += next_byte.eq(byte + 1)
        m.d.sync += recent.eq(Cat(begin, recent))
        last_x = self.finished_last_x.bit_select(next_stream, 1)
        last = self.finished_last.bit_select(next_stream, 1)

        # Its parameters. The bias is copied later, as the first pixel leaves the read multiplexer.
        scale, terms = Signal(ScaleLayout()), Signal(2)
        next_scale = data.View(ScaleLayout(), _of(m, self.scale, next_stream, "next_scale"))
        channel = _of(m, self.channel, next_stream, "next_channel")
        address = shift_add(m, layer.out_base[:len(self.w_addr)], channel, Cat(next_byte, channel).as_signed(), raw,
                            name="channel_addr_next")
        channel_addr = [Signal(len(self.w_addr), name=f"channel_addr_{n}") for n in range(2)]
        with m.If(begin):
            m.d.sync += [
                scale.eq(next_scale), terms.eq(Mux(raw, 0, next_scale.extra)), channel_addr[0].eq(address),
                stream.eq(next_stream), byte.eq(next_byte), final.eq(next_final), begin_byte.eq(0),
            ]

        # Its pixels, each a step or more.
        steps = self._steps(m, active, scale, terms)
        pixel, walk_end, released, near = Signal(), Signal(), Signal(), Signal()
        lane = self.drain_lane
        m.d.comb += [
            pixel.eq(steps["last"]), walk_end.eq(pixel & (lane == self.walk)),
            near.eq(Mux(terms == 0, lane[RELEASE_BITS:] == self.walk[RELEASE_BITS:], walk_end)),
        ]
        with m.If(begin):
            m.d.sync += [active.eq(1), lane.eq(0), released.eq(0)]
        with m.Elif(pixel):
            m.d.sync += lane.eq(lane + 1)
            with m.If(walk_end):
                m.d.sync += [active.eq(0), begin_byte.eq(~final)]
        release = active & final & near & ~released
        with m.If(release):
            m.d.sync += released.eq(1)
        alone = Const(streams == 1, 1)
        for s in range(streams):
            m.d.comb += [
                self.release[s].eq(release & (stream == s) & ~(alone & ~raw & (terms == 0))),
                self.quick[s].eq(alone & ~raw & (self.scale[s].extra == 0)),
                self.drain_shift[s].eq(pixel & ~single & (stream == s)),
            ]

        # What happens to each step, some cycles later.
        depth = latency + Requantizer.LATENCY - WriteBack.LATENCY
        block_at = self._line(m, "block", begin, depth)
        pixel_at = self._line(m, "pixel", Mux(begin, last_x, pixel), depth)
        end_at = self._line(m, "end", Mux(begin, last, walk_end & final), depth)
        stream_at = self._line(m, "stream", Mux(begin, next_stream, stream) if streams > 1 else Const(0, 1), depth)
        load_at = self._line(m, "load", steps["load"], latency + 1)
        bare_at = self._line(m, "bare", steps["bare"], latency)
        flip_at = self._line(m, "flip", steps["flip"], latency + 1)
        leaves_at = self._line(m, "leaves", begin & last & next_final, latency)

        m.submodules.requantizer = requantizer = Requantizer(config)
        bias = Signal(signed(config.acc_width + 1), reset_less=True)
        with m.If(block_at[latency]):
            m.d.sync += bias.eq(_of(m, self.bias, stream_at[latency], "next_bias"))
        for s in range(streams):
            m.d.comb += self.advance[s].eq(leaves_at[latency] & (stream_at[latency] == s))
        m.d.comb += [
            requantizer.raw.eq(raw), requantizer.qmin.eq(layer.qmin), requantizer.qmax.eq(layer.qmax),
            requantizer.head.eq(_of(m, self.head, stream_at[latency], "head_of")), requantizer.bias.eq(bias),
            requantizer.bare.eq(bare_at[latency]), requantizer.load.eq(load_at[latency + 1]),
            requantizer.flip.eq(flip_at[latency + 1]), requantizer.load_shift.eq(block_at[latency + 2]),
            requantizer.amount.eq(Mux(raw, Cat(Const(0, 3), byte), scale.final_shift)),
            requantizer.complemented.eq(Array([0, *(scale.terms[n].neg for n in range(SCALE_EXTRA_MAX))])[terms]),
            self.w_data.eq(requantizer.o),
        ]
        m.submodules.write = write = WriteBack(config)
        with m.If(block_at[PASS_SPACING]):
            m.d.sync += channel_addr[1].eq(channel_addr[0])
        m.d.comb += [
            write.clear.eq(self.clear), write.start.eq(self.start), write.layer.eq(layer), write.image.eq(self.image),
            write.images.eq(self.images), write.block.eq(block_at[depth]), write.stream.eq(stream_at[depth]),
            write.last_x.eq(pixel_at[depth]), write.last.eq(end_at[depth]), write.channel_addr.eq(channel_addr[1]),
            write.pixel.eq(pixel_at[depth] & ~block_at[depth]), write.block_end.eq(end_at[depth] & ~block_at[depth]),
            self.w_en.eq(write.w_en), self.w_bank.eq(write.w_bank), self.w_addr.eq(write.w_addr),
        ]

        # A channel takes an address at least, so there are no more rows than addresses.
        row = Signal(range(config.act_depth + 1))
        row_done = Signal()
        m.d.comb += self.row.eq(row)
        m.d.sync += [row_done.eq(write.row_done), self.layer_done.eq(row_done & (row == layer.rows[:len(row)]))]
        with m.If(write.row_done):
            m.d.sync += row.eq(row + 1)
        with m.If(self.start):
            m.d.sync += row.eq(0)
        with m.If(self.clear):
            m.d.sync += [active.eq(0), begin_byte.eq(0), row_done.eq(0), self.layer_done.eq(0)]
        return m

    def _eligible(self, m: Module, begin: Value, next_stream: Value) -> Value:
        """Streams with full shadows and their parameters there."""
        streams = self.config.streams
        full, eligible = Signal(streams), Signal(streams)
        m.d.comb += eligible.eq((full | self.finished) & self.parameters_ready)
        for s in range(streams):
            mine = begin & (next_stream == s) if streams > 1 else begin
            with m.If(mine | self.clear):
                m.d.sync += full[s].eq(0)
            with m.Elif(self.finished[s]):
                m.d.sync += full[s].eq(1)
        return eligible

    def _next_stream(self, m: Module, eligible: Value, stream: Value, again: Value, chosen: Value) -> None:
        """The next stream in turn that is eligible, or ``stream`` again."""
        for later in (False, True):
            for s in reversed(range(later, self.config.streams)):
                with m.If(eligible[s] & ((stream < s) if later else 1)):
                    m.d.comb += chosen.eq(s)
        with m.If(again):
            m.d.comb += chosen.eq(stream)

    def _steps(self, m: Module, active: Value, scale: data.View, terms: Value) -> dict[str, Value]:
        """Steps of a pixel: one that loads, then one for each bit that a term shifts by, the last of which adds.

        A pixel's last step is ``last``; those that only shift are ``bare``.
        """
        term, count = Signal(2), Signal(SCALE_SHIFT_BITS)
        neg, sign = Signal(), Signal()
        load, ends = Signal(), Signal()
        m.d.comb += [load.eq(term == 0), ends.eq(load | (count == 1))]
        words = [Cat(scale.terms[n].shift, scale.terms[n].neg) for n in range(SCALE_EXTRA_MAX)]
        following = select(m, [*words, words[-1]], term, name="term_next")
        # Counts down unless a term is taken.
        m.d.sync += count.eq(shift_add(m, (~ends).replicate(len(count)), count, following[:len(count)], ends,
                                       name="count_next"))
        with m.If(~active):
            m.d.sync += term.eq(0)
        with m.Elif(ends):
            m.d.sync += term.eq(Mux(term == terms, 0, term + 1))
        with m.If(ends):
            m.d.sync += [neg.eq(following[-1]), sign.eq(neg & ~load)]
        return {"load": load, "bare": ~ends, "flip": ~load & ends & (neg ^ sign),
                "last": active & ends & (term == terms)}

    def _line(self, m: Module, name: str, value: Value, depth: int) -> list[Value]:
        """``value``, then what it was 1, 2, ... ``depth`` cycles ago; ``clear`` empties it."""
        line: list[Value] = [value]
        for n in range(depth):
            following = Signal(len(value), name=f"{name}_{n + 1}")
            m.d.sync += following.eq(line[-1])
            with m.If(self.clear):
                m.d.sync += following.eq(0)
            line.append(following)
        return line


def _of(m: Module, array: data.View, stream: Value, name: str) -> Value:
    """A stream's element of an array, as unsigned."""
    return select(m, [Value.cast(array[s]).as_unsigned() for s in range(len(array))], stream, name=name)
