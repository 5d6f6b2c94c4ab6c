"""Randomized lattice quantization of all layers' weights."""

import torch
from torch import Tensor
from torch.nn import functional

from .sharing import FloatCopy

__all__ = ["dithered", "quantize"]


def dithered(weight: Tensor, step: float, *, dimension: int, dither: float, generator: torch.Generator
             ) -> tuple[Tensor, Tensor]:
    """The nearest points of the integer lattice, times a step, to weights with a dither added.

    Parameters
    ----------
    weight : float tensor (N)
        Cut into vectors of neighbours; the last one is filled up with zeros.
    step : float
        Of the lattice.
    dimension : int
        Of the vectors. All weights of one have the same dither.
    dither : float
        Its width in steps: it is uniform about 0.
    generator : torch.Generator
        Makes it.

    Returns
    -------
    points : int64 tensor (vectors, dimension)
    offsets : float tensor (vectors, 1)
        The dither. ``points * step - offsets`` differs from the weights by an error that is uniform and independent of
        them when ``dither`` is 1.
    """
    vectors = functional.pad(weight, (0, -len(weight) % dimension)).reshape(-1, dimension)
    offsets = (torch.rand(len(vectors), 1, generator=generator) - 0.5) * (dither * step)
    return torch.round((vectors + offsets) / step).long(), offsets


def quantize(copy: FloatCopy, *, step: float, dimension: int, dither: float, seed: int
             ) -> dict[str, tuple[Tensor, Tensor]]:
    """Which weights share a value, and the values, by layer.

    Weights have one value when they are at the same place of vectors at the same point of the lattice, in one layer.
    It is their mean, and 0 where the point's coordinate is.

    Parameters
    ----------
    copy : FloatCopy
        The weights. Their root mean square in all layers makes the unit of `step`.
    step, dimension, dither
        As of :func:`dithered`.
    seed : int
        Of the dither.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = {name: copy.weights[name][copy.kept[name]] for name in copy.weights}
    unit = step * float(torch.cat([*kept.values()]).square().mean().sqrt())
    found = {}
    for name, weight in kept.items():
        points, _ = dithered(weight, unit, dimension=dimension, dither=dither, generator=generator)
        _, vectors = torch.unique(points, dim=0, return_inverse=True)
        places = vectors[:, None] * dimension + torch.arange(dimension)
        labels = torch.where(points == 0, 0, places + 1).flatten()[:len(weight)]
        total = torch.zeros(int(labels.max()) + 1, dtype=torch.float64)
        sums, counts = total.index_add(0, labels, weight.double()), torch.bincount(labels, minlength=len(total))
        centers = (sums / counts.clamp_min(1)).float()
        centers[0] = 0.0
        full = torch.zeros(copy.kept[name].shape, dtype=torch.int64)
        full[copy.kept[name]] = labels
        found[name] = full, centers
    return found
