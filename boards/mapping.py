"""Map a design to standard cells with Yosys and abc."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..hw.arch.errors import ConfigError, ToolError
from ..hw.cells.use import cells_verilog
from ..hw.generate import design_memories, undefine_collisions
from ..hw.yosys import run_yosys
from .liberty import Library
from .sram import Macro, memory_library, wrappers

__all__ = ["STYLES", "Mapped", "Style", "check_initial_values", "map_design"]

CELLS_FF_MAX = 512
"""Bits of the largest memory that becomes flip-flops when there are no macros to compare with."""
LIBMAP_FF_MAX = 8192
"""Bits of the largest memory that may become flip-flops where that is smaller than a macro."""
KEEP = "shiftwright_ram"
_RIPPLE = """\
(* techmap_celltype = "$lcu" *)
module _80_shiftwright_ripple (P, G, CI, CO);
  parameter WIDTH = 2;
  input [WIDTH-1:0] P, G;
  input CI;
  output [WIDTH-1:0] CO;
  assign CO = G | (P & {CO, CI});
endmodule
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """A way to map.

    Parameters
    ----------
    name, title : str
        For machines, for people.
    ripple : bool
        Adders ripple their carries; otherwise they are parallel-prefix (Brent and Kung's).
    script : tuple of str
        abc's commands; ``{D}`` stands for the delay in picoseconds that its logic may take.
    """

    name: str
    title: str
    ripple: bool
    script: tuple[str, ...]


_PREPARE = ("strash", "&get -n", "&fraig -x", "&put", "scorr", "dc2", "strash")
# "stime -d" writes abc's own figures to a file: what it prints is lost where Yosys holds abc.
_SIZE = ("upsize -D {D}", "dnsize -D {D}", "stime -d")
STYLES = (
    Style(name="area", title="ripple carries, mapped for area, sized for the clock", ripple=True,
             script=(*_PREPARE, "dch -f", "amap -m", "topo", "buffer -N 24", *_SIZE)),
    Style(name="speed", title="parallel-prefix adders, mapped for delay", ripple=False,
             script=(*_PREPARE, "&get -n", "&dch -f", "&nf -D {D}", "&put", "buffer", *_SIZE)),
)
"""The smaller first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mapped:
    """A mapped design.

    Parameters
    ----------
    netlist : mapping
        The flat top module of Yosys' JSON.
    verilog : str
        The same netlist.
    stat : str
        What Yosys' ``stat -liberty`` says of it.
    blocks : mapping of str to Counter
        Cell types by first-level block, mapped with the hierarchy kept; the top's own cells under ``""``.
    memories : mapping of str to str
        What each memory became, by hierarchical name: a macro's wrapper, ``"black box"`` or ``"flip-flops"``.
    abc_ns : float
        The longest path of logic by abc, in ns, without flip-flops.
    """

    netlist: Mapping[str, Any]
    verilog: str
    stat: str
    blocks: Mapping[str, Counter[str]]
    memories: Mapping[str, str]
    abc_ns: float

    @property
    def types(self) -> Counter[str]:
        """Cell types of the flat netlist."""
        return Counter(cell["type"] for cell in self.netlist["cells"].values())


def check_initial_values(text: str) -> str:
    """RTLIL text without the initial values of registers; they begin by reset, or may begin with anything.

    Raises
    ------
    ToolError
        If a register without reset begins with something else than zeros, or a memory has contents: on a chip they
        would be lost.
    """
    if "$meminit" in text:
        names = re.findall(r'cell \$meminit\S* [^\n]*\n\s+parameter \\MEMID "\\+([^"]*)"', text)
        raise ToolError(f"a memory of a chip must not have initial contents, but {', '.join(names[:5])} has; "
                        f"let the design write them")
    lost = []
    for module in re.findall(r"^module .*?^end$", text, re.MULTILINE | re.DOTALL):
        for register in re.findall(r"attribute \\init \d+'[01]*1[01]*\n(?:  attribute [^\n]*\n)*  wire [^\n]* (\S+)\n",
                                   module):
            if not _has_reset(module, register):
                lost.append(f"{module.split()[1].removeprefix(chr(92))}.{register.removeprefix(chr(92))}")
    if lost:
        raise ToolError(f"a register of a chip must get its initial value by reset, but {', '.join(lost[:5])} "
                        f"has none; give it one, or let it begin with zeros")
    text = re.sub(r"^  attribute \\init [^\n]*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"(parameter \\INIT_VALUE )(\d+)'[01]+", lambda found: f"{found[1]}{found[2]}'" + "x" * int(found[2]),
                  text)
    if "attribute \\init " in text:
        raise ToolError("the design has initial values that can't be told from resets; report this as a defect")
    return text


def _has_reset(module: str, register: str) -> bool:
    """Whether a register's next value is chosen by the reset in the process that makes it."""
    for found in re.finditer(r"cell \$dff [^\n]*\n(?:    [^\n]*\n)*?    connect \\D (\S+)[^\n]*\n(?:    [^\n]*\n)*?"
                             r"    connect \\Q (\S+)", module):
        if found[2] == register:
            made = re.search(rf"^  process [^\n]*\n(?:(?!^  end$).*\n)*?    assign {re.escape(found[1])} "
                             rf"(?:(?!^  end$).*\n)*?^  end$", module, re.MULTILINE)
            return made is not None and re.search(r"switch \\rst\b", made[0]) is not None
    return True  # not a register's output: the value means nothing


