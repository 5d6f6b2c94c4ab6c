"""Choose the power-of-two scales of activations from sample images."""

import math

import torch
from torch import Tensor

from ...hw.arch.errors import ModelError
from .fakequant import FakeQuantized, PoolLayer, QuantizedLayer
from .options import QuantizedRecipe
from .quantizers import ActivationQuantizer

__all__ = ["calibrate", "choose_exponent"]

CANDIDATES = 6
"""Scales tried below the one that clips nothing."""
MOST_RUNS = 8
"""Attempts at one scale for layers whose outputs are joined."""
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
        ``"mse"``: least squared error against the clamped values. ``"minmax"``: the least scale that clips none of
        them. ``"percentile"``: the least scale that holds the
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
    if method == "minmax":
        return top
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
def calibrate(network: FakeQuantized, images: Tensor, recipe: QuantizedRecipe) -> None:
    """Choose all activation scales of a network in order, each layer seeing the quantized outputs of those before.

    Layers whose outputs are joined get one scale, chosen on the values of all of them, and the others then see it.

    Parameters
    ----------
    network : FakeQuantized
        Changed in place.
    images : float tensor (N, C, H, W)
        Real-valued images.
    recipe : QuantizedRecipe
        Its ``calibration`` and ``percentile``.
    """
    groups = network.alike
    group_of = {layer: number for number, group in enumerate(groups) for layer in group}
    samples: list[list[Tensor]] = [[] for _ in groups]
    least = [-math.inf for _ in groups]
    settled = False

    def visit(layer: QuantizedLayer, inputs: list[Tensor]) -> None:
        if isinstance(layer, PoolLayer) or layer.raw:
            return
        number = group_of.get(layer)
        if number is not None:
            least[number] = max(least[number], layer.least_exponent)
            if settled:
                return
        values = layer.accumulate(*inputs)
        layer.output.exponent = choose_exponent(values, layer.output, recipe.calibration, recipe.percentile,
                                                layer.least_exponent)
        if number is not None:
            samples[number].append(values.clamp(layer.output.low, layer.output.high).flatten())

    network.run(images, visit)
    if not groups:
        return
    settled = True
    for group, values, bound in zip(groups, samples, least, strict=True):
        wide = ActivationQuantizer(recipe.act_bits, group[0].output.signed)
        exponent = choose_exponent(torch.cat(values), wide, recipe.calibration, recipe.percentile, int(bound))
        for layer in group:
            layer.output.exponent = exponent
    for _ in range(MOST_RUNS):  # other scales before a layer may raise its lower bound
        network.run(images, visit)
        if all(group[0].output.exponent >= bound for group, bound in zip(groups, least, strict=True)):
            return
        for group, bound in zip(groups, least, strict=True):
            for layer in group:
                layer.output.exponent = max(layer.output.exponent, int(bound))
    names = ", ".join(layer.layer.name for group in groups for layer in group)
    raise ModelError(f"layers {names}: their outputs are joined, but no scale serves all of them; raise max_shift or "
                     f"guard_bits, or put a batch norm before the concatenation")
