"""Parametrizations of a layer's weights: what values they may take, and how training reaches these.

Values are integers times a power of two; an integer becomes a sum of signed powers of two, its canonical signed digits.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...hw.arch.bus import BUS_DATA_BITS
from ..terms import grid_integers
from .bqnet import LevelSet
from .quantizers import straight_through

__all__ = ["ENTRY_BITS", "FreeWeights", "NearestValue", "PartlyFrozen", "PowerOfTwo", "SharedWeights", "TermGrid",
           "WeightQuantizer", "digit_planes", "midpoints", "ranks"]

ENTRY_BITS = BUS_DATA_BITS
"""Of a value's term in the dictionary: a word of the model memory."""
FREE_SPAN = 16
"""Bits that weights are told to have as long as they are not quantized: their rounding is not seen."""


def digit_planes(numbers: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Canonical signed digits of int64 integers: each place that is not 0 everywhere, and its digits -1, 0, 1."""
    place = 0
    while bool(numbers.any()):
        digits = torch.where(numbers % 2 == 1, 2 - numbers % 4, 0)
        if bool(digits.any()):
            yield place, digits
        numbers, place = (numbers - digits) // 2, place + 1


def midpoints(values: Tensor) -> Tensor:
    """Half-way between neighbours among rising values: where the nearest one changes."""
    return (values[1:] + values[:-1]) / 2


def ranks(x: Tensor, boundaries: Tensor) -> Tensor:
    """The place of each number among values with these rising boundaries; on one, that of the greater value."""
    return torch.bucketize(x.contiguous(), boundaries.to(x), right=True)


class TermGrid:
    """The integers that are sums of at most so many signed powers of two, of at most so many places.

    Parameters
    ----------
    terms : int
        Powers of two in a value.
    span : int
        Places: shifts are below it.

    Attributes
    ----------
    numbers : float tensor
        The integers, rising, 0 among them.
    lengths : int64 tensor
        Powers of two in each of them.
    """

    def __init__(self, terms: int, span: int) -> None:
        self.terms, self.span = terms, span
        found = grid_integers(terms, span)
        negative = [number for number in reversed(found) if number]
        self.numbers = torch.tensor([-number for number in negative] + list(found), dtype=torch.float32)
        self.lengths = torch.tensor([found[number] for number in negative] + list(found.values()))
        self._boundaries = midpoints(self.numbers)

    def ranks(self, x: Tensor) -> Tensor:
        """The place of the nearest integer of the grid."""
        return ranks(x, self._boundaries)

    def nearest(self, x: Tensor) -> Tensor:
        """The nearest integer of the grid."""
        return self.numbers.to(x)[self.ranks(x)]

    def scale(self, values: Tensor, weights: Tensor | None = None, *, most: int = 3) -> int:
        """The k with the least squared error when values become the grid's times ``2**-(k + span - 1)``.

        Each value counts as its one of `weights`. Scales are tried from the least one that holds the greatest value to
        one `most` finer.
        """
        largest = float(values.abs().max()) if values.numel() else 0.0
        if not largest > 0:
            return 0
        first = -math.ceil(math.log2(largest / float(self.numbers.max()) * 2.0**(self.span - 1)))
        best = (math.inf, first)
        for k in range(first, first + most + 1):
            unit = 2.0 ** -(k + self.span - 1)
            error = (self.nearest(values / unit) * unit - values).square().double()
            best = min(best, (float((error if weights is None else error * weights).sum()), k))
        return best[1]


class WeightQuantizer(nn.Module):
    """Parametrization of a layer's weights.

    Attributes
    ----------
    k_top : int
        The power of two ``2**-k_top`` is the greatest term that a value may have.
    span : int
        Places of a value's terms: the least is ``2**-(k_top + span - 1)``.
    mask : bool tensor
        False for the weights that are taken out: 0, without a gradient. :meth:`prune` chooses it; a single True before.
    quantized : bool
        Whether weights have their values already; otherwise the layer's arithmetic is not that of the device yet.
    """

    mask: Tensor
    quantized = True

    def __init__(self) -> None:
        super().__init__()
        self.k_top, self.span = 0, 1
        self.register_buffer("mask", torch.tensor(True))

    @property
    def unit(self) -> float:
        """Of :meth:`numbers`."""
        return 2.0 ** -(self.k_top + self.span - 1)

    def fit(self, weight: Tensor) -> None:
        """Choose the values anew for the parameter that is trained."""

    def prune(self, weight: Tensor, share: float) -> None:
        """Choose anew which weights are taken out: the smallest, that share of all."""
        kept = weight.numel() - round(share * weight.numel())
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[weight.abs().flatten().topk(kept, sorted=False).indices] = True
        self.mask = mask.reshape(weight.shape)

    def numbers(self, weight: Tensor) -> Tensor:
        """Weights as integers in :attr:`unit`, int64, from the parameter that is trained."""
        with torch.no_grad():
            return torch.round(self(weight).double() / self.unit).long()

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The parameter that is trained, from weights to start with."""
        return weight


class FreeWeights(WeightQuantizer):
    """Float weights, perhaps pruned: for phases before the weights get their values.

    Parameters
    ----------
    span : int
        Places that the values will take: so much room is kept for channels' own powers of two.
    """

    quantized = False

    def __init__(self, span: int = 1) -> None:
        super().__init__()
        self.span = span

    def fit(self, weight: Tensor) -> None:
        self.span = FREE_SPAN
        largest = float(weight.abs().max())
        self.k_top = -math.floor(math.log2(largest)) if largest > 0 else 0

    def forward(self, weight: Tensor) -> Tensor:
        """The weights that are not taken out."""
        return weight * self.mask


class NearestValue(WeightQuantizer):
    """The nearest value of a set, with gradients straight through to full-precision master weights.

    Attributes
    ----------
    values : float tensor
        Integers, rising: what weights may be, in :attr:`unit`. A subclass or a recipe chooses them, ``k_top`` and
        ``span``.
    """

    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(1))

    @property
    def boundaries(self) -> Tensor:
        """Where one value ends and the next begins, in :attr:`unit`."""
        return midpoints(self.values)

    def ranks(self, weight: Tensor) -> Tensor:
        """The place of each weight's value among the values."""
        return ranks(weight / self.unit, self.boundaries)

    def quantize(self, weight: Tensor) -> Tensor:
        """The nearest value of each weight."""
        return self.values.to(weight)[self.ranks(weight)] * (self.mask * self.unit)

    def forward(self, weight: Tensor) -> Tensor:
        """The nearest values, with gradients straight through."""
        return straight_through(weight * self.mask, self.quantize(weight.detach()))


