"""What is known of a network while its operators are fused: tensors, their views, and the layers so far."""

import dataclasses
from typing import Any

import numpy as np

from .graph import INPUT, Clamp, FloatConcat, FloatLayer, Grid
from .operators import unsupported
from .trace import Bound

__all__ = ["Builder", "Value"]

Shape = tuple[int, int, int]
ONE_SCALE = 4
"""How many times the weights of outputs may differ in magnitude that are made by one layer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
    """What an operator returns: a tensor, or a view of one that its reader takes over.

    Parameters
    ----------
    tensor : str
        The input, a layer's or a concatenation's name.
    shape : (int, int, int)
        Channels, height, width of the view, but for padding of height and width.
    flat : bool
        The network has flattened it.
    sole : bool
        Nothing but the next operator reads the tensor, so that this operator may change the layer that makes it.
    padding : (int, int, int, int)
        Padding around the map: top, left, bottom, right.
    lowest : bool
        The padding is minus infinity, as max pooling pads, in place of zeros.
    stride : (int, int)
        Every how many pixels of the tensor are taken.
    channel_offset : int
        Channels of zeros before the tensor's.
    more_channels : bool
        There are channels of zeros.
    part : int or None
        Of one of several inputs, the channel of the image that it begins at.
    """

    tensor: str
    shape: Shape
    flat: bool = False
    sole: bool = True
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    lowest: bool = False
    stride: tuple[int, int] = (1, 1)
    channel_offset: int = 0
    more_channels: bool = False
    part: int | None = None

    @property
    def sliced(self) -> bool:
        """Whether pixels are left out or channels of zeros added."""
        return self.stride != (1, 1) or self.more_channels


class Builder:
    """Layers and concatenations in the making.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height, width of the module's input.

    Attributes
    ----------
    image_shape, input_shape : (int, int, int)
        Shape of the module's input, and of what the layers that read it take.
    layers : dict of FloatLayer
        By name, in execution order.
    concats : dict of FloatConcat
        By name.
    input_grid : Grid or None
        What the image is rounded to.
    """

    def __init__(self, image_shape: Shape) -> None:
        self.image_shape = self.input_shape = image_shape
        self.layers: dict[str, FloatLayer] = {}
        self.concats: dict[str, FloatConcat] = {}
        self.input_grid: Grid | None = None
        self._made = {INPUT: 0}
        self._sole_readers: set[str] = set()
        self._image_read_as: str | None = None

    def unique(self, name: str) -> str:
        """A name that no tensor has: a module that is called again gets a number."""
        number, found = 1, name
        while found in self._made:
            number += 1
            found = f"{name}@{number}"
        return found

    def read(self, bound: Bound, x: Value) -> Shape:
        """The shape in which a new layer reads a value."""
        self.check_whole(bound, x)
        if x.sliced:
            raise unsupported(bound.where, "follows a slice or padding of channels", "only an addition takes one")
        if x.tensor == INPUT:
            kind = "vector" if x.flat else "map"
            if self._image_read_as not in (None, kind):
                raise unsupported(bound.where, "reads the network's input as a vector, and another layer as a map",
                                  "flatten the output of a layer in place of the input")
            self._image_read_as = kind
            if x.flat:
                self.input_shape = (int(np.prod(x.shape)), 1, 1)
                return self.input_shape
        return x.shape

    def check_whole(self, bound: Bound, x: Value) -> None:
        """Refuse one of several inputs."""
        if x.part is not None:
            raise unsupported(bound.where, "reads one of several inputs, which only convolutions, linear layers and a "
                              "concatenation of all of them in order can", "put a 1 x 1 convolution before it")

    def widened(self, x: Value, weight: np.ndarray, groups: int) -> tuple[Value, np.ndarray, int]:
        """For a layer that reads one of several inputs: the image, and weights that are 0 for its other channels."""
        if x.part is None:
            return x, weight, groups
        rows, taken = weight.shape[:2]
        wide = np.zeros((rows, self.image_shape[0], *weight.shape[2:]))
        for group in range(groups):
            own, start = slice(group * rows // groups, (group + 1) * rows // groups), x.part + group * taken
            wide[own, start:start + taken] = weight[own]
        return dataclasses.replace(x, part=None, shape=self.image_shape), wide, 1

    def append(self, x: Value, layer: FloatLayer, flat: bool = False) -> Value:
        """Add a layer that reads `x`; the result is its output."""
        layer = dataclasses.replace(layer, name=self.unique(layer.name), source=x.tensor)
        self.layers[layer.name] = layer
        self._made[layer.name] = len(self.layers)
        if x.sole:
            self._sole_readers.add(layer.name)
        return Value(tensor=layer.name, shape=layer.out_shape, flat=flat)

    def join(self, name: str, parts: tuple[str, ...], shape: Shape, flat: bool) -> Value:
        """Add a concatenation."""
        name = self.unique(name)
        self.concats[name] = FloatConcat(name=name, parts=parts)
        self._made[name] = max(self._made[part] for part in parts)
        return Value(tensor=name, shape=shape, flat=flat)

    @property
    def input_read(self) -> bool:
        """Whether a layer reads the input."""
        return self._image_read_as is not None

    def foldable(self, x: Value, *, rounded: bool = False) -> FloatLayer | None:
        """The layer that makes `x`, when the next operator may change it; after a quantizer only if `rounded`."""
        layer = self.layers.get(x.tensor) if x.sole and not x.sliced and not any(x.padding) else None
        return layer if layer is None or layer.grid is None or rounded else None

    def fold(self, x: Value, **changes: Any) -> Value:
        """Change the layer that makes `x`."""
        self.layers[x.tensor] = dataclasses.replace(self.layers[x.tensor], **changes)
        return x

    def clamp(self, x: Value, clamp: Clamp) -> Value:
        """Clamp the output of the foldable layer that makes `x`."""
        # Taking the maximum and clamping commute: clamping first gives unsigned activations sooner.
        layer = self.before_maxpool(x)
        self.layers[layer.name] = dataclasses.replace(layer, clamp=layer.clamp.then(clamp))
        return x

    def quantize(self, bound: Bound, x: Value, grid: Grid) -> Value:
        """Round what a layer makes."""
        if self.foldable(x, rounded=True):
            layer = self.before_maxpool(x)
            if layer.grid == grid:
                return x
        if not self.foldable(x) or layer.grid is not None:
            x = self.copy(bound, x)
            layer = self.layers[x.tensor]
        self.layers[layer.name] = dataclasses.replace(layer, clamp=layer.clamp.then(grid.clamp), grid=grid)
        return x

    def before_maxpool(self, x: Value) -> FloatLayer:
        """The layer that makes `x`, or what its maximum is taken of where nothing else reads that."""
        layer = self.layers[x.tensor]
        while (layer.op == "maxpool" and not layer.clamp.active and layer.source in self.layers
               and layer.name in self._sole_readers):
            layer = self.layers[layer.source]
        return layer

    def affine(self, bound: Bound, x: Value, factor: np.ndarray, offset: np.ndarray, name: str = "") -> Value:
        """Add a layer ``x * factor + offset``, one factor and offset a channel."""
        shape = self.read(bound, x)
        if len(factor) != shape[0]:
            raise unsupported(bound.where, f"treats single pixels of a flattened map of {shape[1]} x {shape[2]}",
                              "put it before flattening")
        return self.append(x, FloatLayer(
            name=name or bound.path, op="conv", in_shape=shape, out_shape=shape, kernel=(1, 1), groups=shape[0],
            weight=factor.reshape(-1, 1, 1, 1), bias=offset, affine=True), x.flat)

    def stack(self, values: list[Value]) -> bool:
        """Make one layer of convolutions or linear layers that read the same in the same way, as the last one; whether
        they do. Their weights must be of one magnitude, for they get one scale."""
        layers = [self.foldable(x) for x in values]
        first, weights, biases, names = layers[0], list[np.ndarray](), list[np.ndarray](), list[str]()
        for layer in layers:
            if (first is None or layer is None or layer.weight is None or layer.bias is None or layer.name in names
                    or layer.groups > 1 or layer.residuals or layer.affine or layer.clamp != first.clamp
                    or layer.grid != first.grid
                    or any(getattr(layer, field) != getattr(first, field) for field in
                           ("source", "in_shape", "kernel", "stride", "padding", "dilation"))):
                return False
            weights.append(layer.weight)
            biases.append(layer.bias)
            names.append(layer.name)
        magnitudes = [float(np.sqrt(np.mean(weight**2))) for weight in weights]
        if first is None or min(magnitudes) * ONE_SCALE < max(magnitudes):
            return False
        for name in names:
            del self.layers[name]
        stacked = np.concatenate(weights)
        self.append(Value(tensor=first.source, shape=first.in_shape), dataclasses.replace(
            first, name="+".join(names), weight=stacked, bias=np.concatenate(biases),
            out_shape=(len(stacked), *first.out_shape[1:])))
        return True

    def copy(self, bound: Bound, x: Value) -> Value:
        """Add a layer that only passes on."""
        channels = self.read(bound, x)[0]
        return self.affine(bound, x, np.ones(channels), np.zeros(channels))

    def before(self, tensor: str, layer: str) -> bool:
        """Whether a tensor is there when a layer begins."""
        return self._made[tensor] < self._made[layer]

    def signed(self, tensor: str) -> bool:
        """Whether a tensor may be negative."""
        if tensor == INPUT:
            return self.input_grid is not None and self.input_grid.signed
        if tensor in self.concats:
            return any(self.signed(part) for part in self.concats[tensor].parts)
        layer = self.layers[tensor]
        return layer.clamp.low < 0 if layer.op == "conv" else self.signed(layer.source)

    def scaled_like_input(self, tensor: str) -> bool:
        """Whether a tensor has the input's scale, because only poolings lie between."""
        while tensor in self.layers and self.layers[tensor].op != "conv":
            tensor = self.layers[tensor].source
        return tensor == INPUT

    def joined(self, tensor: str) -> bool:
        """Whether a tensor is part of a concatenation."""
        return any(tensor in concat.parts for concat in self.concats.values())
