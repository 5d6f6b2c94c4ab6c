"""Map the accelerator to standard cells and SRAM macros: areas, shares of blocks, clock, and multipliers beside it."""

import dataclasses
import importlib.metadata
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import ConfigError, DataError, ToolError
from ..hw.arch.files import write_atomically
from ..hw.generate import accelerator, design_memories, rtlil_text
from ..hw.lanes import LaneArray
from ..hw.yosys import tool_path, yosys_version
from .liberty import Cell, Library, read_liberty
from .mapping import STYLES, Mapped, Style, map_design
from .multipliers import MultiplierArray
from .sram import Macro, macros_of, wrappers
from .timing import CLOCK_SLEW, TimingPath, slowest_path

__all__ = ["AsicResult", "build_asic", "compare_arrays"]

ASSUMPTIONS = (
    "corner of the given liberty files; nothing is added for other corners, on-chip variation or clock jitter",
    "wires have no resistance and no capacitance: a placed design is slower and a little larger",
    f"the clock is ideal, its slope {CLOCK_SLEW} ns; there is no clock tree in the area, and no scan chain",
    "inputs arrive with the clock edge, outputs are wanted at the next one",
    "a macro is as slow as its slowest pin; a black box takes no time",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AsicResult:
    """A mapped accelerator.

    Parameters
    ----------
    cell_area, macro_area : float
        In the libraries' unit.
    gate_equivalents : float
        Cell area in two-input NAND gates of the library.
    blocks : mapping of str to float
        Share of each first-level block in the cell area; ``"top"`` is what lies between them.
    path : TimingPath
        What bounds the clock.
    target_mhz : float
        The clock that was asked for.
    report : mapping
        All of it, as in the report file.
    files : tuple of Path
        What was written.
    seconds : float
        Wall-clock time.
    """

    cell_area: float
    macro_area: float
    gate_equivalents: float
    blocks: Mapping[str, float]
    path: TimingPath
    target_mhz: float
    report: Mapping[str, Any]
    files: tuple[Path, ...]
    seconds: float

    @property
    def met(self) -> bool:
        """Whether the clock that was asked for is met."""
        return self.path.mhz >= self.target_mhz


def build_asic(config: AcceleratorConfig, liberty: str | Path, directory: str | Path, *,
               sram: Sequence[str | Path] = (), mhz: float = 100.0, name: str = "accelerator") -> AsicResult:
    """Map an accelerator to a library of standard cells.

    The smaller style of :data:`shiftwright.boards.mapping.STYLES` that meets the clock is taken, or the fastest.

    Parameters
    ----------
    config : AcceleratorConfig
    liberty : path
        Standard cells, in Liberty format.
    directory : path
        Gets ``<name>.netlist.v``, ``<name>.stat.txt``, ``<name>.report.json`` and, with macros, ``<name>.sram.v``.
    sram : sequence of path
        SRAM macros, in Liberty format. Without any, memories stay as they are in the netlist, and their bits are
        counted.
    mhz : float
        Clock that is aimed at.

    Returns
    -------
    AsicResult
        Also when the clock is missed.

    Raises
    ------
    ConfigError
        If the clock is not positive, or a library lacks what is needed.
    DataError
        If a library can't be read.
    ToolError
        If Yosys is missing or fails, or the design depends on initial values.
    """
    started = time.monotonic()
    if not mhz > 0:
        raise ConfigError(f"the clock must be greater than 0 MHz, not {mhz!r}")
    library = read_liberty(liberty)
    gate = _gate(library)
    macros = macros_of([read_liberty(path) for path in sram])
    text = rtlil_text(accelerator(config), name="top")
    mapped, path, style = _best(text, library, liberty, mhz, macros)
    arrays = compare_arrays(config, liberty, mhz=mhz, style=style)
    areas = _Areas(library, macros)
    report = _report(config, text, library, macros, mapped, path, style, mhz, areas, gate)
    report["arrays"] = arrays
    report["sources"] = {"liberty": Path(liberty).name, "sram": [Path(each).name for each in sram]}
    folder = Path(directory)
    contents = {f"{name}.netlist.v": mapped.verilog, f"{name}.stat.txt": mapped.stat,
                f"{name}.report.json": json.dumps(report, indent=2) + "\n"}
    if macros:
        used = [macro for macro in macros if macro.wrapper in mapped.types]
        contents[f"{name}.sram.v"] = wrappers(used)
    for file, content in contents.items():
        write_atomically(folder / file, content.encode(), ToolError)
    area = report["area"]
    return AsicResult(
        cell_area=area["cells"], macro_area=area["macros"], gate_equivalents=area["gate_equivalents"], path=path,
        blocks={block["name"]: block["share"] for block in report["blocks"]}, target_mhz=mhz, report=report,
        files=tuple(folder / file for file in contents), seconds=time.monotonic() - started)


def compare_arrays(config: AcceleratorConfig, liberty: str | Path, *, mhz: float = 100.0,
                   style: Style = STYLES[0]) -> dict[str, Any]:
    """One stream's lanes, and as many multiplier-accumulators, mapped in the same way.

    Returns
    -------
    dict
        ``lanes``: number of lanes; ``shift_area``, ``multiplier_area``, ``ratio``, ``shift_mhz``, ``multiplier_mhz``;
        ``multiplier``: the kind of multiplier, which is the smaller of ``multiplier_areas``; ``logic_ratio``: of the
        areas without flip-flops.
    """
    library = read_liberty(liberty)
    areas = _Areas(library, ())

    def measure(component: wiring.Component, booth: bool) -> tuple[float, float, float]:
        with _folder(liberty) as folder:
            mapped = map_design(rtlil_text(component, name="top"), folder, library, style, booth=booth,
                                delay_ns=_logic_ns(library, mhz))
        path = slowest_path(mapped.netlist, library.cells.get)
        return areas.cells(mapped.types), areas.registers(mapped.types), path.mhz

    area, registers, clock = measure(LaneArray(config), False)
    found = {kind: measure(MultiplierArray(config), booth)
             for kind, booth in (("Booth", True), ("carry-save array", False))}
    kind = min(found, key=lambda each: found[each][0])
    other, other_registers, other_clock = found[kind]
    return {
        "lanes": config.lanes, "shift_area": round(area, 1), "multiplier_area": round(other, 1),
        "ratio": round(area / other, 3), "logic_ratio": round((area - registers) / (other - other_registers), 3),
        "multiplier": kind, "multiplier_areas": {name: round(each[0], 1) for name, each in found.items()},
        "shift_register_area": round(registers, 1), "multiplier_register_area": round(other_registers, 1),
        "shift_mhz": round(clock, 1), "multiplier_mhz": round(other_clock, 1),
    }


@dataclasses.dataclass(frozen=True)
class _Areas:
    library: Library
    macros: Sequence[Macro]

    def cells(self, types: Counter[str]) -> float:
        return sum(cell.area * types[name] for name, cell in self.library.cells.items())

    def registers(self, types: Counter[str]) -> float:
        return sum(cell.area * types[name] for name, cell in self.library.cells.items() if cell.sequential)

    def macro(self, types: Counter[str]) -> float:
        return sum(macro.cell.area * types[macro.wrapper] for macro in self.macros)


def _best(text: str, library: Library, liberty: str | Path, mhz: float,
          macros: Sequence[Macro]) -> tuple[Mapped, TimingPath, Style]:
    timed = {macro.wrapper: macro.timing() for macro in macros}

    def cell_of(kind: str) -> Cell | None:
        return timed.get(kind) or library.cells.get(kind)

    best: tuple[Mapped, TimingPath, Style] | None = None
    for style in STYLES:
        with _folder(liberty) as folder:
            mapped = map_design(text, folder, library, style, delay_ns=_logic_ns(library, mhz), macros=macros,
                                blocks=True)
        path = slowest_path(mapped.netlist, cell_of)
        if best is None or path.delay < best[1].delay:
            best = mapped, path, style
        if path.mhz >= mhz:
            break
    assert best is not None  # there are styles
    return best


@contextmanager
def _folder(liberty: str | Path) -> Iterator[Path]:
    """A folder with a copy of the library: tools may see no other files than those below it."""
    with tempfile.TemporaryDirectory(prefix="shiftwright-asic-") as name:
        try:
            shutil.copyfile(liberty, Path(name, "cells.lib"))
        except OSError as error:
            raise DataError(f"{liberty}: can't read the library: {error.strerror}") from None
        yield Path(name)


def _logic_ns(library: Library, mhz: float) -> float:
    """What a clock period leaves for logic, after clock-to-output and set-up time of the quickest flip-flop."""
    spent = []
    for cell in library.cells.values():
        arcs = [arc for pin in cell.pins.values() for arc in pin.arcs]
        outputs = [table.at(CLOCK_SLEW, table.loads[len(table.loads) // 2]) for arc in arcs if arc.kind == "rising_edge"
                   for table in arc.delay.values()]
        setups = [table.at(CLOCK_SLEW, CLOCK_SLEW) for arc in arcs if arc.kind == "setup_rising"
                  for table in arc.delay.values()]
        if cell.usable and outputs and setups:
            spent.append(max(outputs) + max(setups))
    if not spent:
        raise ConfigError(f"the library {library.name!r} must have a flip-flop with timing, but has none; "
                          f"give standard cells with --liberty")
    return max(1000 / mhz - min(spent), 0.1)


def _gate(library: Library) -> Cell:
    gate = library.smallest(lambda a, b: not (a and b), 2)
    if gate is None:
        raise ConfigError(f"the library {library.name!r} must have a two-input NAND gate, but has none; "
                          f"give standard cells with --liberty")
    return gate


def _report(config: AcceleratorConfig, text: str, library: Library, macros: Sequence[Macro], mapped: Mapped,
            path: TimingPath, style: Style, mhz: float, areas: _Areas, gate: Cell) -> dict[str, Any]:
    types = mapped.types
    cells, registers, macro = areas.cells(types), areas.registers(types), areas.macro(types)
    total = sum(areas.cells(block) for block in mapped.blocks.values())
    sizes = {f"{memory.module}.{memory.name}".removeprefix("top."): memory
             for memory in design_memories(text)}
    memories = [{"name": name, "depth": sizes[name].depth, "width": sizes[name].width,
                 "bits": sizes[name].depth * sizes[name].width, "kind": kind}
                for name, kind in mapped.memories.items()]
    blocks = [{"name": name or "top", "area": round(areas.cells(block), 1),
               "share": round(areas.cells(block) / total, 4),
               "gate_equivalents": round(areas.cells(block) / gate.area), "macro_area": round(areas.macro(block), 1)}
              for name, block in sorted(mapped.blocks.items(), key=lambda each: -areas.cells(each[1]))]
    return {
        "config": config.to_dict(), "fingerprint": f"{config.fingerprint:08x}",
        "library": {"name": library.name, "conditions": library.conditions},
        "area": {
            "cells": round(cells, 1), "flip_flops": round(registers, 1), "macros": round(macro, 1),
            "total": round(cells + macro, 1), "gate_equivalents": round(cells / gate.area), "gate": gate.name,
            "gate_area": gate.area, "cell_count": sum(types[name] for name in library.cells),
            "memory_bits": sum(int(str(memory["bits"])) for memory in memories),
            "macro_bits": sum(each.bits * types[each.wrapper] for each in macros),
        },
        "blocks": blocks, "memories": memories,
        "macros": {each.cell.name: {"number": types[each.wrapper], "area": each.cell.area}
                   for each in macros if types[each.wrapper]},
        "clock": {
            "mhz": round(path.mhz, 1), "target_mhz": mhz, "met": path.mhz >= mhz, "delay_ns": round(path.delay, 3),
            "setup_ns": round(path.setup, 3), "abc_logic_ns": mapped.abc_ns, "critical_path": list(path.steps),
            "style": style.title, "assumptions": list(ASSUMPTIONS),
        },
        "tools": {"shiftwright": importlib.metadata.version("shiftwright"),
                  "yosys": yosys_version(tool_path("yosys")).removeprefix("yosys ")},
    }
