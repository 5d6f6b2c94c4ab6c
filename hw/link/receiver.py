"""From bytes of the line to requests: unstuffing, header, CRC, and a buffer for the payload."""

from amaranth.hdl import Cat, Elaboratable, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..arch.link import CRC_BYTES, ESCAPE, ESCAPED, FLAG, HEADER_BYTES, PAYLOAD_MAX, REQUEST, Op
from .checksum import BEATS, STEP_BITS, Checksum
from .counter import load_or_count

__all__ = ["FrameReceiver", "RequestLayout", "SIZE_BITS"]

RequestLayout = data.StructLayout({name: 8 * size for name, size in REQUEST.items()})
SIZE_BITS = PAYLOAD_MAX.bit_length()


class FrameReceiver(wiring.Component):
    """Takes frames apart.

    A frame that has come stays until it is released: its header always, its payload for the time that a next frame
    takes to its own payload. A frame of which anything comes before the release is lost.

    Members
    -------
    byte, valid, error : In(8), In(1), In(1)
        Of a :class:`..uart.UartReceiver`.
    arrived : Out(1)
        High until ``release``: a whole frame is here.
    release : In(1)
    header : Out(RequestLayout)
        Its count is less by the items of the payload: words, and bytes for :attr:`.Op.WRITE_BYTES`.
    complete : Out(1)
        That is 0.
    size : Out
        Bytes of the payload.
    damaged : Out(1)
        High for a cycle: a frame came that is none.
    read_at, read_data : In(range(PAYLOAD_MAX)), Out(8)
        The payload's bytes, each a cycle after its place.
    sum_clear, sum_data, sum_enable, sum_pull, sum_head
        The CRC unit for other uses, see :class:`.Checksum`, before the release of a frame.
    """

    byte: In(8)
    valid: In(1)
    error: In(1)
    arrived: Out(1)
    release: In(1)
    header: Out(RequestLayout)
    complete: Out(1)
    size: Out(SIZE_BITS)
    damaged: Out(1)
    read_at: In(range(PAYLOAD_MAX))
    read_data: Out(8)
    sum_clear: In(1)
    sum_data: In(STEP_BITS)
    sum_enable: In(1)
    sum_pull: In(1)
    sum_head: Out(STEP_BITS)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.checksum = checksum = Checksum()
        m.submodules.buffer = buffer = Memory(shape=8, depth=PAYLOAD_MAX, init=[])
        read, write = buffer.read_port(), buffer.write_port()

        # Of the frame that comes: no byte of it yet; it is damaged; it is not to be looked at. Before the first flag
        # there is no frame.
        lost = Signal(init=1)
        fresh, bad, escaped = (Signal(name=name, reset_less=True) for name in ("fresh", "bad", "escaped"))
        # Number of the payload's byte that comes next, as if the frame's last four bytes were not its CRC.
        index = Signal(signed(SIZE_BITS + 1), reset_less=True)
        in_header = Signal()
        is_flag, is_escape, ended = Signal(), Signal(), Signal()
        plain = Signal(8)
        m.d.comb += [
            is_flag.eq(self.byte == FLAG), is_escape.eq(self.byte == ESCAPE),
            plain.eq(self.byte ^ (escaped.replicate(8) & ESCAPED)),
            # The lowest bits of -4 to -1 are 12 to 15; a header's byte has -14 to -5.
            in_header.eq((index < 0) & ~index[2:4].all()),
            ended.eq(self.valid & is_flag),
        ]

        # A byte: begins, then goes through the CRC two bits at a time. In the first of these cycles it is stored.
        inside, first, begins, storing = Signal(), Signal(), Signal(), Signal()
        beats = Signal(BEATS)
        m.d.comb += [
            inside.eq(self.valid & ~is_flag & ~self.arrived), first.eq(inside & fresh),
            begins.eq(inside & (escaped | ~is_escape)), storing.eq(beats[0]),
            checksum.clear.eq(first | self.sum_clear), checksum.enable.eq(beats.any() | self.sum_enable),
            checksum.pull.eq(self.sum_pull), self.sum_head.eq(checksum.head), checksum.data.eq(self.sum_data),
        ]
        m.d.sync += beats.eq(Cat(begins, beats))
        for n in range(BEATS):
            with m.If(beats[n]):
                m.d.comb += checksum.data.eq(plain.word_select(n, STEP_BITS))

        # The count is the header's end. It lies there inverted, so that adding takes from it.
        header = Signal(8 * (HEADER_BYTES - REQUEST["count"]), reset_less=True)
        rest = Signal(8 * REQUEST["count"], reset_less=True)
        shifting, counting = Signal(), Signal()
        m.d.comb += [
            self.header.as_value().eq(Cat(header, ~rest)), self.size.eq(index), shifting.eq(storing & in_header),
            counting.eq(storing & (index >= 0) & (index[0] | (self.header.op == Op.WRITE_BYTES))),
            self.complete.eq(load_or_count(m, rest, Cat(rest[8:], ~plain), shifting, counting)),
        ]
        with m.If(shifting):
            m.d.sync += header.eq(Cat(header[8:], ~rest[:8]))
        with m.If(storing):
            m.d.sync += index.eq(index + 1)
        with m.If(first):
            m.d.sync += index.eq(-HEADER_BYTES - CRC_BYTES)
        # The CRC of a full frame would come to lie where its payload began.
        behind = (index >= 0) & index[2:SIZE_BITS - 1].all()
        m.d.comb += [
            write.addr.eq(index), write.data.eq(plain), write.en.eq(storing & ~in_header & ~behind),
            read.addr.eq(self.read_at), read.en.eq(1), self.read_data.eq(read.data),
        ]

        whole = Signal()
        m.d.comb += [
            whole.eq(checksum.match & ~bad & ~escaped & (index >= 0)),
            self.damaged.eq(ended & ~fresh & ~lost & ~whole),
        ]
        with m.If(beats[-1]):
            m.d.sync += escaped.eq(0)
        with m.If(inside):
            m.d.sync += fresh.eq(0)
            with m.If(is_escape):
                m.d.sync += escaped.eq(1)
        with m.If(self.error):
            m.d.sync += fresh.eq(0)
        with m.If(self.error | (storing & (index >= PAYLOAD_MAX))):
            m.d.sync += bad.eq(1)
        with m.If(self.arrived & ((self.valid & ~is_flag) | self.error)):
            m.d.sync += lost.eq(1)
        with m.If(ended):
            m.d.sync += [fresh.eq(1), bad.eq(0), lost.eq(0), escaped.eq(0)]
        with m.If(ended & ~fresh & ~lost & whole):
            m.d.sync += self.arrived.eq(1)
        with m.Elif(self.release):
            m.d.sync += self.arrived.eq(0)
        return m
