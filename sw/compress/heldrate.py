"""Training that moves weights between values and holds the image's size.

What is made small is the loss plus a price times the image's bits. A weight between two values feels the difference of
their codewords' lengths as a force to the shorter one, besides the loss's gradient. To move the boundaries between the
values instead, as entropy-constrained quantization does, holds nothing here: with gradients that go straight through,
weights gather at the boundaries and follow them.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .fakequant import FakeQuantized
from .modules import ConvLayer
from .sweep import Rate
from .training import PRUNE_STEPS, Method
from .weights import NearestValue, TermGrid

__all__ = ["HeldRate"]

GAIN = 50.0
"""Of the price's logarithm, by the excess of the size."""
REACH = 3.0
"""Most that the excess of the moment changes the price's logarithm."""
SLOW = 0.03
"""Share of that change that stays, at each look."""
LEAST = 1 / 512
"""Share of a layer's weights that stay: rare values are dear, so that a layer once nearly empty would die out."""
SAVED = 8
"""Bits that a weight saves that goes to its next value towards 0, at most and about."""


class HeldRate(Method):
    """A price of bits that holds an image's size.

    Parameters
    ----------
    target : int
        Bits of the whole image.
    measure : callable
        Those that the image of the present network takes.
    slope : float
        The price to begin with: what a bit is worth, in the loss's unit.
    grids : mapping of str to TermGrid
        Values that each layer's weights may take, by module path. They have some of them; those that no weight has any
        more are left out.
    """

    scaled = True

    def __init__(self, target: int, measure: Callable[[FakeQuantized], int], slope: float,
                 grids: Mapping[str, TermGrid]) -> None:
        self.target, self.measure, self.slope = target, measure, slope
        self.rates = {name: Rate(grid, 0.0) for name, grid in grids.items()}
        self.grids = grids
        self.price, self.settled = slope, 0.0
        self.besides = 0.0
        """Bits of the image beyond what weights and dictionaries take by their entropy."""
        self.forces: dict[str, Tensor] = {}
        """Of each layer, bits by the weight's unit between each two neighbouring values."""

    @torch.no_grad()
    def begin(self, network: FakeQuantized, steps: int) -> None:
        self.before_epoch(network)

    @torch.no_grad()
    def before_epoch(self, network: FakeQuantized) -> None:
        self.besides = self.measure(network) - self._look(network)

    @torch.no_grad()
    def before_step(self, network: FakeQuantized, step: int) -> None:
        if step % PRUNE_STEPS == 0:
            excess = GAIN * ((self._look(network) + self.besides) / self.target - 1)
            self.settled += SLOW * excess
            self.price = self.slope * math.exp(self.settled + max(-REACH, min(REACH, excess)))

    @torch.no_grad()
    def after_backward(self, network: FakeQuantized, step: int) -> None:
        for name, layer in network.weighted.items():
            gradient = layer.original("weight").grad
            assert gradient is not None
            if len(forces := self.forces[name]):
                quantizer = _quantizer(layer)
                between = torch.bucketize(layer.master_weight / quantizer.unit, quantizer.values[1:-1])
                gradient += self.price * forces[between]

    def _look(self, network: FakeQuantized) -> float:
        """Bits of all weights and dictionaries by their entropy; forces are found anew."""
        total = 0.0
        for name, layer in network.weighted.items():
            quantizer, weight, rate = _quantizer(layer), layer.master_weight, self.rates[name]
            found = torch.bincount(quantizer.ranks(weight).flatten(), minlength=len(quantizer.values)).cpu()
            quantizer.values = quantizer.values[found.to(quantizer.values.device) > 0]
            values = quantizer.values.cpu()
            places = torch.searchsorted(self.grids[name].numbers, values)
            counts = torch.zeros(len(self.grids[name].numbers), dtype=torch.long)
            counts[places] = found[found > 0]
            total += rate.total(counts)
            forces = rate.bits(counts)[places].diff() / (values.diff() * quantizer.unit)
            stay = int(counts[self.grids[name].numbers != 0].sum())
            self.forces[name] = forces.to(weight) if stay >= LEAST * weight.numel() else forces[:0].to(weight)
        return total

    @torch.no_grad()
    def finish(self, network: FakeQuantized) -> None:
        """Move so many weights that are nearest to it to their next value towards 0 that the size is held exactly."""
        while (excess := self.measure(network) - self.target) > 0:
            layers = list(network.weighted.values())
            moves = [_towards_zero(layer) for layer in layers]
            away = torch.cat([distance for distance, _ in moves])
            near = torch.zeros(len(away), dtype=torch.bool, device=away.device)
            near[away.topk(min(len(away), -(-excess // SAVED)), largest=False).indices] = True
            for layer, (_, value), here in zip(layers, moves, near.split([len(value) for _, value in moves]),
                                               strict=True):
                weight = layer.original("weight")
                weight.copy_(torch.where(here, value, weight.flatten()).reshape(weight.shape))


def _quantizer(layer: ConvLayer) -> NearestValue:
    assert isinstance(layer.weight_quantizer, NearestValue)
    return layer.weight_quantizer


def _towards_zero(layer: ConvLayer) -> tuple[Tensor, Tensor]:
    """How far each weight is, in steps between values, from where its next value towards 0 begins, and that value;
    infinitely far for those that are 0."""
    quantizer, weight = _quantizer(layer), layer.master_weight.flatten()
    values, rank = quantizer.values, quantizer.ranks(weight)
    lower = rank - values.sign().long()[rank]
    here, there = values[rank], values[lower.clamp(0, len(values) - 1)]
    away = ((weight / quantizer.unit - (here + there) / 2) / (here - there)).abs()
    return torch.where(here == 0, math.inf, away), there * quantizer.unit
