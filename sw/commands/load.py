"""``shiftwright load``: put a compiled network into a board's model memory."""

from pathlib import Path

import click

from ...hw.arch.errors import ShiftwrightError
from ..cli import emit
from ._device import device_options, open_devices, progress_bar


@click.command("load", short_help="Load an image into a board, and verify it.")
@click.argument("image", type=click.Path(path_type=Path), metavar="FILE.swi")
@device_options(several=False)
@click.option("--force", is_flag=True, help="Send everything, also what the board has already.")
@click.pass_context
def command(ctx: click.Context, image: Path, port: str | None, baud: int | None, trace: bool, force: bool) -> None:
    """Load a compiled network into the model memory of a board, or of a virtual board, over its UART.

    The board must have the configuration that the image was compiled for; that is checked before a byte is sent. What
    the board has already is not sent again: after an interrupted load the rest, after a small change what changed. All
    of it is verified by a CRC in the end.

    Frames that are lost or damaged are sent again, and counted. When many are, the frames become smaller, and at last
    the line slower; each is told. `efficiency` is the share of the line's time in which the model's own bytes went over
    it, from the first request to the verified end.

    A copy of the image is kept in the cache folder, so that 'shiftwright infer' needs no file.

    \b
    Examples:
        shiftwright load lenet5.swi --port /dev/ttyUSB1
        shiftwright load lenet5.swi --port /dev/ttyUSB1 --baud 115200 --trace
        shiftwright load lenet5.swi --port /dev/pts/3 --json
    """
    from ..device.images import remember
    from ..image import Image

    loaded = Image.load(image)
    machine = bool((ctx.find_root().obj or {}).get("json"))
    with open_devices((port,) if port else (), baud=baud, trace=trace) as (device,), \
            progress_bar(f"load {image.name}", of_bytes=True, shown=not machine and not trace) as bar:
        statistics = device.statistics

        def progress(done: int, total: int) -> None:
            bar(done, total, f"{statistics.retries} sent again" if statistics.retries else "")

        result = device.load(loaded, force=force, progress=progress)
        identity = device.identify()
    try:
        remember(loaded)
    except ShiftwrightError as error:
        click.echo(f"shiftwright: no copy was kept for 'infer': {error}", err=True)
    emit({"image": str(image), "port": port, "board": identity.board or f"0x{identity.fingerprint:08x}",
          "bytes": result.bytes, "sent": result.sent, "skipped": result.skipped, "seconds": round(result.seconds, 3),
          "baud": result.baud, "efficiency": round(result.efficiency, 4), "sent_again": result.retries,
          "damaged_frames": result.damaged, "sessions": result.sessions, "verified": True}, title="shiftwright load")
