"""Find the setting of a recipe's knob with which a network meets a target: of bytes, cycles or accuracy."""

import dataclasses
import math
import re
import time
from collections.abc import Callable
from typing import Any

from ...hw.arch.errors import CapacityError, ModelError
from ..network import QuantizedNetwork
from .recipe import Knob, Recipe

__all__ = ["Found", "Measured", "Target", "Try", "find", "parse_size"]

UNITS = {"": 1, "b": 1, "kb": 1000, "kib": 1024, "mb": 1000**2, "mib": 1024**2}
FULL_RUNS = 3
SLACK = 0.95
"""A full run that takes less than this share of what the target allows is followed by a gentler one."""


def parse_size(text: str, parameters: int) -> int:
    """Bytes of a size such as ``12000``, ``12KB``, ``11.5KiB`` or ``20x``, that share of the float32 parameters.

    Raises
    ------
    ModelError
        If it is none of these.
    """
    found = re.fullmatch(r"\s*([0-9]+\.?[0-9]*)\s*([a-zA-Z]*)\s*", text)
    number, unit = (float(found[1]), found[2].lower()) if found else (0.0, "")
    size = 4 * parameters / number if unit == "x" and number else number * UNITS.get(unit, 0)
    if not size >= 1:
        raise ModelError(f"target size {text!r} must be bytes, as 12000, 12KB or 11.5KiB, or a ratio, as 20x")
    return int(size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What a network takes and does.

    Parameters
    ----------
    bytes : int
        Of the whole image.
    cycles : int
        Predicted, of one inference.
    accuracy : float
        Of the integer network on the validation images.
    """

    bytes: int
    cycles: int
    accuracy: float

    def __str__(self) -> str:
        return f"{self.bytes:,} bytes, {self.cycles:,} cycles, accuracy {self.accuracy:.4f}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What a network must keep to; None is no limit.

    Parameters
    ----------
    size, cycles : int or None
        At most.
    accuracy : float or None
        At least, 0 to 1.
    """

    size: int | None = None
    cycles: int | None = None
    accuracy: float | None = None

    @property
    def limited(self) -> bool:
        """Whether size or cycles are limited, so that the gentlest setting is looked for; else the strongest."""
        return self.size is not None or self.cycles is not None

    def excess(self, found: Measured) -> float:
        """The greatest of size and cycles over what is allowed: 1 at the limit."""
        return max((value / limit for value, limit in ((found.bytes, self.size), (found.cycles, self.cycles)) if limit),
                   default=0.0)

    def lack(self, found: Measured) -> float:
        """Accuracy that is missing."""
        return max(0.0, (self.accuracy or 0.0) - found.accuracy)

    def met(self, found: Measured) -> bool:
        """Whether all of it is met."""
        return self.excess(found) <= 1 and not self.lack(found)

    def __str__(self) -> str:
        parts = [f"at most {self.size:,} bytes" if self.size is not None else "",
                 f"at most {self.cycles:,} cycles" if self.cycles is not None else "",
                 f"accuracy at least {self.accuracy:.4f}" if self.accuracy is not None else ""]
        return ", ".join(part for part in parts if part)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Try:
    """One run of a search.

    Parameters
    ----------
    number : int
        From 1.
    value : float
        Of the knob.
    full : bool
        With all of the recipe's epochs.
    measured : Measured or None
        None if there is no network.
    error : str
        Why not.
    met : bool
        Whether the target is met.
    seconds : float
        The run took.
    """

    number: int
    value: float
    full: bool
    measured: Measured | None
    error: str
    met: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        measured = {} if self.measured is None else dataclasses.asdict(self.measured)
        return {"try": self.number, "value": self.value, "full": self.full, **measured, "met": self.met,
                **({"error": self.error} if self.error else {}), "seconds": round(self.seconds, 1)}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """The result of a search.

    Parameters
    ----------
    network : QuantizedNetwork
        The best one that meets the target: of the most accurate, or of the smallest if only accuracy is asked for.
    best : Try
        How it was made.
    tries : tuple of Try
        All of them.
    target : str
        What was asked for.
    """

    network: QuantizedNetwork
    best: Try
    tries: tuple[Try, ...]
    target: str


Run = Callable[[int, float, bool], tuple[QuantizedNetwork, Measured]]


def find(run: Run, recipe: type[Recipe], target: Target, *, tries: int, short: bool,
         report: Callable[[Try], None] | None = None) -> Found:
    """Search by bisection with short runs, then with full ones where these have led.

    Parameters
    ----------
    run : callable
        Makes and measures a network, from the number of the try, the knob's value and whether it is a full run.
    recipe : type of Recipe
        Its knob is turned.
    target : Target
        What to find.
    tries : int
        Runs of the bisection.
    short : bool
        Whether these are shorter than full runs; otherwise there are no others.
    report : callable, optional
        Called after each try.

    Raises
    ------
    ModelError
        If the recipe has no knob, or no try meets the target; the nearest one is told.
    """
    if recipe.knob is None:
        raise ModelError(f"recipe {recipe.name} has no option that a search for a target could turn; take one that "
                         f"has, such as best, or set the recipe's options yourself")
    return _Search(run, recipe.knob, target, report).find(tries, short)


class _Search:
    def __init__(self, run: Run, knob: Knob, target: Target, report: Callable[[Try], None] | None) -> None:
        self.run, self.knob, self.target, self.report = run, knob, target, report
        self.done: dict[tuple[float, bool], Try] = {}
        self.best: tuple[QuantizedNetwork, Try] | None = None

    def find(self, tries: int, short: bool) -> Found:
        """All tries."""
        position, step = self.bisect(tries, full=not short)
        if short:
            self.settle(position, step)
        made = tuple(self.done.values())
        if self.best is None:
            raise ModelError(f"no network meets the target ({self.target}) in {len(made)} tries; {self.nearest(made)}")
        return Found(network=self.best[0], best=self.best[1], tries=made, target=str(self.target))

    def bisect(self, tries: int, *, full: bool) -> tuple[float, float]:
        """The position that looks best, and how far it may be off."""
        low, high, sides = 0.0, 1.0, {0.0: math.nan, 1.0: math.nan}
        for _ in range(tries):
            position = _between(low, high, sides[low], sides[high])
            if (self.knob.at(position), full) in self.done:
                break
            tried = self.attempt(position, full)
            if tried.measured is not None:
                sides[position] = math.log(max(self.target.excess(tried.measured), 1e-9))
            else:
                sides[position] = math.nan
            if self.stronger(tried):
                low = position
            else:
                high = position
        # The end itself is only tried when everything before it has failed.
        position = high if self.target.limited else low
        if (self.knob.at(position), full) not in self.done:
            self.attempt(position, full)
        return position, max(high - low, 0.01)

    def settle(self, position: float, step: float) -> None:
        """Full runs about a position, away from failures, and towards what the target leaves free."""
        failed: set[bool] = set()
        for _ in range(FULL_RUNS):
            tried = self.attempt(position, full=True)
            if not tried.met:
                towards = self.stronger(tried)
                failed.add(not towards)
                position += 2 * step if towards else -2 * step
            elif self.target.limited and tried.measured and self.target.excess(tried.measured) >= SLACK:
                return
            else:
                towards = not self.target.limited
                if (not towards) in failed or towards in failed:
                    return
                position += step if towards else -step
            position = min(max(position, 0.0), 1.0)
            if (self.knob.at(position), True) in self.done:
                return

    def stronger(self, tried: Try) -> bool:
        """Whether the next try must be a stronger one."""
        if tried.measured is None:
            return tried.error.startswith(TOO_LARGE)
        if self.target.limited:
            return self.target.excess(tried.measured) > 1
        return not self.target.lack(tried.measured)

    def attempt(self, position: float, full: bool) -> Try:
        """One run."""
        value, number, start = self.knob.at(position), len(self.done) + 1, time.perf_counter()
        network, measured, error = None, None, ""
        try:
            network, measured = self.run(number, value, full)
        except CapacityError as reason:
            error = f"{TOO_LARGE}: {reason}"
        except ModelError as reason:
            error = str(reason)
        tried = Try(number=number, value=value, full=full, measured=measured, error=error,
                    met=measured is not None and self.target.met(measured), seconds=time.perf_counter() - start)
        self.done[value, full] = tried
        if network is not None and tried.met and (self.best is None or self.rank(tried) > self.rank(self.best[1])):
            self.best = network, tried
        if self.report is not None:
            self.report(tried)
        return tried

    def rank(self, tried: Try) -> tuple[float, float]:
        """Of tries that meet the target."""
        assert tried.measured is not None
        size, accuracy = -float(tried.measured.bytes), tried.measured.accuracy
        return (accuracy, size) if self.target.limited else (size, accuracy)

    def distance(self, tried: Try) -> float:
        """How far a try is from the target."""
        assert tried.measured is not None
        return max(self.target.excess(tried.measured) - 1, 0.0) + self.target.lack(tried.measured)

    def nearest(self, made: tuple[Try, ...]) -> str:
        """The try that came nearest, in words."""
        there = [tried for tried in made if tried.measured]
        if not there:
            return f"none made a network: {made[-1].error}"
        best = min(there, key=self.distance)
        return (f"the nearest one is {self.knob.option} = {best.value}: {best.measured}; ask for less, or take another "
                f"recipe")


TOO_LARGE = "too large"


def _between(low: float, high: float, at_low: float, at_high: float) -> float:
    """Where the logarithm of the excess is 0 on a line between two positions, but not too near to them; in the middle
    where they are not known."""
    if math.isnan(at_low) or math.isnan(at_high) or not at_low > 0 > at_high or at_high < math.log(1e-8):
        return (low + high) / 2
    return low + (high - low) * min(max(at_low / (at_low - at_high), 0.15), 0.85)
