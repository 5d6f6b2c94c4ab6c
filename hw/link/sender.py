"""Answers: header, payload from the bus as it is sent, CRC, stuffing; and the CRC of a range of words."""

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from ..arch.bus import BUS_ADDR_BITS, BUS_DATA_BITS, Region, Register, bus_address
from ..arch.link import CRC_BYTES, ESCAPE, ESCAPED, FLAG, HEADER_BYTES, RESPONSE, Answer, Op
from .checksum import BEATS, STEP_BITS, Checksum
from .counter import load_or_count

__all__ = ["FrameSender"]

WORD_BYTES = BUS_DATA_BITS // 8
HEADER_WORDS = HEADER_BYTES // WORD_BYTES
CRC_WORDS = CRC_BYTES // WORD_BYTES
WORD_BEATS = WORD_BYTES * BEATS


class Part(enum.Enum):
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
    want, answer, label, session, next, count, load, taken, sending, reading, ended, held, turn_*
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
            "want": In(1), "answer": In(Answer), "label": In(8 * (RESPONSE["op"] + RESPONSE["seq"])),
            "session": In(8 * RESPONSE["session"]), "next": In(8 * RESPONSE["next"]),
            "count": In(8 * RESPONSE["damaged"]),
            "load": In(1), "taken": Out(1), "sending": Out(1), "reading": Out(1), "ended": Out(1), "held": Out(1),
            "turn_label": Out(1), "turn_session": Out(1), "turn_next": Out(1), "turn_count": Out(1),
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
        right = self.answer == Answer.OK
        asked = {op: right & (self.label[:7] == op) for op in (Op.READ_WORDS, Op.READ_BYTES, Op.VERIFY, Op.HELLO)}

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
        status_at = bus_address(Region.REGISTERS, Register.STATUS)
        m.d.comb += [
            of_status.eq(part == Part.HEADER), self.r_addr.eq(Mux(of_status, status_at, Cat(offset, region))),
            self.r_en.eq(asking & ~self.w_en), stepping.eq(self.r_en & ~of_status),
        ]

        # The word, and its way out. It comes from the bus at once, and two bits at a time from all else: registers that
        # turn, a table, a CRC unit.
        word = Signal(BUS_DATA_BITS, reset_less=True)
        feed = Signal(STEP_BITS)
        beats = Signal(range(WORD_BEATS + 1))
        moving, loading, starting, long = Signal(), Signal(), Signal(), Signal()
        feeding, pulling, totting = Signal(), Signal(), Signal()
        m.d.comb += [
            moving.eq(beats.any()), self.sum_data.eq(word), checksum.data.eq(word),
            checksum.enable.eq(moving & feeding), checksum.pull.eq(moving & pulling & (part == Part.CRC)),
            self.sum_enable.eq(moving & totting), self.sum_pull.eq(moving & pulling & (part == Part.PAYLOAD)),
        ]
        with m.If(moving):
            m.d.sync += beats.eq(beats - 1)
        with m.If(starting):
            m.d.sync += beats.eq(Mux(long, WORD_BEATS, BEATS))
        with m.If(loading):
            m.d.sync += word.eq(self.r_data)
        with m.Elif(moving):
            m.d.sync += word.eq(Cat(word[STEP_BITS:], feed))

        turning = pulling & moving & (part == Part.HEADER)
        first_half = beats > BEATS
        m.d.comb += [
            self.turn_label.eq(turning & (number == 0)), self.turn_session.eq(turning & (number == 1)),
            self.turn_next.eq(turning & (number == 2) & ~first_half), self.turn_count.eq(turning & (number == 4)),
        ]
        with m.Switch(part):
            with m.Case(Part.HEADER):
                with m.Switch(number):
                    with m.Case(0):
                        m.d.comb += feed.eq(self.label)
                    with m.Case(1):
                        m.d.comb += feed.eq(self.session)
                    with m.Case(2):
                        m.d.comb += feed.eq(self.next)
                        with m.If(first_half):
                            m.d.comb += feed.eq(Mux(beats[3], answer[:2], Mux(beats[:2] == 3, answer[2:], 0)))
                    with m.Default():
                        m.d.comb += feed.eq(self.count)
            with m.Case(Part.PAYLOAD):
                m.d.comb += feed.eq(self.sum_head)
                with m.If(of_identity):
                    m.d.comb += feed.eq(0)
                    for n, chunk in enumerate(self._chunks(m, Cat(beats[:3], number[0]))):
                        with m.If(number[1:] == n):
                            m.d.comb += feed.eq(chunk)
            with m.Default():
                m.d.comb += feed.eq(checksum.head)

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
            m.d.sync += self.reading.eq(asked[Op.READ_WORDS] | asked[Op.READ_BYTES])
        with m.Elif((part != Part.HEADER) & none_left):
            m.d.sync += self.reading.eq(0)

        with m.FSM():
            with m.State("Idle"):
                m.d.comb += self.sending.eq(0)
                m.d.sync += [number.eq(0), part.eq(Part.HEADER)]
                with m.If(self.want):
                    m.next = "Take"
                    with m.If(asked[Op.VERIFY]):
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
                m.d.comb += [totting.eq(1), long.eq(1)]
                with m.If(got & ~beats[1:].any()):
                    m.d.comb += [loading.eq(1), starting.eq(1)]
                    m.next = "Sum"
            with m.State("Take"):
                m.d.comb += [self.taken.eq(1), self.held.eq(1), checksum.clear.eq(1)]
                m.d.sync += [
                    answer.eq(self.answer), of_words.eq(asked[Op.READ_WORDS]), of_bytes.eq(asked[Op.READ_BYTES]),
                    of_sum.eq(asked[Op.VERIFY]), of_identity.eq(asked[Op.HELLO]),
                ]
                m.next = "Open"
            with m.State("Open"):
                m.d.comb += [self.byte.eq(FLAG), self.byte_valid.eq(1), self.held.eq(1)]
                with m.If(self.byte_ready):
                    m.next = "Load"
            with m.State("Load"):
                m.d.comb += self.held.eq(1)
                with m.If(over):
                    m.d.sync += number.eq(0)
                    with m.Switch(part):
                        with m.Case(Part.HEADER):
                            m.d.sync += part.eq(Part.PAYLOAD)
                        with m.Case(Part.PAYLOAD):
                            m.d.sync += part.eq(Part.CRC)
                        with m.Default():
                            m.next = "Close"
                with m.Elif(((part == Part.HEADER) & (number == _word_of("status"))) |
                            ((part == Part.PAYLOAD) & (of_words | of_bytes))):
                    m.next = "Ask"
                with m.Else():
                    m.d.comb += [starting.eq(1), long.eq(1)]
                    m.next = "Pull"
            with m.State("Ask"):
                m.d.comb += asking.eq(1)
                with m.If(self.r_en):
                    m.next = "Get"
            with m.State("Get"):
                with m.If(got):
                    m.d.comb += loading.eq(1)
                    m.d.sync += number.eq(number + 1)
                    m.next = "Byte"
            with m.State("Pull"):
                m.d.comb += [pulling.eq(1), self.held.eq(1)]
                with m.If(~moving):
                    m.d.sync += number.eq(number + 1)
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

    def _chunks(self, m: Module, place: Value) -> list[Signal]:
        """Two words each of the identity, two bits at a time, by what is left of the beats and the word's number."""
        step, size = 2 * WORD_BEATS, 2 * WORD_BYTES
        chunks = []
        for n in range(0, len(self.identity), size):
            number = int.from_bytes(self.identity[n:n + size], "little")
            chunk = Signal(STEP_BITS, name=f"identity{n}")
            with m.Switch(place):
                for at in range(step):
                    with m.Case(at // WORD_BEATS * WORD_BEATS + -at % WORD_BEATS):
                        m.d.comb += chunk.eq(number >> STEP_BITS * at)
            chunks.append(chunk)
        return chunks
