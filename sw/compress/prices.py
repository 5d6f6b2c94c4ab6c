"""What weights cost, in bits or in cycles, and the values of least squared error plus price.

Values are chosen as in entropy-constrained scalar quantization (Chou, Lookabaugh and Gray, "Entropy-constrained vector
quantization", 1989): codeword lengths from how often each value occurs now.
"""

import math

import torch
from torch import Tensor

from .quantizers import straight_through
from .weights import ENTRY_BITS, NearestValue, TermGrid, midpoints, ranks

__all__ = ["BlockCycles", "CodeBits", "PricedValue"]

RUN_BITS = 1 / math.log(2)
"""Bits of a run of zeros beyond the logarithm of its mean length, when weights stand at random and far apart."""
ROUNDS = 3
"""Times that values and the lengths of their codewords are found from each other."""
COARSER = 2
"""Scales that are tried beyond the one of least squared error, for where bits are dear."""
CHANGE = 1.05
"""By how much another scale must be better than the present one."""


class CodeBits:
    """What weights cost in bits: the run of zeros before them, their value's codeword, and its dictionary entry.

    Parameters
    ----------
    grid : TermGrid
        The values.

    Attributes
    ----------
    terms : int64 tensor
        Signed powers of two in each value.
    """

    def __init__(self, grid: TermGrid) -> None:
        self.terms = grid.lengths

    def of(self, counts: Tensor, weights: int) -> Tensor:
        """Of a weight of each value, from how many of all `weights` have it; 0 for the value 0."""
        used = torch.where(self.terms > 0, counts, 0).double()
        total = float(used.sum())
        run = math.log2(max(weights, 1) / max(total, 1.0)) + RUN_BITS * (1 - total / max(weights, 1))
        bits = run - torch.log2((used + 0.5) / (total + 0.5)) + ENTRY_BITS * self.terms / (used + 1)
        return torch.where(self.terms > 0, bits, 0.0)


class BlockCycles(CodeBits):
    """What weights cost in cycles: one for each term and block of the output map.

    Parameters
    ----------
    grid : TermGrid
        The values.
    blocks : int
        Of the output map.
    """

    def __init__(self, grid: TermGrid, blocks: int) -> None:
        super().__init__(grid)
        self.blocks = blocks

    def of(self, counts: Tensor, weights: int) -> Tensor:
        return (self.terms * self.blocks).double()


class PricedValue(NearestValue):
    """The value with the least squared error plus price, with gradients straight through to all weights.

    Parameters
    ----------
    grid : TermGrid
        What values may be, in :attr:`unit`.
    cost : CodeBits
        What they cost.

    Attributes
    ----------
    price : float
        Squared error that one unit of cost is worth.
    """

    def __init__(self, grid: TermGrid, cost: CodeBits) -> None:
        super().__init__()
        self.grid, self.cost, self.span = grid, cost, grid.span
        self.price = 0.0
        self.values = grid.numbers
        self._boundaries = midpoints(self.values)

    @property
    def boundaries(self) -> Tensor:
        return self._boundaries

    @property
    def total_cost(self) -> float:
        """Of all weights that are not 0, as weights are now."""
        return float((self._counts * self.cost.of(self._counts, self._weights)).sum())

    def fit(self, weight: Tensor) -> None:
        """Choose the scale for the weights that stay, and the values that win somewhere, and where."""
        kept = weight[self.mask.expand(weight.shape)]
        self._weights = weight.numel()
        first = self.grid.scale(kept)
        if not self.price:
            self._settle(kept, first)
            return
        present = self.k_top
        totals = {k_top: self._settle(kept, k_top) for k_top in range(first - COARSER, first + 2)}
        best = min(totals, key=totals.__getitem__)
        # Another scale moves all weights: it must be worth it.
        if totals.get(present, math.inf) < CHANGE * totals[best]:
            best = present
        self._settle(kept, best)

    def _settle(self, kept: Tensor, k_top: int) -> float:
        """Choose values on a scale; their squared error plus price."""
        self.k_top = k_top
        wanted = kept / self.unit
        self.values = self.grid.numbers
        self._boundaries = midpoints(self.values)
        costs = torch.zeros(len(self.grid.numbers), dtype=torch.double)
        for _ in range(ROUNDS if self.price else 1):
            self._count(wanted)
            if self.price:
                costs = self.cost.of(self._counts, self._weights) * (self.price / self.unit**2)
                self.values, self._boundaries = _winners(self.grid.numbers, costs)
        value = self._count(wanted)
        return self.unit**2 * float((wanted - value).square().sum(dtype=torch.double) + (self._counts * costs).sum())

    def _count(self, wanted: Tensor) -> Tensor:
        """The values of weights in units; counts how often each occurs."""
        chosen = ranks(wanted, self._boundaries)
        self._counts = torch.zeros(len(self.grid.numbers), dtype=torch.long)
        places = torch.searchsorted(self.grid.numbers, self.values)
        self._counts[places] = torch.bincount(chosen, minlength=len(self.values))
        return self.values[chosen]

    def worth(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The squared error that a weight's best value other than 0 saves, below 0 if it saves none, and its cost."""
        costs = self.cost.of(self._counts, self._weights)
        others = self.grid.numbers != 0
        values, boundaries = _winners(self.grid.numbers[others], costs[others] * (self.price / self.unit**2))
        wanted = weight / self.unit
        value = values.to(weight)[ranks(wanted, boundaries)]
        places = torch.searchsorted(self.grid.numbers, value)
        return value * (2 * wanted - value) * self.unit**2, costs.to(weight)[places]

    def forward(self, weight: Tensor) -> Tensor:
        """The values; the gradient reaches the weights that are taken out, too, so that it can be measured."""
        return straight_through(weight, self.quantize(weight.detach()))


def _winners(numbers: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
    """The values v that have the least ``(w - v)**2 + cost`` for some w, and the w between neighbours.

    These are the corners of the lower convex hull of the points (v, v**2 + cost).
    """
    heights = (numbers.double().square() + costs).tolist()
    hull: list[tuple[float, float]] = []
    for value, height in zip(numbers.tolist(), heights, strict=True):
        while len(hull) > 1 and ((hull[-1][1] - hull[-2][1]) * (value - hull[-1][0])
                                 >= (height - hull[-1][1]) * (hull[-1][0] - hull[-2][0])):
            hull.pop()
        hull.append((value, height))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) / 2 for a, b in zip(hull, hull[1:], strict=False)]
    return torch.tensor([value for value, _ in hull]), torch.tensor(slopes)
