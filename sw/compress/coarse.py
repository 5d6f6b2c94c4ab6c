"""Convolutions on activations of 16 bits, for the training of large networks.

Activations and weights of at most 8 significant bits are exact in bfloat16, and a processor with instructions for it
takes a fraction of the time of float32. Only sums lose digits before they are rounded, so that a value may come out one
step beside the integer network's. What is made in the end is computed from the weights alone, exactly.
"""

import dataclasses
import functools
import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["Geometry", "Rounding", "coarse_convolution", "supported"]

HALF = torch.bfloat16


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Of a convolution, as PyTorch takes it."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


@dataclasses.dataclass(frozen=True)
class Rounding:
    """What an output is made to.

    Parameters
    ----------
    low, high : float
        Its least and greatest value, in units of ``2**exponent``.
    exponent : int
        Values are whole multiples of ``2**exponent``.
    active : bool
        False only clamps.
    """

    low: float
    high: float
    exponent: int = 0
    active: bool = True


@functools.cache
def supported() -> bool:
    """Whether this processor has instructions for bfloat16."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@functools.cache
def _limits(rounding: Rounding) -> tuple[float, float]:
    """Numbers of 16 bits that sums are clamped to: the outermost ones that round to the least and greatest value."""
    if not rounding.active:
        return rounding.low, rounding.high
    limits = []
    for value, outwards in (rounding.low, -1), (rounding.high, 1):
        limit, inwards = torch.tensor(value + outwards / 2, dtype=HALF), torch.tensor(-outwards * math.inf, dtype=HALF)
        while abs(float(limit) - value) >= 0.5:
            limit = torch.nextafter(limit, inwards)
        limits.append(float(limit))
    return limits[0], limits[1]


class _Convolution(torch.autograd.Function):
    """Convolution, sum with residuals, clamp and rounding in as few passes over the map as there can be: the speed of
    memory decides."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry, rounding: Rounding,
                *residuals: Tensor) -> Tensor:
        # In units of the output: powers of two change no digit of the weights.
        scale, limits = 2.0**-rounding.exponent, _limits(rounding)
        x = x.to(HALF)
        scaled = x, (weight * scale).to(HALF), bias * scale
        places = geometry.padding, geometry.stride, geometry.dilation, geometry.groups
        if residuals:
            acc: Tensor = torch.ops.aten.mkldnn_convolution(*scaled, *places)
            for residual in residuals:
                acc.add_(residual, alpha=scale)
            acc.clamp_(*limits)
        else:
            acc = torch.ops.mkldnn._convolution_pointwise(*scaled, *places, "hardtanh", limits, "")
        ctx.save_for_backward(x, weight.to(HALF), acc)
        ctx.geometry, ctx.limits = geometry, limits
        return acc.round().mul_(1 / scale) if rounding.active else acc

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight, acc = ctx.saved_tensors
        geometry = ctx.geometry
        given = grads[0].contiguous(memory_format=torch.channels_last)  # as the sums: slow otherwise
        grad = torch.ops.aten.hardtanh_backward(given, acc, *ctx.limits)
        mask = [ctx.needs_input_grad[0], True, True]
        of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
            grad, x, weight, [len(weight)], geometry.stride, geometry.padding, geometry.dilation, False, (0, 0),
            geometry.groups, mask)
        return of_x, of_weight.float(), of_bias.float(), None, None, *(grad for _ in ctx.needs_input_grad[5:])


def coarse_convolution(x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry, rounding: Rounding,
                       *residuals: Tensor) -> Tensor:
    """A convolution, plus residuals, rounded and clamped; the gradient passes where nothing is clamped.

    Parameters
    ----------
    x : float tensor (N, channels in, H, W)
        Activations of at most 8 significant bits.
    weight : float32 tensor (channels out, channels in / groups, kernel height, kernel width)
        Of at most 8 significant bits.
    bias : float32 tensor (channels out)
    geometry : Geometry
        Padding on both sides alike.
    rounding : Rounding
        Of the output.
    residuals : float tensors (N, channels out, H out, W out)

    Returns
    -------
    bfloat16 tensor (N, channels out, H out, W out)
    """
    result: Tensor = _Convolution.apply(x, weight, bias, geometry, rounding, *residuals)
    return result
