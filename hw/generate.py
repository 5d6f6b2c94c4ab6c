"""Write a design as Verilog, with a manifest that says what it is and how it was made.

The same design and the same Yosys give the same bytes: no date, no path and no hash order gets into the files.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable
from amaranth.lib import wiring

from .arch.config import AcceleratorConfig
from .arch.errors import ConfigError, ToolError
from .arch.ports import MAPPED_PORTS, address_map
from .cells.use import cells_verilog
from .yosys import run_yosys, tool_path, yosys_version

__all__ = ["CLOCK", "MemoryInfo", "WAIVERS", "accelerator", "design_memories", "generate", "rtlil_text",
           "strip_zero_contents", "to_verilog", "tool_versions", "undefine_collisions", "verilog", "write_files"]

WAIVERS = """\
`verilator_config
// What "verilator --lint-only -Wall" says of machine-written Verilog and why it is no fault here.
// Yosys writes all modules into one file, named after the top one.
lint_off -rule DECLFILENAME
// Amaranth computes sums and shifts one bit wider than the register that takes them: the carry is dropped on purpose.
// Named signals that only rename another one are kept for the reader of waveforms.
lint_off -rule UNUSEDSIGNAL
// "x == 0" becomes "!x", and constants are written in as few bits as they need: widths differ, values do not.
lint_off -rule WIDTHTRUNC
lint_off -rule WIDTHEXPAND
// FPGA registers have a power-up value, and a process that writes them: that is what an initial value means.
lint_off -rule PROCASSINIT
// A case without a default follows an assignment of the default in the same process.
lint_off -rule CASEINCOMPLETE
// Units of one lane have signals of no bits, and comparisons with the only value there is.
lint_off -rule ASCRANGE
lint_off -rule CMPCONST
// Cases are tried in order; a later one that overlaps is the lower priority.
lint_off -rule CASEOVERLAP
"""
CLOCK = {"clock": "clk", "reset": "rst", "edge": "rising", "reset_kind": "synchronous, active high"}
"""Of a design that does not say otherwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryInfo:
    """A memory of a design, before synthesis.

    Parameters
    ----------
    module : str
        Module that it is in.
    name : str
        Its name there.
    width, depth : int
        Bits a word, words.
    """

    module: str
    name: str
    width: int
    depth: int


def accelerator(config: AcceleratorConfig) -> wiring.Component:
    """The accelerator of a configuration, a fresh Amaranth component."""
    from .core import Accelerator

    component: wiring.Component = Accelerator(config)
    return component


def rtlil_text(component: Elaboratable, *, name: str = "top") -> str:
    """A component as RTLIL, without memory contents that are all zero.

    Amaranth gives every memory an initial content. That would cost a line of Verilog a word, and no RAM without
    initialization (iCE40's SPRAM) could hold it. A design must therefore not count on a memory being zero at power-up;
    contents that are not all zero are kept.
    """
    try:
        text: str = rtlil.convert(component, name=name, emit_src=False)
    except RecursionError:
        raise ConfigError(f"{name}: the design is nested too deeply to be written as RTLIL") from None
    return strip_zero_contents(text)


def strip_zero_contents(text: str) -> str:
    """RTLIL text without memory contents that are all zero."""
    return _ZERO_CONTENT.sub("\n", text)


def undefine_collisions(text: str) -> str:
    """RTLIL text in which a word that is read and written in one cycle reads as undefined.

    No unit uses such data. Otherwise synthesis would build comparators around RAMs to give the old word.
    """
    return _COLLISION.sub(lambda found: found[1] + "1" * len(found[2]), text)


# Read ports with a clock.
_COLLISION = re.compile(
    r"(parameter \\COLLISION_X_MASK \d+')(0+)(?=\n(?:    parameter [^\n]*\n)*    parameter \\CLK_ENABLE 1\n)")
_ZERO_CONTENT = re.compile(
    r"\n  cell \$meminit_v2 [^\n]*\n(?:    [^\n]*\n)*?    connect \\DATA \d+'0+\n(?:    [^\n]*\n)*  end\n")


def verilog(component: Elaboratable, *, name: str = "top", strict: bool = False) -> str:
    """A component as Verilog text.

    Parameters
    ----------
    component : Elaboratable
        With a signature; its flattened ports (joined by ``__``), ``clk`` and ``rst`` are the top module's ports.
    name : str
        Of the top module.
    strict : bool
        For simulation: see :func:`undefine_collisions`.

    Returns
    -------
    str
        All modules; the top one is called ``name``, the others ``name.<instance path>``.

    Raises
    ------
    ToolError
        If Yosys is missing or fails.
    """
    text = rtlil_text(component, name=name)
    return to_verilog(undefine_collisions(text) if strict else text)


def design_memories(text: str) -> list[MemoryInfo]:
    """The memories in RTLIL text, in its order."""
    memories, module = [], ""
    for line in text.splitlines():
        if line.startswith("module "):
            module = line.split()[1].removeprefix("\\")
        elif line.startswith("  memory "):
            words = line.split()
            memories.append(MemoryInfo(module=module, name=words[-1].removeprefix("\\"),
                                       width=int(words[words.index("width") + 1]),
                                       depth=int(words[words.index("size") + 1])))
    return memories


def generate(source: AcceleratorConfig | wiring.Component, directory: str | Path, *, name: str = "accelerator",
             port: str = "word", clock_hz: int | None = None, board: str = "") -> dict[str, object]:
    """Write ``<name>.v``, ``<name>.vlt`` (lint waivers) and ``<name>.json`` (the manifest) into ``directory``.

    With a port of byte addresses there is ``shiftwright.h`` as well, for the firmware.

    Parameters
    ----------
    source : AcceleratorConfig or wiring.Component
        A configuration stands for its accelerator with a port. Of a component, the attributes ``config`` and ``clock``
        go into the manifest.
    directory : path
        Created when it does not exist. Each file is written whole or not at all, the manifest last.
    name : str
        Of the files and of the top module.
    port, clock_hz, board
        Of the accelerator of a configuration (:func:`~shiftwright.hw.ports.top.accelerator_with_port`).

    Returns
    -------
    dict
        The manifest: ``name``, ``config``, ``fingerprint``, ``clock``, ``port``, ``address_map`` (both null for another
        component, the latter for ``uart`` as well), ``ports``, ``memories``, ``files`` (SHA-256 of each) and ``tools``.

    Raises
    ------
    ConfigError
        If ``name`` is no Verilog identifier, or there is no such port.
    ToolError
        If Yosys is missing or fails, or ``directory`` can't be written.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigError(f"the name of the top module must be a Verilog identifier, not {name!r}")
    component, offered, config = source, None, getattr(source, "config", None)
    if isinstance(source, AcceleratorConfig):
        from .ports.top import accelerator_with_port

        component, offered, config = accelerator_with_port(source, port, clock_hz=clock_hz, board=board), port, source
    text = rtlil_text(component, name=name)
    files = {f"{name}.v": to_verilog(text), f"{name}.vlt": WAIVERS}
    if isinstance(source, AcceleratorConfig) and port in MAPPED_PORTS:
        from .ports.header import HEADER_FILE, c_header

        files[HEADER_FILE] = c_header(source)
    manifest: dict[str, object] = {
        "name": name,
        "config": config.to_dict() if isinstance(config, AcceleratorConfig) else None,
        "fingerprint": f"{config.fingerprint:08x}" if isinstance(config, AcceleratorConfig) else None,
        "clock": getattr(component, "clock", CLOCK),
        "port": offered,
        "address_map": _address_map(source, port) if isinstance(source, AcceleratorConfig) else None,
        "ports": _ports(component),
        "memories": [dataclasses.asdict(memory) for memory in design_memories(text)],
        "files": {file: hashlib.sha256(content.encode()).hexdigest() for file, content in files.items()},
        "tools": tool_versions(),
    }
    files[f"{name}.json"] = json.dumps(manifest, indent=2) + "\n"
    write_files(Path(directory), files)
    return manifest


def tool_versions() -> dict[str, str]:
    """What a generated file depends on besides its source."""
    return {"shiftwright": importlib.metadata.version("shiftwright"),
            "amaranth": importlib.metadata.version("amaranth"),
            "yosys": yosys_version(tool_path("yosys")).removeprefix("yosys ")}


def to_verilog(text: str) -> str:
    """RTLIL text as Verilog, with the cells that it uses."""
    strip = " ".join(f"-remove {attribute}" for attribute in
                     ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding"))
    # "proc" without its mux and ROM steps keeps Amaranth's case statements; memories become arrays.
    script = (f"read_rtlil design.il\nproc -nomux -norom\nmemory_collect\nopt_clean\nattrmap {strip}\n"
              f"attrmap -modattr {strip}\nwrite_verilog -norename design.v\n")
    with tempfile.TemporaryDirectory(prefix="shiftwright-verilog-") as folder:
        path = Path(folder)
        (path / "design.il").write_text(text)
        run_yosys(script, path)
        lines = (path / "design.v").read_text().splitlines()
    tool = yosys_version(tool_path("yosys"))
    head = f"// Generated by Shiftwright {importlib.metadata.version('shiftwright')} ({tool}). Do not edit."
    return "\n".join([head, *lines[1:]]) + "\n" + (f"\n{cells_verilog()}" if "SHIFTWRIGHT_" in text else "")


def _address_map(config: AcceleratorConfig, port: str) -> dict[str, object] | None:
    if port == "uart":
        return None
    mapped = port in MAPPED_PORTS
    return {"unit": "byte" if mapped else "16-bit word",
            "parts": [dataclasses.asdict(part) for part in address_map(config, mapped=mapped)]}


def _ports(component: wiring.Component) -> list[dict[str, object]]:
    ports: list[dict[str, object]] = []
    for path, member, value in component.signature.flatten(component):
        if member.flow == wiring.In:
            direction = "input"
        else:
            direction = "output"
        ports.append({"name": "__".join(map(str, path)), "direction": direction, "width": len(value)})
    return ports


def write_files(directory: Path, files: dict[str, str]) -> None:
    """Write files by name into ``directory``, each whole or not at all, in their order."""
    partial = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        partial = tempfile.mkdtemp(dir=directory, prefix=".writing-")
        for file, content in files.items():
            Path(partial, file).write_text(content)
        for file in files:
            os.replace(Path(partial, file), directory / file)
    except OSError as error:
        raise ToolError(f"{directory}: can't write: {error.strerror}") from None
    finally:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)
