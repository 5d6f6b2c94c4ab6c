"""``shiftwright build``: a bitstream, or a netlist of standard cells, with area and clock."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..cli import emit
from ._describe import configuration, emit_with_layers

if TYPE_CHECKING:
    from ...hw.arch.config import AcceleratorConfig

NO_BOARD = "ulx3s-85f"
ASIC_MHZ = 100.0


@click.command("build", short_help="Build a bitstream, or map to standard cells; report area and clock.")
@click.option("--board", default=NO_BOARD, show_default=True, metavar="NAME", help="'shiftwright boards' lists them.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Another accelerator than the board's own.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR",
              help="Folder for the files; created when it does not exist.")
@click.option("--clock", "mhz", type=float, metavar="MHZ",
              help=f"The accelerator's clock, which the board's phase-locked loop makes. Default: the board's; "
                   f"{ASIC_MHZ:g} with --liberty.")
@click.option("--liberty", type=click.Path(path_type=Path), metavar="FILE.lib",
              help="Map to these standard cells instead of building for a board.")
@click.option("--sram-lib", "sram", type=click.Path(path_type=Path), multiple=True, metavar="FILE.lib",
              help="SRAM macros for the memories, with --liberty; may be given several times.")
@click.pass_context
def command(ctx: click.Context, board: str, config: Path | None, output: Path, mhz: float | None,
            liberty: Path | None, sram: tuple[Path, ...]) -> None:
    """Build a board's bitstream with the open tools, and check it.

    The accelerator is behind a UART on the board's own pins, ready for 'shiftwright load'; the last line is the command
    that puts the bitstream on the board (openFPGALoader is the user's). A board is one of 'shiftwright boards --all',
    or module:Name, an Amaranth platform with a UART.

    The build fails (exit code 3) when the design multiplies, when a memory does not map to RAM, or when the design
    can't be placed or routed; a design that needs more than the device has is wrong input (2). A missed clock is
    reported, and the exit code is 1. The largest boards take minutes. --seed is the placer's.

    With --liberty, the accelerator is mapped to standard cells by Yosys and abc, and its memories to the macros of
    --sram-lib, or counted in bits without. The report has the areas, the share of each block, the slowest path with
    what the estimate assumes, and the same number of 8-bit multiplier-accumulators beside the lanes. A design that
    depends on initial values fails (3). The accelerator is that of --config, of --board, or the default one.

    \b
    Files:
        BOARD.bit, .bin or .fs     the bitstream
        BOARD.report.json          netlist, memories, utilization, clock, critical path
        accelerator.netlist.v      with --liberty: the cells; accelerator.sram.v: wrappers of the macros
        accelerator.report.json    areas, blocks, memories, clock; accelerator.stat.txt: cells by type

    \b
    Examples:
        shiftwright build --board ulx3s-85f -o out/ulx3s
        shiftwright build --board icebreaker -o out/icebreaker --clock 18 --json
        shiftwright build --board amaranth_boards.icesugar:ICESugarPlatform -o out/icesugar
        shiftwright build --board ulx3s-85f --config small.toml -o out/small
        shiftwright build --liberty cells.lib --sram-lib ram1.lib --sram-lib ram2.lib -o out/chip --clock 150
    """
    if liberty is not None:
        named = ctx.get_parameter_source("board") is not click.core.ParameterSource.DEFAULT
        _chip(ctx, configuration(board if named else None, config), output, ASIC_MHZ if mhz is None else mhz,
              liberty, sram)
        return
    if sram:
        raise click.UsageError("--sram-lib needs --liberty: macros are for chips, a board has memories of its own")
    from ...boards.build import bitstream_device, build
    from ...boards.registry import get
    from ...hw.arch.config import AcceleratorConfig
    from ..tools import require, using_tools

    chosen = get(board)
    device = bitstream_device(chosen)
    for tool in ("yosys", device.router, device.packer):
        require(tool)
    seed = int((ctx.obj or {}).get("seed", 0))
    with using_tools():
        result = build(chosen, output, config=None if config is None else AcceleratorConfig.from_toml(config), mhz=mhz,
                       seed=seed + 1)
    counts, routed = result.synthesis.counts, result.routed
    report: dict[str, Any] = {
        "bitstream": str(result.bitstream), "report": str(result.report), "device": device.title,
        "lanes": result.config.name, "lut4": counts.lut4, "carry": counts.carry, "ff": counts.ff, "ram": counts.ram,
        "spram": counts.spram, "multipliers": counts.dsp,
        "utilization": {site: f"{used} of {available} ({used / available:.0%})"
                        for site, (used, available) in routed.utilization.items()},
        "clock": f"{routed.mhz:.2f} MHz, {'meets' if routed.met else 'MISSES'} {routed.target_mhz:g} MHz",
        "critical_path": _ends(routed.critical_path),
        "seconds": round(result.synthesis.seconds + routed.seconds, 1), "uart": chosen.serial,
        "program": result.program or "openFPGALoader does not know this board: use its own programmer",
    }
    if (ctx.obj or {}).get("json"):
        report |= {"program": result.program, "mhz": routed.mhz, "target_mhz": routed.target_mhz, "met": routed.met,
                   "critical_path": list(routed.critical_path)}
    emit(report, title="shiftwright build")
    if not routed.met:
        ctx.exit(1)


def _chip(ctx: click.Context, config: "AcceleratorConfig", output: Path, mhz: float, liberty: Path,
          sram: tuple[Path, ...]) -> None:
    """Map to standard cells and print what came of it."""
    from ...boards.asic import build_asic
    from ..tools import require, using_tools

    require("yosys")
    with using_tools():
        result = build_asic(config, liberty, output, sram=sram, mhz=mhz)
    report, path = result.report, result.path
    area, clock, arrays = report["area"], report["clock"], report["arrays"]
    shown: dict[str, Any] = {
        "library": f"{report['library']['name']} ({report['library']['conditions']})", "lanes": config.name,
        "cell_area": area["cells"], "of_it_flip_flops": area["flip_flops"], "macro_area": area["macros"],
        "gate_equivalents": f"{area['gate_equivalents']} ({area['gate']}, {area['gate_area']:g})",
        "memories": f"{area['memory_bits']} bits in {len(report['memories'])} memories",
        "clock": f"{path.mhz:.1f} MHz, {'meets' if result.met else 'MISSES'} {mhz:g} MHz",
        "critical_path": _ends(path.steps), "abc_logic": f"{clock['abc_logic_ns']:g} ns",
        "lanes_to_multipliers": f"{arrays['ratio']:g} ({arrays['shift_area']:g} to {arrays['multiplier_area']:g}, "
                                f"{arrays['multiplier']} multipliers)",
        "assumptions": "; ".join(clock["assumptions"]), "files": ", ".join(str(file) for file in result.files),
        "seconds": round(result.seconds, 1),
    }
    if (ctx.obj or {}).get("json"):
        shown = {**report, "files": [str(file) for file in result.files], "seconds": round(result.seconds, 1)}
        emit(shown)
    else:
        emit_with_layers(shown, [{**block, "share": f"{block['share']:.1%}"} for block in report["blocks"]],
                         title="shiftwright build", layers_title="Blocks")
    if not result.met:
        ctx.exit(1)


def _ends(path: tuple[str, ...]) -> str:
    """First and last element of a path."""
    return f"{path[0]} ... {path[-1]} ({len(path)} steps)" if path else "unknown"
