"""Shift-and-add lanes: each holds the accumulator of one output pixel and a shadow of the finished one.

    cycle 1  product: activation shifted by the shift's low bits, inverted for a negative term          -> register
    cycle 2  accumulator += product, shifted by the shift's top bit, + 1 for a negative term; at an end of row the
             accumulator goes to its shadow and restarts from 0, as a negative one does at a rectify operation

The last shift, the sign's carry and the sum are one cell a bit on ECP5 (``cells/ecp5.v``).
"""

from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .arch.config import AcceleratorConfig
from .arch.image import SHIFT_BITS
from .arch.timing import READ_WORDS
from .cells.use import select, shift_add

__all__ = ["Lane", "LaneArray"]


class Lane(wiring.Component):
    """One lane.

    Padding arrives as ``x = 0``; an operation without a term as ``x = 0`` and ``neg = 0``.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    x : In(signed)
        Activation of ``act_bits + 1`` bits.
    shift, neg : In
        The term, in step with ``x``.
    high, carry, clear, rectify, keep : In(1)
        A cycle after ``x``: the shift's top bit; ``neg``; accumulator to 0; the same if it is negative; to the shadow.
    move, shadow_in : In
        With a shadow chain: the shadow takes ``shadow_in``.
    shadow : Out(signed)
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "x": In(signed(config.act_bits + 1)), "shift": In(SHIFT_BITS), "neg": In(1),
            "high": In(1), "carry": In(1), "clear": In(1), "rectify": In(1), "keep": In(1),
            "move": In(1), "shadow_in": In(signed(config.acc_width)), "shadow": Out(signed(config.acc_width)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config = self.config
        low_bits, step = split_shift(config)
        shifted = self._product(m, low_bits)
        product = Signal(signed(len(shifted)), reset_less=True)
        m.d.sync += product.eq(shifted)

        acc = Signal(signed(config.acc_width), reset_less=True)
        total = shift_add(m, acc, product, Cat(self.carry.replicate(step), product).as_signed(),
                          self.high if step else 0, self.carry)
        with m.If(self.clear | (self.rectify & acc[-1])):
            m.d.sync += acc.eq(0)
        with m.Else():
            m.d.sync += acc.eq(total)
        with m.If(self.keep):
            m.d.sync += self.shadow.eq(acc)
        if config.shadow_chain:
            with m.Elif(self.move):
                m.d.sync += self.shadow.eq(self.shadow_in)
        return m

    def _product(self, m: Module, low_bits: int) -> Value:
        """``x`` shifted by the low bits of the shift and truncated, inverted for a negative term."""
        config = self.config
        shifts = [min(shift, config.max_shift) for shift in range(1 << low_bits)]
        # What is shifted in is inverted with the rest.
        words = [Signal(signed(config.act_bits + 1 + shifts[-1] - config.truncate), name=f"shifted_{n}")
                 for n in range(len(shifts))]
        m.d.comb += [word.eq((self.x << shift) >> config.truncate) for word, shift in zip(words, shifts, strict=True)]
        if config.truncate or low_bits < 2:
            return select(m, words, self.shift, self.neg, name="shifted").as_signed()
        # The outermost bits take less than a choice.
        inner = select(m, [word[1:-1] for word in words], self.shift, self.neg, name="shifted")
        lowest = (self.x[0] & (self.shift[:low_bits] == 0)) ^ self.neg
        return Cat(lowest, inner, self.x[-1] ^ self.neg).as_signed()


def split_shift(config: AcceleratorConfig) -> tuple[int, int]:
    """How a shift is divided: its low bits, done with the product, and what its top bit shifts by in the sum (or 0)."""
    bits = config.max_shift.bit_length()
    if bits <= 2 or config.truncate:
        return bits, 0
    return bits - 1, 1 << bits - 1


class LaneArray(wiring.Component):
    """All lanes of a stream, and the way their shadows are read.

    With ``config.shadow_chain`` the shadows are a ring that ``drain_shift`` turns, and :attr:`head` is lane 0's;
    otherwise :attr:`head` is chosen by ``drain_lane``. :func:`.arch.timing.read_latency` cycles lie between.

    Members
    -------
    x : In
        As :attr:`.activations.ActivationMemory.x`.
    shift, neg, rectify, eor, last_x, last : In
        The operation in step with ``x``. ``neg`` is low when there is no term.
    restart : In(1)
        All accumulators to 0, before a layer; no operation may be under way.
    drain_lane, drain_shift : In
    head : Out(signed)
    finished, finished_last_x, finished_last : Out(1)
        A row pass has just reached the shadows (strobe); whether its block is the last of its row of blocks, and of
        the map (until the next one has).
    """

    LATENCY = 2
    """Cycles from ``eor`` to ``finished``."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "x": In(data.ArrayLayout(signed(config.act_bits + 1), config.lanes)),
            "shift": In(SHIFT_BITS), "neg": In(1), "rectify": In(1), "eor": In(1), "last_x": In(1), "last": In(1),
            "restart": In(1), "drain_lane": In(range(max(2, config.lanes))), "drain_shift": In(1),
            "head": Out(signed(config.acc_width)),
            "finished": Out(1), "finished_last_x": Out(1), "finished_last": Out(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config = self.config
        high, carry, clear, rectify, keep = Signal(), Signal(), Signal(), Signal(), Signal()
        flags = Signal(2)
        low_bits, step = split_shift(config)
        m.d.sync += [
            high.eq(self.shift[low_bits] if step else 0), carry.eq(self.neg), clear.eq(self.eor | self.restart),
            rectify.eq(self.rectify), keep.eq(self.eor), flags.eq(Cat(self.last_x, self.last)), self.finished.eq(keep),
        ]
        with m.If(keep):
            m.d.sync += Cat(self.finished_last_x, self.finished_last).eq(flags)
        lanes = [Lane(config) for _ in range(config.lanes)]
        for n, lane in enumerate(lanes):
            m.submodules[f"lane{n}"] = lane
            m.d.comb += [
                lane.x.eq(self.x[n]), lane.shift.eq(self.shift), lane.neg.eq(self.neg), lane.high.eq(high),
                lane.carry.eq(carry), lane.clear.eq(clear), lane.rectify.eq(rectify), lane.keep.eq(keep),
                lane.move.eq(self.drain_shift), lane.shadow_in.eq(lanes[(n + 1) % len(lanes)].shadow),
            ]
        if config.shadow_chain:
            m.d.comb += self.head.eq(lanes[0].shadow)
        else:
            m.d.comb += self.head.eq(self._choose(m, [lane.shadow for lane in lanes]))
        return m

    def _choose(self, m: Module, words: list[Value]) -> Value:
        """The shadow of ``drain_lane``, through a register after each stage of at most :data:`READ_WORDS` words."""
        index: Value = self.drain_lane
        stage = 0
        while len(words) > 1 or not stage:
            bits = min(ceil_log2(len(words)), ceil_log2(READ_WORDS))
            chosen = [select(m, words[n:n + (1 << bits)], index, name=f"chosen{stage}_{n}")
                      for n in range(0, len(words), 1 << bits)]
            words = [Signal(signed(self.config.acc_width), name=f"read{stage}_{n}", reset_less=True)
                     for n in range(len(chosen))]
            m.d.sync += [word.eq(value) for word, value in zip(words, chosen, strict=True)]
            if len(words) > 1:
                rest = Signal(len(index) - bits, name=f"rest{stage}")
                m.d.sync += rest.eq(index[bits:])
                index = rest
            stage += 1
        return words[0]