class PartlyFrozen(WeightQuantizer):
    """Weights of which some have their values for good, while the others stay float and are trained around them.

    Parameters
    ----------
    grid : TermGrid
        What values may be, in :attr:`unit`. The recipe chooses ``k_top`` before the first are frozen.

    Attributes
    ----------
    frozen : bool tensor
        True for the weights that have their values; a single False before the first.
    values : float tensor
        Integers of the grid; 0 for weights that are not frozen.
    """

    frozen: Tensor
    values: Tensor

    def __init__(self, grid: TermGrid) -> None:
        super().__init__()
        self.grid, self.span = grid, grid.span
        self.register_buffer("frozen", torch.tensor(False))
        self.register_buffer("values", torch.tensor(0.0))

    @property
    def quantized(self) -> bool:  # type: ignore[override]
        return bool(self.frozen.all())

    def freeze(self, weight: Tensor, which: Tensor) -> None:
        """Give some weights the nearest value of the grid, for good; those that have one keep it."""
        new = which & ~self.frozen
        self.values = torch.where(new, self.grid.nearest(weight / self.unit), self.values)
        self.frozen = self.frozen | which

    def forward(self, weight: Tensor) -> Tensor:
        """Frozen weights' values, the others as they are."""
        return torch.where(self.frozen, self.values.to(weight) * self.unit, weight)


