"""Choose the power-of-two scales of activations from sample images."""

import math

import torch
from torch import Tensor

from .bqnet import BQNet
from .fakequant import ConvLayer, FakeQuantized
from .quantizers import ActivationQuantizer

__all__ = ["calibrate", "choose_exponent"]

CANDIDATES = 6
"""Scales tried below the one that clips nothing."""
SAMPLES = 1 << 16
"""Values that the squared error is measured on: evenly spread, and enough to compare powers of two."""


def choose_exponent(values: Tensor, quantizer: ActivationQuantizer, method: str, percentile: float, least: int) -> int:
    """The exponent of an activation tensor.

    Parameters
    ----------
    values : float tensor
        Samples, before quantization.
    quantizer : ActivationQuantizer
        Bits, sign and clamp.
    method : str
        ``"mse"``: least squared error against the clamped values. ``"percentile"``: the least scale that holds the
        given share of their magnitudes.
    percentile : float
        That share, in percent.
    least : int
        Lower bound: the accumulator's exponent, as requantization only shifts right.
    """
    values = values.clamp(quantizer.low, quantizer.high).flatten()
    limit = (1 << quantizer.bits - 1) - 1 if quantizer.signed else (1 << quantizer.bits) - 1
    magnitude = values.abs()
    if method == "percentile":
        rank = max(1, math.ceil(percentile / 100 * len(magnitude)))
        largest = float(magnitude.kthvalue(rank).values)
        return max(least, _cover(largest, limit))
    top = max(least, _cover(float(magnitude.max()), limit))
    values = values[::-(-len(values) // SAMPLES)].double()
    errors = {}
    keep = quantizer.exponent
    for quantizer.exponent in range(max(least, top - CANDIDATES), top + 1):
        errors[quantizer.exponent] = float((quantizer(values) - values).square().sum())
    quantizer.exponent = keep
    return min(errors, key=lambda exponent: (errors[exponent], -exponent))


def _cover(largest: float, limit: int) -> int:
    """Least exponent with which ``largest`` does not exceed ``limit``."""
    return math.ceil(math.log2(largest / limit)) if largest > 0 else -limit.bit_length()


@torch.no_grad()
def calibrate(network: FakeQuantized, images: Tensor, recipe: BQNet) -> None:
    """Choose all activation scales of a network in order, each layer seeing the quantized output of the one before.

    Parameters
    ----------
    network : FakeQuantized
        Changed in place.
    images : float tensor (N, C, H, W)
        Real-valued images.
    recipe : BQNet
        Its ``calibration`` and ``percentile``.
    """
    x = network.input(images).reshape(-1, *network.input_shape)
    source = network.input
    for layer in network.chain:
        x = network.reshape(layer, x)
        if isinstance(layer, ConvLayer):
            layer.in_exponent = source.exponent
            if not layer.raw:
                least = layer.acc_exponent + int(layer.channel_exponents.max())
                layer.output.exponent = choose_exponent(layer.accumulate(x), layer.output, recipe.calibration,
                                                        recipe.percentile, least)
        x = layer(x)
        source = layer.output
