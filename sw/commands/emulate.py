"""``shiftwright emulate``: a virtual board on a pseudo-terminal."""

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import click

from ..cli import emit
from ._describe import configuration

CLOCK_HZ = 12_000_000


@click.command("emulate", short_help="Run a virtual board on a pseudo-terminal.")
@click.option("--board", metavar="NAME", help="Accelerator and clock of a board; 'shiftwright boards' lists them.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help=f"The accelerator that this file describes, at {CLOCK_HZ // 1_000_000} MHz.")
@click.option("--fast", is_flag=True, help="A clock so slow that a bit takes 8 cycles: loads take less simulation.")
@click.option("--link", type=click.Path(path_type=Path), metavar="PATH",
              help="Make this symbolic link to the terminal, for a name that stays the same.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="N", help="End after this time.")
@click.pass_context
def command(ctx: click.Context, board: str | None, config: Path | None, fast: bool, link: Path | None,
            seconds: float | None) -> None:
    """Run a board in software, for 'load' and 'infer' to talk to as to a real one.

    The hardware that 'build' would put on the board, UART pins and all, is compiled with Verilator (the first time up
    to some minutes; models are kept in the cache folder). Its pins are driven bit by bit at the speed that the host
    sets on the terminal, so that a wrong speed garbles the bytes as on a wire. Ctrl-C ends it, and shows how many clock
    cycles were simulated, and how fast.

    It is slower than a board: a million cycles a second or less. --fast makes a byte take fewer of them; the host need
    not know. Cycles of a run are the same in both.

    --seed chooses what registers and memories hold when the board is switched on.

    \b
    Examples:
        shiftwright emulate --board icebreaker --fast --link board
        shiftwright load lenet5.swi --port board
        shiftwright infer --port board --data mnist --images 10
    """
    from ...sim.emulator.virtual import VirtualBoard

    options = ctx.obj or {}
    clock_hz = CLOCK_HZ if board is None else _clock_hz(board)
    virtual = VirtualBoard(configuration(board, config), clock_hz=clock_hz, board=board or "", fast=fast, link=link,
                           seed=int(options.get("seed", 0)))
    started = time.monotonic()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with virtual:
            port = str(link or virtual.port)
            if not options.get("json"):
                click.echo(f"{port}: {board or virtual.config.name} at {virtual.clock_hz / 1e6:g} MHz"
                           f"{' (fast)' if fast else ''}. In another terminal:")
                click.echo(f"    shiftwright load FILE.swi --port {port}")
                click.echo(f"    shiftwright infer --port {port} --data SET")
                click.echo("Ctrl-C ends it.")
            else:
                click.echo(port, err=True)
            try:
                ended = virtual.wait(seconds)
            except KeyboardInterrupt:
                ended = False
    finally:
        signal.signal(signal.SIGTERM, before)
    _report(virtual, port, time.monotonic() - started, ended)


def _report(virtual: Any, port: str, seconds: float, ended: bool) -> None:
    from ...hw.arch.errors import DeviceError

    if ended or virtual.usage is None:
        raise DeviceError(f"{port}: the virtual board ended by itself; please report this")
    usage = virtual.usage
    emit({
        "port": port, "lanes": virtual.config.name, "clock_hz": virtual.clock_hz, "seconds": round(seconds, 1),
        "cycles": usage.cycles, "simulated_cycles": usage.simulated,
        "cycles_per_second": round(usage.simulated / usage.seconds) if usage.seconds else 0,
    }, title="shiftwright emulate")


def _clock_hz(board: str) -> int:
    from ...boards.registry import get

    return round(get(board).clock_mhz * 1e6)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
