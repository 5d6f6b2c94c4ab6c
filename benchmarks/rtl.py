"""Area and clock of routed designs, for the open FPGA devices.

Writes ``results/rtl.<device>.<name>.json``: the accelerator as <lanes_y>x<lanes_x>x<streams>, its pins being the
four-wire serial port; and the decoder and a lane alone, behind shift registers whose flip-flops are subtracted.
``lut_equivalents`` is lut4 + 2 x carry. One route takes minutes.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record

from shiftwright.boards.devices import get_device
from shiftwright.boards.flow import Routed, Synthesis, route
from shiftwright.boards.registry import get
from shiftwright.boards.serial import AcceleratorOverSerial, PortScan
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sw.tools import require, using_tools

SEED = 1


def accelerator(config: AcceleratorConfig) -> tuple[Any, int]:
    """The whole accelerator and the flip-flops that are only there to route it: none."""
    return AcceleratorOverSerial(config), 0


def decoder(config: AcceleratorConfig) -> tuple[Any, int]:
    """The Huffman decoder alone."""
    from shiftwright.hw.decoder import Decoder

    scan = PortScan(Decoder(config, (config.weight_depth - 1).bit_length()))
    return scan, scan.extra_ff


def lanes(config: AcceleratorConfig) -> tuple[Any, int]:
    """One lane: shift, add, accumulate, drain."""
    from shiftwright.hw.lanes import LaneArray

    scan = PortScan(LaneArray(config.replace(lanes_y=1, lanes_x=1)))
    return scan, scan.extra_ff


Case = tuple[str, str, Callable[[AcceleratorConfig], tuple[Any, int]], AcceleratorConfig, float]
ECP5, UP5K = get("ulx3s-85f").config, get("icebreaker").config
CASES: list[Case] = [
    ("ecp5-85f", "lane", lanes, ECP5, 60),
    ("ecp5-85f", "decoder", decoder, ECP5, 60),
    ("up5k", "lane", lanes, UP5K, 16),
    ("up5k", "decoder", decoder, UP5K, 16),
    ("up5k", UP5K.name, accelerator, UP5K, 16),
    ("ecp5-85f", ECP5.name, accelerator, ECP5, 60),
]


def figures(synthesis: Synthesis, routed: Routed, extra_ff: int) -> dict[str, int | float]:
    """The contract's figures of a routed case."""
    counts = synthesis.counts
    return {"lut4": counts.lut4, "carry": counts.carry, "ff": counts.ff - extra_ff, "ram": counts.ram,
            "spram": counts.spram, "dsp": counts.dsp, "mhz": routed.mhz, "lut_equivalents": counts.lut_equivalents}


def measure(case: Case) -> Path:
    """Route one case and write its result."""
    device, name, make, config, mhz = case
    component, extra_ff = make(config)
    synthesis, routed = route(component, device, mhz=mhz, seed=SEED, spram=config.weight_memory == "spram")
    chosen = get_device(device)
    result = {
        "figures": figures(synthesis, routed, extra_ff),
        **record.provenance(SEED, ("shiftwright", "amaranth"),
                            {tool: require(tool).version for tool in ("yosys", chosen.router)}),
        "device": chosen.title,
        "config": config.to_dict(),
        "target_mhz": mhz,
        "met": routed.met,
        "utilization": {site: {"used": used, "available": available}
                        for site, (used, available) in routed.utilization.items()},
        "cells": synthesis.counts.cells,
        "memories": dict(synthesis.memories),
        "critical_path": list(routed.critical_path),
        "seconds": {"synthesis": round(synthesis.seconds, 1), "route": round(routed.seconds, 1)},
    }
    path = record.write(f"rtl.{device}.{name}", result)
    print(f"{path.stem}: {result['figures']}, target {mhz:g} MHz {'met' if routed.met else 'MISSED'}", flush=True)
    return path


def main() -> int:
    """Measure all cases, or those whose name holds an argument."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="measure only cases whose <device>.<name> holds one of these")
    chosen = parser.parse_args().only
    failed = 0
    with using_tools():
        for case in CASES:
            name = f"{case[0]}.{case[1]}"
            if chosen and not any(part in name for part in chosen):
                continue
            try:
                measure(case)
            except Exception as error:  # the other cases are worth their figures
                print(f"rtl.{name}: failed: {error}", file=sys.stderr, flush=True)
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
