"""The float graph that recipes take: layers that the array can run, with everything else folded in."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from ...hw.arch.errors import ModelError

__all__ = ["INPUT", "Clamp", "FloatConcat", "FloatLayer", "FloatResidual", "Graph", "Grid", "Output"]

INPUT = ""
"""Name of the network's input among the tensors of a graph; the others are named like the layers that make them."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Values that the network itself gives to activations: whole multiples of a step.

    Parameters
    ----------
    scale : float
        The step.
    low, high : int
        Least and greatest multiple, at most 0 and at least 0.
    rounding : str
        How one is chosen: ``"half_even"`` or ``"half_up"``, the nearest; ``"floor"`` or ``"ceil"``.
    """

    scale: float
    low: int
    high: int
    rounding: str = "half_even"

    @property
    def clamp(self) -> Clamp:
        """Its limits as real values."""
        return Clamp(self.low * self.scale, self.high * self.scale)

    @property
    def signed(self) -> bool:
        """Whether a multiple may be negative."""
        return self.low < 0

    def bits(self, signed: bool) -> int:
        """Bits of an integer that holds each multiple, at least 2."""
        return max(2, self.high.bit_length() + signed, (-self.low - 1).bit_length() + 1 if self.low else 0)

    def holds(self, value: float) -> bool:
        """Whether a real value is infinite or a multiple."""
        return math.isinf(value) or math.isclose(value / self.scale, round(value / self.scale), rel_tol=1e-6,
                                                 abs_tol=1e-6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FloatResidual:
    """A tensor that a convolution adds before its clamp; see :class:`shiftwright.sw.network.Residual`.

    Parameters
    ----------
    source : str
        The tensor.
    stride : (int, int)
        Vertical, horizontal.
    channel_offset : int
        Output channel that its channel 0 joins.
    """

    source: str
    stride: tuple[int, int] = (1, 1)
    channel_offset: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FloatConcat:
    """A tensor that consists of the channels of others, in order.

    Parameters
    ----------
    name : str
        Of the joined tensor.
    parts : tuple of str
        Layers' outputs or other concatenations; a tensor is in one concatenation at most.
    """

    name: str
    parts: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FloatLayer:
    """One layer in float arithmetic. A fully connected layer is a convolution whose kernel covers the map.

    Parameters
    ----------
    name : str
        Path of the module it came from.
    op : str
        ``"conv"``, ``"maxpool"``, ``"avgpool"`` or ``"leaky"``, which is a leaky ReLU.
    source : str
        The tensor that it reads: :data:`INPUT`, a layer's or a concatenation's name.
    in_shape, out_shape : (int, int, int)
        Channels, height, width of one image's input and output.
    kernel, stride, dilation : (int, int)
        Vertical, horizontal.
    padding : (int, int, int, int)
        Top, left, bottom, right. Padded taps count as zero (``conv``, ``avgpool``) or are left out (``maxpool``).
    groups : int
        Only for ``conv``.
    weight : float64 array (channels out, channels in / groups, kernel height, kernel width) or None
        Only for ``conv``; batch norm is folded in.
    bias : float64 array (channels out) or None
        Only for ``conv``; zeros when the network has none.
    divisor : int
        What ``avgpool`` divides the sum of its taps by.
    leak : int
        ``leaky`` multiplies what is negative by ``2**-leak``.
    clamp : Clamp
        Applied to the output.
    normalized : bool
        A batch norm was folded into ``weight`` and ``bias``, so channels may differ much in magnitude.
    residuals : tuple of FloatResidual
        Tensors added before the clamp; only for ``conv``.
    affine : bool
        A ``conv`` with one weight a channel, made of arithmetic with constants or of an addition: recipes keep its
        weights as they are.
    grid : Grid or None
        What the network rounds the output to; ``clamp`` has its limits.
    """

    name: str
    op: Literal["conv", "maxpool", "avgpool", "leaky"]
    source: str = INPUT
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    divisor: int = 1
    leak: int = 0
    clamp: Clamp = Clamp()
    normalized: bool = False
    residuals: tuple[FloatResidual, ...] = ()
    affine: bool = False
    grid: Grid | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """All tensors that it reads, its source first."""
        return self.source, *(residual.source for residual in self.residuals)

    @property
    def covers_map(self) -> bool:
        """Whether the kernel covers the whole input, so that the layer is a matrix product."""
        return self.kernel == self.in_shape[1:] and not any(self.padding)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """One of several tensors that a module returns: a range of the channels of the graph's output.

    Parameters
    ----------
    name : str
        Its key, or its position.
    start, stop : int
        Its channels: from ``start``, up to ``stop``, which is not one of them.
    """

    name: str
    start: int
    stop: int

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {"name": self.name, "channels": [self.start, self.stop]}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """Layers and concatenations.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height, width of what the PyTorch module takes.
    input_shape : (int, int, int)
        What the layers that read the input take: ``image_shape``, or (C*H*W, 1, 1) when the module flattens its input
        first (in C order).
    layers : tuple of FloatLayer
        In execution order; the last one's output is the network's.
    concats : tuple of FloatConcat
        In an order in which their parts are there.
    parameters : int
        Parameters of the original module, batch-norm statistics counted, each shared tensor once.
    inputs : tuple of tuple of int
        Shape of each tensor that the module takes, without the batch: (C, H, W) or (C, L). The image's channels are
        those of one after the other. Empty: it takes images of ``image_shape``.
    outputs : tuple of Output
        What it returns, where that is not one tensor alone.
    left_to_host : tuple of str
        What the module ends in that the graph does not have, in words.
    input_grid : Grid or None
        What the network rounds its images to.
    """

    image_shape: tuple[int, int, int]
    input_shape: tuple[int, int, int]
    layers: tuple[FloatLayer, ...]
    concats: tuple[FloatConcat, ...] = ()
    parameters: int
    inputs: tuple[tuple[int, ...], ...] = ()
    outputs: tuple[Output, ...] = ()
    left_to_host: tuple[str, ...] = ()
    input_grid: Grid | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise ModelError("the network has no layer that the array runs; it needs at least one convolution, "
                             "linear layer or pooling")
        shapes = self.shapes
        if len(shapes) != 1 + len(self.layers) + len(self.concats):
            raise ModelError(f"layer names must be unique, not {[layer.name for layer in self.layers]}")
        for layer in self.layers:
            for source in layer.sources:
                if source not in shapes:
                    raise ModelError(f"layer {layer.name}: reads {source!r}, which nothing makes")
            shape = shapes[layer.source]
            if layer.in_shape != shape and math.prod(layer.in_shape) != math.prod(shape):
                raise ModelError(f"layer {layer.name}: takes {layer.in_shape} but is given {shape}")

    @property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """Channels, height, width of every tensor by name."""
        shapes = {INPUT: self.input_shape} | {layer.name: layer.out_shape for layer in self.layers}
        for concat in self.concats:
            parts = [shapes[part] for part in concat.parts]
            shapes[concat.name] = (sum(part[0] for part in parts), *parts[0][1:])
        return shapes

    @property
    def steps(self) -> tuple[FloatLayer | FloatConcat, ...]:
        """Layers in execution order, each concatenation among them right after the last of its parts."""
        here, steps, waiting = {INPUT}, list[FloatLayer | FloatConcat](), list(self.concats)
        for layer in self.layers:
            steps.append(layer)
            here.add(layer.name)
            while waiting and here.issuperset(waiting[0].parts):
                here.add(waiting[0].name)
                steps.append(waiting.pop(0))
        return tuple(steps)

    @property
    def signed(self) -> dict[str, bool]:
        """Which tensors are stored signed: those that a clamp does not keep from being negative, and those that are
        read or joined together with such."""
        images = self.input_grid is not None and self.input_grid.signed
        signed = {INPUT: images} | {layer.name: layer.op == "conv" and layer.clamp.low < 0 for layer in self.layers}
        signed |= {concat.name: False for concat in self.concats}
        alike = [layer.sources for layer in self.layers if layer.residuals]
        alike += [(layer.name, layer.source) for layer in self.layers if layer.op != "conv"]
        alike += [(concat.name, *concat.parts) for concat in self.concats]
        changed = True
        while changed:
            changed = False
            for names in alike:
                if any(signed[name] for name in names) and not all(signed[name] for name in names):
                    signed |= dict.fromkeys(names, True)
                    changed = True
        if signed[INPUT] and not images:
            raise ModelError("the network's input is added to values that may be negative, but images are not signed; "
                             "put a convolution or batch norm between them")
        return signed

    @property
    def output_sizes(self) -> list[int]:
        """Values of each of the module's outputs, in the order in which they lie in the flattened output."""
        channels, height, width = self.layers[-1].out_shape
        return [(each.stop - each.start) * height * width for each in self.outputs] or [channels * height * width]

    def readers(self, tensor: str) -> list[FloatLayer | FloatConcat]:
        """What takes a tensor."""
        return [step for step in self.steps
                if tensor in (step.parts if isinstance(step, FloatConcat) else step.sources)]

    @property
    def weights(self) -> int:
        """Number of weights of all convolutions and linear layers."""
        return sum(layer.weight.size for layer in self.layers if layer.weight is not None)
