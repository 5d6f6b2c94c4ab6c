"""SRAM macros of a library, as memories are mapped to them.

A memory takes the macros, by their number, depth and width, that cost least area, logic around them included (Yosys'
``memory_libmap``). Each sits in a wrapper with the same few ports whoever made it:

    PORT_A_CLK, PORT_A_CLK_EN, PORT_A_ADDR, PORT_A_WR_EN, PORT_A_WR_DATA, PORT_A_RD_DATA, and PORT_B_... with two ports

In a clock cycle with ``CLK_EN``, a word is written with ``WR_EN`` and read without; the word that was read stays until
the next read. The wrapper's inside, which ties off test pins, is the user's.
"""

import dataclasses
from collections.abc import Sequence

from ..hw.arch.errors import ConfigError
from .liberty import Cell, Library, Pin

__all__ = ["Macro", "PREFIX", "macros_of", "memory_library", "wrappers"]

PREFIX = "SHIFTWRIGHT_SRAM_"
"""A wrapper is called this and the macro's name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Macro:
    """An SRAM macro.

    Parameters
    ----------
    cell : Cell
    ports : int
        1 or 2: each reads or writes.
    """

    cell: Cell
    ports: int

    @property
    def wrapper(self) -> str:
        """Cell type in the netlist."""
        return PREFIX + self.cell.name

    @property
    def bits(self) -> int:
        """What it holds."""
        return self.cell.depth * self.cell.width

    def timing(self) -> Cell:
        """The wrapper as a cell with the timing and loads of the macro's slowest pins."""
        inputs = [pin for pin in self.cell.pins.values() if not pin.output]
        outputs = [pin for pin in self.cell.pins.values() if pin.output and pin.arcs]
        setups = tuple(arc for pin in inputs for arc in pin.arcs if arc.kind.startswith("setup"))
        given = Pin(output=False, capacitance=max(pin.capacitance for pin in inputs), function="", arcs=setups)
        clock = dataclasses.replace(given, arcs=())
        read = Pin(output=True, capacitance=0.0, function="", arcs=tuple(arc for pin in outputs for arc in pin.arcs))
        pins = {f"PORT_{port}_{name}": pin for port in "AB"[:self.ports] for name, pin in (
            ("CLK", clock), ("CLK_EN", given), ("ADDR", given), ("WR_EN", given), ("WR_DATA", given),
            ("RD_DATA", read))}
        return dataclasses.replace(self.cell, name=self.wrapper, pins=pins, sequential=True)


def macros_of(libraries: Sequence[Library]) -> list[Macro]:
    """The memories in libraries.

    Raises
    ------
    ConfigError
        If a library has none, or one has neither one nor two data outputs.
    """
    macros = []
    for library in libraries:
        found = [cell for cell in library.cells.values() if cell.depth]
        if not found:
            raise ConfigError(f"the library {library.name!r} must have a cell with a memory() group, but has none; "
                              f"give standard cells with --liberty and memories with --sram-lib")
        for cell in found:
            ports = sum(pin.output and bool(pin.arcs) for pin in cell.pins.values())
            if ports not in (1, 2):
                raise ConfigError(f"the memory {cell.name} must have one or two data outputs with timing, not {ports}; "
                                  f"leave it out")
            macros.append(Macro(cell=cell, ports=ports))
    return macros


def memory_library(macros: Sequence[Macro]) -> str:
    """Macros in the language of Yosys' ``memory_libmap``; the cost is the area."""
    return "".join(
        f"ram block \\{macro.wrapper} {{\n"
        f"  abits {(macro.cell.depth - 1).bit_length()};\n  width {macro.cell.width};\n"
        f"  cost {max(1, round(macro.cell.area))};\n"
        f"  port srsw {' '.join(f'{chr(34)}{port}{chr(34)}' for port in 'AB'[:macro.ports])} {{\n"
        f"    clock posedge;\n    clken;\n    rdwr no_change;\n  }}\n}}\n" for macro in macros)


def wrappers(macros: Sequence[Macro]) -> str:
    """Verilog of the wrappers: ports, and no inside."""
    parts = []
    for macro in macros:
        address, width = (macro.cell.depth - 1).bit_length(), macro.cell.width
        ports = [line for port in "AB"[:macro.ports] for line in (
            f"input PORT_{port}_CLK", f"input PORT_{port}_CLK_EN", f"input [{address - 1}:0] PORT_{port}_ADDR",
            f"input PORT_{port}_WR_EN", f"input [{width - 1}:0] PORT_{port}_WR_DATA",
            f"output [{width - 1}:0] PORT_{port}_RD_DATA")]
        parts.append("(* blackbox *)\nmodule {} (\n    {}\n);\n  // Put {} here.\nendmodule\n".format(
            macro.wrapper, ",\n    ".join(ports), macro.cell.name))
    return "\n".join(parts)
