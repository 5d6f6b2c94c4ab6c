"""The front end's one verb: a PyTorch module in, a :class:`~.graph.Graph` out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...hw.arch.errors import ModelError
from .graph import Graph

if TYPE_CHECKING:
    import torch

__all__ = ["InputShape", "capture", "image_shape", "on_images"]

InputShape = Sequence[int] | Sequence[Sequence[int]]
"""Shape of a module's input without the batch, (C, H, W), (C, L) or (features,); or those of several inputs."""


def capture(model: "torch.nn.Module", input_shape: InputShape) -> Graph:
    """Capture a network as layers that the array can run.

    Convolution, linear, pooling, ReLU and clamps, batch norm, addition, concatenation, zero padding, flattening and
    dropout are taken, see :data:`~.operators.OPERATORS`. The graph computes exactly what the module computes in
    evaluation mode, but for what is :data:`left to the host <.operators.HOST>`.

    Parameters
    ----------
    model : torch.nn.Module
        Takes tensors (N, C, H, W) of one height and width, (N, C, L) of one length, or (N, features), mostly one.
        Returns one tensor, or several of one height and width in a tuple, list or dictionary. Or an
        :class:`~.images.OnImages`.
    input_shape : (C, H, W), (C, L) or (features,), or a sequence of such
        Channels, height, width, or channels and length, or features; of each input where there are several. A network
        on (C, L) may also be captured with (C, 1, L), one on features with (features, 1, 1), and an ``OnImages`` with
        the shape of its images.

    Returns
    -------
    Graph
        Takes images whose channels are those of the inputs, one after the other; its output's channels are those of
        the outputs.

    Raises
    ------
    ModelError
        If it can't be traced, or a parameter is not finite.
    UnsupportedError
        If an operator or attribute is not supported; the message names module, attribute, value and a rewrite.
    """
    from .fuse import fuse
    from .images import OnImages
    from .trace import count_parameters, trace

    shape, shapes = image_shape(input_shape), _shapes(input_shape)
    if isinstance(model, OnImages):
        if shape != image_shape(model.shapes):
            raise ModelError(f"the network takes images of shape {image_shape(model.shapes)}, not {shape}")
        shapes, model = model.shapes, model.module
    return fuse(trace(model, shapes), shape, count_parameters(model))


def image_shape(input_shape: InputShape) -> tuple[int, int, int]:
    """Channels, height, width of the images that hold the inputs of these shapes, one channel after the other.

    Raises
    ------
    ModelError
        If they have no shape of inputs, or not one height and width.
    """
    shapes = _shapes(input_shape)
    for shape in shapes:
        if len(shape) not in (1, 2, 3) or min(shape) < 1:
            raise ModelError(f"input shape must be channels, height, width, or channels and length, or features, not "
                             f"{shape!r}")
        if shape[1:] != shapes[0][1:]:
            raise ModelError(f"the inputs must have one height and width, because they become one image's channels, "
                             f"but have the shapes {shapes[0]} and {shape}")
    height, width = (1, 1, *shapes[0][1:])[-2:]
    return sum(shape[0] for shape in shapes), height, width


def on_images(model: "torch.nn.Module", graph: Graph) -> "torch.nn.Module":
    """The module from images (N, C, H, W) to the values of the graph's output: `model`, or one around it.

    Parameters
    ----------
    model : torch.nn.Module
        A module.
    graph : Graph
        What :func:`capture` made of it.
    """
    from .images import OnImages

    if not (graph.inputs or graph.outputs or graph.left_to_host):
        return model
    return OnImages(model.module if isinstance(model, OnImages) else model, graph.inputs or (graph.image_shape,),
                    ends=bool(graph.left_to_host))


def _shapes(input_shape: InputShape) -> tuple[tuple[int, ...], ...]:
    """Of each input."""
    if not len(input_shape):
        raise ModelError("input shape must be channels, height, width, or channels and length, or features, not ()")
    shapes = [tuple(shape) for shape in input_shape if isinstance(shape, Sequence)]
    return tuple(shapes) if shapes else (tuple(int(size) for size in input_shape if not isinstance(size, Sequence)),)
