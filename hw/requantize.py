"""From a finished accumulator to an activation, a pixel a cycle.

    cycle 1  total = accumulator + bias                       (0 in a step that only shifts)
    cycle 2  scaled = total, or (scaled >> 1) + total: a Horner step of the scale
    cycle 3  shifted right by 0, 8, 16 or 24
    cycle 4  shifted right by 0 to 7; what does not fit the narrow result is noted
    cycle 5  compared with the limit on its side of 0
    cycle 6  rounded, or the limit

A Horner step that subtracts is one that adds to the complement, r - t = ~(~r + t), so no step needs a carry.

Half a unit is rounded up. To round it to the even integer, cycles 2 to 4 note whether they shift out anything of the
true sum, which is a 0 of a complement.
"""

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arch.config import AcceleratorConfig
from .arch.image import SCALE_SHIFT_BITS
from .cells.use import gated_add, select, shift_add
from .parameters import BIAS_WIDTH

__all__ = ["Requantizer"]

COARSE, FINE = 8, 3
"""A shift is a multiple of 8 and a rest of 3 bits."""


class Requantizer(wiring.Component):
    """Pixel pipeline of the drain.

    Requires ``qmin <= 0 <= qmax``.

    Members
    -------
    raw : In(1)
        Give the lowest bits of the shifted sum; neither round nor clamp.
    qmin, qmax : In(signed)
        Limits, of ``act_bits + 1`` bits.
    head, bias : In(signed)
        In cycle 1.
    bare : In(1)
        The total is 0, in cycle 1.
    load, flip : In(1)
        In cycle 2: begin a pixel; complement.
    load_shift : In(1)
        In cycle 3: ``amount`` and ``complemented`` are those of the following pixels.
    amount, complemented : In
        Final right shift; whether the sum ends as its complement.
    o : Out
        Activation, :attr:`LATENCY` cycles after ``head``.
    """

    LATENCY = 6

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "raw": In(1), "qmin": In(signed(config.act_bits + 1)), "qmax": In(signed(config.act_bits + 1)),
            "head": In(signed(config.acc_width)), "bias": In(signed(BIAS_WIDTH)), "bare": In(1),
            "load": In(1), "flip": In(1), "load_shift": In(1), "amount": In(SCALE_SHIFT_BITS), "complemented": In(1),
            "o": Out(config.act_bits),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        acc_width, act_bits = self.config.acc_width, self.config.act_bits
        total = Signal(signed(acc_width + 1), reset_less=True)
        with m.If(self.bare):
            m.d.sync += total.eq(0)
        with m.Else():
            m.d.sync += total.eq(self.head + self.bias)
        scaled = Signal(signed(acc_width + 2), reset_less=True)
        m.d.sync += scaled.eq(gated_add(m, total, Cat(scaled[1:], scaled[-1]), ~self.load, self.flip, name="step"))

        # A half bit is kept for rounding. The result of cycle 4 has it, and one bit more than an activation.
        sign = scaled[-1]
        half_even = self.config.rounding == "half_even"
        narrow = act_bits + 2
        width = narrow + (1 << FINE) - 1
        amount = Signal(SCALE_SHIFT_BITS)
        complemented = Signal()
        with m.If(self.load_shift):
            m.d.sync += [amount.eq(self.amount), complemented.eq(self.complemented)]
        value = Cat(complemented if half_even else Const(0, 1), scaled).as_signed()
        words = [Signal(signed(width), name=f"value_{n}") for n in range(4)]
        m.d.comb += [word.eq(value >> COARSE * n) for n, word in enumerate(words)]
        coarse = Signal(signed(width), reset_less=True)
        negative, excess = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            coarse.eq(select(m, words, amount[FINE:], name="coarse_next")), negative.eq(sign),
            excess.eq(_excess(value, sign, width, COARSE, amount[FINE:])),
        ]

        fine = Signal(FINE)
        complement = Signal()
        m.d.sync += [fine.eq(amount[:FINE]), complement.eq(complemented)]
        quarters = [Signal(signed(narrow + 1), name=f"quarter_{n}") for n in range(4)]
        m.d.comb += [word.eq(coarse >> 2 * n) for n, word in enumerate(quarters)]
        quarter = select(m, quarters, fine[1:], complement, name="quarter").as_signed()
        w = Signal(signed(narrow), reset_less=True)
        below, beyond = Signal(reset_less=True), Signal(reset_less=True)
        side = negative ^ complement
        m.d.sync += [
            w.eq(Mux(fine[0], quarter >> 1, quarter)), below.eq(side),
            beyond.eq(excess | _excess(coarse, negative, narrow + 1, 2, fine[1:])
                      | (quarter[-1] != side) | (~fine[0] & (quarter[-2] != side))),
        ]

        rounds: Value = w[0]
        if half_even:
            inexact = Signal(reset_less=True)
            m.d.sync += inexact.eq(self._lost(m, value, complemented, amount[FINE:])
                                   | _lost_bits(m, coarse, complement, 2, fine[1:], "lost_quarter")
                                   | (fine[0] & quarter[0]))
            rounds = w[0] & (w[1] | inexact)

        limit = Signal(signed(act_bits + 1))
        limited = Signal(signed(act_bits + 1), reset_less=True)
        clamp, half = Signal(reset_less=True), Signal(reset_less=True)
        kept = Signal(act_bits, reset_less=True)
        m.d.comb += limit.eq(Mux(below, self.qmin, self.qmax))
        m.d.sync += [
            limited.eq(limit), kept.eq(w[1:]),
            clamp.eq(~self.raw & (beyond | ((w[1:].as_signed() >= limit) ^ below))),
            half.eq(~self.raw & rounds),
        ]
        m.d.sync += self.o.eq(shift_add(m, Cat(half & ~clamp, Const(0, act_bits - 1)), kept, limited[:act_bits], clamp,
                                        name="rounded"))
        return m

    def _lost(self, m: Module, value: Value, complemented: Value, index: Value) -> Signal:
        """Whether cycles 2 and 3 shift out anything of the true sum; in cycle 4."""
        complement, step = Signal(reset_less=True), Signal(reset_less=True)
        with m.If(self.load):
            m.d.sync += [complement.eq(0), step.eq(0)]
        with m.Else():
            m.d.sync += [complement.eq(complement ^ self.flip), step.eq(step | (value[1] ^ complement))]
        lost = Signal(reset_less=True)
        m.d.sync += lost.eq(step | _lost_bits(m, value, complemented, COARSE, index, "lost_coarse"))
        return lost


def _lost_bits(m: Module, value: Value, complement: Value, step: int, index: Value, name: str) -> Signal:
    """Whether ``value >> step * index`` loses anything: some bit below differs from those of 0."""
    words: list[Value] = [Const(0, 1)]
    for n in range(1, 4):
        low = value[:step * n]
        words.append(low != complement.replicate(len(low)))
    return select(m, words, index, name=name)


def _excess(value: Value, sign: Value, width: int, step: int, index: Value) -> Value:
    """Whether ``value >> step * index`` does not fit ``width`` bits: some bit from there up differs from the sign."""
    found: Value = Const(0, 1)
    for n in range(4):
        top = value[width + step * n:width + step * (n + 1)]
        if len(top):
            found = found | ((top != sign.replicate(len(top))) & (index <= n))
    return found
