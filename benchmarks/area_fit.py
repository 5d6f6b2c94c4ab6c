"""Fit the area model of ``boards/area.py``: synthesize accelerators that differ in a few things each, then find what a
unit's size is a function of.

A unit's coefficients are the least squares that are not negative, over all synthesized accelerators of a family, every
one weighted by the inverse of its size. Writes ``boards/area.json`` and ``results/area.<family>.json``, whose figures
are the errors of the whole; those of ``held_out`` accelerators are of a fit that has not seen them. Synthesis takes
about half a minute for each of the accelerators of :data:`SAMPLES`; it is kept in ``build/area``. The area of a board's
link, behind which these accelerators are not, is that of one more; ``--link`` measures it alone.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import record
from scipy.optimize import nnls
from synthesized import BUILD, synthesized

from shiftwright.boards.area import LOGIC, UNITS, features, rams
from shiftwright.boards.devices import DEVICES, Device
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import DataError
from shiftwright.hw.arch.files import write_atomically
from shiftwright.sw.tools import require, using_tools

TABLE = Path(__file__).resolve().parents[1] / "boards" / "area.json"
REFERENCE = {"ecp5": "ecp5-85f", "ice40": "hx8k", "gowin": "gw2a-18"}
"""The device whose netlists stand for its family's."""
SPRAM_DEVICE = "up5k"
ICE40_LANES = 16
"""More lanes than the largest iCE40 device holds."""

LEAN = {"interleave": 1, "shadow_chain": True, "counters": False, "row_depth": 512, "act_depth": 512, "acc_width": 20,
        "max_code_bits": 9, "map_bits": 6, "positions": 32, "weight_depth": 16384}
ONE: dict[str, object] = {"lanes_y": 1, "lanes_x": 1}
TWO: dict[str, object] = {"lanes_y": 2, "lanes_x": 2}
SAMPLES: tuple[dict[str, object], ...] = (
    ONE,
    {},
    {**ONE, **LEAN},
    {**ONE, "streams": 4},
    {**TWO, **LEAN, "streams": 2},
    {"lanes_y": 4, "lanes_x": 1, "interleave": 2},
    {"lanes_y": 1, "lanes_x": 4, "counters": False, "max_code_bits": 15},
    {**TWO, "acc_width": 32, "max_shift": 15, "act_bits": 4},
    {**TWO, "weight_depth": 131072, "map_bits": 12, "act_depth": 8192, "positions": 512, "row_depth": 8192},
    {**LEAN},
    {**TWO, "guard_bits": 0, "shadow_chain": True, "max_code_bits": 9},
    {**TWO, "streams": 3, "interleave": 2, "max_shift": 3, "dict_depth": 1024},
    {"lanes_y": 2, "lanes_x": 8, "streams": 2},
    {"lanes_y": 8, "lanes_x": 8},
    {**ONE, **LEAN, "weight_depth": 65536, "weight_memory": "spram"},
    {**LEAN, "max_code_bits": 12, "map_bits": 8, "positions": 128, "weight_depth": 65536, "weight_memory": "spram"},
)
"""What differs from the default configuration. Those with single-port RAM are for the iCE40 UltraPlus alone."""


