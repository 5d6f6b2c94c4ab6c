"""From bound operators to fused layers: fold batch norm, clamps, padding and flattening into the layers that run."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .graph import Clamp, FloatLayer
from .operators import unsupported
from .trace import Bound

__all__ = ["Fuser"]


def _pair(value: Any) -> tuple[int, int]:
    """PyTorch's one-or-two integers, as two."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return int(values[0]), int(values[-1])


class Fuser:
    """Builds the chain of layers, one operator at a time.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height, width of the module's input.

    Attributes
    ----------
    input_shape : (int, int, int)
        What the first layer takes.
    layers : list of FloatLayer
        The chain so far.
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        self.input_shape = image_shape
        self.layers: list[FloatLayer] = []
        self._shape = image_shape
        self._flat = False
        self._padding: tuple[int, int, int, int] | None = None

    def add(self, bound: Bound) -> None:
        """Take the next operator of the chain.

        Raises
        ------
        UnsupportedError
            If it can't be fused; the message names the module.
        """
        if self._padding is not None and bound.operator.kind != "conv":
            raise unsupported(bound.where, "follows padding", "put the padding right before a convolution")
        handler: Callable[[Bound], None] = getattr(self, f"_{bound.operator.kind}")
        handler(bound)

    def finish(self) -> None:
        """Check that nothing is left over."""
        if self._padding is not None:
            raise unsupported("the network", "ends in padding", "remove it")

    def _map(self, bound: Bound) -> tuple[int, int, int]:
        """The input, which must be a map of channels, height and width."""
        if self._flat or len(bound.in_shape) != 3:
            raise unsupported(bound.where, f"input has shape (N, {', '.join(map(str, bound.in_shape))})",
                              "it needs (N, C, H, W)")
        return self._shape

    def _append(self, layer: FloatLayer) -> None:
        names = {other.name for other in self.layers}
        if layer.name in names:  # the module is called a second time
            layer = dataclasses.replace(layer, name=next(f"{layer.name}@{n}" for n in range(2, 1000)
                                              if f"{layer.name}@{n}" not in names))
        self.layers.append(layer)
        self._shape = layer.out_shape
        self._padding = None

    def _conv(self, bound: Bound) -> None:
        shape, weight = self._map(bound), bound.tensors["weight"]
        assert weight is not None
        kernel = (weight.shape[2], weight.shape[3])
        stride, dilation = _pair(bound.attributes["stride"]), _pair(bound.attributes["dilation"])
        padding = bound.attributes["padding"]
        if padding == "same":
            total = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
            top, left, bottom, right = total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2
        else:
            top, left = bottom, right = (0, 0) if padding == "valid" else _pair(padding)
        before = self._padding or (0, 0, 0, 0)
        bias = bound.tensors["bias"]
        self._append(FloatLayer(
            name=bound.path, op="conv", in_shape=shape, out_shape=_shape3(bound.out_shape), kernel=kernel,
            stride=stride, dilation=dilation, weight=weight, bias=np.zeros(weight.shape[0]) if bias is None else bias,
            padding=(top + before[0], left + before[1], bottom + before[2], right + before[3])))

    def _linear(self, bound: Bound) -> None:
        weight, bias = bound.tensors["weight"], bound.tensors["bias"]
        assert weight is not None
        if len(bound.in_shape) != 1:
            raise unsupported(bound.where, f"input has shape (N, {', '.join(map(str, bound.in_shape))})",
                              "put nn.Flatten() before it")
        shape = self._shape
        if not self.layers:  # the image itself is flattened: the device is given the vector
            self.input_shape = shape = (math.prod(shape), 1, 1)
        self._append(FloatLayer(
            name=bound.path, op="conv", in_shape=shape, out_shape=(weight.shape[0], 1, 1), kernel=shape[1:],
            weight=weight.reshape(weight.shape[0], *shape), bias=np.zeros(weight.shape[0]) if bias is None else bias))
        self._flat = True

    def _batch_norm(self, bound: Bound) -> None:
        last = self.layers[-1] if self.layers else None
        if last is None or last.weight is None or last.bias is None or last.clamp.active:
            raise unsupported(bound.where, "batch norm does not come right after a convolution or linear layer",
                              "move it there, before the activation")
        mean, variance = bound.tensors["running_mean"], bound.tensors["running_var"]
        assert mean is not None and variance is not None
        gamma, beta = bound.tensors["weight"], bound.tensors["bias"]
        factor = (1.0 if gamma is None else gamma) / np.sqrt(variance + bound.attributes["eps"])
        self.layers[-1] = dataclasses.replace(
            last, weight=last.weight * factor[:, None, None, None], normalized=True,
            bias=(last.bias - mean) * factor + (0.0 if beta is None else beta))

    def _clamp(self, bound: Bound) -> None:
        if not self.layers:
            raise unsupported(bound.where, "clamps the network's input", "remove it: images are not negative")
        attributes = bound.attributes
        if "min_val" in attributes:
            clamp = Clamp(float(attributes["min_val"]), float(attributes["max_val"]))
        elif "min" in attributes or "max" in attributes:
            low, high = attributes.get("min"), attributes.get("max")
            clamp = Clamp(-math.inf if low is None else float(low), math.inf if high is None else float(high))
        else:
            clamp = Clamp(0.0, 6.0 if "relu6" in bound.target else math.inf)
        # Taking the maximum and clamping commute: clamping first gives unsigned activations sooner.
        index = len(self.layers) - 1
        while index > 0 and self.layers[index].op == "maxpool" and not self.layers[index].clamp.active:
            index -= 1
        self.layers[index] = dataclasses.replace(self.layers[index], clamp=self.layers[index].clamp.then(clamp))

    def _maxpool(self, bound: Bound) -> None:
        kernel = _pair(bound.attributes["kernel_size"])
        self._pool(bound, "maxpool", kernel, _pair(bound.attributes["dilation"]), 1)

    def _avgpool(self, bound: Bound) -> None:
        kernel = _pair(bound.attributes["kernel_size"])
        override, padding = bound.attributes["divisor_override"], _pair(bound.attributes["padding"])
        if not override and any(padding) and not bound.attributes["count_include_pad"]:
            raise unsupported(bound.where, "count_include_pad=False with padding is not supported",
                              "set count_include_pad=True or divisor_override")
        self._pool(bound, "avgpool", kernel, (1, 1), override or kernel[0] * kernel[1], exact_size=not override)

    def _pool(self, bound: Bound, op: Any, kernel: tuple[int, int], dilation: tuple[int, int], divisor: int,
              exact_size: bool = False) -> None:
        shape, out_shape = self._map(bound), _shape3(bound.out_shape)
        stride = _pair(bound.attributes["stride"] or kernel)
        padding = _pair(bound.attributes["padding"])
        after = []
        for axis in (0, 1):  # ceil_mode lets the last window reach beyond the padding
            reach = dilation[axis] * (kernel[axis] - 1) + 1
            needed = (out_shape[1 + axis] - 1) * stride[axis] + reach - shape[1 + axis] - padding[axis]
            if needed > padding[axis] and exact_size:
                raise unsupported(bound.where, f"ceil_mode=True with a map of {shape[1]} x {shape[2]} makes windows of "
                                  "different sizes", "set ceil_mode=False or divisor_override")
            after.append(max(needed, padding[axis]))
        self._append(FloatLayer(
            name=bound.path, op=op, in_shape=shape, out_shape=out_shape, kernel=kernel, stride=stride,
            padding=(*padding, after[0], after[1]), dilation=dilation, divisor=divisor))

    def _adaptive(self, bound: Bound) -> None:
        shape, out_shape = self._map(bound), _shape3(bound.out_shape)
        kernel = (shape[1] // out_shape[1], shape[2] // out_shape[2])
        if shape[1] % out_shape[1] or shape[2] % out_shape[2]:
            raise unsupported(bound.where, f"output_size={bound.attributes['output_size']} does not divide the map of "
                              f"{shape[1]} x {shape[2]}", "use nn.AvgPool2d")
        if kernel == (1, 1):
            return
        self._append(FloatLayer(name=bound.path, op="avgpool", in_shape=shape, out_shape=out_shape, kernel=kernel,
                                stride=kernel, divisor=kernel[0] * kernel[1]))

    def _mean(self, bound: Bound) -> None:
        shape, dims = self._map(bound), bound.attributes["dim"]
        if dims is None or sorted(dim % 4 for dim in dims) != [2, 3]:
            raise unsupported(bound.where, f"dim={dims} is not supported, only the two spatial ones",
                              "use x.mean((2, 3))")
        if shape[1:] != (1, 1):
            self._append(FloatLayer(name=bound.path, op="avgpool", in_shape=shape, out_shape=(shape[0], 1, 1),
                                    kernel=shape[1:], stride=shape[1:], divisor=shape[1] * shape[2]))
        self._flat = not bound.attributes["keepdim"]

    def _pad(self, bound: Bound) -> None:
        self._map(bound)
        pad = [int(value) for value in bound.attributes["pad"]] + [0, 0]
        if len(bound.attributes["pad"]) not in (2, 4) or min(pad) < 0:
            raise unsupported(bound.where, f"pad={bound.attributes['pad']} is not supported, only padding of height "
                              "and width that is not negative", "slice or pad outside the network")
        self._padding = (pad[2], pad[0], pad[3], pad[1])

    def _reshape(self, bound: Bound) -> None:
        if bound.out_shape == bound.in_shape:
            return
        if bound.out_shape != (math.prod(bound.in_shape),):
            raise unsupported(bound.where, f"reshapes (N, {', '.join(map(str, bound.in_shape))}) to "
                              f"(N, {', '.join(map(str, bound.out_shape))})",
                              "only flattening to (N, C*H*W), before a linear layer, is supported")
        self._flat = True

    def _drop(self, bound: Bound) -> None:
        """Dropout is nothing in evaluation."""

    def _identity(self, bound: Bound) -> None:
        """Nothing to do."""


def _shape3(shape: tuple[int, ...]) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, height, width
