"""``shiftwright generate``: Verilog and a manifest."""

from pathlib import Path

import click

from ...hw.arch.errors import ConfigError
from ...hw.arch.ports import PORTS
from ..cli import emit
from ._describe import configuration


@click.command("generate", short_help="Write the accelerator's Verilog and manifest.")
@click.option("--board", metavar="NAME", help="The top of a board, with its pins; 'shiftwright boards' lists them.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="The accelerator that this file describes.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR",
              help="Folder for the files; created when it does not exist.")
@click.option("--port", type=click.Choice(PORTS), default="word", show_default=True,
              help="What the accelerator is reached through. With --board, the board's UART when not given.")
@click.option("--clock", type=float, metavar="MHZ",
              help="The clock that --port uart or the board will have; that of --board by default.")
@click.option("--name", default="accelerator", show_default=True, metavar="MODULE",
              help="Name of the top module and of the files. With --board, the board's when not given.")
@click.pass_context
def command(ctx: click.Context, board: str | None, config: Path | None, output: Path, port: str,
            clock: float | None, name: str) -> None:
    """Write an accelerator as Verilog.

    \b
    Files:
        accelerator.v     all modules; the top one has the port, a clock and a synchronous reset
        accelerator.vlt   waivers, each with its reason, for a clean verilator --lint-only -Wall
        accelerator.json  manifest: configuration, fingerprint, port and address map, memories, SHA-256 of the files,
                          tool versions
        shiftwright.h     registers, bits and codes for firmware, with a port of byte addresses

    \b
    Ports:
        word              the accelerator's own bus: 16-bit words, 24-bit addresses
        wishbone          32 bits, byte addresses, pipelined
        wishbone-classic  the same, in classic standard cycles
        axi4-lite         32 bits, byte addresses
        uart              two pins, for the host's commands; needs to know its clock

    With --board and no --port it is the board's top: the accelerator with its UART on the board's pins and the clock
    that the board has, with the constraints for the router (.lpf, .pcf, .cst, .xdc, .qsf and .sdc), for the vendor's
    tools or your own flow.

    The accelerator is that of --config or --board; without both, the default configuration (4 x 4 lanes). It runs every
    image that was compiled for the same configuration: the Verilog does not depend on the network. The same command
    with the same tools writes the same bytes.

    \b
    Examples:
        shiftwright generate -o rtl
        shiftwright generate --board arty-a7 -o vivado
        shiftwright generate --board icebreaker --port word -o rtl
        shiftwright generate --config wide.toml -o rtl --name wide --json
        shiftwright generate --config wide.toml --port axi4-lite -o ip
    """
    if board is not None and ctx.get_parameter_source("port") is click.core.ParameterSource.DEFAULT:
        given = ctx.get_parameter_source("name") is not click.core.ParameterSource.DEFAULT
        _board(board, config, output, clock, name if given else None)
        return
    from ...hw.generate import generate
    from ..tools import require, using_tools

    target = configuration(board, config)
    clock_hz = _clock_hz(board, clock) if port == "uart" else None
    require("yosys")
    with using_tools():
        manifest = generate(target, output, name=name, port=port, clock_hz=clock_hz, board=board or "")
    memories = manifest["memories"]
    assert isinstance(memories, list)
    text = (output / f"{name}.v").read_text()
    emit({
        "verilog": str(output / f"{name}.v"), "manifest": str(output / f"{name}.json"), "port": port,
        "lanes": target.name, "fingerprint": f"0x{target.fingerprint:08x}", "lines": text.count("\n"),
        "memories": len(memories), "memory_bits": sum(memory["width"] * memory["depth"] for memory in memories),
    }, title="shiftwright generate")


def _board(board: str, config: Path | None, output: Path, clock: float | None, name: str | None) -> None:
    """Write a board's top, and print what it is."""
    from ...boards.registry import get
    from ...boards.verilog import generate_board
    from ...hw.arch.config import AcceleratorConfig
    from ..tools import require, using_tools

    chosen = get(board)
    chosen = chosen if clock is None else chosen.at(clock)
    wanted = chosen.config if config is None else AcceleratorConfig.from_toml(config)
    require("yosys")
    with using_tools():
        manifest = generate_board(chosen, output, config=wanted, name=name)
    files = manifest["files"]
    assert isinstance(files, dict)
    emit({
        "files": ", ".join(str(output / file) for file in files), "manifest": str(output / f"{manifest['name']}.json"),
        "top": manifest["name"], "device": chosen.part, "lanes": wanted.name,
        "fingerprint": f"0x{wanted.fingerprint:08x}", "clock": f"{chosen.clock_mhz:g} MHz", "uart": chosen.serial,
        **({"notes": chosen.notes} if chosen.notes else {}),
    }, title="shiftwright generate")


def _clock_hz(board: str | None, clock: float | None) -> int:
    """The clock of the UART, given or the board's."""
    if clock is None and board is not None:
        from ...boards import registry

        clock = registry.get(board).clock_mhz
    if clock is None:
        raise ConfigError("--port uart needs the clock, from which the length of a bit follows; give --clock MHZ")
    if not clock > 0:
        raise ConfigError(f"the clock must be greater than 0 MHz, not {clock:g}")
    return round(clock * 1e6)
