"""Banked activation memory: every lane reads its own pixel of a window at any offset, without conflicts.

Bank (r, s) holds the pixels whose coordinates are r and s modulo the lanes. A window that begins at residue (ry, rx)
takes one pixel of each bank: banks before the residue lie one bank row or column further. A rotation by the residue
then brings each pixel to its lane.

    cycle 1  banks read, each at one of four addresses
    cycle 2  rotate rows                                       -> register
    cycle 3  rotate columns, pad                               -> register
"""

from amaranth.hdl import Array, Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .arch.config import AcceleratorConfig

__all__ = ["ActivationMemory"]


def _rotate(items: list, amount: Signal) -> list:
    """``items`` rotated left by ``amount``, one multiplexer a place."""
    size = len(items)
    if size == 1:
        return items
    return [Array(items[(n + k) % size] for k in range(size))[amount] for n in range(size)]


class ActivationMemory(wiring.Component):
    """All banks, the rotation and the padding.

    Members
    -------
    addr, addr_x, addr_y, addr_xy, residue_y, residue_x, mask_y, mask_x
        From the tap address generator.
    x_signed, fill : In(1)
        Sign-extend activations; value of padding: 0, or the least value when ``fill`` is high.
    x : Out
        An activation a lane, row-major, sign-extended to ``act_bits + 1`` bits; :attr:`LATENCY` cycles after the
        address.
    raw : Out
        Lane (0, 0) before padding, in step with ``x``.
    w_en, w_bank, w_addr, w_data : In
        Write one activation; ``w_bank`` is one-hot, row-major.
    """

    LATENCY = 3

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        addr = ceil_log2(config.act_depth)
        super().__init__({
            "addr": In(addr), "addr_x": In(addr), "addr_y": In(addr), "addr_xy": In(addr),
            "residue_y": In(3), "residue_x": In(3),
            "mask_y": In(config.lanes_y), "mask_x": In(config.lanes_x), "x_signed": In(1), "fill": In(1),
            "x": Out(data.ArrayLayout(config.act_bits + 1, config.lanes)), "raw": Out(config.act_bits),
            "w_en": In(1), "w_bank": In(config.lanes), "w_addr": In(addr), "w_data": In(config.act_bits),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        lanes_y, lanes_x, bits = self.config.lanes_y, self.config.lanes_x, self.config.act_bits
        outputs = []
        for r in range(lanes_y):
            row = []
            for s in range(lanes_x):
                n = r * lanes_x + s
                m.submodules[f"bank{n}"] = bank = Memory(shape=bits, depth=self.config.act_depth, init=[])
                read = bank.read_port()
                write = bank.write_port()
                in_place = Mux(self.residue_x > s, self.addr_x, self.addr) if s < lanes_x - 1 else self.addr
                further = Mux(self.residue_x > s, self.addr_xy, self.addr_y) if s < lanes_x - 1 else self.addr_y
                m.d.comb += [
                    read.addr.eq(Mux(self.residue_y > r, further, in_place) if r < lanes_y - 1 else in_place),
                    read.en.eq(1),
                    write.addr.eq(self.w_addr), write.data.eq(self.w_data), write.en.eq(self.w_en & self.w_bank[n]),
                ]
                row.append(read.data)
            outputs.append(row)

        residues = [Signal(6, name=f"residues{n}") for n in (1, 2)]
        masks = [Signal(lanes_y + lanes_x, name=f"masks{n}") for n in (1, 2)]
        m.d.sync += [
            residues[0].eq(Cat(self.residue_y, self.residue_x)), residues[1].eq(residues[0]),
            masks[0].eq(Cat(self.mask_y, self.mask_x)), masks[1].eq(masks[0]),
        ]
        residue_y = residues[0][:max(1, ceil_log2(lanes_y))]
        residue_x = residues[1][3:3 + max(1, ceil_log2(lanes_x))]

        turned = [[Signal(bits, name=f"turned{r}_{s}") for s in range(lanes_x)] for r in range(lanes_y)]
        for s in range(lanes_x):
            for r, value in enumerate(_rotate([outputs[r][s] for r in range(lanes_y)], residue_y)):
                m.d.sync += turned[r][s].eq(value)
        for r in range(lanes_y):
            for s, value in enumerate(_rotate(turned[r], residue_x)):
                inside = masks[1][r] & masks[1][lanes_y + s]
                m.d.sync += self.x[r * lanes_x + s].eq(Cat(
                    value & inside.replicate(bits), Mux(inside, self.x_signed & value[-1], self.fill)))
                if r == s == 0:
                    m.d.sync += self.raw.eq(value)
        return m
