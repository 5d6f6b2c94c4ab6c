"""What goes wrong on a simulated line: at random, or at a certain byte."""

import dataclasses
import enum

__all__ = ["FOREVER", "NO_FAULTS", "Faults", "Trouble"]

FOREVER = 1e30
"""Seconds of a trouble that never ends."""


class Trouble(enum.IntEnum):
    """What happens on the line at some time (``link.h``)."""

    RESET = 0
    """The board is reset."""
    LOW = 1
    """The line to the board is low for a while."""
    CUT = 2
    """Nothing passes for a while, in neither direction."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faults:
    """Rates of random faults of one direction.

    Parameters
    ----------
    flip : float
        Of a bit on the wire, start and stop bits among them, to be inverted.
    drop, duplicate, insert : float
        Of a byte to be lost, to come twice, and to have a random one before it.
    """

    flip: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0
    insert: float = 0.0


NO_FAULTS = Faults()
