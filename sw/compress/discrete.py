"""Weights that move from level to level, without a full-precision copy."""

import torch
from torch import Tensor

from .fakequant import FakeQuantized
from .training import Method
from .weights import NearestValue, TermGrid

__all__ = ["DiscreteSteps", "DiscreteWeights", "NeighbourSteps"]

SQUARE_KEEP = 0.999
"""Of a gradient's mean square, as Adam's."""
EPSILON = 1e-8


class DiscreteWeights(NearestValue):
    """Weights whose parameter has their values itself: what is trained is what the forward pass sees.

    Parameters
    ----------
    bits : int
        The values are ``2**bits - 1`` evenly spaced ones, 0 among them, that have at most so many terms.
    terms : int
        Powers of two in a value, at most.
    """

    def __init__(self, bits: int, terms: int) -> None:
        super().__init__()
        most = (1 << bits - 1) - 1
        self.span = max(1, bits if bits > 2 else 1)
        self.grid = TermGrid(terms, self.span)
        self.values = self.grid.numbers[self.grid.numbers.abs() <= most]
        self._started = False

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The nearest values, in the scale with the least squared error, which stays."""
        if not self._started and bool(weight.any()):
            errors = {}
            top = -int(torch.floor(torch.log2(weight.abs().max())))
            for self.k_top in range(top - 1, top + 5):
                errors[self.k_top] = float((self.quantize(weight) - weight).square().sum(dtype=torch.float64))
            self.k_top = min(errors, key=errors.__getitem__)
        self._started = True
        return self.quantize(weight)

    def neighbours(self, weight: Tensor, direction: Tensor) -> Tensor:
        """The next value of each weight upwards or downwards, or the weight itself at the ends."""
        rank = (self.ranks(weight) + direction.sign().long()).clamp(0, len(self.values) - 1)
        return self.values.to(weight)[rank] * self.unit

    def forward(self, weight: Tensor) -> Tensor:
        """The parameter as it is."""
        return weight


class NeighbourSteps(torch.optim.Adam):
    """Moves discrete weights by one level, each with a probability that the residue of its gradients decides.

    The residue is what is kept of the one before, plus the gradient in relation to its root mean square, times the
    learning rate. The probability is ``tanh(gain |residue| / gap)``, with the distance to the neighbour on the side
    against the gradient. A weight that moved has no residue any more. All other parameters are Adam's.

    Parameters
    ----------
    network : FakeQuantized
        Its layers with :class:`DiscreteWeights` move so.
    learning_rate, gain : float
        The residue's scale is the product of both.
    keep : float
        Share of a residue that is left after a step; with 0, only the present gradient counts.
    generator : torch.Generator
        Of the chances.
    """

    def __init__(self, network: FakeQuantized, learning_rate: float, *, gain: float, keep: float,
                 generator: torch.Generator) -> None:
        super().__init__(network.parameters(), lr=learning_rate)
        self.gain, self.keep, self.generator, self.steps = gain, keep, generator, 0
        self._discrete: list[tuple[Tensor, DiscreteWeights, Tensor, Tensor]] = []
        for layer in network.weighted.values():
            if isinstance(quantizer := layer.weight_quantizer, DiscreteWeights):
                weight = layer.original("weight")
                self._discrete.append((weight, quantizer, torch.zeros_like(weight), torch.zeros_like(weight)))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step."""
        self.steps += 1
        for weight, quantizer, residue, square in self._discrete:
            gradient, weight.grad = weight.grad, None  # Adam passes over parameters without a gradient
            if gradient is None:
                continue
            square.mul_(SQUARE_KEEP).addcmul_(gradient, gradient, value=1 - SQUARE_KEEP)
            size = (square / (1 - SQUARE_KEEP**self.steps)).sqrt_().add_(EPSILON)
            residue.mul_(self.keep).addcdiv_(gradient, size, value=-float(self.param_groups[0]["lr"]))
            target = quantizer.neighbours(weight, residue)
            gap = (target - weight).abs()
            chance = torch.tanh(self.gain * residue.abs() / gap.clamp_min(quantizer.unit))
            moves = torch.rand(weight.shape, generator=self.generator, device="cpu").to(weight.device) < chance
            weight.copy_(torch.where(moves, target, weight))
            # A weight at the end of its values collects no residue that points outwards.
            residue.masked_fill_(moves | (gap == 0), 0.0)
        super().step()


class DiscreteSteps(Method):
    """Trains with :class:`NeighbourSteps`, whose arguments it takes."""

    def __init__(self, *, gain: float, keep: float, seed: int) -> None:
        self.gain, self.keep, self.generator = gain, keep, torch.Generator().manual_seed(seed)

    def optimizer(self, network: FakeQuantized, learning_rate: float) -> torch.optim.Optimizer:
        return NeighbourSteps(network, learning_rate, gain=self.gain, keep=self.keep, generator=self.generator)
