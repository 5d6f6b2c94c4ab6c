"""The host's side of a board: a line of bytes, the link over it, and :class:`Device`."""

from .device import Device
from .events import Statistics
from .identity import Identity
from .loading import LoadResult
from .transport import SerialTransport, Transport

__all__ = ["Device", "Identity", "LoadResult", "SerialTransport", "Statistics", "Transport"]
