"""Scalar quantizers of weights that are not equally important: k-means, entropy-constrained, and uniform bins.

Choi, El-Khamy and Lee, "Towards the limit of network quantization", arXiv:1612.01543: an error is weighted with the
second derivative of the loss (section 3), and codeword lengths are part of what is made small (section 4).
"""

import dataclasses

import torch
from torch import Tensor

from ...hw.arch.errors import ModelError
from .rate import code_lengths
from .weights import ENTRY_BITS

__all__ = ["MOST_BINS", "Assignment", "Points", "entropy_constrained", "kmeans", "uniform"]

ROUNDS = 30
CHUNK = 1 << 22
FEWER = 1.6
LEAST_BEGIN = 4
MOST_BINS = 127
"""To either side of 0."""


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """The weights of one or more layers that are quantized together.

    Parameters
    ----------
    weight : float tensor (N)
        Those that stay.
    importance : float tensor (N)
        Of their squared errors.
    layer : int64 tensor (N)
        Whose they are, from 0.
    pruned : int64 tensor (layers)
        How many more weights each layer has, which are 0.
    """

    weight: Tensor
    importance: Tensor
    layer: Tensor
    pruned: Tensor

    @property
    def size(self) -> float:
        """Root mean square of the weights."""
        return float(self.weight.square().mean().sqrt())

    def means(self, labels: Tensor, centers: Tensor) -> Tensor:
        """Weighted mean of each center's weights; a center without any stays."""
        total = torch.zeros(len(centers), dtype=torch.float64)
        weights = total.index_add(0, labels, self.importance.double())
        sums = total.index_add(0, labels, (self.importance * self.weight).double())
        return torch.where(weights > 0, sums / weights.clamp_min(1e-300), centers.double()).to(centers)

    def counts(self, labels: Tensor, centers: int) -> Tensor:
        """How many of each layer's weights have each center, int64 (layers, centers)."""
        flat = torch.bincount(self.layer * centers + labels, minlength=len(self.pruned) * centers)
        return flat.reshape(len(self.pruned), centers)


@dataclasses.dataclass(frozen=True, eq=False)
class Assignment:
    """Values of weights.

    Parameters
    ----------
    labels : int64 tensor (N)
        Which center each weight has.
    centers : float tensor
        0 among them.
    """

    labels: Tensor
    centers: Tensor


def kmeans(points: Points, clusters: int, seed: int) -> Assignment:
    """Weighted k-means, from centers spread evenly; the center nearest to 0 becomes 0."""
    from sklearn.cluster import KMeans

    values = points.weight.double().numpy()[:, None]
    count = min(clusters, len(torch.unique(points.weight)))
    start = torch.linspace(float(points.weight.min()), float(points.weight.max()), count, dtype=torch.float64)
    found = KMeans(count, init=start.numpy()[:, None], n_init=1, random_state=seed).fit(
        values, sample_weight=points.importance.double().numpy())
    centers = torch.tensor(found.cluster_centers_[:, 0]).float()
    centers[centers.abs().argmin()] = 0.0
    return Assignment(torch.tensor(found.labels_).long(), centers)


def uniform(points: Points, step: float, where: str) -> Assignment:
    """Bins as wide as `step`, one about 0; a bin's value is the weighted mean of its weights.

    Raises
    ------
    ModelError
        If there are more bins than a dictionary has entries.
    """
    bins = torch.round(points.weight / step).long()
    most = int(bins.abs().max())
    if most > MOST_BINS:
        raise ModelError(f"{where}: bins {step:.3g} wide would be {2 * most + 1}, more than {2 * MOST_BINS + 1}; "
                         f"raise step")
    centers = points.means(bins + most, step * torch.arange(-most, most + 1).float())
    centers[most] = 0.0
    return Assignment(bins + most, centers)


def entropy_constrained(points: Points, clusters: int, slope: float) -> Assignment:
    """The values and assignment with the least weighted squared error plus `slope` times codeword lengths.

    Each layer has codeword lengths of its own, as on the device: ideal ones, for how often its weights have each value,
    pruned ones included, plus a share of the value's dictionary entry. Assignment, lengths and values are found from
    each other in turn; values whose weights all leave them die out.

    Parameters
    ----------
    points : Points
        The weights.
    clusters : int
        Values to begin with, evenly spread; 0 is one more, and stays.
    slope : float
        What a bit is worth, as squared error times importance.
    """
    tried = [_descend(points, count, slope) for count in _fewer(clusters)]
    return min(tried, key=lambda each: each[0])[1]


def _fewer(clusters: int) -> list[int]:
    """Numbers of values to begin with: from many, fewer are not always found."""
    counts = [clusters]
    while counts[-1] >= 2 * LEAST_BEGIN:
        counts.append(round(counts[-1] / FEWER))
    return counts


def _descend(points: Points, clusters: int, slope: float) -> tuple[float, Assignment]:
    """From so many evenly spread values to a minimum, and how low that is."""
    # The bin about 0 is the fullest one: weights of no importance go where codewords are short.
    low, high = float(points.weight.min()), float(points.weight.max())
    step = (high - low) / (clusters - 1) or abs(high) or 1.0
    ranks = torch.arange(round(low / step), round(high / step) + 1)
    centers = torch.cat([torch.zeros(1), step * ranks[ranks != 0]])
    importance, prices = points.importance, torch.zeros(len(points.pruned), len(centers))
    labels = _nearest(points.weight, importance, points.layer, centers, prices)
    for _ in range(ROUNDS):
        before, counts = labels, points.counts(labels, len(centers))
        used = counts.sum(0) > 0
        used[0] = True
        if not bool(used.all()):
            labels = (used.cumsum(0) - 1)[labels]
            centers, counts = centers[used], counts[:, used]
        centers = points.means(labels, centers)
        centers[0] = 0.0
        prices = slope * _lengths(counts, points.pruned)
        labels = _nearest(points.weight, importance, points.layer, centers, prices)
        if torch.equal(labels, before):
            break
    centers = points.means(labels, centers)
    centers[0] = 0.0
    prices = slope * _lengths(points.counts(labels, len(centers)), points.pruned)
    errors = importance * (points.weight - centers[labels]).square()
    total = (errors + prices[points.layer, labels]).sum(dtype=torch.float64) + (prices[:, 0] * points.pruned).sum()
    return float(total), Assignment(labels, centers)


def _lengths(counts: Tensor, pruned: Tensor) -> Tensor:
    """Codeword lengths for each layer and center, in bits; the center 0 is that of pruned weights, too."""
    rows = []
    for used, zeros in zip(counts.clone(), pruned.tolist(), strict=True):
        used[0] += zeros
        bits = code_lengths(used)
        bits[1:] += ENTRY_BITS / (used[1:] + 1)
        rows.append(bits.float())
    return torch.stack(rows)


def _nearest(weight: Tensor, importance: Tensor, layer: Tensor, centers: Tensor, prices: Tensor) -> Tensor:
    """The center of least error plus price for each weight."""
    parts = []
    for part in torch.arange(len(weight)).split(max(1, CHUNK // len(centers))):
        costs = (weight[part, None] - centers).square_().mul_(importance[part, None])
        parts.append(costs.add_(prices[layer[part]]).argmin(1))
    return torch.cat(parts)
