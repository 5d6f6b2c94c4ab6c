"""What the commands that talk to boards share: options, and what is told while they do."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..device import Device

__all__ = ["device_options", "open_devices", "progress_bar"]

SLOWEST_BAUD = 19_200

Bar = Callable[[int, int, str], None]
"""Told of what is done, of all, and of a remark."""


def device_options(*, several: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --port, --baud and --trace."""
    options = [
        click.option("--port", "port", metavar="PORT", multiple=several,
                     help="Serial port or pseudo-terminal of the board" +
                          ("; several, each with its --port, share the work." if several else ".")),
        click.option("--baud", type=click.IntRange(SLOWEST_BAUD), metavar="N",
                     help="Speed of the line. Default: the fastest of 1000000, 500000, ... 115200 that the board's "
                          "clock divides to."),
        click.option("--trace", is_flag=True, help="Print every frame, with its time in milliseconds, to stderr."),
    ]

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function
    return add


@contextmanager
def open_devices(names: tuple[str, ...], *, baud: int | None, trace: bool) -> Iterator[list["Device"]]:
    """The boards behind some ports. On the way out they are returned to their first speed, whatever happened."""
    from ..device import Device
    from ..device.trace import line_trace
    from ..device.transport import ports

    if not names:
        found = ports()
        raise click.UsageError("name the board's port with --port; " + (
            f"ports found: {', '.join(found)}" if found else "no serial port was found: is the board connected? A "
            "virtual board is started with 'shiftwright emulate'"))
    if len(set(names)) < len(names):
        raise click.UsageError(f"a port was given twice with --port: {', '.join(names)}; name each board once")

    def tell(line: str) -> None:
        click.echo(line, err=True)

    with ExitStack() as stack:
        yield [stack.enter_context(Device.open(
            name, baud=baud, notice=lambda message: tell(f"shiftwright: {message}"),
            trace=line_trace(tell, f"{name} " if len(names) > 1 else "") if trace else None)) for name in names]


@contextmanager
def progress_bar(what: str, *, of_bytes: bool, shown: bool) -> Iterator[Bar]:
    """A progress bar with rate and remark on stderr, if that is a terminal and `shown`."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amount = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn(),
                  TextColumn("{task.fields[remark]}"), console=console, transient=True,
                  disable=not shown or not console.is_terminal) as progress:
        task = progress.add_task(what, total=None, remark="")

        def update(done: int, total: int, remark: str) -> None:
            progress.update(task, completed=done, total=total, remark=remark)
        yield update
