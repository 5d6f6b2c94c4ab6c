"""What a channel tells: its statistics, its trace, and the end of a session."""

import dataclasses
from collections.abc import Callable

from ...hw.arch.errors import ShiftwrightError, TransportError
from .frames import Request, Response

__all__ = ["SessionLost", "Statistics", "Trace"]

Trace = Callable[[str, float, Request | Response | bytes, str], None]
"""Told of each frame: ``">"`` or ``"<"``, the transport's time, the frame (bytes when it is none), a remark."""


class SessionLost(ShiftwrightError):
    """The board no longer knows this host, or no longer answers: begin a new session, and what was under way again.

    Parameters
    ----------
    message : str
    silent : bool
        No answers come.
    poor : bool
        Answers come, but too many frames are lost.
    """

    exit_code = TransportError.exit_code

    def __init__(self, message: str, *, silent: bool = False, poor: bool = False) -> None:
        super().__init__(message)
        self.silent, self.poor = silent, poor


@dataclasses.dataclass
class Statistics:
    """What went over the line, from the first request on.

    Parameters
    ----------
    frames, retries : int
        Frames sent, and those among them that were sent before.
    answers : int
        Undamaged frames that came.
    damaged : int
        Damaged frames that came.
    damaged_at_board : int
        Damaged frames that the board has told of.
    sent, received : int
        Bytes.
    sessions : int
        Sessions begun; more than one means that the board was reset or silent, or had another host.
    """

    frames: int = 0
    retries: int = 0
    answers: int = 0
    damaged: int = 0
    damaged_at_board: int = 0
    sent: int = 0
    received: int = 0
    sessions: int = 0
