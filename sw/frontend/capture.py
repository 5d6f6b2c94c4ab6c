"""The front end's one verb: a PyTorch module in, a :class:`~.graph.Graph` out."""

from typing import TYPE_CHECKING

from ...hw.arch.errors import ModelError
from .graph import Graph

if TYPE_CHECKING:
    import torch

__all__ = ["capture"]


def capture(model: "torch.nn.Module", input_shape: tuple[int, int, int]) -> Graph:
    """Capture a network as layers that the array can run.

    Convolution, linear, pooling, ReLU and clamps, batch norm, addition, concatenation, zero padding, flattening and
    dropout are taken, see :data:`~.operators.OPERATORS`. The graph computes exactly what the module computes in
    evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        Takes one tensor (N, C, H, W) and returns one.
    input_shape : (int, int, int)
        Channels, height, width.

    Raises
    ------
    ModelError
        If it can't be traced, or a parameter is not finite.
    UnsupportedError
        If an operator or attribute is not supported; the message names module, attribute, value and a rewrite.
    """
    from .fuse import fuse
    from .trace import count_parameters, trace

    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ModelError(f"input shape must be channels, height, width, not {tuple(input_shape)!r}")
    channels, height, width = input_shape
    shape = (channels, height, width)
    return fuse(trace(model, shape), shape, count_parameters(model))
