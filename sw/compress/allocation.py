"""Which weights stay and which values they take, when all layers of a network share one budget of bytes or cycles.

To put a weight w to 0 costs about h w^2 of loss, with h the mean square of its gradient (the diagonal of the empirical
Fisher information, as in LeCun, Denker and Solla, "Optimal brain damage", 1989). What it saves are its bits, or its
cycles. So the weights with the least loss for what they save go first, from all layers alike. The loss for what is
saved at the limit is the price of a bit, or of a cycle; with it each weight that stays takes its value
(:mod:`~.prices`).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...hw.arch.errors import ModelError
from .fakequant import FakeQuantized
from .modules import ConvLayer
from .prices import PricedValue
from .training import GrowingShare

__all__ = ["GlobalBudget", "Sensitivity", "quantizer_of"]

LAST_CHOICES = 4
"""Times that the last choice is made, each with what the image of the one before takes."""
DECAY = 0.99
"""Of the running mean of squared gradients, a step."""


class Sensitivity:
    """Mean squared gradients of a layer's weights: the product of a mean over rows and one over columns, as in
    Adafactor (Shazeer and Stern, arXiv:1804.04235), which a few steps are enough for."""

    def __init__(self) -> None:
        self.rows, self.columns = torch.zeros(1), torch.zeros(1)
        self.steps = 0

    def add(self, gradient: Tensor) -> None:
        """Count a step's gradient."""
        square = gradient.flatten(1).square()
        self.steps += 1
        if self.steps == 1:
            self.rows, self.columns = square.mean(1), square.mean(0)
        share = max(1 - DECAY, 1 / self.steps)
        self.rows, self.columns = self.rows.lerp(square.mean(1), share), self.columns.lerp(square.mean(0), share)

    def of(self, weight: Tensor) -> Tensor:
        """Of each weight; 1 before the first step."""
        mean = float(self.rows.mean())
        if not mean > 0:
            return torch.ones_like(weight)
        return (self.rows[:, None] * self.columns / mean).reshape(weight.shape).to(weight)


class GlobalBudget(GrowingShare):
    """Takes weights out of all layers together over the first half of the steps.

    Parameters
    ----------
    keep : float
        Share of all weights that stay in the end, if there is no target.
    target : int or None
        Bits or cycles that the whole image may take in the end.
    option : str
        The option that tells one of the two.
    measure : callable
        Those that the image of the present network takes.
    rate : float
        Multiplies the price of values.
    biases : mapping of str to bool
        Layers that have biases, by module path.
    regrow : bool
        Weights that are out are trained on meanwhile, and may come back.
    """

    def __init__(self, keep: float, *, rate: float, biases: Mapping[str, bool], regrow: bool,
                 option: str = "keep", target: int | None = None,
                 measure: Callable[[FakeQuantized], int] | None = None) -> None:
        self.keep, self.option, self.target, self.measure = keep, option, target, measure
        self.rate, self.biases, self.regrow = rate, biases, regrow
        self.growing = True
        self.besides = 0.0
        """What the image takes besides the costs of weights, as far as known."""
        self.sensitivity: dict[str, Sensitivity] = {}

    def begin(self, network: FakeQuantized, steps: int) -> None:
        self.sensitivity = {name: Sensitivity() for name in network.weighted}
        self._drop_biases(network)
        super().begin(network, steps)

    def before_step(self, network: FakeQuantized, step: int) -> None:
        self.growing = step < self.last
        super().before_step(network, step)

    def before_scales(self, network: FakeQuantized, step: int) -> None:
        for _ in range(LAST_CHOICES if step >= self.last and self.measure else 1):
            if self.measure is not None:
                spent = sum(quantizer_of(layer).total_cost for layer in network.weighted.values())
                self.besides = self.measure(network) - spent
            super().before_scales(network, step)

    def after_backward(self, network: FakeQuantized, step: int) -> None:
        for name, layer in network.weighted.items():
            gradient = layer.original("weight").grad
            assert gradient is not None
            if self.growing:
                self.sensitivity[name].add(gradient)
            if not (self.growing and self.regrow):
                gradient *= layer.weight_quantizer.mask

    def after_step(self, network: FakeQuantized, step: int) -> None:
        self._drop_biases(network)

    @staticmethod
    def check(network: FakeQuantized) -> None:
        """Refuse a network of which a layer has no weight left."""
        for name, layer in network.weighted.items():
            if not bool(layer.numbers().any()):
                raise ModelError(f"layer {name}: all {layer.master_weight.numel()} weights became 0; raise keep, or "
                                 f"lower rate")

    def _drop_biases(self, network: FakeQuantized) -> None:
        for name, layer in network.weighted.items():
            if not self.biases.get(name, True):
                layer.original("bias").data.zero_()

    @torch.no_grad()
    def choose(self, network: FakeQuantized, grown: float) -> None:
        """Choose the weights that stay, and the price."""
        layers = network.weighted
        weights = {name: layer.master_weight.cpu() for name, layer in layers.items()}
        importance = {name: self.sensitivity[name].of(weight) for name, weight in weights.items()}
        worths = {name: quantizer_of(layers[name]).worth(weight) for name, weight in weights.items()}
        scores = torch.cat([(importance[name] * saved / cost).flatten() for name, (saved, cost) in worths.items()])
        spent = torch.cat([cost.flatten() for _, cost in worths.values()]).double()
        if self.target is None:
            spent = torch.ones_like(spent)
        order = scores.argsort(descending=True, stable=True)
        spent = spent[order].cumsum(0)
        total = float(spent[-1])
        least = self.keep * total if self.target is None else self.target - self.besides
        kept = int(torch.searchsorted(spent, total - max(total - least, 0.0) * grown + 1e-6, right=True))
        staying = torch.zeros(len(scores), dtype=torch.bool)
        staying[order[:kept]] = True
        limit = max(float(scores[order[min(kept, len(order) - 1)]]), 0.0)
        masks = staying.split([weight.numel() for weight in weights.values()])
        for (name, layer), mask in zip(layers.items(), masks, strict=True):
            quantizer = quantizer_of(layer)
            quantizer.mask = mask.reshape(weights[name].shape)
            if not bool(mask.any()):
                raise ModelError(f"layer {name}: {self.option} would take all of its weights out; raise it")
            mean = float(importance[name][quantizer.mask].mean())
            quantizer.price = self.rate * limit / mean if mean > 0 else 0.0
            quantizer.fit(weights[name])
            quantizer.to(layer.master_weight.device)


def quantizer_of(layer: ConvLayer) -> PricedValue:
    """The layer's quantizer."""
    assert isinstance(layer.weight_quantizer, PricedValue)
    return layer.weight_quantizer