def _mark_memories(text: str, *, macros: bool) -> str:
    """RTLIL text in which the memories that must be RAM are marked; small or unclocked ones may become flip-flops."""
    limit, mark = (LIBMAP_FF_MAX, 'ram_style "block"') if macros else (CELLS_FF_MAX, f"{KEEP} 1")
    keep = set()
    for memory in design_memories(text):
        module = re.search(rf"^module \\{re.escape(memory.module)}\n.*?^end$", text, re.MULTILINE | re.DOTALL)
        reads = re.findall(rf'cell \$memrd_v2 [^\n]*\n    parameter \\MEMID "\\\\{re.escape(memory.name)}"\n'
                           r"(?:    [^\n]*\n)*?    parameter \\CLK_ENABLE (\d)", module[0] if module else "")
        if "0" not in reads and memory.depth * memory.width > limit:
            keep.add((memory.module, memory.name))
    module_name, lines = "", []
    for line in text.splitlines(keepends=True):
        if line.startswith("module "):
            module_name = line.split()[1].removeprefix("\\")
        elif line.startswith("  memory ") and (module_name, line.split()[-1].removeprefix("\\")) in keep:
            lines.append(f"  attribute \\{mark}\n")
        lines.append(line)
    return "".join(lines)


def map_design(text: str, folder: Path, library: Library, style: Style, *, delay_ns: float,
               macros: Sequence[Macro] = (), booth: bool = False, blocks: bool = False) -> Mapped:
    """Map RTLIL text with a module ``top`` to the cells of ``folder/cells.lib``.

    Parameters
    ----------
    library : Library
        What that file holds.
    delay_ns : float
        That logic between registers may take.
    macros : sequence of Macro
        Memories map to these; without them, large ones stay as they are.
    booth : bool
        Multipliers are Booth-encoded.
    blocks : bool
        Map a second time, each first-level block alone.

    Raises
    ------
    ToolError
        If Yosys fails; if a memory fits no macro; see also :func:`check_initial_values`.
    """
    text = _mark_memories(check_initial_values(text), macros=bool(macros))
    (folder / "design.il").write_text(undefine_collisions(text))
    (folder / "generic.v").write_text(cells_verilog())
    (folder / "ripple.v").write_text(_RIPPLE)
    (folder / "macros.txt").write_text(memory_library(macros))
    (folder / "macros.v").write_text(wrappers(macros))
    (folder / "abc.script").write_text("\n".join(style.script).replace("{D}", str(max(1, round(1000 * delay_ns)))))
    driver = library.smallest(lambda a: a, 1)
    if driver is None:
        raise ConfigError(f"the library {library.name!r} must have a buffer, but has none; give standard cells")
    load = 4000 * max(pin.capacitance for pin in driver.pins.values())
    (folder / "abc.constraints").write_text(f"set_driving_cell {driver.name}\nset_load {load:.3f}\n")
    kept = re.findall(r"^module \\(top\.[^.\s]+)$", text, re.MULTILINE) if blocks else []
    log = run_yosys(_script(library, style, macros=bool(macros), booth=booth, blocks=kept), folder)
    netlist = json.loads((folder / "flat.json").read_text())["modules"]["top"]
    found: dict[str, Counter[str]] = {}
    if blocks:
        modules = json.loads((folder / "blocks.json").read_text())["modules"]
        for name, module in modules.items():
            if name == "top" or name.startswith("top."):
                found[name.removeprefix("top").removeprefix(".")] = Counter(
                    cell["type"] for cell in module["cells"].values() if not cell["type"].startswith("top."))
    memories = dict.fromkeys((f"{memory.module}.{memory.name}".removeprefix("top.")
                              for memory in design_memories(text)), "flip-flops")
    memories |= {name.removeprefix("top."): kind for name, kind in _MAPPED.findall(log)}
    memories |= {name: "black box" for name, cell in netlist["cells"].items() if cell["type"] == "$mem_v2"}
    return Mapped(netlist=netlist, blocks=found, memories=memories, verilog=(folder / "flat.v").read_text(),
                  stat=(folder / "stat.txt").read_text(), abc_ns=_abc_delay(folder / "stats.txt"))


