"""``shiftwright boards``: what can be built for."""

from typing import Any

import click

from ..cli import emit


@click.command("boards", short_help="List the boards.")
@click.argument("name", required=False)
@click.pass_context
def command(ctx: click.Context, name: str | None) -> None:
    """List the boards, or describe the board NAME: its device, clock, pins and accelerator.

    \b
    Examples:
        shiftwright boards
        shiftwright boards ulx3s-85f
        shiftwright boards --json
    """
    from ...boards import registry

    if name is not None:
        emit(_describe(registry.get(name)), title=f"shiftwright boards {name}")
        return
    found = [registry.get(each) for each in registry.names()]
    if (ctx.obj or {}).get("json"):
        emit({board.name: _describe(board) for board in found})
        return
    emit({board.name: f"{board.title}: {board.config.lanes_y}x{board.config.lanes_x} lanes, "
                      f"{2 * board.config.weight_depth // 1024} KiB of model memory, {board.clock_mhz:g} MHz"
          for board in found}, title="shiftwright boards")


def _describe(board: Any) -> dict[str, Any]:
    return {
        "board": board.name, "title": board.title, "device": board.device.title, "clock_mhz": board.clock_mhz,
        "serial_port": board.pins, "lanes": board.config.name, "fingerprint": f"0x{board.config.fingerprint:08x}",
        "configuration": board.config.to_dict(),
    }
