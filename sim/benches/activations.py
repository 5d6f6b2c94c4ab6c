"""cocotb bench of :class:`shiftwright.hw.activations.ActivationMemory` against a list of banks."""

import dataclasses
from typing import Any

import cocotb

from ...hw.activations import ActivationMemory
from .agents import Bench, signed


@dataclasses.dataclass
class Read:
    """One window read."""

    addresses: dict[tuple[int, int], int]
    residue: tuple[int, int]
    mask_y: int
    mask_x: int


class Windows:
    """Reads a random window in every cycle while random activations are written."""

    def __init__(self, bench: Bench, banks: list[list[int]]) -> None:
        self.bench, self.banks = bench, banks
        self.x_signed = self.fill = 0
        self.residues: list[tuple[int, int]] = []
        self.checked = 0
        self._write: tuple[int, int, int] | None = None
        self._pipe: list[tuple[list[int], int] | None] = [None] * ActivationMemory.LATENCY
        self._read: Read | None = None
        bench.agents.append(self)

    def drive(self) -> None:
        bench, config, rng = self.bench, self.bench.config, self.bench.rng
        # All residues in turn.
        random_residue = (rng.randrange(config.lanes_y), rng.randrange(config.lanes_x))
        residue = self.residues.pop() if self.residues else random_residue
        places = {(0, 0): "addr", (0, 1): "addr_x", (1, 0): "addr_y", (1, 1): "addr_xy"}
        addresses = {place: rng.randrange(config.act_depth) for place in places}
        masks = [(1 << size) - 1 if rng.random() < 0.4 else rng.getrandbits(size)
                 for size in (config.lanes_y, config.lanes_x)]
        self._read = Read(addresses, residue, *masks)
        bench.ports.put(residue_y=residue[0], residue_x=residue[1], mask_y=masks[0], mask_x=masks[1],
                        **{name: addresses[place] for place, name in places.items()})
        # An address that is read now is not written: which of the two comes first is not specified.
        addr = rng.randrange(config.act_depth)
        self._write = None
        if addr not in addresses.values() and rng.random() < 0.5:
            self._write = rng.randrange(config.lanes), addr, rng.getrandbits(config.act_bits)
        bank, addr, value = self._write or (0, 0, 0)
        bench.ports.put(w_en=int(self._write is not None), w_bank=1 << bank, w_addr=addr, w_data=value)

    def sample(self) -> None:
        config, ports, read = self.bench.config, self.bench.ports, self._read
        assert read is not None
        bits, least = config.act_bits, -(1 << config.act_bits)
        lanes, raw = [], 0
        for i in range(config.lanes_y):
            for j in range(config.lanes_x):
                row, column = (read.residue[0] + i) % config.lanes_y, (read.residue[1] + j) % config.lanes_x
                further = int(row < read.residue[0]), int(column < read.residue[1])
                value = self.banks[row * config.lanes_x + column][read.addresses[further]]
                raw = value if i == j == 0 else raw
                inside = read.mask_y >> i & read.mask_x >> j & 1
                lanes.append((signed(value, bits) if self.x_signed else value) if inside else least if self.fill else 0)
        self._pipe.append((lanes, raw))
        expected = self._pipe.pop(0)
        if expected is not None:
            word = ports.get("x")
            found = [signed(word >> n * (bits + 1), bits + 1) for n in range(config.lanes)]
            assert found == expected[0], f"lanes are {found}, expected {expected[0]}"
            assert ports.get("raw") == expected[1], "raw"
            self.checked += 1
        if self._write is not None:
            bank, addr, value = self._write
            self.banks[bank][addr] = value


@cocotb.test()
async def windows_reach_their_lanes(dut: Any) -> None:
    """All residues, random masks, both signednesses and paddings, with writes going on."""
    bench = await Bench.open(dut, "activations")
    config = bench.config
    banks = [[bench.rng.getrandbits(config.act_bits) for _ in range(config.act_depth)] for _ in range(config.lanes)]
    for bank, values in enumerate(banks):
        bench.ports.put(w_en=1, w_bank=1 << bank)
        for addr, value in enumerate(values):
            bench.ports.put(w_addr=addr, w_data=value)
            await bench.step()
    for x_signed in (0, 1):
        for fill in (0, 1):
            # These two are constant while a layer runs.
            bench.ports.put(w_en=0, x_signed=x_signed, fill=fill)
            await bench.step(ActivationMemory.LATENCY)
            windows = Windows(bench, banks)
            windows.x_signed, windows.fill = x_signed, fill
            windows.residues = [(y, x) for y in range(config.lanes_y) for x in range(config.lanes_x)]
            await bench.step(100 * bench.rounds)
            assert windows.checked >= 90 * bench.rounds
            bench.agents.remove(windows)
