"""``shiftwright generate``: Verilog and a manifest."""

from pathlib import Path

import click

from ..cli import emit
from ._describe import configuration


@click.command("generate", short_help="Write the accelerator's Verilog and manifest.")
@click.option("--board", metavar="NAME", help="The accelerator of a board; 'shiftwright boards' lists them.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="The accelerator that this file describes.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR",
              help="Folder for the files; created when it does not exist.")
@click.option("--name", default="accelerator", show_default=True, metavar="MODULE",
              help="Name of the top module and of the files.")
def command(board: str | None, config: Path | None, output: Path, name: str) -> None:
    """Write an accelerator as Verilog.

    \b
    Files:
        accelerator.v     all modules; the top one has the word bus, a clock and a synchronous reset
        accelerator.vlt   waivers, each with its reason, for a clean verilator --lint-only -Wall
        accelerator.json  manifest: configuration, fingerprint, ports, memories, SHA-256 of the files, tool versions

    The accelerator is that of --board or --config; without both, the default configuration (4 x 4 lanes). It runs every
    image that was compiled for the same configuration: the Verilog does not depend on the network. The same command
    with the same tools writes the same bytes.

    \b
    Examples:
        shiftwright generate -o rtl
        shiftwright generate --board icebreaker -o rtl
        shiftwright generate --config wide.toml -o rtl --name wide --json
    """
    from ...hw.generate import generate
    from ..tools import require, using_tools

    target = configuration(board, config)
    require("yosys")
    with using_tools():
        manifest = generate(target, output, name=name)
    memories = manifest["memories"]
    assert isinstance(memories, list)
    text = (output / f"{name}.v").read_text()
    emit({
        "verilog": str(output / f"{name}.v"), "manifest": str(output / f"{name}.json"), "lanes": target.name,
        "fingerprint": f"0x{target.fingerprint:08x}", "lines": text.count("\n"),
        "memories": len(memories), "memory_bits": sum(memory["width"] * memory["depth"] for memory in memories),
    }, title="shiftwright generate")
