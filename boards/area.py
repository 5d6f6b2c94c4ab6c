"""What an accelerator takes of a device, told in milliseconds and without synthesis.

RAM blocks follow from the rules by which Yosys maps memories, and are exact. Logic is a sum over the units: each unit's
LUTs, carry elements and flip-flops are a linear function of a few features of the configuration. Their coefficients,
``area.json``, are fitted to synthesized accelerators by ``benchmarks/area_fit.py``; the errors of the fit, and of whole
accelerators that it has not seen, are in ``docs/benchmarks.md``.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from ..hw.arch.bus import COUNTER_WORDS
from ..hw.arch.config import SYMBOLS_MAX, AcceleratorConfig
from ..hw.arch.image import ENTRY_OPS_MAX
from .devices import Device, get_device

__all__ = ["LOGIC", "PORTS", "UNITS", "Area", "Memory", "estimate", "features", "memories", "ram_blocks", "rams"]

UNITS = ("link", "bus", "model", "sequencer", "parameters", "drain", "front", "taps", "banks", "lanes")
"""Parts of an accelerator that are estimated one by one; the last four are there once a stream."""
LOGIC = ("lut4", "carry", "ff", "lut_equivalents")
BANK_WORDS = 16384
LUTRAM_WORDS, LUTRAM_BITS, LUTRAM_MAX = 16, 4, 16
"""A block of distributed RAM, and the most of them that a memory may take before it becomes a RAM block."""
SHAPES = {
    "ecp5": ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18)),
    "gowin": ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18)),
    "ice40": ((2048, 2), (1024, 4), (512, 8), (256, 16)),
}
"""Words and bits that a RAM block may have."""
PORTS = ("uart", "serial")
"""What an accelerator is behind: the UART of a board, or the four wires that figures are measured behind."""
FRAME_BYTES = 512
"""What the link of the UART buffers."""
SPRAM_BLOCKS = 32
"""From so many RAM blocks on, Yosys takes the single-port RAM of iCE40 UltraPlus in place of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Memories of one shape.

    Parameters
    ----------
    name : str
        What they hold.
    count, depth, width : int
        How many there are, words, bits of a word.
    distributed : bool
        Whether a small one may become distributed RAM.
    clocked : bool
        Whether reading takes a cycle; if not, it is distributed RAM, or flip-flops where there is none.
    single : bool
        Whether one port reads and writes.
    """

    name: str
    count: int
    depth: int
    width: int
    distributed: bool = True
    clocked: bool = True
    single: bool = False


def memories(config: AcceleratorConfig, *, port: str = "uart") -> tuple[Memory, ...]:
    """The memories of an accelerator behind a port (:data:`PORTS`)."""
    streams = config.streams
    address = _bits(config.act_depth)
    rest = config.weight_depth % BANK_WORDS
    found = [
        Memory(name="model", count=config.weight_depth // BANK_WORDS, depth=BANK_WORDS, width=16, single=True),
        Memory(name="model", count=int(rest > 0), depth=rest, width=16, single=True),
        Memory(name="activations", count=streams * config.lanes, depth=config.act_depth, width=config.act_bits),
        Memory(name="rows", count=streams, depth=config.row_depth, width=8),
        Memory(name="entries", count=streams, depth=SYMBOLS_MAX, width=_bits(config.dict_depth) + _bits(ENTRY_OPS_MAX)),
        Memory(name="operations", count=streams, depth=config.dict_depth, width=16),
        *(Memory(name="positions", count=streams, depth=config.positions, width=width, distributed=False)
          for width in (address, 14, 8)),
        Memory(name="code offsets", count=streams, depth=16, width=8),
        Memory(name="words", count=streams if config.interleave == 4 else 0, depth=16, width=16, clocked=False),
        Memory(name="counters", count=int(config.counters), depth=COUNTER_WORDS, width=16),
        Memory(name="frames", count=int(port == "uart"), depth=FRAME_BYTES, width=8),
    ]
    return tuple(memory for memory in found if memory.count)


def ram_blocks(memory: Memory, device: Device, *, spram: bool = False) -> tuple[int, int]:
    """RAM blocks and single-port RAM blocks that all memories of a shape take.

    Parameters
    ----------
    spram : bool
        Whether large memories may become single-port RAM (iCE40 UltraPlus).

    Notes
    -----
    Yosys takes as few blocks as it can, and distributed RAM where that costs less than a block.
    """
    if not memory.clocked or memory.depth * memory.width < 128 or _distributed(memory, device):
        return 0, 0
    blocks = min(-(-memory.depth // depth) * -(-memory.width // width) for depth, width in SHAPES[device.family])
    if spram and memory.single and device.spram and blocks >= SPRAM_BLOCKS:
        return 0, memory.count * -(-memory.depth // BANK_WORDS)
    return memory.count * blocks, 0


def rams(config: AcceleratorConfig, device: Device, *, port: str = "uart") -> tuple[int, int]:
    """RAM blocks and single-port RAM blocks of an accelerator behind a port (:data:`PORTS`)."""
    spram = config.weight_memory == "spram"
    found = [ram_blocks(memory, device, spram=spram) for memory in memories(config, port=port)]
    return sum(ram for ram, _ in found), sum(single for _, single in found)


def _distributed(memory: Memory, device: Device) -> bool:
    return (device.family != "ice40" and memory.distributed
            and -(-memory.depth // LUTRAM_WORDS) * -(-memory.width // LUTRAM_BITS) <= LUTRAM_MAX)


def _bits(number: int) -> int:
    """Bits of the numbers below ``number``."""
    return (number - 1).bit_length()


def features(config: AcceleratorConfig) -> dict[str, tuple[float, ...]]:
    """What each unit's size is a linear function of."""
    c, s = config, config.streams
    address, words, rows = _bits(c.act_depth), _bits(c.weight_depth), _bits(c.row_depth)
    log_y, log_x = _bits(c.lanes_y), _bits(c.lanes_x)
    shift_bits = c.max_shift.bit_length()
    low_bits = shift_bits if shift_bits <= 2 or c.truncate else shift_bits - 1
    product = c.act_bits + 1 + min(c.max_shift, (1 << low_bits) - 1) - c.truncate
    banks = -(-c.weight_depth // BANK_WORDS)
    deep, deepest = c.interleave > 1, c.interleave == 4
    moved = c.acc_width if c.shadow_chain else 0
    chosen = 0 if c.shadow_chain else c.acc_width
    return {
        "link": (1,),
        "bus": (1, address, s),
        "model": (1, words * (s + 1), banks, s, 0 if c.weight_memory == "spram" else c.weight_depth / 2048),
        "sequencer": (1, words, s, s * words, c.counters, c.counters * s, s > 1, (s & s - 1) > 0),
        "parameters": (1, s, s * words),
        # Synthesis counts some of the multiplexer of shadows as the drain's.
        "drain": (1, c.acc_width, c.map_bits, address, log_y + log_x, s, s * c.acc_width * (s > 1),
                  s * (c.lanes - 1) * chosen),
        "front": (1, *(s * value for value in (
            1, deep, deepest, c.max_code_bits ** 2, c.max_code_bits * (c.interleave - 1), rows, c.map_bits, words))),
        "taps": tuple(s * value for value in (1, address, c.map_bits, c.lanes_y, c.lanes_x, _bits(c.positions))),
        "banks": tuple(s * value for value in (
            1, c.lanes_y * address, c.lanes_y * (c.lanes_x - 1) * address, c.lanes, c.lanes * c.act_bits,
            c.lanes * c.act_bits * log_y, c.lanes * c.act_bits * log_x)),
        "lanes": tuple(s * value for value in (
            1, c.lanes, c.lanes * c.acc_width, c.lanes * product, c.lanes * product * (1 << low_bits),
            c.lanes * moved, (c.lanes - 1) * chosen, chosen)),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Area:
    """An estimate; the counts are those of :class:`.netlist.Counts`.

    Parameters
    ----------
    lut4, carry, ff, ram, spram, lut_equivalents : int
        Of the whole accelerator behind its port.
    distributed : int
        Memories that must be distributed RAM, since they are read without a clock.
    units : mapping of str to int
        ``lut_equivalents`` of each of :data:`UNITS`.
    """

    lut4: int
    carry: int
    ff: int
    ram: int
    spram: int
    lut_equivalents: int
    distributed: int
    units: Mapping[str, int]


@functools.cache
def _table() -> Any:
    return json.loads(resources.files(__package__).joinpath("area.json").read_text())


def estimate(config: AcceleratorConfig, device: str | Device, *, port: str = "uart") -> Area:
    """What an accelerator takes of a device.

    Parameters
    ----------
    config : AcceleratorConfig
    device : str or Device
        Name of a device, such as ``"ecp5-85f"`` or ``"up5k"``.
    port : str
        What it is behind: ``"uart"`` (:class:`shiftwright.hw.top.AcceleratorOverUart`) or ``"serial"``
        (:class:`.serial.AcceleratorOverSerial`).
    """
    chosen = get_device(device) if isinstance(device, str) else device
    table = dict(_table()["families"][chosen.family])
    if port == "uart":
        table["link"] = _table()["uart"][chosen.family]
    parts = {resource: {unit: max(0.0, sum(weight * value for weight, value in
                                           zip(table[unit][resource], values, strict=True)))
                        for unit, values in features(config).items()} for resource in LOGIC}
    if chosen.carry_luts:
        parts["lut_equivalents"] = {unit: parts["lut4"][unit] + chosen.carry_luts * parts["carry"][unit]
                                    for unit in UNITS}
    if chosen.family != "ice40":
        # Small banks of distributed RAM, with a multiplexer of their words.
        for memory in memories(config):
            if memory.name == "activations" and _distributed(memory, chosen):
                blocks = -(-memory.depth // LUTRAM_WORDS)
                luts = memory.count * blocks * (-(-memory.width // LUTRAM_BITS) * max(chosen.luts_of.values())
                                                + memory.width // 2)
                for resource in ("lut4", "lut_equivalents"):
                    parts[resource]["banks"] += luts
    ram, spram = rams(config, chosen, port=port)
    totals = {resource: round(sum(values.values())) for resource, values in parts.items()}
    return Area(ram=ram, spram=spram,
                distributed=sum(memory.count for memory in memories(config) if not memory.clocked),
                units={unit: round(value) for unit, value in parts["lut_equivalents"].items()}, **totals)
