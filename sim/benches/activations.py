"""cocotb bench of :class:`shiftwright.hw.activations.ActivationMemory` against a list of banks."""

import dataclasses
from typing import Any

import cocotb

from ...hw.activations import ActivationMemory
from .agents import Bench, fill_banks

READ = 2
"""Cycles from an address to the banks' reading it."""


@dataclasses.dataclass
class Read:
    """One window read."""

    addr: int
    addr_y: int
    residue: tuple[int, int]
    outside_y: int
    outside_x: int


class Windows:
    """Reads a random window in every cycle while random activations are written."""

    def __init__(self, bench: Bench, banks: list[list[int]], *, col_step: int, extend: int, invert: int) -> None:
        self.bench, self.banks = bench, banks
        self.col_step, self.extend, self.invert = col_step, extend, invert
        self.residues: list[tuple[int, int]] = []
        self.checked = 0
        self._mask = (1 << (len(banks[0]) - 1).bit_length()) - 1
        self._write: tuple[int, int, int] | None = None
        # The read so many cycles ago, and the banks' contents at the time that it took.
        self._ago: list[Read | None] = [None] * (ActivationMemory.LATENCY + 1)
        self._taken: list[list[int] | None] = [None] * (ActivationMemory.LATENCY + 1)
        bench.agents.append(self)

    def _addresses(self, read: Read) -> list[int]:
        """What each bank reads."""
        config = self.bench.config
        return [(read.addr_y if read.residue[0] > r else read.addr) + (self.col_step if read.residue[1] > q else 0)
                & self._mask for r in range(config.lanes_y) for q in range(config.lanes_x)]

    def _address(self) -> int:
        """Any that leads to one that exists, also one step further."""
        depth = len(self.banks[0])
        return self.bench.rng.randrange(depth if depth > self._mask else depth - self.col_step)

    def drive(self) -> None:
        bench, config, rng = self.bench, self.bench.config, self.bench.rng
        # All residues in turn.
        random_residue = (rng.randrange(config.lanes_y), rng.randrange(config.lanes_x))
        masks = [0 if rng.random() < 0.4 else rng.getrandbits(size) for size in (config.lanes_y, config.lanes_x)]
        read = Read(self._address(), self._address(), self.residues.pop() if self.residues else random_residue, *masks)
        self._ago = [read, *self._ago[:-1]]
        late_y, late_x = self._ago[ActivationMemory.OUTSIDE_Y_DELAY], self._ago[ActivationMemory.OUTSIDE_X_DELAY]
        bench.ports.put(addr=read.addr, addr_y=read.addr_y, residue_y=read.residue[0], residue_x=read.residue[1],
                        outside_y=late_y.outside_y if late_y else 0, outside_x=late_x.outside_x if late_x else 0)
        # An address that some bank reads in this cycle is not written: what it gets is not specified.
        reading = self._ago[READ]
        addr = rng.randrange(config.act_depth)
        self._write = None
        if rng.random() < 0.5 and (reading is None or addr not in self._addresses(reading)):
            self._write = rng.randrange(config.lanes), addr, rng.getrandbits(config.act_bits)
        bank, addr, value = self._write or (rng.randrange(config.lanes), addr, rng.getrandbits(config.act_bits))
        bench.ports.put(w_en=int(self._write is not None), w_bank=bank, w_addr=addr, w_data=value)

    def sample(self) -> None:
        reading = self._ago[READ]
        addresses = self._addresses(reading) if reading else []
        taken = [bank[addr] for bank, addr in zip(self.banks, addresses, strict=False)]
        self._taken = [taken or None, *self._taken[:-1]]
        read, values = self._ago[-1], self._taken[ActivationMemory.LATENCY - READ]
        if read is not None and values is not None:
            self._check(read, values)
            self.checked += 1
        if self._write is not None:
            bank, addr, value = self._write
            self.banks[bank][addr] = value

    def _check(self, read: Read, values: list[int]) -> None:
        config = self.bench.config
        word, bits, lanes_x = self.bench.ports.get("x"), config.act_bits, config.lanes_x
        for i in range(config.lanes_y):
            for j in range(lanes_x):
                row, column = (read.residue[0] + i) % config.lanes_y, (read.residue[1] + j) % lanes_x
                value = values[row * lanes_x + column] ^ self.invert << bits - 1
                wanted = value | (value >> bits - 1 & self.extend) << bits
                if (read.outside_y >> i | read.outside_x >> j) & 1:
                    wanted = 0
                found = word >> (i * lanes_x + j) * (bits + 1) & (2 << bits) - 1
                assert found == wanted, f"lane {i, j} is {found:x}, expected {wanted:x}, of {read}"


@cocotb.test()
async def windows_reach_their_lanes(dut: Any) -> None:
    """All residues, random masks, every treatment of the highest bit, with writes going on."""
    bench = await Bench.open(dut, "activations")
    config = bench.config
    banks = await fill_banks(bench)
    for extend, invert in ((0, 0), (1, 0), (0, 1)):
        # Constant while a layer runs.
        col_step = bench.rng.randrange(1, config.act_depth)
        bench.ports.put(w_en=0, col_step=col_step, extend=extend, invert=invert)
        await bench.step(ActivationMemory.LATENCY)
        windows = Windows(bench, banks, col_step=col_step, extend=extend, invert=invert)
        windows.residues = [(y, x) for y in range(config.lanes_y) for x in range(config.lanes_x)]
        await bench.step(100 * bench.rounds)
        assert windows.checked >= 90 * bench.rounds
        bench.agents.remove(windows)
