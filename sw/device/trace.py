"""A line of text for each frame, for people."""

from collections.abc import Callable

from .events import Trace
from .frames import Request, Response

__all__ = ["line_trace"]


def line_trace(write: Callable[[str], None], name: str = "") -> Trace:
    """A trace that gives a line for each frame to `write`, with the time in milliseconds, after `name`."""
    def trace(direction: str, seconds: float, frame: Request | Response | bytes, remark: str) -> None:
        text = f"{len(frame)} bytes: {frame[:16].hex(' ')}" if isinstance(frame, bytes) else str(frame)
        write(f"{name}{1000 * seconds:12.3f} {direction} {text}{f' ({remark})' if remark else ''}")
    return trace
