"""Banked activation memory: every lane reads its own pixel of a window at any offset, without conflicts.

Bank (r, q) holds the pixels whose coordinates are r and q modulo the lanes. A window that begins at residue (ry, rx)
takes one pixel of each bank: banks before the residue lie one bank row or column further. A rotation by the residue
then brings each pixel to its lane. So a bank row has two addresses to choose from, and each of its banks takes one:

    cycle 1  the address of each bank row: the tap's, or one bank row further
    cycle 2  the same, one bank column further
    cycle 3  each bank reads at one of its row's two
    cycle 4  rotate rows by half of them or not: a RAM is slow, so little follows it
    cycle 5  rotate rows by less, reset lane rows outside the input
    cycle 6  rotate columns, reset lane columns outside the input

A reset costs no logic, unlike a multiplexer that pads. So nothing else may reset those registers.
"""

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from .arch.config import AcceleratorConfig
from .arch.image import RESIDUE_BITS

__all__ = ["ActivationMemory"]


def _rotate(items: list[Value], distance: int, turn: Value) -> list[Value]:
    """``items`` rotated left by ``distance`` when ``turn`` is high."""
    return [Mux(turn, further, item) for item, further in zip(items, items[distance:] + items[:distance], strict=True)]


class ActivationMemory(wiring.Component):
    """One stream's copy of all banks, the rotation and the padding.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    col_step : In
        Address step to the next bank column.
    addr, addr_y : In
        A tap's bank address, for banks from the residue on and for bank rows before it.
    residue_y, residue_x : In(3)
        Bank row and column of lane (0, 0), in step with ``addr``.
    outside_y, outside_x : In
        Lane rows and columns whose tap reads 0, :attr:`OUTSIDE_Y_DELAY` and :attr:`OUTSIDE_X_DELAY` cycles after
        ``addr``.
    extend, invert : In(1)
        Sign-extend activations; invert their highest bit. Constant while in use.
    x : Out
        An activation a lane, row-major, ``act_bits + 1`` bits each, :attr:`LATENCY` cycles after ``addr``.
    w_en, w_bank, w_addr, w_data : In
        Write one activation; ``w_bank`` is the bank's number, row-major.
    """

    LATENCY = 6
    """Cycles from an address to its window."""
    OUTSIDE_Y_DELAY, OUTSIDE_X_DELAY = 4, 5

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        addr = ceil_log2(config.act_depth)
        super().__init__({
            "col_step": In(addr), "addr": In(addr), "addr_y": In(addr),
            "residue_y": In(RESIDUE_BITS), "residue_x": In(RESIDUE_BITS),
            "outside_y": In(config.lanes_y), "outside_x": In(config.lanes_x), "extend": In(1), "invert": In(1),
            "x": Out(data.ArrayLayout(config.act_bits + 1, config.lanes)),
            "w_en": In(1), "w_bank": In(max(1, ceil_log2(config.lanes))), "w_addr": In(addr),
            "w_data": In(config.act_bits),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        lanes_y, lanes_x, bits = self.config.lanes_y, self.config.lanes_x, self.config.act_bits
        log_y, log_x = exact_log2(lanes_y), exact_log2(lanes_x)

        def delayed(value: Value, count: int, name: str) -> Value:
            for n in range(count):
                register = Signal(len(value), name=f"{name}{n}", reset_less=True)
                m.d.sync += register.eq(value)
                value = register
            return value

        # 1, 2: two addresses a bank row.
        before_y = Signal(lanes_y)
        before_x = Signal(lanes_x)
        m.d.comb += before_y.eq(Cat(self.residue_y[:log_y] > r for r in range(lanes_y)))
        residue_x = delayed(self.residue_x[:log_x], 1, "residue_x")
        m.d.sync += before_x.eq(Cat(residue_x > q for q in range(lanes_x)))
        row_addresses = []
        for r in range(lanes_y):
            row = Signal(len(self.addr), name=f"row{r}", reset_less=True)
            here = Signal(len(self.addr), name=f"here{r}", reset_less=True)
            further = Signal(len(self.addr), name=f"further{r}", reset_less=True)
            m.d.sync += [
                row.eq(Mux(before_y[r], self.addr_y, self.addr) if r < lanes_y - 1 else self.addr),
                here.eq(row), further.eq(row + self.col_step),
            ]
            row_addresses.append((here, further))

        # 3: banks.
        w_row, w_column = Signal(lanes_y), Signal(lanes_x)
        m.d.comb += [
            w_row.eq(self.w_en << self.w_bank[log_x:log_x + log_y]), w_column.eq(1 << self.w_bank[:log_x]),
        ]
        outputs = []
        for r, (here, further) in enumerate(row_addresses):
            for q in range(lanes_x):
                m.submodules[f"bank{r * lanes_x + q}"] = bank = Memory(shape=bits, depth=self.config.act_depth, init=[])
                read, write = bank.read_port(), bank.write_port()
                m.d.comb += [
                    read.addr.eq(Mux(before_x[q], further, here) if q < lanes_x - 1 else here), read.en.eq(1),
                    write.addr.eq(self.w_addr), write.data.eq(self.w_data), write.en.eq(w_row[r] & w_column[q]),
                ]
                outputs.append(read.data)

        # 4 to 6: rotations.
        turn_y = [delayed(self.residue_y[n], 3 if n == log_y - 1 else 4, f"turn_y{n}_") for n in range(log_y)]
        turn_x = delayed(residue_x, 4, "turn_x")
        turned, rows, values = ([Signal(bits, name=f"{name}{n}", reset_less=True) for n in range(lanes_y * lanes_x)]
                                for name in ("turned", "row_turned", "low"))
        for q in range(lanes_x):
            column: list[Value] = outputs[q::lanes_x]
            if log_y:
                column = _rotate(column, lanes_y // 2, turn_y[-1])
            m.d.sync += [register.eq(value) for register, value in zip(turned[q::lanes_x], column, strict=True)]
            column = list(turned[q::lanes_x])
            for n in range(log_y - 1):
                column = _rotate(column, 1 << n, turn_y[n])
            for r, value in enumerate(column):
                m.d.sync += rows[r * lanes_x + q].eq(Cat(value[:-1], value[-1] ^ self.invert))
                with m.If(self.outside_y[r]):
                    m.d.sync += rows[r * lanes_x + q].eq(0)
        for r in range(lanes_y):
            row_values: list[Value] = list(rows[r * lanes_x:(r + 1) * lanes_x])
            for n in range(log_x):
                row_values = _rotate(row_values, 1 << n, turn_x[n])
            for q, value in enumerate(row_values):
                low, sign = values[r * lanes_x + q], Signal(name=f"sign{r * lanes_x + q}", reset_less=True)
                m.d.comb += self.x[r * lanes_x + q].eq(Cat(low, sign))
                m.d.sync += [low.eq(value), sign.eq(value[-1])]
                with m.If(self.outside_x[q]):
                    m.d.sync += low.eq(0)
                with m.If(self.outside_x[q] | ~self.extend):
                    m.d.sync += sign.eq(0)
        return m
