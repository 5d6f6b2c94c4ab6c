"""What synthesis made of a design: cells counted, multipliers and memories checked."""

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from ..hw.arch.errors import CapacityError, ToolError
from ..hw.generate import design_memories
from .devices import Device

__all__ = ["Counts", "check_capacity", "check_memories", "check_multipliers", "check_no_multiply", "count_cells",
           "netlist_cells"]

MULTIPLYING = ("$mul", "$div", "$mod", "$divfloor", "$modfloor", "$pow")
"""Cells of a design, before synthesis, that multiply or divide."""
_CONSTANT = re.compile(r"\d+'([01]+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """Cells of a synthesized netlist.

    Parameters
    ----------
    lut4 : int
        Four-input look-up tables, those of distributed RAM included.
    carry : int
        Carry elements: ``CCU2C`` (two bits, takes two LUT sites) on ECP5, ``SB_CARRY`` (one bit) on iCE40.
    ff : int
        Flip-flops.
    ram : int
        RAM blocks.
    spram : int
        Single-port RAM blocks (iCE40 UltraPlus).
    dsp : int
        Multiplier blocks.
    cells : dict
        Every cell type with its number.
    """

    lut4: int
    carry: int
    ff: int
    ram: int
    spram: int
    dsp: int
    cells: dict[str, int]

    @property
    def lut_equivalents(self) -> int:
        """``lut4 + 2 * carry``: logic cells when every carry element took two."""
        return self.lut4 + 2 * self.carry


def netlist_cells(path: Path, top: str = "top") -> list[tuple[str, str]]:
    """``(name, type)`` of every cell in module ``top`` of a Yosys JSON netlist (which is flat)."""
    try:
        modules: dict[str, Any] = json.loads(path.read_text())["modules"]
        return [(name, cell["type"]) for name, cell in modules[top]["cells"].items()]
    except (OSError, ValueError, KeyError) as error:
        raise ToolError(f"{path.name}: not a netlist with a module {top!r}: {error!r}; "
                        f"is this Yosys too old?") from None


def count_cells(cells: list[tuple[str, str]], device: Device) -> Counts:
    """Count what a netlist takes of a device."""
    types = Counter(kind for _, kind in cells)
    return Counts(
        lut4=sum(types[kind] * luts for kind, luts in device.luts_of.items()),
        carry=types[device.carry],
        ff=sum(number for kind, number in types.items() if kind.startswith(device.registers)),
        ram=sum(types[kind] for kind in device.rams),
        spram=types[device.spram] if device.spram else 0,
        dsp=sum(types[kind] for kind in device.multipliers),
        cells=dict(sorted(types.items())))


def check_no_multiply(text: str) -> None:
    """Raise :class:`ToolError` when RTLIL text multiplies or divides: synthesis would do it in LUTs if not in DSPs.

    A product with a constant of at most two non-zero bits is a shift and an addition, and allowed.
    """
    found, module, kind, constant = [], "", "", False
    for line in text.splitlines():
        words = line.split()
        if line.startswith("module "):
            module = words[1].removeprefix("\\")
        elif line.startswith("  cell ") and words[1] in MULTIPLYING:
            kind, constant = words[1], False
        elif kind and words[:1] == ["connect"] and words[1] in ("\\A", "\\B"):
            value = _CONSTANT.fullmatch(" ".join(words[2:]))
            constant |= value is not None and value.group(1).count("1") <= 2
        elif kind and words == ["end"]:
            if kind != "$mul" or not constant:
                found.append(f"{kind} in {module}")
            kind = ""
    if found:
        raise ToolError(f"the design must not multiply, but has {len(found)} such cells: {_some(found)}; "
                        f"replace them by shifts and additions")


def check_multipliers(cells: list[tuple[str, str]], device: Device) -> None:
    """Raise :class:`ToolError` when a netlist holds a multiplier block."""
    found = [f"{name} ({kind})" for name, kind in cells if kind in device.multipliers]
    if found:
        raise ToolError(f"the netlist must have no multiplier block, but has {len(found)}: {_some(found)}; "
                        f"replace the multiplications by shifts and additions")


_MAPPED = re.compile(r"^mapping memory (\S+) via (\S+)$", re.MULTILINE)
_FLIP_FLOPS = re.compile(r"^using FF mapping for memory (\S+)$", re.MULTILINE)


def check_memories(text: str, log: str) -> dict[str, str]:
    """Check that synthesis put every memory into RAM.

    Parameters
    ----------
    text : str
        The design as RTLIL, before synthesis.
    log : str
        Yosys' log of the synthesis.

    Returns
    -------
    dict
        RAM primitive by hierarchical name of the memory.

    Raises
    ------
    ToolError
        If a memory became flip-flops, or disappeared: then the logic around it was optimized away.
    """
    fallen = _FLIP_FLOPS.findall(log)
    declared = {memory.name: memory for memory in design_memories(text)}
    if fallen:
        sizes = [f"{name} ({memory.depth} x {memory.width} bits)" if (memory := declared.get(name.rpartition(".")[2]))
                 else name for name in fallen]
        raise ToolError(f"every memory must map to RAM, but synthesis made flip-flops of {_some(sizes)}; "
                        f"give it one write port, and read ports with a clock or of few words")
    mapped = dict(_MAPPED.findall(log))
    names = {name.rpartition(".")[2] for name in mapped}
    gone = [name for name in declared if name not in names]
    if gone:
        raise ToolError(f"every memory must map to RAM, but synthesis removed {_some(gone)}: nothing depends on it; "
                        f"connect the ports of the design, or leave the memory out")
    return mapped


def check_capacity(counts: Counts, device: Device) -> None:
    """Raise :class:`CapacityError` when a netlist needs more of something than the device has."""
    used = {"lut4": max(counts.lut4, counts.lut_equivalents if device.name.startswith("ecp5") else 0),
            "ff": counts.ff, "ram": counts.ram, "spram": counts.spram}
    over = [f"{used[name]} {name} of {limit}" for name, limit in device.capacity.items() if used.get(name, 0) > limit]
    if over:
        raise CapacityError(f"the design does not fit {device.title}: it needs {', '.join(over)}; "
                            f"use fewer lanes or smaller memories")


def _some(items: list[str], limit: int = 5) -> str:
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")
