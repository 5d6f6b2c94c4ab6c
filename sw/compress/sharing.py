"""Weights that share values: from an assignment to a layer's quantizer, and from free values to snapped ones."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...hw.arch.errors import ModelError
from .constrained import Points
from .fakequant import ConvLayer, FakeQuantized
from .weights import SharedWeights, TermGrid

__all__ = ["FloatCopy", "check_alive", "reshare", "share"]


@torch.no_grad()
def share(layer: ConvLayer, labels: Tensor, centers: Tensor, grid: TermGrid | None) -> None:
    """Give a layer's weights shared values.

    Parameters
    ----------
    layer : ConvLayer
        Of any quantizer.
    labels : int64 tensor
        The center of each weight, in the weights' shape.
    centers : float tensor
        Those that no weight has are left out; one that is 0 stays 0.
    grid : TermGrid or None
        What values may be.
    """
    used, indices = torch.unique(labels, return_inverse=True)
    centers = centers[used]
    zeros = (centers == 0).nonzero()[:, 0]
    if len(zeros) > 1:  # they are one value
        indices = torch.where(torch.isin(indices, zeros), zeros[0], indices)
        return share(layer, indices, centers, grid)
    layer.use(SharedWeights(indices, grid, zero=int(zeros[0]) if len(zeros) else None))
    layer.original("weight").copy_(centers)
    layer.refit()


def reshare(network: FakeQuantized, grids: Mapping[str, TermGrid | None]) -> None:
    """Keep what weights share a value, and the values; let these be free, or snap them."""
    for name, layer in network.weighted.items():
        quantizer = layer.weight_quantizer
        assert isinstance(quantizer, SharedWeights)
        centers = layer.master_weight.clone()
        if quantizer.zero is not None:
            centers[quantizer.zero] = 0.0
        share(layer, quantizer.indices, centers, grids[name])


def check_alive(network: FakeQuantized) -> None:
    """Refuse a network of which a layer has no weight left."""
    for name, layer in network.weighted.items():
        if layer.settled and not bool(layer.numbers().any()):
            raise ModelError(f"layer {name}: all {layer.weight.numel()} weights became 0; prune less, or ask for more "
                             f"bits or values")


class FloatCopy:
    """Float weights of all layers, and which of them stay, to try several assignments on.

    Attributes
    ----------
    weights : dict of str to float tensor
        By module path.
    kept : dict of str to bool tensor
        Likewise.
    """

    def __init__(self, network: FakeQuantized) -> None:
        self.weights = {name: layer.master_weight.clone() for name, layer in network.weighted.items()}
        self.kept = {name: layer.weight_quantizer.mask.expand_as(self.weights[name]).clone()
                     for name, layer in network.weighted.items()}
        for name, kept in self.kept.items():
            if not bool(kept.any()):
                raise ModelError(f"layer {name}: prune takes all of its {kept.numel()} weights out; lower it")

    def points(self, names: Sequence[str], importance: Mapping[str, Tensor]) -> Points:
        """The weights that stay of some layers, in order."""
        kept = [self.kept[name] for name in names]
        sizes = torch.tensor([int(each.sum()) for each in kept])
        return Points(weight=torch.cat([self.weights[name][each] for name, each in zip(names, kept, strict=True)]),
                      importance=torch.cat([importance[name][each] for name, each in zip(names, kept, strict=True)]),
                      layer=torch.repeat_interleave(torch.arange(len(names)), sizes),
                      pruned=torch.tensor([each.numel() for each in kept]) - sizes)

    def spread(self, names: Sequence[str], labels: Tensor, zero: int) -> dict[str, Tensor]:
        """Labels of the weights that stay to all weights of these layers, the others having the label `zero`."""
        full = {name: torch.full(self.kept[name].shape, zero) for name in names}
        sizes = [int(self.kept[name].sum()) for name in names]
        for name, part in zip(names, labels.split(sizes), strict=True):
            full[name][self.kept[name]] = part
        return full
