"""``shiftwright doctor``: what this machine has, and how to get what it lacks."""

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import click

from ...hw.arch.errors import DataError, ToolError
from .. import tools

__all__ = ["command"]

ESSENTIAL = ("g++", "make", "perl", "verilator", "yosys")
"""Tools without which the demo can't run; the others serve one simulator or one device family."""
PACKAGES = {
    "numpy": "shiftwright", "click": "shiftwright", "rich": "shiftwright", "safetensors": "shiftwright",
    "amaranth": "shiftwright", "torch": "shiftwright[train]", "scikit-learn": "shiftwright[train]",
    "cocotb": "shiftwright[sim]", "amaranth-boards": "shiftwright[fpga]",
    "onnx": "shiftwright[onnx]",
}
"""Python packages, and the requirement that brings each."""
OPTIONAL = ("amaranth-boards", "onnx")
"""Packages that serve only some boards or files."""


def _tools() -> list[dict[str, Any]]:
    rows = []
    for name, spec in tools.TOOLS.items():
        row = {"kind": "tool", "name": name, "essential": name in ESSENTIAL, "version": "", "where": ""}
        try:
            found = tools.find(name)
        except ToolError as error:  # an environment variable names a program that is not there
            rows.append(row | {"found": False, "note": str(error)})
            continue
        if found:
            rows.append(row | {"found": True, "version": found.version, "where": f"{found.origin}: {found.path}",
                               "note": spec.purpose})
        else:
            rows.append(row | {"found": False, "note": f"{spec.purpose}; get it with: {spec.get}"})
    return rows


def _packages() -> list[dict[str, Any]]:
    rows = []
    for name, requirement in PACKAGES.items():
        row = {"kind": "package", "name": name, "essential": name not in OPTIONAL, "version": "", "where": ""}
        try:
            rows.append(row | {"found": True, "version": importlib.metadata.version(name), "note": requirement})
        except importlib.metadata.PackageNotFoundError:
            rows.append(row | {"found": False, "note": f"get it with: pip install '{requirement}'"})
    return rows


def _data_sets(data_dir: Path | None) -> list[dict[str, Any]]:
    from .. import data

    rows = []
    for name in data.DATASETS:
        row = {"kind": "data set", "name": name, "essential": False, "version": "", "where": ""}
        try:
            where = data.locate(name, data_dir=data_dir)
        except DataError as error:
            rows.append(row | {"found": False, "note": str(error)})
            continue
        note = "" if where else "downloaded when it is first used; or name its folder with SHIFTWRIGHT_DATA"
        rows.append(row | {"found": where is not None, "where": where or "", "note": note})
    return rows


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=False)
    for heading in ("", "name", "version", "where", "note"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        lacking = "[red]MISSING[/]" if row["essential"] else "[yellow]not here[/]"
        mark = "[green]ok[/]" if row["found"] else lacking
        table.add_row(mark, *(Text(str(row[key])) for key in ("name", "version", "where", "note")))
    Console().print(table)


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder in which to look for data sets first.")
@click.pass_context
def command(ctx: click.Context, data_dir: Path | None) -> None:
    """Check the tools, Python packages and data sets of this machine.

    Every tool that Shiftwright runs is listed with its version, where it was found (an environment variable, PATH, or a
    Python wheel) and what it is for; a missing one with the way to get it. Nothing is installed or downloaded.

    The exit code is 3 when something is missing that the main job ('shiftwright demo') needs. Icarus, the
    place-and-route tools and the data sets that are downloaded on demand are not among it.

    \b
    Examples:
        shiftwright doctor
        shiftwright doctor --json
        YOSYS=/opt/oss-cad-suite/bin/yosys shiftwright doctor
    """
    rows = _tools() + _packages() + _data_sets(data_dir)
    missing = [row["name"] for row in rows if row["essential"] and not row["found"]]
    if ctx.obj["json"]:
        click.echo(json.dumps({"python": platform.python_version(), "system": platform.platform(),
                               "cache": str(tools.cache_dir()), "missing": missing, "items": rows}, indent=2))
    else:
        click.echo(f"Python {platform.python_version()} on {platform.platform()}; cache folder {tools.cache_dir()}")
        _table(rows)
    if missing:
        raise ToolError(f"missing: {', '.join(missing)}; the table says how to get each")
