"""The ``shiftwright`` command line: a thin face over the Python entry points.

Each subcommand is a module ``shiftwright.sw.commands.<name>`` that defines ``command`` and is imported when it is used,
so that ``shiftwright --help`` costs no PyTorch. ``--json`` and ``--seed`` are the same for all and are added here;
a command reads them from ``ctx.obj["json"]`` and ``ctx.obj["seed"]``.
"""

import importlib
import importlib.metadata
import json
import os
import sys
import traceback
from typing import Any

import click

from ..hw.arch.errors import ShiftwrightError, ToolError

COMMANDS = {
    "demo": "Train, compress, compile, generate and simulate the embedded default network.",
    "train": "Train a zoo network in float.",
    "compress": "Compress a trained network to power-of-two weights.",
    "sensitivity": "What each layer bears: few levels, pruning.",
    "compare": "Run several recipes on one network, and plot them.",
    "compile": "Compile a compressed network to an image.",
    "plan": "What each board would need to run a network.",
    "evaluate": "Accuracy of the integer golden model, size and cycles.",
    "generate": "Write the accelerator's Verilog and manifest.",
    "build": "Build a bitstream; report utilization and clock.",
    "simulate": "Simulate the RTL against the golden model, bit for bit.",
    "load": "Load an image on a board.",
    "infer": "Run a loaded image on a board.",
    "emulate": "Run a virtual board on a pseudo-terminal.",
    "info": "Describe any Shiftwright file.",
    "boards": "List the boards.",
    "doctor": "Check the tools and data sets of this machine.",
}
DEFAULT_SEED = 0
USAGE_EXIT = 2
INTERRUPTED_EXIT = 130


def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep an option of every command in ``ctx.obj``; the one nearest to the command's end wins."""
    if ctx.obj is None:
        ctx.obj = {"json": False, "seed": DEFAULT_SEED}
    if value is not None and param.name is not None:
        ctx.obj[param.name.removeprefix("_")] = value


def _common_options() -> list[click.Option]:
    return [
        click.Option(["_json", "--json"], is_flag=True, flag_value=True, default=None, expose_value=False,
                     callback=_store, help="Print the result as one JSON object."),
        click.Option(["_seed", "--seed"], type=click.IntRange(0, 2**32 - 1), expose_value=False, callback=_store,
                     metavar="N", help=f"Seed of every random choice (default {DEFAULT_SEED})."),
    ]


def _add_common_options(command: click.Command) -> None:
    taken = {flag for param in command.params for flag in param.opts}
    command.params.extend(option for option in _common_options() if not taken.intersection(option.opts))


class _LazyGroup(click.Group):
    """A group that imports a subcommand when it is asked for, and lists all without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"shiftwright.sw.commands.{cmd_name}")
        command: click.Command = module.command
        _add_common_options(command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader ("| head") has what it wanted. Python must not fail again when it flushes at its end, and click
            # would exit with 1, which means that a comparison failed.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(importlib.metadata.version("shiftwright"), prog_name="shiftwright")
def cli() -> None:
    """Power-of-two neural networks on small FPGAs, bit-exact from PyTorch to the netlist.

    \b
    From nothing to a simulated accelerator, one command:
        shiftwright demo
    The same in steps:
        shiftwright train digits --data digits -o digits.safetensors
        shiftwright compress digits.safetensors --recipe bqnet -o digits.swc
        shiftwright compile digits.swc -o digits.swi
        shiftwright simulate digits.swi --data digits --images 16

    Exit codes: 0 done, 1 a comparison failed, 2 wrong usage or input, 3 missing tool or dependency,
    4 device or transport.
    """


_add_common_options(cli)


def emit(result: dict[str, Any], *, title: str = "") -> None:
    """Print a flat result: a two-column table for people, or one JSON object under ``--json``.

    Parameters
    ----------
    result : dict
        Names (with underscores) and values; a nested value is shown as JSON.
    title : str
        Heading of the table.
    """
    ctx = click.get_current_context()
    if (ctx.find_root().obj or {}).get("json"):
        click.echo(json.dumps(result, indent=2, default=str))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for key, value in result.items():
        if isinstance(value, (dict, list, tuple)):
            value = json.dumps(value, default=str)
        table.add_row(key.replace("_", " "), Text(str(value)))
    Console().print(table)


def _fail(message: str, code: int) -> int:
    click.echo(f"shiftwright: {message}", err=True)
    return code


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : list of str or None
        Arguments; ``None`` takes those of the process.

    Returns
    -------
    int
        0 done, 1 a comparison failed, 2 wrong usage or input (or a defect of Shiftwright itself), 3 missing tool or
        dependency, 4 device or transport, 130 interrupted. With the environment variable ``SHIFTWRIGHT_DEBUG`` set,
        every error but a wrong use of options also prints its traceback.
    """
    try:
        result = cli.main(args=argv, prog_name="shiftwright", standalone_mode=False)
        return result if isinstance(result, int) else 0  # click returns the code of ctx.exit() here
    except click.ClickException as error:
        error.show()
        return USAGE_EXIT
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED_EXIT)
    except Exception as error:  # the one place where everything ends
        if os.environ.get("SHIFTWRIGHT_DEBUG"):
            traceback.print_exc()
        return _explain(error)


def _explain(error: Exception) -> int:
    if isinstance(error, ShiftwrightError):
        return _fail(str(error), error.exit_code)
    package = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package not in ("", "shiftwright"):
        return _fail(f"the Python package {package!r} is missing; install Shiftwright with its extras: "
                     f"pip install 'shiftwright[all]'", ToolError.exit_code)
    text = " ".join(str(error).split()) or "no message"
    return _fail(f"internal error: {type(error).__name__}: {text}; this is a defect of Shiftwright: run the command "
                 f"again with SHIFTWRIGHT_DEBUG=1 and report what it prints as CONTRIBUTING.md says", USAGE_EXIT)


if __name__ == "__main__":
    sys.exit(main())
