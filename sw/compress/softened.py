"""Weights that are softly assigned to values."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .fakequant import ConvLayer, FakeQuantized
from .incremental import cluster_weights
from .training import Method
from .weights import FreeWeights, midpoints

__all__ = ["Annealing", "SoftAssignment", "hardened"]

PACE = 0.1
"""Values move so much slower than weights: many weights follow each."""


class SoftAssignment(FreeWeights):
    """Weights as means of a layer's values, each value with the softmax of its squared distance as its share.

    Parameters
    ----------
    values : int
        How many; fewer where there are fewer different weights.
    zero : bool
        The value nearest to 0 is 0, and stays.

    Attributes
    ----------
    hardness : float
        Of the softmax, in relation to the mean distance between neighbouring values.
    histogram : float tensor (values,)
        Mean share of each value in the last forward pass.
    """

    start: Tensor
    fixed: Tensor

    def __init__(self, values: int, *, zero: bool) -> None:
        super().__init__()
        self.values, self.zero, self.hardness, self.distance = values, zero, 1.0, 1.0
        self.register_buffer("start", torch.zeros(0))
        self.register_buffer("fixed", torch.zeros(0, dtype=torch.bool))
        self.moved = nn.Parameter(torch.zeros(0))
        self.histogram = torch.zeros(0)

    def fit(self, weight: Tensor) -> None:
        super().fit(weight)
        if self.start.numel():
            return
        _, centers = cluster_weights(weight.flatten(), self.values)
        self.start = centers.sort().values
        self.fixed = torch.zeros(len(centers), dtype=torch.bool)
        if self.zero:
            least = int(self.start.abs().argmin())
            self.start[least], self.fixed[least] = 0.0, True
        self.moved = nn.Parameter(torch.zeros_like(self.start))
        spread = float(self.start.max() - self.start.min())
        self.distance = spread / (len(centers) - 1) if spread > 0 else 1.0

    @property
    def centers(self) -> Tensor:
        """The values as they are now."""
        return self.start + PACE * self.moved * ~self.fixed

    def forward(self, weight: Tensor) -> Tensor:
        """The soft values."""
        centers = self.centers
        scaled = math.sqrt(self.hardness) / self.distance
        # Values by weights: rows as long as can be are the quick way round.
        shares = functional.softmax(-(weight.reshape(1, -1) * scaled - centers[:, None] * scaled).square(), dim=0)
        self.histogram = shares.mean(1)
        return (centers @ shares).reshape(weight.shape)


class Annealing(Method):
    """Makes assignments harder, and adds the entropy of their histograms to the loss.

    Parameters
    ----------
    rate : float
        Loss of one bit more for every weight.
    softest, hardest : float
        Hardness in the first step and the last one.
    steps : int
        Of the training.
    """

    def __init__(self, rate: float, softest: float, hardest: float, steps: int) -> None:
        self.rate, self.softest, self.hardest, self.steps = rate, softest, hardest, steps

    def begin(self, network: FakeQuantized, steps: int) -> None:
        self.before_step(network, 0)

    def before_step(self, network: FakeQuantized, step: int) -> None:
        grown = min(step / max(self.steps - 1, 1), 1.0)
        for layer in network.weighted.values():
            assignment_of(layer).hardness = self.softest * (self.hardest / self.softest)**grown

    def loss(self, network: FakeQuantized) -> Tensor | None:
        if not self.rate:
            return None
        layers = network.weighted.values()
        bits = torch.stack([layer.master_weight.numel() * entropy(assignment_of(layer).histogram) for layer in layers])
        return self.rate * bits.sum() / sum(layer.master_weight.numel() for layer in layers)


def entropy(shares: Tensor) -> Tensor:
    """Of a histogram, in bits, with a gradient."""
    return -(shares * torch.log2(shares.clamp_min(1e-12))).sum()


def assignment_of(layer: ConvLayer) -> SoftAssignment:
    """The layer's quantizer."""
    assert isinstance(layer.weight_quantizer, SoftAssignment)
    return layer.weight_quantizer


@torch.no_grad()
def hardened(layer: ConvLayer) -> tuple[Tensor, Tensor]:
    """The number of each weight's nearest value, in the weights' shape, and the values."""
    centers, _ = assignment_of(layer).centers.detach().sort()
    weight = layer.master_weight
    return torch.bucketize(weight.contiguous(), midpoints(centers), right=True), centers
