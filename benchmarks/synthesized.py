"""Synthesized accelerators, kept in ``build/area`` so that the benchmarks of RTL and the area model share them."""

import json
import re
import tempfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from shiftwright.boards.area import UNITS
from shiftwright.boards.devices import Device
from shiftwright.boards.flow import synthesize_rtlil
from shiftwright.boards.netlist import Cell, count_cells, logic_cells, netlist_cells
from shiftwright.boards.serial import AcceleratorOverSerial
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.generate import rtlil_text
from shiftwright.hw.top import AcceleratorOverUart

BUILD = Path(__file__).resolve().parents[1] / "build" / "area"
CLOCK_HZ = 25_000_000
"""Of an accelerator behind a UART."""
RESOURCES = ("lut4", "carry", "ff", "lut_equivalents")
_UNIT = re.compile(r"(?:core\.)?(front|window\d+\.taps|window|lanes|gate|drain|parameters|sequencer|model|link)?")
_NAMES = {"gate": "drain", "window": "banks"}


def unit_of(name: str) -> str:
    """The unit that a cell of a flat netlist belongs to: synthesis names cells after their outputs or inputs."""
    match = _UNIT.match(name)
    found = (match[1] if match else None) or "bus"
    return "taps" if found.endswith(".taps") else _NAMES.get(found, found)


def by_unit(cells: list[Cell], device: Device) -> dict[str, dict[str, int]]:
    """What each unit takes, by resource."""
    parts: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        parts[unit_of(cell.name)].append(cell)
    places: Counter[str] = Counter()
    for name, number in logic_cells(cells, device).items():
        places[unit_of(name)] += number
    result = {}
    for unit in UNITS:
        counts = count_cells(parts[unit], device)
        result[unit] = {"lut4": counts.lut4, "carry": counts.carry, "ff": counts.ff, "lut_equivalents": places[unit]}
    return result


def synthesized(device: Device, config: AcceleratorConfig, *, port: str = "serial",
                keep: bool = False) -> dict[str, Any]:
    """Synthesis of a whole accelerator, kept until the hardware changes.

    Parameters
    ----------
    port : str
        What it is behind, one of :data:`shiftwright.boards.area.PORTS`.
    keep : bool
        Take a kept one also when the hardware has changed since.

    Returns
    -------
    dict
        ``device``, ``family``, ``config``, ``counts``, ``units`` (:func:`by_unit`), ``seconds``, ``rtl`` (a checksum).
    """
    kind = "" if port == "serial" else f"{port}."
    path = BUILD / f"{kind}{re.sub(r'[^a-z0-9_]+', '-', device.synth)}.{config.name}.{config.fingerprint:08x}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    if before and keep:
        return before
    top = AcceleratorOverUart(config, clock_hz=CLOCK_HZ) if port == "uart" else AcceleratorOverSerial(config)
    text = rtlil_text(top, name="top")
    checksum = f"{zlib.crc32(text.encode()):08x}"
    if before.get("rtl") == checksum:
        return before
    with tempfile.TemporaryDirectory(prefix="shiftwright-area-") as name:
        # Its check would refuse flip-flops as memory, of which the model knows, too.
        done = synthesize_rtlil(text, device, Path(name), check=False, spram=config.weight_memory == "spram")
        cells = netlist_cells(Path(name) / "top.json")
    counts = done.counts
    result = {
        "device": device.name, "family": device.family, "config": config.to_dict(), "rtl": checksum,
        "counts": {**{each: getattr(counts, each) for each in (*RESOURCES, "ram", "spram", "dsp")}},
        "units": by_unit(cells, device), "seconds": round(done.seconds, 1),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return result
