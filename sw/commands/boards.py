"""``shiftwright boards``: what can be built for, and what fits."""

from pathlib import Path
from typing import Any

import click

from ..cli import emit


@click.command("boards", short_help="List the boards; tell what fits.")
@click.argument("name", required=False)
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Tell whether this accelerator fits, in place of the board's own.")
@click.pass_context
def command(ctx: click.Context, name: str | None, config: Path | None) -> None:
    """List the boards, or describe the board NAME: its device, clock, pins, accelerator and what that takes.

    LUTs and RAM are estimated, in milliseconds and without synthesis: RAM blocks exactly, logic within a tenth. What
    does not fit is told with the first resource that is exceeded and the nearest configuration that fits.

    \b
    Examples:
        shiftwright boards
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
    found = [registry.get(each) for each in registry.names()]
    if (ctx.obj or {}).get("json"):
        emit({board.name: _describe(board, wanted) for board in found})
        return
    emit({board.name: f"{board.title}, {board.clock_mhz:g} MHz: {_summary(wanted or board.config)}; "
                      f"{_fit(board, wanted or board.config)}" for board in found}, title="shiftwright boards")


def _summary(config: Any) -> str:
    streams = f", {config.streams} streams" if config.streams > 1 else ""
    return (f"{config.lanes_y}x{config.lanes_x} lanes{streams}, {2 * config.weight_depth // 1024} KiB of model memory")


def _fit(board: Any, config: Any) -> str:
    """Shares of the device, or what is exceeded."""
    from ...boards.area import estimate
    from ...boards.fit import fits

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
    area, misfit = estimate(config, board.device), fits(config, board.device)
    return {
        "board": board.name, "title": board.title, "device": board.device.title, "clock_mhz": board.clock_mhz,
        "serial_port": board.pins, "lanes": config.name, "fingerprint": f"0x{config.fingerprint:08x}",
        "configuration": config.to_dict(), "fits": misfit is None,
        **({"exceeded": str(misfit), "nearest": misfit.changes} if misfit else {}),
        "estimate": dataclasses.asdict(area), "capacity": dict(board.device.capacity),
    }
