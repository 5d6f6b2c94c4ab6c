"""From bound operators to fused layers: fold batch norm, clamps, padding, additions and flattening into what runs."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .build import Builder, Shape, Value
from .graph import INPUT, Clamp, FloatLayer, FloatResidual, Graph, Grid, Output
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
    fuser = _Fuser(image_shape, trace.inputs)
    for bound in trace.operators:
        fuser.add(bound)
    outputs = fuser.finish(trace.operators[-1], trace.outputs) if trace.operators else ()
    builder, inputs = fuser.builder, tuple(trace.inputs.values())
    return Graph(image_shape=image_shape, input_shape=builder.input_shape, layers=tuple(builder.layers.values()),
                 concats=tuple(builder.concats.values()), parameters=parameters, outputs=outputs,
                 inputs=() if inputs == (image_shape,) else inputs, left_to_host=trace.left_to_host,
                 input_grid=builder.input_grid)


def _pair(value: Any, bound: Bound | None = None, along_height: int = 1) -> tuple[int, int]:
    """PyTorch's one-or-two integers, as two; an operator on (N, C, L) does not say that of the height."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return along_height if bound is not None and len(bound.in_shape) == 2 else int(values[0]), int(values[-1])


def _shape3(shape: tuple[int, ...]) -> Shape:
    """Channels, height, width; (C, L) is a map of height 1, a vector one of a single pixel."""
    height, width = (1, 1, *shape[1:])[-2:]
    return shape[0], height, width


def _words(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape))})"


