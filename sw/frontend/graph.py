"""The float graph that recipes take: a chain of layers that the array can run, with everything else folded in."""

import dataclasses
import math
from typing import Literal

import numpy as np

from ...hw.arch.errors import ModelError

__all__ = ["Clamp", "FloatLayer", "Graph"]


@dataclasses.dataclass(frozen=True)
class Clamp:
    """Limits of a layer's real-valued output; infinite where there is none.

    Parameters
    ----------
    low, high : float
        A ReLU is ``Clamp(0.0, inf)``.
    """

    low: float = -math.inf
    high: float = math.inf

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return self.low > -math.inf or self.high < math.inf

    def then(self, outer: "Clamp") -> "Clamp":
        """The one clamp that equals this one followed by ``outer``."""
        return Clamp(min(max(self.low, outer.low), outer.high), min(max(self.high, outer.low), outer.high))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FloatLayer:
    """One layer in float arithmetic. A fully connected layer is a convolution whose kernel covers the map.

    Parameters
    ----------
    name : str
        Path of the module it came from.
    op : str
        ``"conv"``, ``"maxpool"`` or ``"avgpool"``.
    in_shape, out_shape : (int, int, int)
        Channels, height, width of one image's input and output.
    kernel, stride, dilation : (int, int)
        Vertical, horizontal.
    padding : (int, int, int, int)
        Top, left, bottom, right. Padded taps count as zero (``conv``, ``avgpool``) or are left out (``maxpool``).
    weight : float64 array (channels out, channels in, kernel height, kernel width) or None
        Only for ``conv``; batch norm is folded in.
    bias : float64 array (channels out) or None
        Only for ``conv``; zeros when the network has none.
    divisor : int
        What ``avgpool`` divides the sum of its taps by.
    clamp : Clamp
        Applied to the output.
    normalized : bool
        A batch norm was folded into ``weight`` and ``bias``, so channels may differ much in magnitude.
    """

    name: str
    op: Literal["conv", "maxpool", "avgpool"]
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    divisor: int = 1
    clamp: Clamp = Clamp()
    normalized: bool = False

    @property
    def covers_map(self) -> bool:
        """Whether the kernel covers the whole input, so that the layer is a matrix product."""
        return self.kernel == self.in_shape[1:] and not any(self.padding)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A chain of layers.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height, width of what the PyTorch module takes.
    input_shape : (int, int, int)
        What the first layer takes: ``image_shape``, or (C*H*W, 1, 1) when the module flattens its input first (in C
        order).
    layers : tuple of FloatLayer
        In execution order.
    parameters : int
        Parameters of the original module, batch-norm statistics counted, each shared tensor once.
    """

    image_shape: tuple[int, int, int]
    input_shape: tuple[int, int, int]
    layers: tuple[FloatLayer, ...]
    parameters: int

    def __post_init__(self) -> None:
        if not self.layers:
            raise ModelError("the network has no layer that the array runs; it needs at least one convolution, "
                             "linear layer or pooling")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ModelError(f"layer names must be unique, not {names}")
        shape = self.input_shape
        for layer in self.layers:
            if layer.in_shape != shape and math.prod(layer.in_shape) != math.prod(shape):
                raise ModelError(f"layer {layer.name}: takes {layer.in_shape} but is given {shape}")
            shape = layer.out_shape

    @property
    def weights(self) -> int:
        """Number of weights of all convolutions and linear layers."""
        return sum(layer.weight.size for layer in self.layers if layer.weight is not None)
