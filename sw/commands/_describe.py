"""What several commands print: layers as a table for people, or within the one JSON object for machines."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..cli import emit

if TYPE_CHECKING:
    from ...hw.arch.config import AcceleratorConfig

__all__ = ["configuration", "emit_with_layers", "print_table"]

WIDEST = 1000
"""Characters."""


def configuration(board: str | None, config: str | Path | None) -> "AcceleratorConfig":
    """The configuration of ``--board`` or of the TOML file ``--config``; the default one without both."""
    from ...hw.arch.config import AcceleratorConfig

    if board is not None and config is not None:
        raise click.UsageError("--board and --config exclude each other: a board brings its configuration; give one")
    if config is not None:
        return AcceleratorConfig.from_toml(config)
    if board is None:
        return AcceleratorConfig()
    from ...boards.registry import get

    return get(board).config


def emit_with_layers(result: dict[str, Any], layers: list[dict[str, Any]], *, title: str = "",
                     layers_title: str = "Layers", key: str = "layers",
                     more: dict[str, tuple[str, list[dict[str, Any]]]] | None = None) -> None:
    """Print `layers` (dictionaries with the same keys) as a table, then `result`; one object under ``--json``, with the
    layers as `key`. Further tables with many columns, by their keys in JSON, each with its title, come between."""
    tables = {key: (layers_title, layers), **(more or {})}
    ctx = click.get_current_context()
    if (ctx.find_root().obj or {}).get("json"):
        emit({**result, **{name: rows for name, (_, rows) in tables.items()}})
        return
    for name, (heading, rows) in tables.items():
        print_table(rows, heading, dense=name != key)
    emit(result, title=title)


def print_table(rows: list[dict[str, Any]], title: str, *, dense: bool = False) -> None:
    """Print dictionaries with the same keys as a table; nothing when there are none.

    Parameters
    ----------
    dense : bool
        For many columns: without lines between them, without those that are empty, and as wide as they are where it
        is no terminal that they are printed on.
    """
    if not rows:
        return
    from rich.box import HEAVY_HEAD, SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD if dense else HEAVY_HEAD,
                  padding=(0, 1, 0, 0) if dense else (0, 1))
    names = [name for name in rows[0] if not dense or any(row[name] is not None for row in rows)]
    for name in names:
        left = isinstance(rows[0][name], str) or all(row[name] is None or isinstance(row[name], str) for row in rows)
        table.add_column(name.replace("_", " "), justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(row[name])) for name in names))
    console = Console()
    if dense and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=WIDEST)).maximum)
    console.print(table)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(str, value))
    return "" if value is None else f"{value:,.2f}" if isinstance(value, float) else \
        f"{value:,}" if isinstance(value, int) else str(value)
