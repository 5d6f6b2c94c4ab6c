"""How many bits a layer's weights take, and how a recipe's knob is turned until a network takes as many as it may."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import ModelError
from ..codec.alphabet import encode_layer
from ..terms import signed_digits
from .weights import ENTRY_BITS

if TYPE_CHECKING:
    from .fakequant import FakeQuantized

__all__ = ["code_lengths", "entropy_bits", "estimated_bits", "layer_bits", "network_bits", "turn_until"]

UNUSED = 0.5
"""Weights that a value without any counts as: its codeword is long, not endless."""
NEAR_ENOUGH = 0.98
"""Share of a target at which no larger network is looked for."""
MOST_TRIES = 14


def code_lengths(counts: Tensor, all_weights: int | None = None) -> Tensor:
    """Ideal codeword lengths in bits of symbols that occur so often, float64; `all_weights` counts others, too."""
    counts = counts.double()
    total = float(counts.sum()) if all_weights is None else float(all_weights)
    return math.log2(max(total, 1.0)) - torch.log2(counts.clamp_min(UNUSED))


def entropy_bits(counts: Tensor) -> float:
    """Bits of all symbols that occur so often, with ideal codewords."""
    return float((counts.double() * code_lengths(counts)).sum())


def estimated_bits(numbers: Tensor) -> float:
    """Of a layer, quickly: the entropy of its values, ends of rows, and its dictionary.

    Parameters
    ----------
    numbers : int64 tensor (rows, ...)
        Its weights.
    """
    values, counts = torch.unique(numbers, return_counts=True)
    terms = sum(len(signed_digits(int(value))) for value in values.tolist())
    ends = torch.cat([counts, torch.tensor([len(numbers)])])
    return entropy_bits(ends) + ENTRY_BITS * terms


def layer_bits(numbers: Tensor, config: AcceleratorConfig | None = None) -> int:
    """Of a layer, exactly: codewords, dictionary and code table in the best alphabet.

    Parameters
    ----------
    numbers : int64 tensor (rows, channels, height, width)
        Its weights: 1 is a left shift by 0.
    config : AcceleratorConfig, optional
        Limits of its dictionary and code; those of the default accelerator otherwise.
    """
    config = config or AcceleratorConfig()
    taps = numbers.permute(0, 2, 3, 1).reshape(len(numbers), -1).numpy()
    values, indices = np.unique(taps, return_inverse=True)
    return encode_layer(indices.reshape(taps.shape).astype(np.uint16),
                        tuple(signed_digits(int(value)) for value in values), channels=numbers.shape[1],
                        max_code_bits=config.max_code_bits, dict_depth=config.dict_depth).bits


def network_bits(network: "FakeQuantized", *, exact: bool = True) -> float:
    """Of all layers' weights, by :func:`layer_bits` or :func:`estimated_bits`."""
    bits = layer_bits if exact else estimated_bits
    return sum(bits(layer.numbers()) for layer in network.weighted.values())


def turn_until(size: Callable[[float], float], target: float, low: float, high: float, *, where: str, what: str
               ) -> float:
    """The knob with which a network is as large as it may be: by bisection of the knob's logarithm.

    Parameters
    ----------
    size : callable
        Of the network with a knob, which it falls with.
    target : float
        The largest size.
    low, high : float
        Range of the knob.
    where, what : str
        For the error: who asks, and a size in words, in which ``{}`` stands for the number.

    Raises
    ------
    ModelError
        If even ``high`` makes a larger one.
    """
    found = size(high)
    if found > target:
        raise ModelError(f"{where}: the smallest network that was found takes {what.format(f'{found:,.4g}')}, more "
                         f"than {target:,.4g}; raise the target, or prune more")
    bottom, top = math.log(low), math.log(high)
    for _ in range(MOST_TRIES):
        if found >= NEAR_ENOUGH * target:
            break
        middle = (bottom + top) / 2
        if (now := size(math.exp(middle))) <= target:
            top, found = middle, now
        else:
            bottom = middle
    return math.exp(top)