_MAPPED = re.compile(r"^mapping memory (\S+) via \\?(\S+)$", re.MULTILINE)


def _script(library: Library, style: Style, *, macros: bool, booth: bool, blocks: Sequence[str]) -> str:
    abc = "abc -liberty cells.lib -constr abc.constraints -script abc.script\nopt_clean -purge\n"
    ties = {value: next(((cell.name, name) for cell in library.cells.values() if cell.usable and len(cell.pins) == 1
                         for name, pin in cell.pins.items() if pin.output and pin.function == value), None)
            for value in "10"}
    tie = "".join(f" -{kind}cell {' '.join(ties[value] or ())}" for kind, value in (("hi", "1"), ("lo", "0"))
                  if ties[value])
    flip_flop = min((cell.area for cell in library.cells.values() if cell.sequential and cell.usable
                     and any(arc.kind == "rising_edge" for pin in cell.pins.values() for arc in pin.arcs)), default=0.0)
    gate = library.smallest(lambda a, b: not (a and b), 2)
    # A bit in flip-flops: it is kept or written, and chosen among the others: about two multiplexers.
    bit = flip_flop + 5 * (gate.area if gate else 0.0)
    adders = "-map ripple.v" if style.ripple else ""
    return f"""\
read_rtlil design.il
read_verilog -defer generic.v
{"read_verilog -lib macros.v" if macros else ""}
hierarchy -check -top top
{f"setattr -mod -set keep_hierarchy 1 {' '.join(blocks)}" if blocks else ""}
synth -flatten -top top -run begin:fine {"-booth" if booth else ""}
opt -fast -mux_undef -undriven -fine
{f"memory_libmap -lib macros.txt -logic-cost-ram {bit:g}" if macros else ""}
memory_map {"" if macros else f"-attr !{KEEP}"}
opt -undriven -fine
techmap -map +/techmap.v {adders}
opt -fast -full
opt_clean
dfflibmap -liberty cells.lib
opt_clean
design -save mapped
{f"{abc}write_json blocks.json" if blocks else ""}
design -load mapped
setattr -mod -unset keep_hierarchy *
flatten
opt -full
{abc}setundef -zero
{f"hilomap -singleton{tie}" if tie else ""}
opt_clean -purge
check
select -assert-none a:init
tee -q -o stat.txt stat -liberty cells.lib
write_json flat.json
rename top accelerator
write_verilog -noattr flat.v
"""


def _abc_delay(path: Path) -> float:
    """The delay of the last line of abc's figures, in ns; 0 when there was no logic."""
    lines = path.read_text().split("\n") if path.exists() else []
    figures = [line.split() for line in lines if len(line.split()) >= 6]
    return int(figures[-1][5]) / 1000 if figures else 0.0
