"""Quantizers with straight-through gradients.

All scales are powers of two, so floating point holds every value exactly.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .coarse import Rounding

__all__ = ["ActivationQuantizer", "FixedPoint", "round_half_up", "straight_through"]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None


class _RoundAndClamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, exponent: int, low: int, high: int) -> Tensor:
        # Memory's speed decides: as few passes over the tensor as there can be.
        raised = torch.add(torch.tensor(0.5), x, alpha=2.0**-exponent)
        ctx.save_for_backward(raised)
        # Hardtanh's limits are outside of the range that the gradient passes in, but a tie at the bottom is inside.
        ctx.range = float(torch.nextafter(torch.tensor(float(low)), torch.tensor(-math.inf))), high + 1
        return raised.clamp(low, high + 0.5).floor_().mul_(2.0**exponent)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return torch.ops.aten.hardtanh_backward(grads[0], ctx.saved_tensors[0], *ctx.range), None, None, None


class _Windowed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, exponent: int, low: int, high: int, width: float) -> Tensor:
        raised = x * 2.0**-exponent + 0.5
        ctx.save_for_backward(raised)
        ctx.limits = low, high, width
        return torch.floor(raised).clamp_(low, high).mul_(2.0**exponent)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raised, (low, high, width) = ctx.saved_tensors[0], ctx.limits
        # Steps within the window: what the quantizer rises by from its one end to the other.
        steps = torch.floor(raised + width / 2).clamp_(low, high) - torch.floor(raised - width / 2).clamp_(low, high)
        return grads[0] * steps / width, None, None, None, None


def straight_through(source: Tensor, value: Tensor) -> Tensor:
    """``value`` exactly, with the gradient passed on to ``source`` as it is (arXiv:1308.3432)."""
    return _StraightThrough.apply(source, value)


def round_half_up(x: Tensor, exponent: int) -> Tensor:
    """``floor(x / 2**exponent + 0.5)``: the integers of a fixed-point format, as the device rounds."""
    return torch.floor(x * 2.0**-exponent + 0.5)


class FixedPoint(nn.Module):
    """Parametrization of a bias by whole multiples of ``2**exponent``."""

    def __init__(self) -> None:
        super().__init__()
        self.exponent = 0

    def forward(self, bias: Tensor) -> Tensor:
        """The nearest multiples, with gradients straight through."""
        return straight_through(bias, round_half_up(bias.detach(), self.exponent) * 2.0**self.exponent)

    def right_inverse(self, bias: Tensor) -> Tensor:
        """Master biases start as the float biases."""
        return bias


class ActivationQuantizer(nn.Module):
    """Rounds activations to integers times ``2**exponent`` and clamps them.

    Parameters
    ----------
    bits : int
        2 to 8.
    signed : bool
        Two's complement; otherwise unsigned.
    low, high : float
        Further limits in real values; a ReLU is ``low = 0``.

    Attributes
    ----------
    exponent : int
        Chosen by calibration.
    rounding : bool
        False leaves only the limits: float activations, as a reference.
    width : float or None
        With a number, each step between two values has a rectangle so many units wide as its gradient, half of it on
        either side. None passes the gradient where nothing is clamped.
    """

    rounding = True

    def __init__(self, bits: int, signed: bool, low: float = float("-inf"), high: float = float("inf")) -> None:
        super().__init__()
        self.bits, self.signed, self.low, self.high = bits, signed, low, high
        self.exponent = 0
        self.width: float | None = None

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest integer: the format's, or the limits rounded (rounding is monotone, so that is exact)."""
        least, most = (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)
        unit = 2.0**self.exponent
        limits = (min(max(limit, least * unit), most * unit) for limit in (self.low, self.high))
        low, high = (math.floor(limit / unit + 0.5) for limit in limits)
        return low, high

    @property
    def limits(self) -> Rounding:
        """The same for a convolution that rounds its own output."""
        return Rounding(*self.range, self.exponent) if self.rounding else Rounding(self.low, self.high, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rounded and clamped; the gradient passes where nothing is clamped."""
        if not self.rounding:
            return x.clamp(self.low, self.high)
        low, high = self.range
        if self.width is not None:
            return _Windowed.apply(x, self.exponent, low, high, self.width)
        return _RoundAndClamp.apply(x, self.exponent, low, high)