def coefficients(runs: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Least squares that are not negative, by unit and resource."""
    rows = [features(AcceleratorConfig.from_dict(run["config"])) for run in runs]
    weights = np.array([1 / run["counts"]["lut_equivalents"] for run in runs])
    found: dict[str, dict[str, list[float]]] = {}
    for unit in UNITS:
        matrix = np.array([row[unit] for row in rows], dtype=float)
        # Of features that the runs do not tell apart, the small ones are to be preferred: a little damping.
        scale = np.maximum(1e-9, np.abs(matrix).max(axis=0))
        damped = np.vstack([matrix / scale * weights[:, None], np.eye(len(scale)) * 1e-6])
        found[unit] = {}
        for resource in LOGIC:
            wanted = np.array([run["units"][unit][resource] for run in runs]) * weights
            solution, _ = nnls(damped, np.concatenate([wanted, np.zeros(len(scale))]))
            found[unit][resource] = [float(f"{value:.5g}") for value in solution / scale]
    return found


def whole(table: dict[str, dict[str, list[float]]], config: AcceleratorConfig, resource: str) -> float:
    """A resource of a whole accelerator by coefficients."""
    return sum(float(np.dot(table[unit][resource], values)) for unit, values in features(config).items())


def errors(runs: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Errors in percent, of the fit to all runs and of each run by a fit to the others: figures, and by run."""
    fitted = coefficients(runs)
    figures: dict[str, Any] = {"samples": len(runs)}
    found: list[dict[str, Any]] = []
    for n, run in enumerate(runs):
        config = AcceleratorConfig.from_dict(run["config"])
        others = coefficients(runs[:n] + runs[n + 1:])
        blocks = rams(config, DEVICES[run["device"]], port="serial")
        found.append({"config": config.changes, "counts": run["counts"], "ram_estimate": blocks[0],
                      **{name: {resource: round(100 * (whole(table, config, resource) / run["counts"][resource] - 1), 1)
                                for resource in LOGIC} for name, table in (("fit", fitted), ("held_out", others))}})
    for resource in LOGIC:
        figures[resource] = {
            "worst_percent": max(abs(each["fit"][resource]) for each in found),
            "held_out_median_percent": round(float(np.median([abs(each["held_out"][resource]) for each in found])), 1)}
    figures["ram_wrong"] = sum(each["ram_estimate"] != each["counts"]["ram"] for each in found)
    return figures, found


def link(device: Device) -> dict[str, list[float]]:
    """What the link of a UART takes, by resource."""
    run = synthesized(device, AcceleratorConfig.from_dict({**ONE, **LEAN}), port="uart")
    return {resource: [float(run["units"]["link"][resource])] for resource in LOGIC}


def write_table(table: dict[str, Any]) -> None:
    """Write the coefficients."""
    write_atomically(TABLE, (json.dumps(table, indent=1) + "\n").encode(), DataError)


def main() -> int:
    """Synthesize what is missing, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(REFERENCE)}; all by default")
    parser.add_argument("--keep", action="store_true", help="take what is in build/area, whatever hardware it is of, "
                                                            "and synthesize nothing")
    parser.add_argument("--link", action="store_true", help="only measure the link of the UART")
    options = parser.parse_args()
    chosen = options.families or list(REFERENCE)
    table: dict[str, Any] = json.loads(TABLE.read_text()) if TABLE.exists() else {"families": {}}
    with using_tools():
        versions = {"yosys": require("yosys").version}
        for family in () if options.keep else chosen:
            table.setdefault("uart", {})[family] = link(DEVICES[REFERENCE[family]])
            print(family, "link", table["uart"][family], flush=True)
        if options.link:
            write_table(table)
            return 0
        runs: dict[str, list[dict[str, Any]]] = {family: [] for family in chosen}
        for sample in () if options.keep else SAMPLES:
            for family in chosen:
                device = DEVICES[SPRAM_DEVICE if "weight_memory" in sample else REFERENCE[family]]
                config = AcceleratorConfig.from_dict(sample)
                if device.family != family or (family == "ice40" and config.lanes * config.streams > ICE40_LANES):
                    continue
                run = synthesized(device, config)
                print(family, sample, run["counts"], f"{run['seconds']} s", flush=True)
                runs[family].append(run)
    for family in chosen:
        if options.keep:
            kept = [json.loads(path.read_text()) for path in sorted(BUILD.glob("*.json"))]
            runs[family] = [run for run in kept if run["family"] == family]
        table["families"][family] = coefficients(runs[family])
        write_table({**table, "versions": versions})
        figures, found = errors(runs[family])
        print(family, json.dumps(figures), flush=True)
        record.write(f"area.{family}", {
            "figures": figures, **record.provenance(0, ("shiftwright", "amaranth", "scipy"), versions),
            "device": DEVICES[REFERENCE[family]].title,
            "runs": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
