"""How much the loss rises when a single weight is moved: the diagonal of its second derivative."""

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import parametrize

from .fakequant import FakeQuantized

__all__ = ["diagonal", "evened"]

TEMPERATURE = 4.0
"""Divides logits: a trained network is so sure of most images that a few alone would decide."""
EVENED = 0.5
"""Share of a layer's mean that is added to each weight's: few samples don't see what rare images need."""


def diagonal(network: FakeQuantized, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Mean squared gradients of the log-likelihood of labels drawn from the network's own predictions, softened.

    Their expectation is the diagonal of the Fisher information, which is that of the Gauss-Newton matrix: the second
    derivatives without those of the layers themselves, as LeCun, Denker and Solla ("Optimal brain damage", 1989)
    propagate them.

    Parameters
    ----------
    network : FakeQuantized
        Calibrated; its weights are float ones.
    images : float tensor (N, C, H, W)
        Real-valued samples, one backward pass each.
    generator : torch.Generator
        Draws the labels.

    Returns
    -------
    dict of str to float tensor
        For each layer, by module path, in the shape of its weights.
    """
    weights = {name: layer.original("weight") for name, layer in network.weighted.items()}
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for image in images:
        with parametrize.cached():
            logits = network(image[None]) / TEMPERATURE
        label = torch.multinomial(functional.softmax(logits.detach(), dim=1), 1, generator=generator)[:, 0]
        gradients = torch.autograd.grad(functional.cross_entropy(logits, label), list(weights.values()))
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total.addcmul_(gradient, gradient)
    return {name: total / len(images) for name, total in sums.items()}


def evened(importance: Tensor) -> Tensor:
    """The importance of weights with a part of their mean added to each; ones where there is none at all."""
    mean = float(importance.mean())
    return importance + EVENED * mean if mean > 0 else torch.ones_like(importance)
