"""What synthesis made of a design: cells counted, multipliers and memories checked."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..hw.arch.errors import CapacityError, ToolError
from ..hw.generate import design_memories
from .devices import Device

__all__ = ["Cell", "Counts", "check_capacity", "check_memories", "check_multipliers", "check_no_multiply",
           "count_cells", "logic_cells", "netlist_cells"]

MULTIPLYING = ("$mul", "$div", "$mod", "$divfloor", "$modfloor", "$pow")
"""Cells of a design, before synthesis, that multiply or divide."""
NAMES = {"lut4": "LUT4", "ff": "flip-flops", "ram": "RAM blocks", "spram": "single-port RAM blocks"}
"""What the resources of :attr:`.devices.Device.capacity` are called."""
_CONSTANT = re.compile(r"\d+'([01]+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a flat netlist.

    Parameters
    ----------
    name, kind : str
        Its hierarchical name, dotted; its type.
    pins : mapping of str to sequence
        Of each port, the numbers of its nets; a constant is ``"0"``, ``"1"`` or ``"x"``.
    """

    name: str
    kind: str
    pins: Mapping[str, Sequence[int | str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """Cells of a synthesized netlist.

    Parameters
    ----------
    lut4 : int
        Four-input look-up tables, those of distributed RAM included.
    carry : int
        Carry elements: ``CCU2C`` (two bits) on ECP5, ``SB_CARRY`` on iCE40, ``ALU`` on Gowin (one bit).
    ff : int
        Flip-flops.
    ram : int
        RAM blocks.
    spram : int
        Single-port RAM blocks (iCE40 UltraPlus).
    dsp : int
        Multiplier blocks.
    lut_equivalents : int
        Places of a LUT that the design takes (:func:`logic_cells`): on ECP5, ``lut4 + 2 * carry``.
    cells : dict
        Every cell type with its number.
    """

    lut4: int
    carry: int
    ff: int
    ram: int
    spram: int
    dsp: int
    lut_equivalents: int
    cells: Mapping[str, int]


def netlist_cells(path: Path, top: str = "top") -> list[Cell]:
    """The cells of module ``top`` of a Yosys JSON netlist (which is flat)."""
    try:
        modules: dict[str, Any] = json.loads(path.read_text())["modules"]
        return [Cell(name=name, kind=cell["type"], pins=cell["connections"])
                for name, cell in modules[top]["cells"].items()]
    except (OSError, ValueError, KeyError) as error:
        raise ToolError(f"{path.name}: not a netlist with a module {top!r}: {error!r}; "
                        f"is this Yosys too old?") from None


def count_cells(cells: Sequence[Cell], device: Device) -> Counts:
    """Count what a netlist takes of a device."""
    types = Counter(cell.kind for cell in cells)
    return Counts(
        lut4=sum(types[kind] * luts for kind, luts in device.luts_of.items()),
        carry=types[device.carry],
        ff=sum(number for kind, number in types.items() if kind.startswith(device.registers)),
        ram=sum(types[kind] for kind in device.rams),
        spram=types[device.spram] if device.spram else 0,
        dsp=sum(types[kind] for kind in device.multipliers),
        lut_equivalents=sum(logic_cells(cells, device).values()),
        cells=dict(sorted(types.items())))


def logic_cells(cells: Sequence[Cell], device: Device) -> Counter[str]:
    """Places of a LUT that each cell of a netlist takes, by its name.

    A LUT takes one, and a carry element ``device.carry_luts``. On iCE40, where a place is LUT, flip-flop and carry, a
    carry element is free beside the LUT that has its operands, and a flip-flop behind a LUT that nothing else uses; the
    others take a place of their own. So does the router pack them.
    """
    taken = Counter({cell.name: device.luts_of[cell.kind] for cell in cells if cell.kind in device.luts_of})
    carries = [cell for cell in cells if cell.kind == device.carry]
    if device.carry_luts:
        taken.update({cell.name: device.carry_luts for cell in carries})
        return taken
    luts = [cell for cell in cells if cell.kind in device.luts_of]
    uses = Counter(net for cell in cells for pin, nets in cell.pins.items() for net in nets
                   if not (cell.kind in device.luts_of and pin == "O"))
    alone = {cell.pins["O"][0] for cell in luts if uses[cell.pins["O"][0]] == 1}
    adding = {tuple(cell.pins[pin][0] for pin in ("I1", "I2", "I3")) for cell in luts}
    taken.update({cell.name: 1 for cell in cells
                  if cell.kind.startswith(device.registers) and cell.pins["D"][0] not in alone})
    taken.update({cell.name: 1 for cell in carries
                  if tuple(cell.pins[pin][0] for pin in ("I0", "I1", "CI")) not in adding})
    return taken


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


def check_multipliers(cells: Sequence[Cell], device: Device) -> None:
    """Raise :class:`ToolError` when a netlist holds a multiplier block."""
    found = [f"{cell.name} ({cell.kind})" for cell in cells if cell.kind in device.multipliers]
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
    # A table that synthesis found in a case statement is logic again when it does not become RAM.
    fallen = [name for name in _FLIP_FLOPS.findall(log) if "$proc_rom." not in name]
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


def check_capacity(counts: Counts, device: Device, *, way_out: str = "use fewer lanes or smaller memories") -> None:
    """Raise :class:`CapacityError` when a netlist needs more of something than the device has.

    Of LUTs without those that packing adds on iCE40, which the router knows better.
    """
    used = {"lut4": counts.lut_equivalents if device.carry_luts else counts.lut4, "ff": counts.ff, "ram": counts.ram,
            "spram": counts.spram}
    over = [f"{used[name]:,} {NAMES[name]} of {limit:,}" for name, limit in device.capacity.items()
            if used.get(name, 0) > limit]
    if over:
        raise CapacityError(f"the design does not fit {device.title}: it needs {', '.join(over)}; {way_out}")


def _some(items: list[str], limit: int = 5) -> str:
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")
