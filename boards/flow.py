"""Synthesis, place and route of one design with the open tools, with checks between the steps."""

import dataclasses
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amaranth.hdl import Elaboratable

from ..hw.arch.errors import ToolError
from ..hw.cells.use import cells_verilog
from ..hw.generate import rtlil_text, undefine_collisions
from ..hw.yosys import run_yosys, tool_path
from .devices import Device, get_device
from .netlist import (
    Counts,
    check_capacity,
    check_memories,
    check_multipliers,
    check_no_multiply,
    count_cells,
    netlist_cells,
)

__all__ = ["Routed", "Synthesis", "place_and_route", "route", "synthesize", "synthesize_rtlil"]

ROUTE_TIMEOUT = 4 * 3600
"""Seconds that place and route may take."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthesis:
    """A synthesized design that passed the checks.

    Parameters
    ----------
    device : Device
        What it was mapped to.
    counts : Counts
        Cells of the netlist.
    memories : mapping of str to str
        RAM primitive by memory.
    seconds : float
        Wall-clock time.
    """

    device: Device
    counts: Counts
    memories: Mapping[str, str]
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Routed:
    """A routed design.

    Parameters
    ----------
    mhz : float
        Greatest clock frequency by timing analysis, in MHz.
    target_mhz : float
        What was asked for.
    utilization : mapping of str to (int, int)
        Used and available, by the device's names of its sites.
    critical_path : tuple of str
        The slowest path, element by element, with delays in ns.
    seed : int
        Of the placer.
    seconds : float
        Wall-clock time.
    """

    mhz: float
    target_mhz: float
    utilization: Mapping[str, tuple[int, int]]
    critical_path: tuple[str, ...]
    seed: int
    seconds: float

    @property
    def met(self) -> bool:
        """Whether the clock that was asked for is met."""
        return self.mhz >= self.target_mhz


def synthesize(component: Elaboratable, device: str | Device, *, check: bool = True) -> Counts:
    """Synthesize a component for a device and count its cells; nothing is kept.

    Parameters
    ----------
    component : Elaboratable
        With a signature, whose ports become the top module's.
    device : str or Device
        Name of a device, such as ``"ecp5-85f"`` or ``"up5k"``.
    check : bool
        Refuse multipliers and memories that are not RAM.

    Raises
    ------
    ToolError
        If Yosys is missing or fails, or a check does.
    """
    chosen = get_device(device) if isinstance(device, str) else device
    with tempfile.TemporaryDirectory(prefix="shiftwright-synthesis-") as folder:
        return synthesize_rtlil(rtlil_text(component, name="top"), chosen, Path(folder), check=check).counts


def synthesize_rtlil(text: str, device: Device, folder: Path, *, check: bool = True, spram: bool = False) -> Synthesis:
    """Synthesize RTLIL text with a module ``top`` into ``folder/top.json``.

    Parameters
    ----------
    spram : bool
        Let large memories become single-port RAM (iCE40 UltraPlus).
    """
    started = time.monotonic()
    if check:
        check_no_multiply(text)
    (folder / "top.il").write_text(undefine_collisions(text))
    options = " -spram" if spram and device.spram else ""
    (folder / "cells.v").write_text(cells_verilog("ecp5" if device.family == "ecp5" else "generic"))
    log = _map(f"{device.synth}{options} -top top", folder)
    cells = netlist_cells(folder / "top.json")
    memories: dict[str, str] = {}
    if check:
        check_multipliers(cells, device)
        memories = check_memories(text, log)
    return Synthesis(device=device, counts=count_cells(cells, device), memories=memories,
                     seconds=time.monotonic() - started)


def _map(synth: str, folder: Path) -> str:
    """Map ``folder/top.il`` to the device and write ``top.json``; returns the log.

    Yosys 0.70 can fail an assertion when it takes mapped logic back into a design where several names stand for one
    net. Then a second run drops all of these but one.
    """
    source = "read_rtlil top.il\nread_verilog -defer cells.v\n"
    try:
        return run_yosys(f"{source}{synth} -json top.json\n", folder)
    except ToolError as error:
        if "Assert `" not in str(error):
            raise
    return run_yosys(f"{source}{synth} -run begin:map_luts\nopt_clean -purge\n"
                     f"{synth} -run map_luts: -json top.json\n", folder)


def route(component: Elaboratable, device: str | Device, *, mhz: float, seed: int = 1, check: bool = True,
          spram: bool = False) -> tuple[Synthesis, Routed]:
    """Synthesize a component and route it with pins of the router's choice; nothing is kept.

    Every port bit takes a pin: put a component with more bits than that behind
    :class:`shiftwright.boards.serial.BusOverSerial` or :class:`shiftwright.boards.serial.PortScan`.

    Raises
    ------
    CapacityError
        If the netlist needs more than the device has.
    ToolError
        If a tool is missing or fails, a check fails, or the design can't be placed or routed.
    """
    chosen = get_device(device) if isinstance(device, str) else device
    with tempfile.TemporaryDirectory(prefix="shiftwright-route-") as name:
        folder = Path(name)
        synthesis = synthesize_rtlil(rtlil_text(component, name="top"), chosen, folder, check=check, spram=spram)
        check_capacity(synthesis.counts, chosen)
        (folder / chosen.constraints).write_text(_free_pins(folder / "top.json", chosen))
        return synthesis, place_and_route(chosen, folder, mhz=mhz, seed=seed, free_pins=True)


def place_and_route(device: Device, folder: Path, *, mhz: float, seed: int = 1, free_pins: bool = False) -> Routed:
    """Place and route ``folder/top.json`` with the pins of ``folder/<device.constraints>``.

    The design is finished even when it misses ``mhz``; see :attr:`Routed.met`.

    Raises
    ------
    ToolError
        If the router is missing, or can't place or route the design; the message names what ran out.
    """
    started = time.monotonic()
    _run([tool_path(device.router), *device.router_args, "--json", "top.json", *device.pins_args,
          *device.routed_args, "--report", "routed.json", "--freq", f"{mhz:g}", "--seed", str(seed),
          "--timing-allow-fail", "-q", "--log", "route.log",
          *(device.unconstrained if free_pins else ())], folder, device)
    report = json.loads((folder / "routed.json").read_text())
    clocks: dict[str, Any] = report.get("fmax", {})
    if not clocks:
        raise ToolError(f"{device.router} reports no clock: the design has no path between two flip-flops")
    slowest = min(clocks, key=lambda clock: clocks[clock]["achieved"])
    return Routed(
        mhz=round(clocks[slowest]["achieved"], 2), target_mhz=mhz, seed=seed, seconds=time.monotonic() - started,
        utilization={name: (site["used"], site["available"]) for name, site in report["utilization"].items()
                     if site["used"]},
        critical_path=_critical_path(report.get("critical_paths", []), slowest))


def _free_pins(netlist: Path, device: Device) -> str:
    """Pins for each port bit, clock first; nothing when the router chooses itself."""
    ports = json.loads(netlist.read_text())["modules"]["top"]["ports"] if device.free_pins else {}
    names = sorted((f"{name}[{n}]" if len(port["bits"]) > 1 else name
                    for name, port in ports.items() for n in range(len(port["bits"]))), key=lambda name: name != "clk")
    if len(names) > len(device.free_pins) and names:
        raise ToolError(f"a design of {len(names)} pins can't be routed alone for {device.title}; give it at most "
                        f"{len(device.free_pins)}, behind a serial port or a scan")
    return "".join(f'IO_LOC "{name}" {pin};\n' for name, pin in zip(names, device.free_pins, strict=False))


def pack(device: Device, folder: Path) -> Path:
    """Make the bitstream of a routed design; returns its path."""
    _run([tool_path(device.packer), *device.packer_args], folder, device)
    return folder / device.bitstream


def _critical_path(paths: Sequence[Mapping[str, Any]], clock: str) -> tuple[str, ...]:
    for path in paths:
        # "posedge clk" or "posedge clk$glb": a path from the clock to itself.
        if clock in str(path["from"]) and clock in str(path["to"]):
            return tuple(f"{step['delay']:.2f} {step['type']} " + (
                f"{step['net']}" if step.get("net") else f"{step['to']['cell']}.{step['to'].get('port', '')}")
                for step in path["path"])
    return ()


_SITES = re.compile(r"^Info:\s+(\w+):\s*(\d+)/\s*(\d+)\s+\d+%", re.MULTILINE)


def _run(command: Sequence[str], folder: Path, device: Device) -> None:
    """Run a tool in ``folder``; on failure the message names the sites that ran out, if any."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, cwd=folder, env=dict(os.environ), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", check=False, timeout=ROUTE_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ToolError(f"{name} took more than {ROUTE_TIMEOUT} s; use a smaller design") from None
    except OSError as error:
        raise ToolError(f"{command[0]}: can't run: {error.strerror}; see 'shiftwright doctor'") from None
    if not done.returncode:
        return
    output = done.stdout + done.stderr
    log = folder / "route.log"
    sites = _SITES.findall(log.read_text(errors="replace")) if log.is_file() else []
    over = [f"{used} {site} of {available}" for site, used, available in sites if int(used) > int(available)]
    errors = [line for line in output.splitlines() if line.startswith("ERROR")] or output.strip().splitlines()[-5:]
    if over:
        raise ToolError(f"{name} can't place the design on {device.title}: it needs {', '.join(over)}; "
                        f"use fewer lanes or smaller memories")
    raise ToolError(f"{name} failed (exit code {done.returncode}): " + "\n".join(errors))
