"""Quantize a weight matrix column by column, each choice making up for the errors of the columns before.

With the second moments H = R R^T of the inputs, R upper triangular, a row's error e adds the mean square |e R|^2 to its
output. Component j of e R is R_jj (e_j + sum over i < j of e_i R_ij / R_jj): so column j takes the value nearest to its
weight less that sum, as errors of earlier columns are known. This is the sweep of OBQ and GPTQ (Frantar and Alistarh,
arXiv:2208.11580, arXiv:2210.17323) without an inverse, as in QuIP (Chee et al., arXiv:2307.13304, section 3). "Nearest"
here counts the bits of the value, too: squared error plus slope times codeword, as in entropy-constrained scalar
quantization (Chou, Lookabaugh and Gray, "Entropy-constrained vector quantization", 1989).
"""

import dataclasses
import math

import torch
from torch import Tensor

from ...hw.arch.errors import ModelError
from .weights import ENTRY_BITS, TermGrid

__all__ = ["Choice", "Problem", "Rate"]

BLOCK = 128
"""Columns whose errors reach the later ones together."""
ATTEMPTS = 8
"""Dampings, each ten times the one before, until the moments have a factor."""


class Rate:
    """Bits of each value of a grid: its codeword by the entropy of the last counts, and its share of the dictionary.

    Parameters
    ----------
    grid : TermGrid
        The values.
    term_bits : float
        What each term of a value costs besides.
    """

    def __init__(self, grid: TermGrid, term_bits: float) -> None:
        self.terms = grid.lengths
        self.term_bits = term_bits

    def bits(self, counts: Tensor) -> Tensor:
        """Bits of a weight of each value, from how many weights have it."""
        codeword = -torch.log2((counts + 0.5) / (counts.sum() + 0.5))
        return codeword + self.term_bits * self.terms + ENTRY_BITS * self.terms / (counts + 1)

    def total(self, counts: Tensor) -> float:
        """Bits of all weights and of the dictionary."""
        codeword = -torch.log2(counts.clamp_min(1) / counts.sum())
        return float((counts * codeword).sum() + ENTRY_BITS * self.terms[counts > 0].sum())


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """A layer's weights on a grid.

    Parameters
    ----------
    numbers : float tensor (groups, rows, columns)
        Integers of the grid.
    counts : int64 tensor
        Weights of each of the grid's values.
    error : float
        What their squared error costs.
    bits : float
        Of codewords and dictionary.
    cost : float
        ``error`` plus slope times all bits.
    """

    numbers: Tensor
    counts: Tensor
    error: float
    bits: float
    cost: float


class Problem:
    """A layer's weights, and what errors in them cost.

    Parameters
    ----------
    weight : float tensor (groups, rows, columns)
        Wanted weights.
    moments : float tensor (groups, columns, columns)
        Second moments of the inputs.
    cross : float tensor (groups, rows, columns) or None
        Second moments of what outputs lack with the inputs: weights are wanted that make up for it.
    importance : float tensor (groups, rows)
        What a mean squared error of 1 at each row's output costs.
    damping : float
        Share of the mean of the moments' diagonal that is added to it.
    ordered : bool
        Columns with the greatest moments go first; otherwise in their order.
    """

    def __init__(self, weight: Tensor, moments: Tensor, importance: Tensor, *, cross: Tensor | None, damping: float,
                 ordered: bool) -> None:
        diagonal = moments.diagonal(dim1=1, dim2=2)
        columns = weight.shape[2]
        self.order = (diagonal.argsort(dim=1, descending=True, stable=True) if ordered else
                      torch.arange(columns).expand(len(weight), -1))
        self.weight = weight.gather(2, self.order[:, None].expand_as(weight))
        moments = moments.gather(1, self.order[:, :, None].expand_as(moments))
        moments = moments.gather(2, self.order[:, None].expand_as(moments))
        self.importance = importance
        self.factor = _factor(moments, damping)
        """R."""
        if cross is not None:
            cross = cross.gather(2, self.order[:, None].expand_as(cross))
            half = torch.linalg.solve_triangular(self.factor.mT, cross, upper=False, left=False)
            self.weight += torch.linalg.solve_triangular(self.factor, half, upper=True, left=False)
        self.weights = self.factor.diagonal(dim1=1, dim2=2).square()

    def step(self, slope: float) -> float:
        """The distance of a uniform quantizer's values where a bit is worth `slope`, at high rate, or 0."""
        matter = [part[part > 0].log2().mean() for part in (self.importance, self.weights)]  # dead channels do not
        step = float((slope * 6 / 0.6931 / 2.0 ** sum(matter)) ** 0.5)
        return step if math.isfinite(step) else 0.0

    def solve(self, grid: TermGrid, unit: float, slope: float, rate: Rate, rounds: int,
              counts: Tensor | None = None) -> Choice:
        """Sweep some rounds, each with the codeword lengths of the one before, the first with those of given counts."""
        numbers = grid.numbers
        if counts is None:
            counts = _counts(grid.ranks(self.weight / unit), numbers)
        for _ in range(rounds):
            ranks, error = self._sweep(unit, numbers, rate.bits(counts) * slope)
            counts = _counts(ranks, numbers)
        chosen = torch.empty_like(self.weight).scatter_(2, self.order[:, None].expand_as(ranks), numbers[ranks])
        return Choice(chosen, counts, error, rate.total(counts),
                      error + slope * float((counts * rate.bits(counts)).sum()))

    def _sweep(self, unit: float, numbers: Tensor, price: Tensor) -> tuple[Tensor, float]:
        """Ranks of the values, and what their errors cost."""
        ranks, errors = torch.empty(self.weight.shape, dtype=torch.int32), torch.zeros_like(self.weight)
        total = 0.0
        for start in range(0, self.weight.shape[2], BLOCK):
            block = slice(start, min(start + BLOCK, self.weight.shape[2]))
            factor = self.factor[:, block, block]
            carried = errors[:, :, :start] @ self.factor[:, :start, block]
            wanted, within = self.weight[:, :, block] / unit, torch.zeros_like(carried)
            scale = self.importance[:, :, None] * factor.diagonal(dim1=1, dim2=2)[:, None].square() * unit**2
            for place in range(wanted.shape[2]):
                owed = carried[:, :, place] + (within[:, :, :place] @ factor[:, :place, place, None])[:, :, 0]
                target = wanted[:, :, place] - owed / factor[:, None, place, place]
                away = (target[:, :, None] - numbers).square_().mul_(scale[:, :, place, None])
                best = torch.add(away, price).argmin(2, keepdim=True)
                ranks[:, :, start + place] = best[:, :, 0]
                within[:, :, place] = numbers[best[:, :, 0]] - wanted[:, :, place]
                total += float(away.gather(2, best).sum())
            errors[:, :, block] = within
        return ranks, total


def _counts(ranks: Tensor, numbers: Tensor) -> Tensor:
    return torch.bincount(ranks.flatten(), minlength=len(numbers))


def _factor(moments: Tensor, damping: float) -> Tensor:
    """The upper triangular factor of damped moments."""
    mean = moments.diagonal(dim1=1, dim2=2).mean(1)
    mean = torch.where(mean > 0, mean, mean.max().clamp_min(1e-12))
    for attempt in range(ATTEMPTS):
        added = torch.diag_embed((mean * max(damping, 1e-6) * 10.0**attempt)[:, None].expand(moments.shape[:2]))
        lower, failed = torch.linalg.cholesky_ex((moments + added).flip(1, 2))
        if not failed.any():
            return lower.flip(1, 2)
    raise ModelError("the second moments of its inputs can't be factored; give other sample images")
