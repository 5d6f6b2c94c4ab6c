"""From bound operators to fused layers: fold batch norm, clamps, padding, additions and flattening into what runs."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .build import Builder, Shape, Value
from .graph import INPUT, Clamp, FloatLayer, FloatResidual, Graph
from .operators import unsupported
from .trace import Bound, Trace

__all__ = ["fuse"]


def fuse(trace: Trace, image_shape: Shape, parameters: int) -> Graph:
    """Make the graph of a traced network.

    Parameters
    ----------
    trace : Trace
        Its operators.
    image_shape : (int, int, int)
        Channels, height, width of its input.
    parameters : int
        For the graph.

    Raises
    ------
    UnsupportedError
        If operators can't be fused into layers; the message names the module.
    """
    fuser = _Fuser(image_shape, trace.input)
    for bound in trace.operators:
        fuser.add(bound)
    if trace.operators:
        fuser.finish(trace.operators[-1], trace.output)
    builder = fuser.builder
    return Graph(image_shape=image_shape, input_shape=builder.input_shape, layers=tuple(builder.layers.values()),
                 concats=tuple(builder.concats.values()), parameters=parameters)


def _pair(value: Any) -> tuple[int, int]:
    """PyTorch's one-or-two integers, as two."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return int(values[0]), int(values[-1])


def _shape3(shape: tuple[int, ...]) -> Shape:
    channels, height, width = shape
    return channels, height, width


def _words(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape))})"


