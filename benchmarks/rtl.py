"""Area and clock of accelerators and their parts, on the devices of the open tools.

Each case writes ``results/rtl.<device>.<name>.json``:

- ``<lanes_y>x<lanes_x>x<streams>``: a whole accelerator behind a four-wire serial port, where it fits the device by
  estimate. All are synthesized, those of :data:`CLOCKS` also routed. ``estimate_percent`` is the error of the estimate
  (:mod:`shiftwright.boards.area`) in LUT equivalents, ``ram_estimate`` what it says of RAM blocks;
- ``lane``, ``decoder``: parts alone, routed behind shift registers, whose LUTs and flip-flops are subtracted;
- ``port.<name>``: the ports for systems on a chip, likewise;
- ``multiplier``, ``dsp``: the same of a lane that multiplies, in LUTs and in a DSP block.

``lut_equivalents`` is the places of a LUT that the design takes: LUT4 + 2 x CCU2C on ECP5, LUT4 + ALU on Gowin, packed
logic cells on iCE40. A case alone: ``python benchmarks/rtl.py ecp5-85f.4x4x1``. Routing takes minutes.
"""

import argparse
import dataclasses
import functools
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import record
from synthesized import synthesized

from shiftwright.boards.area import estimate
from shiftwright.boards.devices import DEVICES, Device
from shiftwright.boards.fit import fits
from shiftwright.boards.flow import Routed, Synthesis, route, synthesize_rtlil
from shiftwright.boards.multipliers import MultiplierLane
from shiftwright.boards.netlist import Counts, logic_cells, netlist_cells
from shiftwright.boards.registry import get
from shiftwright.boards.serial import AcceleratorOverSerial, PortScan
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.ports import MAPPED_PORTS
from shiftwright.hw.generate import rtlil_text
from shiftwright.hw.ports.top import make_port
from shiftwright.sw.tools import require, using_tools

SEED = 1
SHAPES = (1, 2, 4, 8)
STREAMS = (1, 2, 4)
ICEBREAKER = get("icebreaker").config.changes
CONFIGS: dict[str, dict[str, Any]] = {
    "ecp5-85f": {},
    "ecp5-25f": {"weight_depth": 16384},
    # Narrow enough for 4 x 4 lanes.
    "up5k": {**ICEBREAKER, "act_depth": 512, "acc_width": 18, "max_code_bits": 9},
    "hx8k": {**ICEBREAKER, "weight_memory": "block", "weight_depth": 1024, "dict_depth": 256, "act_depth": 512},
    "gw2a-18": {"weight_depth": 16384},
}
"""What a device's accelerators have other than the default."""
CLOCKS = {
    "ecp5-85f.4x4x1": 100, "ecp5-85f.8x8x1": 90, "ecp5-85f.4x4x4": 90, "ecp5-25f.4x4x1": 100, "up5k.4x4x1": 24,
    "hx8k.4x4x1": 60, "gw2a-18.4x4x1": 60,
}
"""Routed accelerators, and the clock that each is to meet, in MHz."""
PART_CLOCKS = {"ecp5-85f": 200, "up5k": 48, "hx8k": 100}


def _lane(config: AcceleratorConfig) -> Any:
    from shiftwright.hw.lanes import Lane

    return Lane(config)


def _decoder(config: AcceleratorConfig) -> Any:
    from shiftwright.hw.decoder import Decoder

    return Decoder(config, (config.weight_depth - 1).bit_length())


PARTS: dict[str, tuple[Callable[[AcceleratorConfig], Any], str]] = {
    "lane": (_lane, ""), "decoder": (_decoder, ""),
    "multiplier": (MultiplierLane, "nodsp"), "dsp": (MultiplierLane, "dsp"),
    **{f"port.{port}": (functools.partial(make_port, port=port), "") for port in MAPPED_PORTS},
}
"""What is routed alone; whether it multiplies, and in what."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A device with a whole accelerator, or with a part of it."""

    device: Device
    config: AcceleratorConfig
    part: str = ""

    @property
    def name(self) -> str:
        """As in figures: ``<device>.<name>``."""
        return f"{self.device.name}.{self.part or self.config.name}"


def cases() -> Iterator[Case]:
    """All cases, whole accelerators only where they fit."""
    for name, changes in CONFIGS.items():
        device = DEVICES[name]
        for part in PARTS if name in PART_CLOCKS else ():
            if part != "dsp" or device.family == "ecp5":
                yield Case(device=device, config=AcceleratorConfig.from_dict(changes), part=part)
        for lanes, streams in itertools.product(SHAPES, STREAMS):
            shape = {"lanes_y": lanes, "lanes_x": lanes, "streams": streams}
            case = Case(device=device, config=AcceleratorConfig.from_dict({**changes, **shape}))
            if fits(case.config, device) is None or case.name in CLOCKS:
                yield case


