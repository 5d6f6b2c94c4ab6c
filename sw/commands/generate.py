"""``shiftwright generate``: Verilog and a manifest."""

from pathlib import Path

import click

from ...hw.arch.errors import ConfigError
from ...hw.arch.ports import PORTS
from ..cli import emit
from ._describe import configuration


@click.command("generate", short_help="Write the accelerator's Verilog and manifest.")
@click.option("--board", metavar="NAME", help="The accelerator of a board; 'shiftwright boards' lists them.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="The accelerator that this file describes.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR",
              help="Folder for the files; created when it does not exist.")
@click.option("--port", type=click.Choice(PORTS), default="word", show_default=True,
              help="What the accelerator is reached through.")
@click.option("--clock", type=float, metavar="MHZ",
              help="The clock that --port uart will have; that of --board by default.")
@click.option("--name", default="accelerator", show_default=True, metavar="MODULE",
              help="Name of the top module and of the files.")
def command(board: str | None, config: Path | None, output: Path, port: str, clock: float | None, name: str) -> None:
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

    The accelerator is that of --board or --config; without both, the default configuration (4 x 4 lanes). It runs every
    image that was compiled for the same configuration: the Verilog does not depend on the network. The same command
    with the same tools writes the same bytes.

    \b
    Examples:
        shiftwright generate -o rtl
        shiftwright generate --board icebreaker -o rtl
        shiftwright generate --config wide.toml -o rtl --name wide --json
        shiftwright generate --config wide.toml --port axi4-lite -o ip
    """
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