class _Fuser:
    """Takes one operator at a time; a method for each kind."""

    def __init__(self, image_shape: Shape, inputs: Mapping[str, tuple[int, ...]]) -> None:
        self.builder = Builder(image_shape)
        self.values, channel = dict[str, Value](), 0
        self.inputs = set(inputs)
        for name, taken in inputs.items():
            shape = _shape3(taken)
            self.values[name] = Value(tensor=INPUT, shape=shape, flat=len(taken) == 1,
                                      part=channel if len(inputs) > 1 else None)
            channel += shape[0]

    def add(self, bound: Bound) -> None:
        """Take the next operator."""
        sources = [self.values[name] for name in bound.sources]
        kind = bound.operator.kind
        if self.builder.input_grid and kind != "quantize" and self.inputs.intersection(bound.sources):
            raise unsupported(bound.where, "reads the network's input, which a quantizer reads, too",
                              "let it read what the quantizer makes")
        for x in sources:
            if any(x.padding) and kind not in (("maxpool",) if x.lowest else ("conv", "avgpool")):
                raise unsupported(bound.where, f"follows padding{' with -inf' if x.lowest else ''}",
                                  f"put the padding right before a {'max pooling' if x.lowest else 'convolution'}")
        handler: Callable[..., Value] = getattr(self, f"_{kind}")
        value = handler(bound, *sources)
        self.values[bound.name] = dataclasses.replace(value, sole=value.sole and bound.users == 1)

    def finish(self, last: Bound, outputs: tuple[tuple[str, str], ...]) -> tuple[Output, ...]:
        """Check that nothing is left over, and make the output a layer's; the outputs' channels in it."""
        found, names = [self.values[source] for _, source in outputs], [name for name, _ in outputs]
        for value in found:
            if any(value.padding) or value.sliced:
                raise unsupported("the network", "ends in padding or a slice", "remove it")
        value, first, start, ranges = found[0], found[0].shape, 0, list[Output]()
        for name, other in zip(names, found, strict=True):
            if other.shape[1:] != first[1:]:
                raise unsupported("the network", f"returns {names[0]!r} of shape {_words(first)} and {name!r} of shape "
                                  f"{_words(other.shape)}", "all outputs must have one height and width: they become "
                                  "one tensor's channels")
            ranges.append(Output(name=name, start=start, stop=start + other.shape[0]))
            start += other.shape[0]
        if len(found) > 1 and not self.builder.stack(found):
            last = dataclasses.replace(last, path="outputs", where="the network")
            value = self._join(dataclasses.replace(last, path="outputs.joined"),
                               [dataclasses.replace(other, flat=False) for other in found], (start, *first[1:]))
        if value.tensor in self.builder.concats:
            self.builder.copy(last, value)
        return () if names == [""] else tuple(ranges)

    def _map(self, bound: Bound, x: Value) -> Shape:
        """The input, which must be a map of channels, height and width, or (N, C, L)."""
        self._check_map(bound, x)
        return self.builder.read(bound, x)

    def _check_map(self, bound: Bound, x: Value) -> None:
        # PyTorch takes (N, C, L) for one image without a batch where it wants (N, C, H, W).
        rank = len(bound.in_shape)
        if x.flat or rank not in (2, 3) or f"{4 - rank}d" in bound.target:
            raise unsupported(bound.where, f"input has shape {_words(bound.in_shape)}",
                              f"it needs {'(N, C, L)' if '1d' in bound.target else '(N, C, H, W)'}")

    def _conv(self, bound: Bound, x: Value) -> Value:
        self._check_map(bound, x)
        weight = bound.tensors["weight"]
        assert weight is not None
        kernel = _pair(weight.shape[2:], bound)
        x, weight, groups = self.builder.widened(x, weight.reshape(*weight.shape[:2], *kernel),
                                                 bound.attributes["groups"])
        shape = self._map(bound, x)
        stride, dilation = _pair(bound.attributes["stride"], bound), _pair(bound.attributes["dilation"], bound)
        padding = bound.attributes["padding"]
        if padding == "same":
            total = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
            top, left, bottom, right = total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2
        else:
            top, left = bottom, right = (0, 0) if padding == "valid" else _pair(padding, bound, 0)
        before = x.padding
        bias = bound.tensors["bias"]
        return self.builder.append(x, FloatLayer(
            name=bound.path, op="conv", in_shape=shape, out_shape=_shape3(bound.out_shape), kernel=kernel,
            stride=stride, groups=groups, dilation=dilation, weight=weight,
            bias=np.zeros(weight.shape[0]) if bias is None else bias,
            padding=(top + before[0], left + before[1], bottom + before[2], right + before[3])))

    def _linear(self, bound: Bound, x: Value) -> Value:
        weight, bias = bound.tensors["weight"], bound.tensors["bias"]
        assert weight is not None
        if len(bound.in_shape) != 1:
            raise unsupported(bound.where, f"input has shape {_words(bound.in_shape)}", "put nn.Flatten() before it")
        x, weight, _ = self.builder.widened(x, weight.reshape(-1, *x.shape), 1)
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
        channels = x.shape[0] if len(bound.in_shape) > 1 else bound.in_shape[0]
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
        for value in (x, other):
            builder.check_whole(bound, value)
        if x.shape != other.shape or x.flat != other.flat or bound.out_shape != bound.in_shape:
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
        builder, wanted = self.builder, 0
        if any(x.part is not None for x in values):
            for x in values:
                wanted = -1 if x.part != wanted or x.sliced else wanted + x.shape[0]
            if wanted == builder.image_shape[0]:
                return Value(tensor=INPUT, shape=builder.image_shape, flat=values[0].flat, sole=False)
            for x in values:
                builder.check_whole(bound, x)
        if any(x.flat and x.shape[1:] != (1, 1) for x in values):
            raise unsupported(bound.where, "joins flattened maps", "join the maps, then flatten")
        for x in values:
            if not x.flat:
                builder.read(bound, x)
        return self._join(bound, list(values), (bound.out_shape[0], *values[0].shape[1:]))

    def _join(self, bound: Bound, values: list[Value], shape: Shape) -> Value:
        """Put channels together."""
        builder = self.builder
        for x in values:
            builder.check_whole(bound, x)
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
        if not self.builder.foldable(x, rounded=True):
            x = self.builder.copy(bound, x)
        grid = self.builder.before_maxpool(x).grid
        if grid is not None and not (grid.holds(clamp.low) and grid.holds(clamp.high)):
            raise unsupported(bound.where, f"clamps to {clamp.low:g} and {clamp.high:g}, but multiples of "
                              f"{grid.scale:g} are there already", "put the quantizer after it")
        return self.builder.clamp(x, clamp)

    def _quantize(self, bound: Bound, x: Value) -> Value:
        builder, attributes = self.builder, bound.attributes
        grid = Grid(scale=attributes["scale"], low=attributes["low"], high=attributes["high"],
                    rounding=attributes["rounding"])
        if x.sliced:
            raise unsupported(bound.where, "follows a slice or padding of channels", "only an addition takes one")
        if x.tensor != INPUT:
            return builder.quantize(bound, x, grid)
        if builder.input_grid is None and builder.input_read:
            raise unsupported(bound.where, "rounds the network's input, which a layer reads, too",
                              "let it read what the quantizer makes")
        if builder.input_grid not in (None, grid):
            raise unsupported(bound.where, "rounds the network's input in another way than the quantizer before",
                              "quantize it once")
        builder.input_grid = grid
        return x

    def _leaky(self, bound: Bound, x: Value) -> Value:
        builder, leak = self.builder, -round(math.log2(bound.attributes["negative_slope"]))
        if not builder.signed(x.tensor):
            return x
        shape = builder.read(bound, x)
        return builder.append(x, FloatLayer(name=bound.path, op="leaky", in_shape=shape, out_shape=shape,
                                            kernel=(1, 1), leak=leak), x.flat)

    def _maxpool(self, bound: Bound, x: Value) -> Value:
        kernel = _pair(bound.attributes["kernel_size"], bound)
        return self._pool(bound, x, "maxpool", kernel, _pair(bound.attributes["dilation"], bound), 1)

    def _avgpool(self, bound: Bound, x: Value) -> Value:
        kernel = _pair(bound.attributes["kernel_size"], bound)
        override, padding = bound.attributes.get("divisor_override"), _pair(bound.attributes["padding"], bound, 0)
        if not override and any(padding) and not bound.attributes["count_include_pad"]:
            raise unsupported(bound.where, "count_include_pad=False with padding is not supported",
                              "set count_include_pad=True" + " or divisor_override" * ("2d" in bound.target))
        return self._pool(bound, x, "avgpool", kernel, (1, 1), override or kernel[0] * kernel[1],
                          exact_size=not override)

    def _pool(self, bound: Bound, x: Value, op: Any, kernel: tuple[int, int], dilation: tuple[int, int], divisor: int,
              exact_size: bool = False) -> Value:
        shape, out_shape = self._map(bound, x), _shape3(bound.out_shape)
        stride = _pair(bound.attributes["stride"] or kernel, bound)
        padding = _pair(bound.attributes["padding"], bound, 0)
        before, after = [], []
        for axis in (0, 1):  # ceil_mode lets the last window reach beyond the padding
            reach = dilation[axis] * (kernel[axis] - 1) + 1
            before.append(padding[axis] + x.padding[axis])
            last = (out_shape[1 + axis] - 1) * stride[axis] - before[axis]
            needed, given = last + reach - shape[1 + axis], padding[axis] + x.padding[axis + 2]
            if needed > given and exact_size:
                raise unsupported(bound.where, f"ceil_mode=True with a map of {shape[1]} x {shape[2]} makes windows of "
                                  "different sizes",
                                  "set ceil_mode=False" + " or divisor_override" * ("2d" in bound.target))
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
                              f"{shape[1]} x {shape[2]}", f"use nn.AvgPool{len(bound.in_shape) - 1}d")
        if kernel == (1, 1):
            return x
        return self.builder.append(x, FloatLayer(
            name=bound.path, op="avgpool", in_shape=shape, out_shape=out_shape, kernel=kernel, stride=kernel,
            divisor=kernel[0] * kernel[1]))

    def _mean(self, bound: Bound, x: Value) -> Value:
        shape, dims = self._map(bound, x), bound.attributes["dim"]
        rank = 1 + len(bound.in_shape)
        if dims is None or sorted(dim % rank for dim in dims) != list(range(2, rank)):
            raise unsupported(bound.where, f"dim={dims} is not supported, only the two spatial ones",
                              "use x.mean((2, 3))" if rank == 4 else "use x.mean(2)")
        if shape[1:] != (1, 1):
            x = self.builder.append(x, FloatLayer(
                name=bound.path, op="avgpool", in_shape=shape, out_shape=(shape[0], 1, 1), kernel=shape[1:],
                stride=shape[1:], divisor=shape[1] * shape[2]))
        return dataclasses.replace(x, flat=not bound.attributes["keepdim"])

    def _pad(self, bound: Bound, x: Value) -> Value:
        given = [int(value) for value in bound.attributes["pad"]]
        if len(bound.in_shape) == 2:
            given = given[:2] + [0, 0] * (len(given) > 2) + given[2:]
        left, right, top, bottom, first, last = given + [0] * (6 - len(given))
        maps, channels = (top, left, bottom, right), (first, last)
        lowest = bound.attributes["value"] == -math.inf
        if (x.flat or len(given) > 6 or len(given) % 2 or min(given) < 0 or any(channels) and (any(maps) or lowest)):
            raise unsupported(bound.where, f"pad={bound.attributes['pad']} is not supported, only padding of height "
                              "and width, or of channels, that is not negative", "slice or pad outside the network")
        if any(maps):
            self._map(bound, dataclasses.replace(x, part=None))
            return dataclasses.replace(x, padding=maps, lowest=lowest)
        return dataclasses.replace(x, shape=_shape3(bound.out_shape), channel_offset=x.channel_offset + first,
                                   more_channels=x.more_channels or any(channels))

    def _slice(self, bound: Bound, x: Value) -> Value:
        if bound.out_shape == bound.in_shape:
            return x
        dim, step = bound.attributes["dim"] % (1 + len(bound.in_shape)), bound.attributes["step"]
        end = bound.attributes["end"]
        whole = not bound.attributes["start"] and (end is None or end >= bound.in_shape[dim - 1])
        if x.flat or dim < 2 or not whole or x.more_channels:
            raise unsupported(bound.where, f"the slice of dimension {dim} from {bound.attributes['start']} to {end} "
                              f"with step {step} is not supported", "take whole maps with a step, [:, :, ::s, ::s]")
        rows = dim == 2 and len(bound.in_shape) == 3
        stride = (x.stride[0] * step, x.stride[1]) if rows else (x.stride[0], x.stride[1] * step)
        return dataclasses.replace(x, shape=_shape3(bound.out_shape), stride=stride)

    def _reshape(self, bound: Bound, x: Value) -> Value:
        if bound.out_shape == bound.in_shape:
            return x
        ranks = {len(bound.in_shape), len(bound.out_shape)}
        if not x.flat and ranks == {2, 3} and _shape3(bound.out_shape) == _shape3(bound.in_shape):
            return x  # a height of 1 comes or goes
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
