"""How long to wait for an answer: smoothed round trip plus four times its deviation (V. Jacobson, 1988; RFC 6298)."""

__all__ = ["RoundTrip"]

FIRST_SECONDS = 1.0
LEAST_SECONDS = 0.04
"""Room for the latency of USB adapters (16 ms) and for a busy host."""
MOST_DOUBLINGS = 8


class RoundTrip:
    """Time from a request's last bit to its answer's first, both of which depend on the speed, left out.

    Attributes
    ----------
    least : float or None
        The shortest one so far, in seconds.
    """

    def __init__(self) -> None:
        self.least: float | None = None
        self._smooth: float | None = None
        self._deviation = 0.0
        self._doublings = 0

    def add(self, seconds: float) -> None:
        """Take a measured one. Requests that were sent twice don't count (P. Karn): which copy was answered?"""
        seconds = max(seconds, 0.0)
        self._doublings = 0
        if self._smooth is None:
            self._smooth, self._deviation = seconds, seconds / 2
        else:
            self._deviation += (abs(seconds - self._smooth) - self._deviation) / 4
            self._smooth += (seconds - self._smooth) / 8
        self.least = seconds if self.least is None else min(self.least, seconds)

    def plausible(self) -> None:
        """The last copy of several may well be the one that was answered: the time-out need not be longer."""
        self._doublings = 0

    def back_off(self) -> None:
        """An answer did not come in time: wait twice as long from now on, until there is one."""
        self._doublings = min(self._doublings + 1, MOST_DOUBLINGS)

    def timeout(self, own: float) -> float:
        """Seconds to wait for an answer; `own` is what the answer's bytes and the board's work take anyway."""
        base = FIRST_SECONDS if self._smooth is None else max(LEAST_SECONDS, self._smooth + 4 * self._deviation)
        return float((base + own) * (1 << self._doublings))
