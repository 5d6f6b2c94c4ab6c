"""Bitstreams of the tuned boards with open tools: size, clock and utilization of each, with its own accelerator.

Each board writes ``results/boards.<name>.json``. ``clock_mhz`` is the clock that the board runs at, ``mhz`` what timing
analysis allows; ``lut_equivalents`` is the places of a LUT that the design takes, UART included, and ``lut_share`` and
``ram_share`` are percent of what the device has. Every build begins in an empty folder. Routing takes minutes.
"""

import argparse
import dataclasses
import sys
import tempfile

import record

from shiftwright.boards.area import estimate
from shiftwright.boards.build import build
from shiftwright.boards.registry import Board, get, names
from shiftwright.hw.arch.errors import ShiftwrightError
from shiftwright.sw.tools import require, using_tools

SEED = 1


def measure(board: Board) -> bool:
    """Build a board and write its result; whether its clock is met."""
    device = board.device
    assert device is not None
    with tempfile.TemporaryDirectory(prefix="shiftwright-board-") as folder:
        result = build(board, folder, seed=SEED)
        size = result.bitstream.stat().st_size
    counts, routed, area = result.synthesis.counts, result.routed, estimate(board.config, device)
    figures = {
        **{name: getattr(counts, name) for name in ("lut4", "carry", "ff", "lut_equivalents", "ram", "spram", "dsp")},
        "lut_share": round(100 * counts.lut_equivalents / device.capacity["lut4"], 1),
        "ram_share": round(100 * counts.ram / device.capacity["ram"], 1),
        "mhz": routed.mhz, "clock_mhz": board.clock_mhz, "lanes": board.config.lanes, "bytes": size,
        "estimate_percent": round(100 * (area.lut_equivalents / counts.lut_equivalents - 1), 1),
    }
    path = record.write(f"boards.{board.name}", {
        "figures": figures, "met": routed.met,
        **record.provenance(SEED, ("shiftwright", "amaranth", "amaranth-boards"),
                            {tool: require(tool).version for tool in ("yosys", device.router, device.packer)}),
        "device": device.title, "config": board.config.to_dict(), "estimate": dataclasses.asdict(area),
        "utilization": {site: {"used": used, "available": available}
                        for site, (used, available) in routed.utilization.items()},
        "memories": dict(result.synthesis.memories), "critical_path": list(routed.critical_path),
        "program": board.program(result.bitstream.name),
        "seconds": {"synthesis": round(result.synthesis.seconds, 1), "route": round(routed.seconds, 1)},
    })
    print(f"{path.stem}: {figures}{'' if routed.met else ', MISSED'}", flush=True)
    return routed.met


def main() -> int:
    """Build all boards, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", metavar="BOARD", help="only these")
    options = parser.parse_args()
    failed = 0
    with using_tools():
        for board in map(get, options.only or names()):
            if board.device is None:
                continue
            try:
                failed += not measure(board)
            except ShiftwrightError as error:
                failed += 1
                print(f"boards.{board.name}: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
