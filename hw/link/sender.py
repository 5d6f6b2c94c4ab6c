"""Answers: header, payload from the bus as it is sent, CRC, stuffing; and the CRC of a range of words."""

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from ..arch.bus import BUS_ADDR_BITS, BUS_DATA_BITS, Region, Register
from ..arch.link import CRC_BYTES, ESCAPE, ESCAPED, FLAG, HEADER_BYTES, REPLY, RESPONSE, Answer, Op
from .checksum import BEATS, STEP_BITS, Checksum
from .counter import load_or_count
from .executor import OP_BITS

__all__ = ["FrameSender"]

WORD_BYTES = BUS_DATA_BITS // 8
HEADER_WORDS = HEADER_BYTES // WORD_BYTES
CRC_WORDS = CRC_BYTES // WORD_BYTES


class Part(enum.Enum, shape=2):
    """Of a frame."""

    HEADER = 0
    PAYLOAD = 1
    CRC = 2


def _word_of(name: str) -> int:
    """Which word of an answer's header begins with a field."""
    names = list(RESPONSE)
    return sum(RESPONSE[before] for before in names[:names.index(name)]) // WORD_BYTES


class FrameSender(wiring.Component):
    """Sends an answer at a time.

    All that is sent goes through one register of a word, by bytes to the line and by pairs of bits to the CRC.

    Parameters
    ----------
    identity : bytes
        Payload of the answer to :attr:`.Op.HELLO`.

    Members
    -------
    want, answer, answer_op, answer_seq, session, last, count, load, taken, sending, reading, ended
        Of the :class:`.Executor`.
    address, words : In
        First bus address and number of words of a read; taken with ``load``.
    r_addr, r_en, r_data, r_valid
        Reads of the word bus. In a cycle with ``w_en`` the bus is not to be had. While no run is under way, ``r_data``
        keeps its word until the next read.
    w_en : In(1)
    byte, byte_valid, byte_ready, line_idle
        Of a :class:`..uart.UartTransmitter`.
    sum_clear, sum_data, sum_enable, sum_pull, sum_head
        The receiver's CRC unit, for :attr:`.Op.VERIFY`.
    """

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        super().__init__({
            "want": In(1), "answer": In(Answer), "answer_op": In(OP_BITS), "answer_seq": In(8),
            "session": In(8 * RESPONSE["session"]), "last": In(8), "count": In(8 * RESPONSE["damaged"]),
            "load": In(1), "taken": Out(1), "sending": Out(1), "reading": Out(1), "ended": Out(1),
            "address": In(BUS_ADDR_BITS), "words": In(24),
            "r_addr": Out(BUS_ADDR_BITS), "r_en": Out(1), "r_data": In(BUS_DATA_BITS), "r_valid": In(1),
            "w_en": In(1),
            "byte": Out(8), "byte_valid": Out(1), "byte_ready": In(1), "line_idle": In(1),
            "sum_clear": Out(1), "sum_data": Out(STEP_BITS), "sum_enable": Out(1), "sum_pull": Out(1),
            "sum_head": In(STEP_BITS),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.checksum = checksum = Checksum()
        identity_words = -(-len(self.identity) // WORD_BYTES)

        part = Signal(Part)
        number = Signal(range(max(identity_words, HEADER_WORDS) + 1))
        answer = Signal(Answer, reset_less=True)
        of_words, of_bytes, of_sum, of_identity = (Signal(name=f"of_{name}", reset_less=True)
                                                   for name in ("words", "bytes", "sum", "identity"))
        summing = (self.answer == Answer.OK) & (self.answer_op == Op.VERIFY)

        # The range to be read.
        offset = Signal(BUS_ADDR_BITS - 2, reset_less=True)
        region = Signal(2, reset_less=True)
        left = Signal(len(self.words), reset_less=True)
        of_status, asking = Signal(), Signal()
        stepping = Signal()
        load_or_count(m, offset, self.address, self.load, stepping)
        none_left = load_or_count(m, left, ~self.words, self.load, stepping)
        with m.If(self.load):
            m.d.sync += region.eq(self.address[-2:])
        status_at = Region.REGISTERS << BUS_ADDR_BITS - 2 | Register.STATUS
        m.d.comb += [
            of_status.eq(part == Part.HEADER), self.r_addr.eq(Mux(of_status, status_at, Cat(offset, region))),
            self.r_en.eq(asking & ~self.w_en), stepping.eq(self.r_en & ~of_status),
        ]

        # The word, and its way out.
        word = Signal(BUS_DATA_BITS, reset_less=True)
        source = Signal(BUS_DATA_BITS)
        beats = Signal(range(2 * BEATS + 1))
        moving, loading, starting, long = Signal(), Signal(), Signal(), Signal()
        feeding, pulling, totting = Signal(), Signal(), Signal()
        m.d.comb += [
            moving.eq(beats.any()), self.sum_data.eq(word), checksum.data.eq(word),
            checksum.enable.eq(moving & feeding), checksum.pull.eq(moving & pulling & (part == Part.CRC)),
            self.sum_enable.eq(moving & totting), self.sum_pull.eq(moving & pulling & (part != Part.CRC)),
        ]
        with m.If(moving):
            m.d.sync += beats.eq(beats - 1)
        with m.If(starting):
            m.d.sync += beats.eq(Mux(long, 2 * BEATS, BEATS))
        with m.If(loading):
            m.d.sync += word.eq(source)
        with m.Elif(moving):
            m.d.sync += word.eq(Cat(word[STEP_BITS:], Mux(part == Part.CRC, checksum.head, self.sum_head)))

        fields = {
            "op": self.answer_op | REPLY, "seq": self.answer_seq, "session": self.session, "answer": answer,
            "next": (self.last + 1)[:8], "status": Const(0, 16), "damaged": self.count,
        }
        header = Cat(Value.cast(fields[name])[:8 * size] if len(Value.cast(fields[name])) >= 8 * size else
                     Cat(fields[name], Const(0, 8 * size - len(Value.cast(fields[name]))))
                     for name, size in RESPONSE.items())
        from_bus = Signal()
        with m.If(from_bus):
            m.d.comb += source.eq(self.r_data)
        with m.Elif(part == Part.HEADER):
            with m.Switch(number):
                for n in range(HEADER_WORDS):
                    with m.Case(n):
                        m.d.comb += source.eq(header.word_select(n, BUS_DATA_BITS))
        with m.Else():
            with m.Switch(number):
                for n in range(identity_words):
                    with m.Case(n):
                        pair = self.identity[WORD_BYTES * n:WORD_BYTES * (n + 1)]
                        m.d.comb += source.eq(int.from_bytes(pair, "little"))

        over = Signal()
        with m.Switch(part):
            with m.Case(Part.HEADER):
                m.d.comb += over.eq(number == HEADER_WORDS)
            with m.Case(Part.PAYLOAD):
                m.d.comb += over.eq(
                    (none_left | ~(of_words | of_bytes)) & (~of_sum | (number == CRC_WORDS))
                    & (~of_identity | (number == identity_words)))
            with m.Case(Part.CRC):
                m.d.comb += over.eq(number == CRC_WORDS)

        special, escaped, second = Signal(), Signal(), Signal()
        low = word[:8]
        m.d.comb += special.eq((low == FLAG) | (low == ESCAPE))
        have = Signal()
        got = self.r_valid | have
        m.d.sync += have.eq(got & ~loading)
        m.d.comb += self.sending.eq(1)
        with m.If(self.taken):
            m.d.sync += self.reading.eq(
                (self.answer == Answer.OK) & ((self.answer_op == Op.READ_WORDS) | (self.answer_op == Op.READ_BYTES)))
        with m.Elif((part != Part.HEADER) & none_left):
            m.d.sync += self.reading.eq(0)

        with m.FSM():
            with m.State("Idle"):
                m.d.comb += self.sending.eq(0)
                m.d.sync += [number.eq(0), part.eq(Part.HEADER)]
                with m.If(self.want):
                    m.next = "Take"
                    with m.If(summing):
                        m.d.comb += self.sum_clear.eq(1)
                        m.d.sync += part.eq(Part.PAYLOAD)
                        m.next = "Sum"
            # The word goes through the CRC while the next one is read.
            with m.State("Sum"):
                m.d.comb += [totting.eq(1), asking.eq(~none_left)]
                with m.If(none_left):
                    with m.If(~moving):
                        m.d.sync += part.eq(Part.HEADER)
                        m.next = "Take"
                with m.Elif(self.r_en):
                    m.next = "Add"
            with m.State("Add"):
                m.d.comb += [totting.eq(1), from_bus.eq(1), long.eq(1)]
                with m.If(got & ~beats[1:].any()):
                    m.d.comb += [loading.eq(1), starting.eq(1)]
                    m.next = "Sum"
            with m.State("Take"):
                m.d.comb += [self.taken.eq(1), loading.eq(1), checksum.clear.eq(1)]
                m.d.sync += [
                    answer.eq(self.answer), part.eq(Part.HEADER), of_sum.eq(summing),
                    of_words.eq((self.answer == Answer.OK) & (self.answer_op == Op.READ_WORDS)),
                    of_bytes.eq((self.answer == Answer.OK) & (self.answer_op == Op.READ_BYTES)),
                    of_identity.eq((self.answer == Answer.OK) & (self.answer_op == Op.HELLO)),
                ]
                m.next = "Open"
            with m.State("Open"):
                m.d.comb += [self.byte.eq(FLAG), self.byte_valid.eq(1)]
                with m.If(self.byte_ready):
                    m.d.sync += number.eq(1)
                    m.next = "Byte"
            with m.State("Load"):
                with m.If(over):
                    m.d.sync += number.eq(0)
                    with m.Switch(part):
                        with m.Case(Part.HEADER):
                            m.d.sync += part.eq(Part.PAYLOAD)
                        with m.Case(Part.PAYLOAD):
                            m.d.sync += part.eq(Part.CRC)
                        with m.Case(Part.CRC):
                            m.next = "Close"
                with m.Else():
                    m.d.comb += loading.eq(1)
                    m.d.sync += number.eq(number + 1)
                    m.next = "Byte"
                    with m.If((part == Part.CRC) | ((part == Part.PAYLOAD) & of_sum)):
                        m.d.comb += [starting.eq(1), long.eq(1)]
                        m.next = "Pull"
                    with m.If(((part == Part.HEADER) & (number == _word_of("status"))) |
                              ((part == Part.PAYLOAD) & (of_words | of_bytes))):
                        m.next = "Ask"
            with m.State("Ask"):
                m.d.comb += asking.eq(1)
                with m.If(self.r_en):
                    m.next = "Get"
            with m.State("Get"):
                m.d.comb += from_bus.eq(1)
                with m.If(got):
                    m.d.comb += loading.eq(1)
                    m.next = "Byte"
            with m.State("Pull"):
                m.d.comb += pulling.eq(1)
                with m.If(~moving):
                    m.next = "Byte"
            with m.State("Byte"):
                m.d.comb += [
                    self.byte_valid.eq(1),
                    self.byte.eq(Mux(special & ~escaped, ESCAPE, low ^ (escaped.replicate(8) & ESCAPED))),
                ]
                with m.If(self.byte_ready):
                    m.d.sync += escaped.eq(special & ~escaped)
                    with m.If(~special | escaped):
                        m.d.comb += starting.eq(1)
                        m.next = "Feed"
            with m.State("Feed"):
                m.d.comb += feeding.eq(part != Part.CRC)
                with m.If(~moving):
                    m.d.sync += second.eq(~second)
                    m.next = "Byte"
                    with m.If(second | ((part == Part.PAYLOAD) & of_bytes)):
                        m.d.sync += second.eq(0)
                        m.next = "Load"
            with m.State("Close"):
                m.d.comb += [self.byte.eq(FLAG), self.byte_valid.eq(1)]
                with m.If(self.byte_ready):
                    m.next = "Flush"
            with m.State("Flush"):
                with m.If(self.line_idle):
                    m.d.comb += self.ended.eq(1)
                    m.next = "Idle"
        return m