class SharedWeights(WeightQuantizer):
    """Fixed assignment of weights to centroids, which are what is trained: a centroid's gradient is the sum of its
    weights' (Han, Mao and Dally, arXiv:1510.00149, section 3.3). Centroids are snapped to sums of few powers of two.

    Parameters
    ----------
    indices : int64 tensor
        The centroid of each weight, in the weights' shape.
    grid : TermGrid or None
        What centroids may be; None leaves them free.
    zero : int or None
        The centroid that stays 0: that of pruned weights.
    """

    indices: Tensor

    def __init__(self, indices: Tensor, grid: TermGrid | None, *, zero: int | None = None) -> None:
        super().__init__()
        self.register_buffer("indices", indices)
        self.grid, self.zero = grid, zero
        self.span = grid.span if grid else FREE_SPAN
        self.count = int(indices.max()) + 1

    @property
    def quantized(self) -> bool:  # type: ignore[override]
        return self.grid is not None

    def fit(self, weight: Tensor) -> None:
        """Choose the scale for the present centroids, each of which counts as often as it is used."""
        if self.grid is None:
            largest = float(weight.abs().max())
            self.k_top = -math.floor(math.log2(largest)) if largest > 0 else 0
        else:
            self.k_top = self.grid.scale(weight, torch.bincount(self.indices.flatten(), minlength=len(weight)))

    def forward(self, centroids: Tensor) -> Tensor:
        """Each weight its centroid, with the gradient straight through the snap."""
        if self.zero is not None:
            centroids = centroids * (torch.arange(len(centroids)) != self.zero)
        if self.grid is not None:
            snapped = self.grid.nearest(centroids.detach() / self.unit) * self.unit
            centroids = straight_through(centroids, snapped)
        return centroids[self.indices]

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The mean weight of each centroid."""
        flat = self.indices.flatten()
        total = torch.zeros(self.count, dtype=weight.dtype).index_add_(0, flat, weight.flatten())
        return total / torch.bincount(flat, minlength=self.count).clamp_min(1)


class PowerOfTwo(WeightQuantizer):
    """Parametrization of a weight by its nearest value ``+-2**-k`` (or 0) of a level set.

    Parameters
    ----------
    level_set : LevelSet
        The values, up to the layer's scale.

    Attributes
    ----------
    k_top : int
        The scale: k of the largest magnitude. :meth:`fit` chooses it.
    """

    def __init__(self, level_set: LevelSet) -> None:
        super().__init__()
        self.level_set = level_set
        self.k_top, self.span = level_set.k_min, level_set.levels
        count = level_set.levels
        # Magnitudes relative to the largest, rising; between two neighbours the boundary is half-way.
        magnitudes = ([0.0] if level_set.zero else []) + [2.0**-j for j in reversed(range(count))]
        self._magnitudes = torch.tensor(magnitudes)
        self._boundaries = midpoints(self._magnitudes)

    def fit(self, weight: Tensor) -> None:
        """Choose the scale with the least squared error over the weights of the layer that are not taken out."""
        level_set, keep = self.level_set, self.k_top
        weight = weight * self.mask
        errors = {}
        for self.k_top in range(level_set.k_min, level_set.k_max - level_set.levels + 2):
            errors[self.k_top] = float((self.quantize(weight) - weight).square().sum(dtype=torch.float64))
        # On a tie (a layer of zeros, say) the old scale is as good as any.
        best = min(errors.values())
        self.k_top = keep if errors[keep] == best else min(errors, key=errors.__getitem__)

    def quantize(self, weight: Tensor) -> Tensor:
        """The nearest value of each weight."""
        scaled = weight.abs() * 2.0**self.k_top
        magnitude = self._magnitudes.to(scaled)[ranks(scaled, self._boundaries)] * (self.mask * 2.0**-self.k_top)
        return torch.where(weight < 0, -magnitude, magnitude)  # without zero as a value, -0.0 is positive

    def forward(self, weight: Tensor) -> Tensor:
        """The nearest values, with gradients straight through."""
        return straight_through(weight * self.mask, self.quantize(weight.detach()))
