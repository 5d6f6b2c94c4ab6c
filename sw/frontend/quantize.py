"""The operator by which a network says itself to what its activations are rounded."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["ROUND", "quantize"]


def _half_up(x: Tensor) -> Tensor:
    return torch.floor(x + 0.5)


ROUND: dict[str, Callable[[Tensor], Tensor]] = {
    "half_even": torch.round, "half_up": _half_up, "floor": torch.floor, "ceil": torch.ceil}
"""To whole numbers, by the names of :class:`~.graph.Grid`."""


@torch.library.custom_op("shiftwright::quantize", mutates_args=())
def quantize(images: Tensor, scale: float, low: int, high: int, rounding: str) -> Tensor:
    """The multiple of a step that each activation is rounded to.

    Parameters
    ----------
    images : float tensor
    scale, low, high, rounding
        See :class:`~.graph.Grid`.
    """
    return ROUND[rounding](images / scale).clamp_(low, high) * scale


@quantize.register_fake
def _alike(images: Tensor, scale: float, low: int, high: int, rounding: str) -> Tensor:
    return torch.empty_like(images)
