"""Codewords for vectors: k-means, self-organizing maps, and several of them in stages.

Vectors may have a mask: coordinates that are out count neither for the distance to a codeword nor for its mean (masked
k-means, Li et al., arXiv:2412.10261, section 4).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...hw.arch.errors import ModelError

__all__ = ["LEARNERS", "STARTS", "kmeans", "learn", "scalar_starts", "self_organizing_map"]

STARTS = ("linear", "density", "random")
"""Where k-means of single weights begins."""
LEARNERS = ("kmeans", "som")
CHUNK = 1 << 14
"""Vectors whose distances are in memory at a time."""
LEAST_RADIUS = 0.25
"""Of the last neighbourhood: what a unit's neighbour learns from it is next to nothing."""

Learner = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def scalar_starts(values: Tensor, count: int, how: str, seed: int = 0) -> Tensor:
    """Centroids that k-means of single weights begins with (Han, Mao and Dally, arXiv:1510.00149, section 3.2).

    Parameters
    ----------
    values : float tensor (N)
        The weights.
    count : int
        Centroids; there are at least so many different weights.
    how : str
        ``"linear"``: evenly between the least and the greatest weight. ``"density"``: evenly in the weights' rank.
        ``"random"``: some of the weights.
    seed : int
        Chooses these.
    """
    if how == "linear":
        return torch.linspace(float(values.min()), float(values.max()), count, dtype=values.dtype)
    if how == "density":
        places = ((torch.arange(count) + 0.5) / count * len(values)).long()
        return values.sort().values[places]
    different = values.unique()
    return different[torch.randperm(len(different), generator=torch.Generator().manual_seed(seed))[:count]]


def _nearest(points: Tensor, mask: Tensor, codewords: Tensor) -> tuple[Tensor, Tensor]:
    """Number of the nearest codeword of each vector, and the squared distance; masked coordinates are 0 in points."""
    labels, errors = [], []
    for some, live in zip(points.split(CHUNK), mask.split(CHUNK), strict=True):
        distance = live.to(points) @ codewords.square().T - 2 * (some @ codewords.T)
        least = distance.min(1)
        labels.append(least.indices)
        errors.append(least.values + some.square().sum(1))
    return torch.cat(labels), torch.cat(errors)


