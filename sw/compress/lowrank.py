"""Linear layers as products of two thinner ones, by singular value decomposition."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ..frontend.graph import Clamp, FloatConcat, FloatLayer, Graph

__all__ = ["rank_of", "split_layer", "split_linear"]


def rank_of(weight: np.ndarray, energy: float) -> int:
    """The least rank that keeps a share of the energy: of the sum of squared singular values.

    Parameters
    ----------
    weight : float array (out, in)
        Of a linear layer.
    energy : float
        0 to 1.
    """
    kept = np.cumsum(np.linalg.svd(weight, compute_uv=False) ** 2)
    return min(int(np.searchsorted(kept, energy * kept[-1] * (1 - 1e-12))) + 1, len(kept))


def split_layer(layer: FloatLayer, rank: int) -> tuple[FloatLayer, FloatLayer]:
    """Two layers whose product is the best approximation of a linear layer of that rank.

    The singular values are dealt out to both by their square roots, so that both have weights of one magnitude.
    """
    assert layer.weight is not None and layer.bias is not None
    matrix = layer.weight.reshape(len(layer.weight), -1)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(values[:rank])
    thin, middle = (root[:, None] * right[:rank]).reshape(rank, *layer.weight.shape[1:]), (rank, 1, 1)
    first = dataclasses.replace(layer, name=f"{layer.name}.0", out_shape=middle, weight=thin, bias=np.zeros(rank),
                                clamp=Clamp(), normalized=False, residuals=())
    second = dataclasses.replace(layer, name=f"{layer.name}.1", source=first.name, in_shape=middle, kernel=(1, 1),
                                 stride=(1, 1), dilation=(1, 1), weight=(left[:, :rank] * root)[:, :, None, None])
    return first, second


def split_linear(graph: Graph, energy_of: Callable[[str], float]) -> Graph:
    """A graph whose linear layers are split where that saves weights.

    Parameters
    ----------
    graph : Graph
        The float network; ``fc`` becomes ``fc.0`` and ``fc.1``.
    energy_of : callable
        The energy that a layer keeps, by module path; 0 leaves it whole.
    """
    layers: list[FloatLayer] = []
    renamed: dict[str, str] = {}
    for layer in graph.layers:
        residuals = tuple(dataclasses.replace(joined, source=renamed.get(joined.source, joined.source))
                          for joined in layer.residuals)
        layer = dataclasses.replace(layer, source=renamed.get(layer.source, layer.source), residuals=residuals)
        rank = _saving_rank(layer, energy_of)
        if rank:
            layers += split_layer(layer, rank)
            renamed[layer.name] = layers[-1].name
        else:
            layers.append(layer)
    concats = tuple(FloatConcat(name=concat.name, parts=tuple(renamed.get(part, part) for part in concat.parts))
                    for concat in graph.concats)
    return dataclasses.replace(graph, layers=tuple(layers), concats=concats)


def _saving_rank(layer: FloatLayer, energy_of: Callable[[str], float]) -> int:
    """The rank that a layer is cut to, or 0."""
    linear = layer.op == "conv" and layer.weight is not None and not layer.affine and layer.covers_map
    if not linear or layer.groups != 1 or not (energy := energy_of(layer.name)):
        return 0
    assert layer.weight is not None
    matrix = layer.weight.reshape(len(layer.weight), -1)
    rank = rank_of(matrix, energy) if matrix.any() else 0
    return rank if rank * sum(matrix.shape) < matrix.size else 0
