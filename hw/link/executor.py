"""Does what requests ask for, as far as it is not sending: order, writes, speed."""

from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..arch.bus import BUS_ADDR_BITS, BUS_DATA_BITS, Region
from ..arch.link import CRC_BYTES, PAYLOAD_MAX, REPLY, RESPONSE, Answer, Op
from ..compare import above
from ..uart import LEAST_DIVISOR, divisor_bits, largest_divisor
from .checksum import STEP_BITS
from .counter import load_or_count
from .receiver import SIZE_BITS, RequestLayout

__all__ = ["Executor"]

WORD_OPS = (Op.WRITE_WORDS, Op.READ_WORDS)
WRITES = (Op.WRITE_WORDS, Op.WRITE_BYTES)
READS = (Op.READ_WORDS, Op.READ_BYTES)


def _is(op: Value, *ops: Op) -> Value:
    return Cat(op == each for each in ops).any()


def _turned(register: Value) -> Value:
    return Cat(register[STEP_BITS:], register[:STEP_BITS])


class Executor(wiring.Component):
    """Accepts or refuses requests, and carries them out.

    Parameters
    ----------
    first : int
        Divisor of the first speed.

    Members
    -------
    arrived, release, header, complete, size, damaged, read_at, read_data
        Of the :class:`.FrameReceiver`.
    busy : In(1)
        A run is under way.
    w_addr, w_data, w_en : Out
        Writes to the word bus.
    answer : Out(Answer)
        Of the answer to send; it changes only together with ``want``.
    want : Out(1)
        There is an answer to send; high until ``taken``.
    load : Out(1)
        The answer that comes may have a payload from the bus: take the header's address and count.
    taken, sending, reading, ended : In(1)
        Of the :class:`.FrameSender`: it takes the answer; it has one in hand; it still needs the bus for it; the last
        stop bit has ended.
    held, turn_label, turn_session, turn_next, turn_count : In(1)
        Change nothing that is sent; move on by :data:`.STEP_BITS` what is to be sent. Each is turned all around.
    label : Out(16)
        The answer's op and number, as they are sent.
    session, next, count : Out(16), Out(8), Out(16)
        The present session; the number that comes next; damaged frames.
    divisor : Out
    reset : Out(1)
        High for a cycle: a reset was asked for.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        super().__init__({
            "arrived": In(1), "release": Out(1), "header": In(RequestLayout), "complete": In(1),
            "size": In(SIZE_BITS), "damaged": In(1), "read_at": Out(range(PAYLOAD_MAX)), "read_data": In(8),
            "busy": In(1),
            "w_addr": Out(BUS_ADDR_BITS), "w_data": Out(BUS_DATA_BITS), "w_en": Out(1),
            "answer": Out(Answer), "want": Out(1), "load": Out(1),
            "taken": In(1), "sending": In(1), "reading": In(1), "ended": In(1), "held": In(1),
            "turn_label": In(1), "turn_session": In(1), "turn_next": In(1), "turn_count": In(1),
            "label": Out(8 * (RESPONSE["op"] + RESPONSE["seq"])), "session": Out(8 * RESPONSE["session"]),
            "next": Out(8 * RESPONSE["next"]), "count": Out(8 * RESPONSE["damaged"]),
            "divisor": Out(divisor_bits(first), init=first), "reset": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        op, count = self.header.op, self.header.count
        hello, baud, reset, verify = (op == each for each in (Op.HELLO, Op.BAUD, Op.RESET, Op.VERIFY))
        write, read, words = _is(op, *WRITES), _is(op, *READS), _is(op, *WORD_OPS)
        registers = self.header.address[-2:] == Region.REGISTERS

        # What is to be done is in registers a cycle after a frame has arrived.
        verdict = Signal(Answer, reset_less=True)
        behind = Signal(8)
        m.d.comb += behind.eq(self.header.seq + 1)
        follows, again = self.header.seq == self.next, behind == self.next
        looking = Signal()
        weighed = Signal(Answer)
        m.d.comb += weighed.eq(Answer.OK)
        with m.If(~hello & (self.header.session != self.session)):
            m.d.comb += weighed.eq(Answer.WRONG_SESSION)
        with m.Elif(~hello & ~follows & ~again):
            m.d.comb += weighed.eq(Answer.OUT_OF_ORDER)
        with m.Elif((op == Op.NONE) | (op > Op.RESET)):
            m.d.comb += weighed.eq(Answer.BAD_OP)
        with m.Elif(self._bad_length(write, read, words, verify, baud)):
            m.d.comb += weighed.eq(Answer.BAD_LENGTH)
        writing, following, line, memory, free, registering = (
            Signal(name=name, reset_less=True)
            for name in ("writing", "following", "line", "memory", "free", "registering"))
        with m.If(looking):
            m.d.sync += [
                verdict.eq(weighed), writing.eq(write & ~again), line.eq(~write),
                following.eq(verify | ((baud | reset) & ~again)),
                memory.eq(verify | ((read | (write & ~again)) & ~registers)),
                registering.eq(write & ~again & registers),
            ]
        m.d.sync += free.eq(~self.busy)

        # A write to registers may be a start, which must not take the memory from a read under way.
        may, quiet, ok = Signal(), Signal(), Signal()
        m.d.comb += [
            quiet.eq(~self.sending & ~self.want), ok.eq(verdict == Answer.OK),
            may.eq((~ok | ((quiet | ~line) & (free | ~memory) & ~(registering & self.reading))) & ~self.held),
        ]
        going, draining, drained = Signal(), Signal(), Signal()
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += looking.eq(1)
                with m.If(self.arrived & ~self.held):
                    m.next = "Wait"
            with m.State("Wait"):
                with m.If(may):
                    m.d.comb += [going.eq(1), self.release.eq(~(ok & following))]
                    m.next = "Idle"
                    with m.If(ok & writing):
                        m.next = "Drain"
                    with m.If(ok & following):
                        m.next = "Follow"
            with m.State("Drain"):
                m.d.comb += draining.eq(1)
                with m.If(drained):
                    m.next = "Idle"
            with m.State("Follow"):
                with m.If(self.ended):
                    m.d.comb += [self.release.eq(1), self.reset.eq(reset)]
                    m.next = "Idle"
                    with m.If(baud):
                        m.d.sync += self.divisor.eq(count)

        # The header is still there a cycle after its release.
        m.d.sync += self.load.eq(going & ok & line)
        # What a damaged frame changes may be on its way out just now.
        noted, noting = Signal(), Signal()
        m.d.sync += noted.eq(self.damaged | (noted & self.held))
        m.d.comb += noting.eq(noted & ~self.held)
        load_or_count(m, self.count, _turned(self.count), self.turn_count, noting)
        with m.If(self.taken):
            m.d.sync += self.want.eq(0)
        with m.If(going | (noting & quiet)):
            m.d.sync += [self.want.eq(1), self.answer.eq(verdict)]
        with m.If(self.turn_label):
            m.d.sync += self.label.eq(_turned(self.label))
        with m.Elif(going):
            m.d.sync += self.label.eq(Cat(op | REPLY, self.header.seq))
        with m.If(noting & quiet):
            m.d.sync += [self.answer.eq(Answer.DAMAGED), self.label.eq(Op.NONE | REPLY)]
        with m.If(self.turn_next):
            m.d.sync += self.next.eq(_turned(self.next))
        with m.Elif(going & ok):
            m.d.sync += self.next.eq(behind)
        with m.If(self.turn_session):
            m.d.sync += self.session.eq(_turned(self.session))
        with m.Elif(going & ok & hello):
            m.d.sync += self.session.eq(self.header.session)
        self._drain(m, draining, drained, words)
        return m

    def _bad_length(self, write: Value, read: Value, words: Value, verify: Value, baud: Value) -> Value:
        count, size = self.header.count, self.size
        most = largest_divisor(self.first)
        # What a read would take beyond a payload: of bytes, and of words.
        half = count[SIZE_BITS:].any() | (count[SIZE_BITS - 1] & (words | count[:SIZE_BITS - 1].any()))
        double = words & count[SIZE_BITS - 2] & count[:SIZE_BITS - 2].any()
        return (
            (size.any() ^ write) | (write & (~self.complete | (words & size[0])))
            | ((read | verify) & self.complete) | (read & (half | double))
            | (baud & (above(count, most) | ~above(count, LEAST_DIVISOR - 1)))
        )

    def _drain(self, m: Module, draining: Value, drained: Value, words: Value) -> None:
        """Payload to the bus: a byte a cycle, a word when there are enough of them."""
        address = Signal(BUS_ADDR_BITS - 2, reset_less=True)
        region = Signal(2, reset_less=True)
        left = Signal(SIZE_BITS, reset_less=True)
        place = Signal(range(PAYLOAD_MAX), reset_less=True)
        low = Signal(8, reset_less=True)
        wide, odd, flowing = (Signal(name=name, reset_less=True) for name in ("wide", "odd", "flowing"))
        load = ~draining
        load_or_count(m, address, self.header.address, load, self.w_en)
        none_left = load_or_count(m, left, ~self.size, load, flowing)
        with m.If(load):
            m.d.sync += [region.eq(self.header.address[-2:]), wide.eq(words)]
        m.d.sync += [low.eq(self.read_data), place.eq(place + 1), odd.eq(~odd), flowing.eq(flowing | odd)]
        with m.If(load):
            m.d.sync += [place.eq(PAYLOAD_MAX - CRC_BYTES), odd.eq(0), flowing.eq(0)]
        m.d.comb += [
            self.read_at.eq(place), self.w_addr.eq(Cat(address, region)), drained.eq(draining & none_left),
            self.w_data.eq(Cat(low, self.read_data & wide.replicate(8))),
            self.w_en.eq(draining & flowing & ~(wide & odd) & ~none_left),
        ]
