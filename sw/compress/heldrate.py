"""Training that moves weights between values and holds the image's size.

Without prices, training spreads weights over more values and makes zeros fewer: the image grows by a tenth in some
epochs. A price on bits holds that back. At a common price of loss, the best distance of a layer's values, squared, is
in proportion to what a bit is worth in squared error there. So prices are in proportion to the squares of the units
that the recipe ``ptq`` has found, and one factor for all layers is left to be led by the size.
"""

import math
from collections.abc import Callable

import torch

from .allocation import quantizer_of
from .fakequant import FakeQuantized
from .prices import CodeBits, PricedValue
from .training import PRUNE_STEPS, Method
from .weights import TermGrid

__all__ = ["HeldRate"]

AT_HIGH_RATE = math.log(2) / 6
"""Squared error, in squares of a uniform quantizer's step, that a bit is worth where values are many."""
GAIN = 4.0
"""By how many times the excess of the size the factor's logarithm changes at each look."""

LEAST = 1 / 512
"""Share of a layer's weights that stay: rare values are dear, so that a layer once nearly empty would die out."""
TINY = 1e-6
"""Price, in squares of the unit, below which there is none."""


class HeldRate(Method):
    """Prices of bits that hold an image's size.

    Parameters
    ----------
    target : int
        Bits of the whole image.
    measure : callable
        Those that the image of the present network takes.
    grids : mapping of str to TermGrid
        Values that each layer's weights may take, by module path.
    """

    scaled = True

    def __init__(self, target: int, measure: Callable[[FakeQuantized], int], grids: dict[str, TermGrid]) -> None:
        self.target, self.measure, self.grids = target, measure, grids
        self.factor = AT_HIGH_RATE
        self.besides = 0.0

    @torch.no_grad()
    def begin(self, network: FakeQuantized, steps: int) -> None:
        for name, layer in network.weighted.items():
            found = layer.weight_quantizer
            quantizer = PricedValue(self.grids[name], CodeBits(self.grids[name]))
            layer.use(quantizer)
            quantizer.k_top = found.k_top
        self._settle(network)
        self.before_scales(network, 0)

    def before_step(self, network: FakeQuantized, step: int) -> None:
        if step % PRUNE_STEPS == 0:
            excess = (self._spent(network) + self.besides) / self.target - 1
            self.factor *= math.exp(max(-1.0, min(1.0, GAIN * excess)))
            self._settle(network)

    def before_scales(self, network: FakeQuantized, step: int) -> None:
        self.besides = self.measure(network) - self._spent(network)

    def _spent(self, network: FakeQuantized) -> float:
        return sum(quantizer_of(layer).total_cost for layer in network.weighted.values())

    @torch.no_grad()
    def _settle(self, network: FakeQuantized) -> None:
        for layer in network.weighted.values():
            quantizer, weight = quantizer_of(layer), layer.master_weight.cpu()
            quantizer.price = self.factor * quantizer.unit**2
            quantizer.settle(weight)
            while quantizer.price and quantizer.staying < LEAST * weight.numel():
                quantizer.price = quantizer.price / 2 if quantizer.price > TINY * quantizer.unit**2 else 0.0
                quantizer.settle(weight)
            quantizer.to(layer.master_weight.device)