def _totals(points: Tensor, mask: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sums of each codeword's vectors, and how many have each coordinate."""
    empty = torch.zeros(count, points.shape[1], dtype=points.dtype)
    return empty.index_add(0, labels, points), empty.index_add(0, labels, mask.to(points))


def kmeans(points: Tensor, mask: Tensor, starts: Tensor, passes: int) -> tuple[Tensor, Tensor]:
    """K-means from codewords to start with: scikit-learn's where nothing is masked.

    Parameters
    ----------
    points : double tensor (N, d)
        The vectors, 0 where they are masked.
    mask : bool tensor (N, d)
        False for coordinates that are out.
    starts : double tensor (codewords, d)
        At most N.
    passes : int
        At most so many.

    Returns
    -------
    labels : int64 tensor (N)
    codewords : double tensor (codewords, d)
        0 in coordinates that none of their vectors has.
    """
    if bool(mask.all()) and len(starts) > 1:
        from sklearn.cluster import KMeans

        found = KMeans(len(starts), init=starts.numpy(), n_init=1, max_iter=passes).fit(points.numpy())
        return torch.tensor(found.labels_).long(), torch.tensor(found.cluster_centers_)
    codewords = starts.clone()
    labels, errors = _nearest(points, mask, codewords)
    for _ in range(passes):
        sums, counts = _totals(points, mask, labels, len(codewords))
        codewords = torch.where(counts > 0, sums / counts.clamp_min(1), 0.0)
        unused = (torch.bincount(labels, minlength=len(codewords)) == 0).nonzero()[:, 0]
        codewords[unused] = points[errors.topk(len(unused)).indices]
        before = labels
        labels, errors = _nearest(points, mask, codewords)
        if torch.equal(before, labels):
            break
    _, counts = _totals(points, mask, labels, len(codewords))
    return labels, codewords * (counts > 0)


def self_organizing_map(points: Tensor, mask: Tensor, count: int, passes: int, radius: float) -> tuple[Tensor, Tensor]:
    """Codewords of a one-dimensional self-organizing map, learned in batches (Kohonen, "The self-organizing map",
    Proceedings of the IEEE 78(9), 1990; the batch form: "Essentials of the self-organizing map", Neural Networks 37,
    2013, section 4.2).

    Units stand in a row, at first along the vectors' principal axis. In each pass a unit moves to the mean of all
    vectors, of which each counts by how near its own unit is in the row. The neighbourhood, a Gaussian, shrinks from
    pass to pass; in the end each unit is the mean of its own vectors. No randomness is in it.

    Parameters
    ----------
    points, mask
        As of :func:`kmeans`.
    count : int
        Units.
    passes : int
        Through all vectors.
    radius : float
        Standard deviation of the first neighbourhood, as a share of the row.

    Returns
    -------
    labels, codewords
        As of :func:`kmeans`; neighbours have numbers that follow one another.
    """
    center = points.sum(0) / mask.sum(0).clamp_min(1)
    spread = (points - center) * mask
    axis = torch.linalg.eigh(spread.T @ spread).eigenvectors[:, -1]
    axis = axis * torch.where(axis[axis.abs().argmax()] < 0, -1.0, 1.0)
    along = spread @ axis
    codewords = center + torch.linspace(float(along.min()), float(along.max()), count).double()[:, None] * axis
    row = torch.arange(count, dtype=points.dtype)
    first = max(radius * count, LEAST_RADIUS)
    for number in range(passes):
        width = first * (LEAST_RADIUS / first) ** (number / max(passes - 1, 1))
        near = torch.exp(-((row[:, None] - row) / width).square() / 2)
        sums, counts = _totals(points, mask, _nearest(points, mask, codewords)[0], count)
        counts = near @ counts
        codewords = torch.where(counts > 0, (near @ sums) / counts.clamp_min(1e-300), codewords)
    labels, _ = _nearest(points, mask, codewords)
    sums, counts = _totals(points, mask, labels, count)
    return labels, sums / counts.clamp_min(1)


def learn(points: Tensor, mask: Tensor, counts: Sequence[int], *, learner: str, start: str = "linear", passes: int,
          radius: float, seed: int) -> tuple[Tensor, list[Tensor]]:
    """Codewords in stages: each stage's are for what the stages before leave over (Juang and Gray, "Multiple stage
    vector quantization for speech coding", ICASSP 1982).

    Parameters
    ----------
    points : float tensor (N, d)
        The vectors.
    mask : bool tensor (N, d)
        False for coordinates that are out; each vector has one that is not.
    counts : sequence of int
        Codewords of each stage; fewer are made of fewer different vectors.
    learner : str
        One of :data:`LEARNERS`.
    start : str
        One of :data:`STARTS`, for k-means of single weights; vectors start with k-means++.
    passes, radius
        As of :func:`kmeans` and :func:`self_organizing_map`.
    seed : int
        Of random starts.

    Returns
    -------
    labels : int64 tensor (stages, N)
    codewords : list of float tensor (codewords, d)
        A vector is about the sum of one of each stage.

    Raises
    ------
    ModelError
        If a vector is no number.
    """
    if not bool(torch.isfinite(points).all()):
        raise ModelError("weights that are no numbers can't be clustered")
    rest, labels, codewords = points.double() * mask, [], []
    for number, wanted in enumerate(counts):
        count = min(wanted, len(torch.unique(rest, dim=0)))
        if learner == "som":
            label, found = self_organizing_map(rest, mask, count, passes, radius)
        else:
            label, found = kmeans(rest, mask, _starts(rest, count, start, seed + number), passes)
        rest = (rest - found[label]) * mask
        labels.append(label)
        codewords.append(found.float())
    return torch.stack(labels), codewords


def _starts(points: Tensor, count: int, start: str, seed: int) -> Tensor:
    if points.shape[1] == 1:
        return scalar_starts(points[:, 0], count, start, seed)[:, None]
    from sklearn.cluster import kmeans_plusplus

    trials = 2 + math.ceil(math.log(count))
    found, _ = kmeans_plusplus(points.numpy(), count, random_state=seed, n_local_trials=trials)
    return torch.tensor(found)
