"""Area and clock of accelerators in standard cells, and of their lanes beside multipliers.

Writes ``results/asic.<name>.<lanes_y>x<lanes_x>x<streams>.json``: the default accelerator in several shapes, memories
excluded; and, with ``--sram-lib``, ``results/asic.<name>.macros.json``: 4x4x1 with its memories in macros. Areas are in
the library's unit. The library is given: a foundry's are rarely free, IHP's open SG13G2 is.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import record

from shiftwright.boards.asic import AsicResult, build_asic
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.yosys import tool_path, yosys_version
from shiftwright.sw.tools import require, using_tools

SHAPES = ((1, 1, 1), (2, 2, 1), (4, 4, 1), (8, 8, 1), (4, 4, 4))
MHZ = 100.0


def figures(result: AsicResult) -> dict[str, Any]:
    """The numbers of a mapped accelerator."""
    area, arrays = result.report["area"], result.report["arrays"]
    return {
        "cell_area": area["cells"], "flip_flop_area": area["flip_flops"], "macro_area": area["macros"],
        "gate_equivalents": area["gate_equivalents"], "memory_bits": area["memory_bits"],
        "mhz": round(result.path.mhz, 1), "abc_logic_ns": result.report["clock"]["abc_logic_ns"],
        "lanes_percent": round(100 * sum(share for name, share in result.blocks.items() if "lanes" in name), 1),
        "lanes_area": arrays["shift_area"], "multipliers_area": arrays["multiplier_area"], "ratio": arrays["ratio"],
        "logic_ratio": arrays["logic_ratio"],
        "ratio_to": {name.split()[0].lower().replace("-", "_"): round(arrays["shift_area"] / other, 3)
                     for name, other in arrays["multiplier_areas"].items()},
        "lanes_mhz": arrays["shift_mhz"], "multipliers_mhz": arrays["multiplier_mhz"],
    }


def main() -> None:
    """Map every case and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--liberty", type=Path, required=True, metavar="FILE.lib", help="standard cells")
    parser.add_argument("--sram-lib", type=Path, nargs="*", default=(), metavar="FILE.lib", help="SRAM macros")
    parser.add_argument("--name", default="sg13g2", help="of the library, in the names of the results")
    parser.add_argument("--only", metavar="CASE", help="4x4x1, ..., macros")
    arguments = parser.parse_args()
    require("yosys")
    cases: dict[str, tuple[AcceleratorConfig, tuple[Path, ...]]] = {}
    for lanes_y, lanes_x, streams in SHAPES:
        config = AcceleratorConfig(lanes_y=lanes_y, lanes_x=lanes_x, streams=streams)
        cases[config.name] = config, ()
    if arguments.sram_lib:
        cases["macros"] = AcceleratorConfig(), tuple(arguments.sram_lib)
    for case, (config, sram) in cases.items():
        if arguments.only not in (None, case):
            continue
        with using_tools(), tempfile.TemporaryDirectory(prefix="shiftwright-bench-") as folder:
            result = build_asic(config, arguments.liberty, folder, sram=sram, mhz=MHZ)
            tools = {"yosys": yosys_version(tool_path("yosys")).removeprefix("yosys ")}
        key = f"asic.{arguments.name}.{case}"
        # Yosys maps without chance: there is no seed.
        record.write(key, {**record.provenance(0, ("shiftwright", "amaranth"), tools), "figures": figures(result),
                           "report": result.report, "seconds": round(result.seconds, 1)})
        print(key, figures(result), flush=True)


if __name__ == "__main__":
    main()