def whole(case: Case) -> dict[str, Any]:
    """Synthesize a whole accelerator, and route it if it is to be."""
    config, device = case.config, case.device
    routed: dict[str, Any] = {}
    if case.name in CLOCKS:
        synthesis, done = route(AcceleratorOverSerial(config), device, mhz=CLOCKS[case.name], seed=SEED,
                                spram=config.weight_memory == "spram")
        figures, routed = _figures(synthesis.counts), _routed(synthesis, done)
        figures["mhz"] = done.mhz
    else:
        run = synthesized(device, config)
        figures, routed = {**run["counts"]}, {"units": run["units"], "seconds": {"synthesis": run["seconds"]}}
    area = estimate(config, device, port="serial")
    figures["estimate_percent"] = round(100 * (area.lut_equivalents / figures["lut_equivalents"] - 1), 1)
    figures["ram_estimate"] = area.ram
    return {"figures": figures, "estimate": dataclasses.asdict(area), **routed}


def part(case: Case) -> dict[str, Any]:
    """Route a part alone."""
    make, multiplies = PARTS[case.part]
    device = case.device
    if multiplies == "nodsp" and device.family == "ecp5":
        device = dataclasses.replace(device, synth=f"{device.synth} -nodsp")
    scan = PortScan(make(case.config))
    with tempfile.TemporaryDirectory(prefix="shiftwright-part-") as name:
        synthesize_rtlil(rtlil_text(scan, name="top"), device, Path(name), check=False)
        cells = netlist_cells(Path(name) / "top.json")
    synthesis, done = route(PortScan(make(case.config)), device, mhz=PART_CLOCKS[device.name], seed=SEED,
                            check=not multiplies)
    figures = {**_figures(synthesis.counts), "mhz": done.mhz}
    # On iCE40, the scan's flip-flops may take logic cells: those of inputs do, of outputs where no LUT is before them.
    alone = 0
    if not device.carry_luts:
        places = logic_cells(cells, device)
        alone = scan.inputs + sum(places[cell.name] for cell in cells if cell.kind.startswith(device.registers)
                                  and cell.name.startswith(("taken", "scan_out")))
    figures["ff"] -= scan.extra_ff
    figures["lut4"] -= scan.extra_lut4
    figures["lut_equivalents"] -= scan.extra_lut4 + alone
    return {"figures": figures, "scan": {"lut4": scan.extra_lut4, "ff": scan.extra_ff, "logic_cells": alone},
            **_routed(synthesis, done)}


def _figures(counts: Counts) -> dict[str, Any]:
    names = ("lut4", "carry", "ff", "lut_equivalents", "ram", "spram", "dsp")
    return {name: getattr(counts, name) for name in names}


def _routed(synthesis: Synthesis, routed: Routed) -> dict[str, Any]:
    return {
        "target_mhz": routed.target_mhz, "met": routed.met,
        "utilization": {site: {"used": used, "available": available}
                        for site, (used, available) in routed.utilization.items()},
        "cells": synthesis.counts.cells, "memories": dict(synthesis.memories),
        "critical_path": list(routed.critical_path),
        "seconds": {"synthesis": round(synthesis.seconds, 1), "route": round(routed.seconds, 1)},
    }


def measure(case: Case) -> Path:
    """Measure one case and write its result."""
    result = part(case) if case.part else whole(case)
    path = record.write(f"rtl.{case.name}", {
        **result,
        **record.provenance(SEED, ("shiftwright", "amaranth"),
                            {tool: require(tool).version for tool in ("yosys", case.device.router)}),
        "device": case.device.title, "config": case.config.to_dict(),
    })
    missed = "" if result.get("met", True) else f", MISSED {result['target_mhz']:g} MHz"
    print(f"{path.stem}: {result['figures']}{missed}", flush=True)
    return path


def main() -> int:
    """Measure all cases, or those whose name holds an argument."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="measure only cases whose <device>.<name> holds one of these")
    parser.add_argument("--synthesis", action="store_true", help="only the cases that are not routed")
    parser.add_argument("--list", action="store_true", help="only name the cases")
    options = parser.parse_args()
    failed = 0
    with using_tools():
        for case in cases():
            routed = bool(case.part) or case.name in CLOCKS
            if (options.only and not any(each in case.name for each in options.only)) or (options.synthesis and routed):
                continue
            if options.list:
                print(f"{case.name}{' (routed)' if routed else ''}")
                continue
            try:
                measure(case)
            except Exception as error:  # the other cases are worth their figures
                print(f"rtl.{case.name}: failed: {error}", file=sys.stderr, flush=True)
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
