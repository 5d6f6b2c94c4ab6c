"""The ``shiftwright`` command line: a thin face over the Python entry points."""

import importlib
import importlib.metadata
import json
import sys
from typing import Any

import click

from ..hw.arch.errors import ShiftwrightError, ToolError

COMMANDS = {
    "demo": "Train, compress, compile, generate and simulate the embedded default network.",
    "train": "Train a zoo network in float.",
    "compress": "Compress a trained network to power-of-two weights.",
    "compile": "Compile a compressed network to an image.",
    "evaluate": "Accuracy of the integer golden model, size and cycles.",
    "generate": "Write the accelerator's Verilog, constraints and manifest.",
    "build": "Build a bitstream; report utilization and clock.",
    "simulate": "Simulate the RTL against the golden model, bit for bit.",
    "info": "Describe any Shiftwright file.",
    "boards": "List the boards.",
    "doctor": "Check the tools and data sets of this machine.",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"shiftwright.sw.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(importlib.metadata.version("shiftwright"), prog_name="shiftwright")
@click.option("--json", "as_json", is_flag=True, help="Print results as one JSON object.")
@click.pass_context
def cli(ctx: click.Context, as_json: bool) -> None:
    """Power-of-two neural networks on small FPGAs, bit-exact from PyTorch to the netlist."""
    ctx.obj = {"json": as_json}


def emit(result: dict[str, Any], *, title: str = "") -> None:
    """Print a flat result: a two-column table for people, or one JSON object under ``--json``."""
    ctx = click.get_current_context()
    if (ctx.find_root().obj or {}).get("json"):
        click.echo(json.dumps(result, indent=2, default=str))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for key, value in result.items():
        if isinstance(value, (dict, list, tuple)):
            value = json.dumps(value, default=str)
        table.add_row(key.replace("_", " "), str(value))
    Console().print(table)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (DESIGN section 7)."""
    try:
        cli(args=argv, standalone_mode=False)
    except ShiftwrightError as error:
        click.echo(f"shiftwright: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("shiftwright: interrupted", err=True)
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("shiftwright"):
            raise
        missing = ToolError(f"the Python package {error.name!r} is missing; install Shiftwright with its extras: "
                            f"pip install 'shiftwright[all]'")
        click.echo(f"shiftwright: {missing}", err=True)
        return missing.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
