"""How good a line is, and what to fall back to when many frames are lost."""

from collections import deque

from ...hw.arch.link import PAYLOAD_MAX

__all__ = ["Quality"]

PAYLOADS = (PAYLOAD_MAX, 128, 32)
WINDOWS = (64, 8, 3)
REMEMBERED = 24
ENOUGH = 10
"""Frames to judge by, at least."""
TOLERATED = (0.3, 0.4, 0.75)
"""The share of lost frames beyond which smaller ones, and at last a lower speed, bring more across."""


class Quality:
    """What a line bears, by the frames that were lost lately.

    Attributes
    ----------
    payload : int
        Most bytes of payload that a write should have.
    window : int
        Most requests under way.
    """

    def __init__(self) -> None:
        self._level = 0
        self._lost: deque[bool] = deque(maxlen=REMEMBERED)
        self.payload, self.window = PAYLOADS[0], WINDOWS[0]

    def count(self, *, lost: bool) -> None:
        """Take notice of one frame."""
        self._lost.append(lost)

    @property
    def poor(self) -> bool:
        """Whether falling back would help."""
        return len(self._lost) >= ENOUGH and sum(self._lost) > TOLERATED[self._level] * len(self._lost)

    def describe(self) -> str:
        """What was seen, as a clause."""
        return f"{sum(self._lost)} of the last {len(self._lost)} frames were lost"

    def fall_back(self) -> bool:
        """Go to smaller frames and a smaller window; False when they are the smallest, and only the speed remains."""
        self._lost.clear()
        if self._level + 1 == len(PAYLOADS):
            return False
        self._level += 1
        self.payload, self.window = PAYLOADS[self._level], WINDOWS[self._level]
        return True
