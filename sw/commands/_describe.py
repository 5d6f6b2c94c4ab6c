"""What several commands print: layers as a table for people, or within the one JSON object for machines."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..cli import emit

if TYPE_CHECKING:
    from ...hw.arch.config import AcceleratorConfig

__all__ = ["configuration", "emit_with_layers"]


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
                     layers_title: str = "Layers", key: str = "layers") -> None:
    """Print `layers` (dictionaries with the same keys) as a table, then `result`; one object under ``--json``, with the
    layers as `key`."""
    ctx = click.get_current_context()
    if (ctx.find_root().obj or {}).get("json"):
        emit({**result, key: layers})
        return
    if layers:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=layers_title, title_justify="left")
        for name, value in layers[0].items():
            table.add_column(name.replace("_", " "), justify="left" if isinstance(value, str) else "right")
        for layer in layers:
            table.add_row(*(Text("" if value is None else f"{value:,.2f}" if isinstance(value, float) else
                                 f"{value:,}" if isinstance(value, int) else str(value)) for value in layer.values()))
        Console().print(table)
    emit(result, title=title)