class _Fuser:
    """Takes one operator at a time; a method for each kind."""

    def __init__(self, image_shape: Shape, name: str) -> None:
        self.builder = Builder(image_shape)
        self.values = {name: Value(tensor=INPUT, shape=image_shape)}

    def add(self, bound: Bound) -> None:
        """Take the next operator."""
        sources = [self.values[name] for name in bound.sources]
        kind = bound.operator.kind
        for x in sources:
            if any(x.padding) and kind not in (("maxpool",) if x.lowest else ("conv", "avgpool")):
                raise unsupported(bound.where, f"follows padding{' with -inf' if x.lowest else ''}",
                                  f"put the padding right before a {'max pooling' if x.lowest else 'convolution'}")
        handler: Callable[..., Value] = getattr(self, f"_{kind}")
        value = handler(bound, *sources)
        self.values[bound.name] = dataclasses.replace(value, sole=value.sole and bound.users == 1)

    def finish(self, last: Bound, output: str) -> None:
        """Check that nothing is left over, and make the output a layer's."""
        value = self.values[output]
        if any(value.padding) or value.sliced:
            raise unsupported("the network", "ends in padding or a slice", "remove it")
        if value.tensor in self.builder.concats:
            self.builder.copy(last, value)

    def _map(self, bound: Bound, x: Value) -> Shape:
        """The input, which must be a map of channels, height and width."""
        if x.flat or len(bound.in_shape) != 3:
            raise unsupported(bound.where, f"input has shape {_words(bound.in_shape)}", "it needs (N, C, H, W)")
        return self.builder.read(bound, x)

    def _conv(self, bound: Bound, x: Value) -> Value:
        shape, weight = self._map(bound, x), bound.tensors["weight"]
        assert weight is not None
        kernel = (weight.shape[2], weight.shape[3])
        stride, dilation = _pair(bound.attributes["stride"]), _pair(bound.attributes["dilation"])
        padding = bound.attributes["padding"]
        if padding == "same":
            total = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
            top, left, bottom, right = total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2
        else:
            top, left = bottom, right = (0, 0) if padding == "valid" else _pair(padding)
        before = x.padding
        bias = bound.tensors["bias"]
        return self.builder.append(x, FloatLayer(
            name=bound.path, op="conv", in_shape=shape, out_shape=_shape3(bound.out_shape), kernel=kernel,
            stride=stride, groups=bound.attributes["groups"], dilation=dilation, weight=weight,
            bias=np.zeros(weight.shape[0]) if bias is None else bias,
            padding=(top + before[0], left + before[1], bottom + before[2], right + before[3])))

    def _linear(self, bound: Bound, x: Value) -> Value:
        weight, bias = bound.tensors["weight"], bound.tensors["bias"]
        assert weight is not None
        if len(bound.in_shape) != 1:
            raise unsupported(bound.where, f"input has shape {_words(bound.in_shape)}", "put nn.Flatten() before it")
        shape = self.builder.read(bound, x)
        return self.builder.append(x, FloatLayer(
            name=bound.path, op="conv", in_shape=shape, out_shape=(weight.shape[0], 1, 1), kernel=shape[1:],
            weight=weight.reshape(weight.shape[0], *shape), bias=np.zeros(weight.shape[0]) if bias is None else bias),
            flat=True)

    def _batch_norm(self, bound: Bound, x: Value) -> Value:
        mean, variance = bound.tensors["running_mean"], bound.tensors["running_var"]
        assert mean is not None and variance is not None
        gamma, beta = bound.tensors["weight"], bound.tensors["bias"]
        factor = (1.0 if gamma is None else gamma) / np.sqrt(variance + bound.attributes["eps"])
        return self._affine(bound, x, factor, (0.0 if beta is None else beta) - mean * factor, normalized=True)

    def _scale(self, bound: Bound, x: Value) -> Value:
        """Arithmetic with one constant a channel."""
        constant = bound.tensors["other"]
        assert constant is not None
        channels = x.shape[0] if len(bound.in_shape) == 3 else bound.in_shape[0]
        alike = (channels, *(1 for _ in bound.in_shape[1:]))
        if constant.size != 1 and constant.shape not in (alike, (1, *alike)) or bound.out_shape != bound.in_shape:
            raise unsupported(bound.where, f"takes a constant of shape {constant.shape}",
                              f"one constant, or one a channel, of shape {alike}, is supported")
        values, one = np.broadcast_to(constant.reshape(-1), (channels,)), np.ones(channels)
        kind = bound.target.removeprefix("aten.").split(".")[0].removesuffix("_")
        factor = {"mul": values, "div": one / values if np.all(values) else one * math.inf}.get(kind, one)
        offset = {"add": values, "sub": -values}.get(kind, 0 * one)
        if not np.all(np.isfinite(factor)):
            raise unsupported(bound.where, "divides by zero", "leave the channel out")
        return self._affine(bound, x, factor, offset, normalized=values.std() > 0)

    def _affine(self, bound: Bound, x: Value, factor: np.ndarray, offset: np.ndarray, *, normalized: bool) -> Value:
        """Fold ``x * factor + offset`` into the layer that makes x, or add a layer."""
        layer = self.builder.foldable(x)
        if (layer is None or layer.weight is None or layer.bias is None or layer.clamp.active or layer.residuals
                or len(factor) != len(layer.bias)):
            return self.builder.affine(bound, x, factor, offset)
        return self.builder.fold(x, weight=layer.weight * factor[:, None, None, None],
                                 bias=layer.bias * factor + offset, normalized=layer.normalized or normalized)

    def _add(self, bound: Bound, x: Value, *others: Value) -> Value:
        if not others:
            return self._scale(bound, x)
        other, builder = others[0], self.builder
        if x.shape != other.shape or x.flat != other.flat:
            raise unsupported(bound.where, f"adds {_words(x.shape)} and {_words(other.shape)}",
                              "both must have the same shape")
        for host, joining in ((x, other), (other, x)):
            layer = builder.foldable(host)
            if (layer is not None and layer.weight is not None and not layer.clamp.active
                    and joining.tensor != host.tensor and not (layer.affine and np.any(layer.weight != 1))
                    and builder.before(joining.tensor, host.tensor)
                    and builder.signed(joining.tensor) == builder.signed(layer.source)):
                return builder.fold(host, residuals=(*layer.residuals, _residual(joining)))
        if x.sliced:
            x, other = other, x
        if INPUT in (x.tensor, other.tensor) and builder.signed(x.tensor) != builder.signed(other.tensor):
            image = builder.copy(bound, Value(tensor=INPUT, shape=builder.image_shape))
            x, other = (dataclasses.replace(value, tensor=image.tensor) if value.tensor == INPUT else value
                        for value in (x, other))
        return builder.fold(builder.copy(bound, x), residuals=(_residual(other),))

    def _cat(self, bound: Bound, *values: Value) -> Value:
        builder = self.builder
        if any(x.flat and x.shape[1:] != (1, 1) for x in values):
            raise unsupported(bound.where, "joins flattened maps", "join the maps, then flatten")
        for x in values:
            if not x.flat:
                builder.read(bound, x)
        shape = (bound.out_shape[0], *values[0].shape[1:])
        parts, tensors = list[str](), [x.tensor for x in values]
        for name, concat in builder.concats.items():  # what is joined already is this one, or begins it
            if tuple(tensors) == concat.parts:
                return Value(tensor=name, shape=shape, flat=values[0].flat, sole=False)
            if tuple(tensors[:len(concat.parts)]) == concat.parts and not builder.joined(name):
                parts = [name]
        for x in values[len(builder.concats[parts[0]].parts) if parts else 0:]:
            if builder.joined(x.tensor) or x.tensor in parts or builder.scaled_like_input(x.tensor):
                x = builder.copy(bound, x)
            parts.append(x.tensor)
        return builder.join(bound.path, tuple(parts), shape, values[0].flat)

    def _clamp(self, bound: Bound, x: Value) -> Value:
        attributes = bound.attributes
        if "min_val" in attributes:
            clamp = Clamp(float(attributes["min_val"]), float(attributes["max_val"]))
        elif "min" in attributes or "max" in attributes:
            low, high = attributes.get("min"), attributes.get("max")
            clamp = Clamp(-math.inf if low is None else float(low), math.inf if high is None else float(high))
        else:
            clamp = Clamp(0.0, 6.0 if "relu6" in bound.target else math.inf)
        if x.tensor == INPUT:
            raise unsupported(bound.where, "clamps the network's input", "remove it: images are not negative")
        return self.builder.clamp(x if self.builder.foldable(x) else self.builder.copy(bound, x), clamp)

    def _maxpool(self, bound: Bound, x: Value) -> Value:
        kernel = _pair(bound.attributes["kernel_size"])
        return self._pool(bound, x, "maxpool", kernel, _pair(bound.attributes["dilation"]), 1)

    def _avgpool(self, bound: Bound, x: Value) -> Value:
        kernel = _pair(bound.attributes["kernel_size"])
        override, padding = bound.attributes["divisor_override"], _pair(bound.attributes["padding"])
        if not override and any(padding) and not bound.attributes["count_include_pad"]:
            raise unsupported(bound.where, "count_include_pad=False with padding is not supported",
                              "set count_include_pad=True or divisor_override")
        return self._pool(bound, x, "avgpool", kernel, (1, 1), override or kernel[0] * kernel[1],
                          exact_size=not override)

    def _pool(self, bound: Bound, x: Value, op: Any, kernel: tuple[int, int], dilation: tuple[int, int], divisor: int,
              exact_size: bool = False) -> Value:
        shape, out_shape = self._map(bound, x), _shape3(bound.out_shape)
        stride = _pair(bound.attributes["stride"] or kernel)
        padding = _pair(bound.attributes["padding"])
        before, after = [], []
        for axis in (0, 1):  # ceil_mode lets the last window reach beyond the padding
            reach = dilation[axis] * (kernel[axis] - 1) + 1
            before.append(padding[axis] + x.padding[axis])
            last = (out_shape[1 + axis] - 1) * stride[axis] - before[axis]
            needed, given = last + reach - shape[1 + axis], padding[axis] + x.padding[axis + 2]
            if needed > given and exact_size:
                raise unsupported(bound.where, f"ceil_mode=True with a map of {shape[1]} x {shape[2]} makes windows of "
                                  "different sizes", "set ceil_mode=False or divisor_override")
            if x.lowest and (before[axis] >= reach or last >= shape[1 + axis]):
                raise unsupported(bound.where, "has windows of padding alone", "pad by less than the kernel")
            after.append(max(needed, given))
        return self.builder.append(x, FloatLayer(
            name=bound.path, op=op, in_shape=shape, out_shape=out_shape, kernel=kernel, stride=stride,
            padding=(before[0], before[1], after[0], after[1]), dilation=dilation, divisor=divisor))

    def _adaptive(self, bound: Bound, x: Value) -> Value:
        shape, out_shape = self._map(bound, x), _shape3(bound.out_shape)
        kernel = (shape[1] // out_shape[1], shape[2] // out_shape[2])
        if shape[1] % out_shape[1] or shape[2] % out_shape[2]:
            raise unsupported(bound.where, f"output_size={bound.attributes['output_size']} does not divide the map of "
                              f"{shape[1]} x {shape[2]}", "use nn.AvgPool2d")
        if kernel == (1, 1):
            return x
        return self.builder.append(x, FloatLayer(
            name=bound.path, op="avgpool", in_shape=shape, out_shape=out_shape, kernel=kernel, stride=kernel,
            divisor=kernel[0] * kernel[1]))

    def _mean(self, bound: Bound, x: Value) -> Value:
        shape, dims = self._map(bound, x), bound.attributes["dim"]
        if dims is None or sorted(dim % 4 for dim in dims) != [2, 3]:
            raise unsupported(bound.where, f"dim={dims} is not supported, only the two spatial ones",
                              "use x.mean((2, 3))")
        if shape[1:] != (1, 1):
            x = self.builder.append(x, FloatLayer(
                name=bound.path, op="avgpool", in_shape=shape, out_shape=(shape[0], 1, 1), kernel=shape[1:],
                stride=shape[1:], divisor=shape[1] * shape[2]))
        return dataclasses.replace(x, flat=not bound.attributes["keepdim"])

    def _pad(self, bound: Bound, x: Value) -> Value:
        given = [int(value) for value in bound.attributes["pad"]]
        left, right, top, bottom, first, last = given + [0] * (6 - len(given))
        maps, channels = (top, left, bottom, right), (first, last)
        lowest = bound.attributes["value"] == -math.inf
        if (x.flat or len(given) > 6 or len(given) % 2 or min(given) < 0 or any(channels) and (any(maps) or lowest)):
            raise unsupported(bound.where, f"pad={bound.attributes['pad']} is not supported, only padding of height "
                              "and width, or of channels, that is not negative", "slice or pad outside the network")
        if any(maps):
            self._map(bound, x)
            return dataclasses.replace(x, padding=maps, lowest=lowest)
        return dataclasses.replace(x, shape=_shape3(bound.out_shape), channel_offset=x.channel_offset + first,
                                   more_channels=x.more_channels or any(channels))

    def _slice(self, bound: Bound, x: Value) -> Value:
        if bound.out_shape == bound.in_shape:
            return x
        dim, step = bound.attributes["dim"] % (1 + len(bound.in_shape)), bound.attributes["step"]
        end = bound.attributes["end"]
        whole = not bound.attributes["start"] and (end is None or end >= bound.in_shape[dim - 1])
        if x.flat or dim not in (2, 3) or not whole or x.more_channels:
            raise unsupported(bound.where, f"the slice of dimension {dim} from {bound.attributes['start']} to {end} "
                              f"with step {step} is not supported", "take whole maps with a step, [:, :, ::s, ::s]")
        stride = (x.stride[0] * step, x.stride[1]) if dim == 2 else (x.stride[0], x.stride[1] * step)
        return dataclasses.replace(x, shape=_shape3(bound.out_shape), stride=stride)

    def _reshape(self, bound: Bound, x: Value) -> Value:
        if bound.out_shape == bound.in_shape:
            return x
        if x.sliced or bound.out_shape != (math.prod(bound.in_shape),):
            raise unsupported(bound.where, f"reshapes {_words(bound.in_shape)} to {_words(bound.out_shape)}",
                              "only flattening to (N, C*H*W), before a linear layer, is supported")
        return dataclasses.replace(x, flat=True)

    def _drop(self, bound: Bound, x: Value) -> Value:
        """Dropout is nothing in evaluation."""
        return x

    def _identity(self, bound: Bound, x: Value) -> Value:
        """Nothing to do."""
        return x


def _residual(x: Value) -> FloatResidual:
    return FloatResidual(source=x.tensor, stride=x.stride, channel_offset=x.channel_offset)
