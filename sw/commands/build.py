"""``shiftwright build``: a bitstream, its utilization and its clock."""

from pathlib import Path
from typing import Any

import click

from ..cli import emit

NO_BOARD = "ulx3s-85f"


@click.command("build", short_help="Build a bitstream; report utilization and clock.")
@click.option("--board", default=NO_BOARD, show_default=True, metavar="NAME", help="'shiftwright boards' lists them.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Another accelerator than the board's own.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR",
              help="Folder for the files; created when it does not exist.")
@click.option("--clock", "mhz", type=float, metavar="MHZ",
              help="Clock that timing analysis is to meet. Default: the board's oscillator.")
@click.pass_context
def command(ctx: click.Context, board: str, config: Path | None, output: Path, mhz: float | None) -> None:
    """Build a board's bitstream with the open tools, and check it.

    The accelerator's word bus is behind a four-wire serial port on the board's connector, so that all of its logic is
    kept. The build fails (exit code 3) when the design multiplies, when a memory does not map to RAM, or when the
    design can't be placed or routed; a design that needs more than the device has is wrong input (2). A missed clock is
    reported, and the exit code is 1. The largest boards take minutes. --seed is the placer's.

    \b
    Files:
        BOARD.bit or BOARD.bin   the bitstream
        BOARD.report.json        netlist, memories, utilization, clock, critical path

    \b
    Examples:
        shiftwright build --board ulx3s-85f -o out/ulx3s
        shiftwright build --board icebreaker -o out/icebreaker --clock 16 --json
        shiftwright build --board ulx3s-85f --config small.toml -o out/small
    """
    from ...boards.build import build
    from ...boards.registry import get
    from ...hw.arch.config import AcceleratorConfig
    from ..tools import require, using_tools

    chosen = get(board)
    for tool in ("yosys", chosen.device.router, chosen.device.packer):
        require(tool)
    seed = int((ctx.obj or {}).get("seed", 0))
    with using_tools():
        result = build(chosen, output, config=None if config is None else AcceleratorConfig.from_toml(config), mhz=mhz,
                       seed=seed + 1)
    counts, routed = result.synthesis.counts, result.routed
    report: dict[str, Any] = {
        "bitstream": str(result.bitstream), "report": str(result.report), "device": chosen.device.title,
        "lanes": result.config.name, "lut4": counts.lut4, "carry": counts.carry, "ff": counts.ff, "ram": counts.ram,
        "spram": counts.spram, "multipliers": counts.dsp,
        "utilization": {site: f"{used} of {available} ({used / available:.0%})"
                        for site, (used, available) in routed.utilization.items()},
        "clock": f"{routed.mhz:.2f} MHz, {'meets' if routed.met else 'MISSES'} {routed.target_mhz:g} MHz",
        "critical_path": _ends(routed.critical_path),
        "seconds": round(result.synthesis.seconds + routed.seconds, 1),
    }
    if (ctx.obj or {}).get("json"):
        report |= {"mhz": routed.mhz, "target_mhz": routed.target_mhz, "met": routed.met,
                   "critical_path": list(routed.critical_path)}
    emit(report, title="shiftwright build")
    if not routed.met:
        ctx.exit(1)


def _ends(path: tuple[str, ...]) -> str:
    """First and last element of a path."""
    return f"{path[0]} ... {path[-1]} ({len(path)} steps)" if path else "unknown"
