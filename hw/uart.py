"""Bytes on a serial line: 8N1, least significant bit first, at a speed that may change at run time."""

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from .arch.link import BREAK_BITS, DIVISOR_FRACTION, SLOWEST

__all__ = ["LEAST_DIVISOR", "BitClock", "UartReceiver", "UartTransmitter", "divisor_bits", "largest_divisor"]

LEAST_DIVISOR = 4 << DIVISOR_FRACTION
"""Clock cycles of the shortest bit, which the receiver samples in each of them."""


def largest_divisor(first: int) -> int:
    """That of the slowest speed: ``first`` is that of the first one."""
    return SLOWEST * first


def divisor_bits(first: int) -> int:
    """Bits that hold every divisor."""
    return bits_for(largest_divisor(first))


class BitClock(wiring.Component):
    """Ticks ``divisor >> fraction`` cycles apart, and one cycle more where fractions have added up to one.

    Parameters
    ----------
    width, fraction : int
        Bits of the divisor; those of them behind the point.

    Members
    -------
    divisor : In(width)
        At least ``1 << fraction``.
    restart : In(1)
        The next tick is a period after this cycle.
    tick : Out(1)
    """

    def __init__(self, width: int, fraction: int) -> None:
        self.fraction = fraction
        super().__init__({"divisor": In(width), "restart": In(1), "tick": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        fraction, whole = self.divisor[:self.fraction], self.divisor[self.fraction:]
        count = Signal(len(whole), reset_less=True)
        rest = Signal(self.fraction, reset_less=True)
        longer = Signal(reset_less=True)
        ended, counting = Signal(), Signal()
        m.d.comb += [
            ended.eq(count == 1), self.tick.eq(ended & ~longer), counting.eq(~(self.restart | ended)),
        ]
        # Less one, as a sum whose second operand is what chooses: so a logic cell of iCE40 counts and loads.
        less = (count + counting.replicate(len(count)))[:len(count)]
        with m.If(self.restart | ~(ended & longer)):
            m.d.sync += count.eq(Mux(counting, less, whole))
        with m.If(self.restart):
            m.d.sync += [rest.eq(0), longer.eq(0)]
        with m.Elif(ended):
            m.d.sync += longer.eq(0)
            with m.If(~longer):
                m.d.sync += Cat(rest, longer).eq(rest + fraction)
        return m


class UartReceiver(wiring.Component):
    """Takes bytes from a line.

    A bit is the majority of three samples, a quarter of a bit apart, around its middle, so a shorter glitch changes
    nothing. A start bit that is not low by this rule is none. The stop bit is judged in its middle, by two
    samples of which one must be high, so that a byte of a faster sender may follow at once.

    Parameters
    ----------
    first : int
        Divisor of the speed by which breaks are measured.

    Members
    -------
    rx : In(1)
        The line, high when idle; need not be synchronous.
    divisor : In
        Clock cycles of a bit, with :data:`DIVISOR_FRACTION` bits behind the point, at least :data:`LEAST_DIVISOR`.
    data : Out(8)
        A byte, good for eight cycles from ``valid`` on.
    valid : Out(1)
        A byte has come.
    error : Out(1)
        There was no stop bit. The receiver waits for the line to be high.
    broken : Out(1)
        The line has been low for :data:`BREAK_BITS` bits of the first speed, and still is.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        super().__init__({
            "rx": In(1), "divisor": In(divisor_bits(first)), "data": Out(8), "valid": Out(1), "error": Out(1),
            "broken": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        m.submodules.clock = clock = BitClock(len(self.divisor), DIVISOR_FRACTION + 2)

        # Ticks are quarters of a bit: the first is a quarter after the edge of the start bit.
        active, stuck = Signal(), Signal()
        quarter = Signal(6, reset_less=True)
        before = Signal(2, reset_less=True)
        byte = Signal(8, reset_less=True)
        sampling, stopping, high = Signal(), Signal(), Signal()
        m.d.comb += [
            clock.divisor.eq(self.divisor), clock.restart.eq(~active), self.data.eq(byte),
            sampling.eq(active & clock.tick & (quarter[:2] == 2)),
            # The first number with these bits is 37, the middle of the stop bit.
            stopping.eq(active & clock.tick & quarter[0] & quarter[2] & quarter[5]),
            high.eq((line & before.any()) | before.all()),
        ]
        m.d.sync += [
            self.valid.eq(stopping & (line | before[0])), self.error.eq(stopping & ~(line | before[0])),
        ]
        with m.If(clock.tick):
            m.d.sync += [before.eq(Cat(line, before)), quarter.eq(quarter + 1)]
        with m.If(sampling & quarter[2:].any()):
            m.d.sync += byte.eq(Cat(byte[1:], high))
        with m.If(~active):
            m.d.sync += [quarter.eq(0), active.eq(~line & ~stuck)]
        with m.Elif(stopping | (sampling & high & ~quarter[2:].any())):
            m.d.sync += active.eq(0)
        m.d.sync += stuck.eq((stuck | (stopping & ~before[0])) & ~line)

        cycles = BREAK_BITS * self.first >> DIVISOR_FRACTION
        top = bits_for(cycles)
        low = Signal(top + 1, init=(1 << top) - cycles)
        m.d.comb += self.broken.eq(low[-1])
        with m.If(~low[-1]):
            m.d.sync += low.eq(low + 1)
        with m.If(line):
            m.d.sync += low.eq(low.init)
        return m


class UartTransmitter(wiring.Component):
    """Puts bytes on a line.

    Parameters
    ----------
    first : int
        Divisor of the first speed.

    Members
    -------
    divisor : In
        As that of :class:`UartReceiver`.
    data, valid, ready : In(8), In(1), Out(1)
        A byte is taken in each cycle with ``valid`` and ``ready``.
    tx : Out(1)
        From a register, high when idle.
    idle : Out(1)
        The last byte's stop bit has ended.
    """

    def __init__(self, first: int) -> None:
        super().__init__({
            "divisor": In(divisor_bits(first)), "data": In(8), "valid": In(1), "ready": Out(1), "tx": Out(1, init=1),
            "idle": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.clock = clock = BitClock(len(self.divisor), DIVISOR_FRACTION)
        # The stop bit is the last one that is set; below zeros it tells the end.
        bits = Signal(10, init=1)
        active = Signal()
        last = bits[1:] == 0
        m.d.comb += [
            clock.divisor.eq(self.divisor), clock.restart.eq(~active), self.idle.eq(~active), self.tx.eq(bits[0]),
            self.ready.eq(~active | (clock.tick & last)),
        ]
        with m.If(self.ready):
            m.d.sync += active.eq(self.valid)
            with m.If(self.valid):
                m.d.sync += bits.eq(Cat(Const(0, 1), self.data, Const(1, 1)))
        with m.Elif(clock.tick):
            m.d.sync += bits.eq(bits[1:])
        return m
