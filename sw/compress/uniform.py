"""Uniform weights whose clipping boundary is found by least squares."""

import math

import torch
from torch import Tensor

from .fakequant import FakeQuantized
from .training import Method
from .weights import NearestValue, TermGrid, midpoints, ranks

__all__ = ["FindBoundaries", "Uniform"]

CANDIDATES = 12
"""Boundaries within one power of two."""
OCTAVES = 4
"""Powers of two below the greatest weight that boundaries are tried in."""
SAMPLES = 1 << 15
"""Weights that the error is measured on: evenly spread, and enough to compare boundaries."""


class Uniform(NearestValue):
    """Evenly spaced values between a boundary and its negative, 0 among them, each snapped to a sum of powers of two.

    Parameters
    ----------
    bits : int
        Of a value: ``2**bits - 1`` values.
    grid : TermGrid
        What values may be.

    Attributes
    ----------
    boundary : float
        The greatest value before it was snapped; weights beyond are clipped. :meth:`fit` finds it.
    settled : bool
        The scale stays: boundaries are only looked for among those that it holds.
    """

    def __init__(self, bits: int, grid: TermGrid) -> None:
        super().__init__()
        self.bits, self.grid, self.span = bits, grid, grid.span
        self.boundary, self.settled = 0.0, False

    def fit(self, weight: Tensor) -> None:
        """Find the boundary with the least squared error over the weights, and the scale that holds it."""
        weight = weight.flatten()
        largest = float(weight.abs().max())
        if not largest > 0:
            return
        weight = weight[::-(-len(weight) // SAMPLES)].double()
        best: tuple[float, float, int] | None = None
        for step in range(CANDIDATES * OCTAVES):
            boundary = largest * 2.0 ** (-step / CANDIDATES)
            # Finest unit in which the boundary is still within the grid.
            k_top = math.floor(math.log2(float(self.grid.numbers[-1]) / boundary)) - self.span + 1
            if self.settled and k_top < self.k_top:
                continue
            k_top = self.k_top if self.settled else k_top
            values = self._levels(boundary, k_top)
            unit = 2.0 ** -(k_top + self.span - 1)
            nearest = values[ranks(weight / unit, midpoints(values))]
            error = float((nearest * unit - weight).square().sum())
            if best is None or error < best[0]:
                best = (error, boundary, k_top)
        if best is not None:
            _, self.boundary, self.k_top = best
            self.values = self._levels(self.boundary, self.k_top).float()

    def _levels(self, boundary: float, k_top: int) -> Tensor:
        """The values, in units of a scale."""
        most = (1 << self.bits - 1) - 1
        levels = torch.arange(-most, most + 1, dtype=torch.float64) / most * (boundary * 2.0 ** (k_top + self.span - 1))
        return torch.unique(self.grid.nearest(levels))


class FindBoundaries(Method):
    """Finds boundaries anew in each epoch; those of the second half within the scales of the first, as activations'
    scales are chosen by then.

    Parameters
    ----------
    steps : int
        Of an epoch.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.last = steps, 0

    def begin(self, network: FakeQuantized, steps: int) -> None:
        self.last = steps

    def before_step(self, network: FakeQuantized, step: int) -> None:
        if step > self.last and step % self.steps == 0:
            for layer in network.weighted.values():
                quantizer = layer.weight_quantizer
                assert isinstance(quantizer, Uniform)
                quantizer.settled = True
                layer.refit()
