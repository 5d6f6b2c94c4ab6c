"""``shiftwright boards``: what can be built for, and what fits."""

from pathlib import Path
from typing import Any

import click

from ..cli import emit
from ._describe import print_table


@click.command("boards", short_help="List the boards; tell what fits.")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Also every other platform of amaranth-boards with a UART.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Tell whether this accelerator fits, in place of the board's own.")
@click.pass_context
def command(ctx: click.Context, name: str | None, everything: bool, config: Path | None) -> None:
    """List the boards, or describe the board NAME: device, clock, UART, programmer, accelerator and what that takes.

    LUTs and RAM are estimated, in milliseconds and without synthesis: RAM blocks exactly, logic within a tenth. What
    does not fit is told with the first resource that is exceeded and the nearest configuration that fits. The list has
    words of model memory, activations that the maps may have, lanes, the most lanes that would fit with the same
    depths, clock, and the board's name for openFPGALoader (-b).

    NAME may also be one of --all, or module:Name, an Amaranth platform with a UART.

    \b
    Examples:
        shiftwright boards
        shiftwright boards --all
        shiftwright boards ulx3s-85f
        shiftwright boards --config large.toml
        shiftwright boards --json
    """
    from ...boards import registry
    from ...hw.arch.config import AcceleratorConfig

    wanted = None if config is None else AcceleratorConfig.from_toml(config)
    if name is not None:
        emit(_describe(registry.get(name), wanted), title=f"shiftwright boards {name}")
        return
    if everything:
        _platforms(ctx)
        return
    found = [registry.get(each) for each in registry.names()]
    if (ctx.obj or {}).get("json"):
        emit({board.name: _describe(board, wanted) for board in found})
        return
    if wanted is not None:
        emit({board.name: _fit(board, wanted) for board in found}, title=f"shiftwright boards, {_summary(wanted)}")
        return
    print_table([_row(board) for board in found], "", dense=True)


def _platforms(ctx: click.Context) -> None:
    """All platforms, tuned or not."""
    from ...boards import registry
    from ...boards.platforms import scan

    tuned = {board.platform: board.name for board in map(registry.get, reversed(registry.names()))}
    rows = [{"board": tuned.get(each.platform, each.name), "tuned": "yes" if each.platform in tuned else "",
             "device": f"{each.family} {each.part}",
             "made": "bitstream" if each.device else "Verilog, constraints", "platform": each.platform}
            for each in scan()]
    if (ctx.obj or {}).get("json"):
        emit({"platforms": rows})
        return
    print_table([{name: value for name, value in row.items() if name != "platform"} for row in rows], "",
                dense=True)


def _row(board: Any) -> dict[str, Any]:
    config = board.config
    most = _most_lanes(board)
    return {
        "board": board.name, "device": board.device.name if board.device else board.part.rpartition(") ")[2].split()[0],
        "model": config.weight_depth, "maps": config.act_depth * config.lanes,
        "lanes": config.name.removesuffix("x1"), "most": most.name.removesuffix("x1") if most else "",
        "MHz": f"{board.clock_mhz:g}", "programmer": board.programmer[-1] if board.programmer else "",
    }


def _most_lanes(board: Any) -> Any:
    """The board's configuration with the most lanes that fit by estimate; ``None`` when nothing is known."""
    from ...boards.fit import fits

    if board.device is None:
        return None
    shapes = sorted(((y, x) for y in (1, 2, 4, 8) for x in (1, 2, 4, 8) if abs(y.bit_length() - x.bit_length()) <= 1),
                    key=lambda shape: (-shape[0] * shape[1], -shape[0]))
    configs = (board.config.replace(lanes_y=y, lanes_x=x) for y, x in shapes)
    return next((config for config in configs if fits(config, board.device) is None), None)


def _summary(config: Any) -> str:
    streams = f", {config.streams} streams" if config.streams > 1 else ""
    return (f"{config.lanes_y}x{config.lanes_x} lanes{streams}, {2 * config.weight_depth // 1024} KiB of model memory")


def _fit(board: Any, config: Any) -> str:
    """Shares of the device, or what is exceeded."""
    from ...boards.area import estimate
    from ...boards.fit import fits

    if board.device is None:
        return f"not known: {board.part} is not routed here"
    misfit = fits(config, board.device)
    if misfit is not None:
        return str(misfit)
    area, capacity = estimate(config, board.device), board.device.capacity
    shares = area.lut_equivalents / capacity["lut4"], area.ram / capacity["ram"]
    return "about {:.0%} of LUT4, {:.0%} of RAM blocks".format(*shares)


def _describe(board: Any, wanted: Any) -> dict[str, Any]:
    import dataclasses

    from ...boards.area import estimate
    from ...boards.fit import fits

    config = wanted or board.config
    result = {
        "board": board.name, "title": board.title, "device": board.part, "platform": board.platform,
        "clock_mhz": board.clock_mhz, "oscillator_mhz": board.oscillator_mhz, "uart": board.serial, "baud": board.baud,
        "program": board.program("FILE"), **({"notes": board.notes} if board.notes else {}), "lanes": config.name,
        "fingerprint": f"0x{config.fingerprint:08x}", "configuration": config.to_dict(),
    }
    if board.device is None:
        return result | {"made": "Verilog and constraints: 'shiftwright generate --board'"}
    area, misfit, most = estimate(config, board.device), fits(config, board.device), _most_lanes(board)
    return result | {
        "fits": misfit is None, **({"exceeded": str(misfit), "nearest": misfit.changes} if misfit else {}),
        "most_lanes": most.name if most else "none", "estimate": dataclasses.asdict(area),
        "capacity": dict(board.device.capacity),
    }
