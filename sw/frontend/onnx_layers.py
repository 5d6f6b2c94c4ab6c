"""Layers of ONNX: convolutions, matrix products, batch norms, poolings, clamps."""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .onnx_build import Builder, Inputs, float_tensor
from .onnx_file import OnnxNode
from .onnx_views import Activation, words
from .onnx_windows import Window, average_pool, convolution, max_pool
from .operators import unsupported

__all__ = ["LAYERS"]

FOLDED = 4.0
"""Channels whose magnitudes differ by so much are those of a batch norm that the exporter folded."""


def _size(x: Activation) -> tuple[int, ...]:
    return x.shape[1:]


def _conv(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.image(node, builder.activation(node, inputs))
    weight, bias = (builder.constant(node, inputs, place, name) for place, name in ((1, "weight"), (2, "bias")))
    assert weight is not None
    kernel = weight.shape[2:]
    if (given := node.attributes["kernel_shape"]) and tuple(given) != kernel:
        raise unsupported(node.where, f"kernel_shape={given} is not supported, only that of its weight, "
                          f"{list(kernel)}", "leave it out")
    function = convolution(Window.of(node, kernel, _size(x)), node.attributes["group"])
    return _weighted(builder, node, function, x, weight, bias)


def _weighted(builder: Builder, node: OnnxNode, function: Callable[..., Tensor], x: Activation, weight: np.ndarray,
              bias: np.ndarray | None, form: str = "", bias_form: str = "") -> Activation:
    """A convolution or linear layer.

    Recipes give the channels of a layer with a batch norm grids of their own. Exporters fold batch norms: what they
    multiplied channels by comes out of the weights again, as powers of two, so that the result is the same.
    """
    level = _level(weight)
    tensors: dict[str, Tensor] = {}
    if level is not None:
        function = functools.partial(_leveled, function)
        tensors["level"] = float_tensor(level.reshape(-1, *(1 for _ in x.shape[1:])))
        weight, bias_form = weight / level.reshape(-1, *(1 for _ in weight.shape[1:])), f"{bias_form} {node.name}"
        bias = None if bias is None else bias / level
    tensors["weight"] = builder.parameter(node.inputs[1], weight, form)
    if bias is not None:
        tensors["bias"] = builder.parameter(node.inputs[2], bias, bias_form)
    return builder.emit(node, function, (x,), tensors)


def _level(weight: np.ndarray) -> np.ndarray | None:
    """A power of two a channel, when channels differ as after a batch norm."""
    norms = np.sqrt((np.asarray(weight, np.float64) ** 2).reshape(len(weight), -1).mean(1))
    live = norms[norms > 0]
    if not live.size or live.max() < FOLDED * live.min():
        return None
    level = np.where(norms > 0, norms, np.median(live)) / np.median(live)
    return np.asarray(2.0 ** np.round(np.log2(level)))


def _leveled(function: Callable[..., Tensor], images: Tensor, level: Tensor, **tensors: Tensor) -> Tensor:
    return function(images, **tensors) * level


def _linear(images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.linear(images, weight, bias)


def _product(builder: Builder, node: OnnxNode, x: Activation, weight: np.ndarray, form: str,
             bias: np.ndarray | None = None, bias_form: str = "") -> Activation:
    """A linear layer with a weight (outputs, inputs)."""
    if weight.ndim != 2:
        raise unsupported(node.where, f"takes a constant of {weight.ndim} dimensions", "multiply by a matrix")
    if len(x.logical) != 1:
        raise unsupported(node.where, f"input has shape {words(x.logical)}", "put Flatten before it")
    if not x.in_order and x.order is not None and len(x.order) == weight.shape[1]:
        # The network flattens in another order than (C, H, W): the weights go where their elements are.
        moved = np.empty_like(weight)
        moved[:, x.order] = weight
        weight, form = moved, f"{form} {node.name}"
        x = Activation(key=x.key, shape=x.shape, order=np.arange(len(x.order)), by=x.by)
    return _weighted(builder, node, _linear, builder.plain(x), weight, bias, form, bias_form)


def _gemm(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.activation(node, inputs)
    weight, offset = (builder.constant(node, inputs, place, name) for place, name in ((1, "B"), (2, "C")))
    assert weight is not None
    alpha, beta, transposed = (node.attributes[name] for name in ("alpha", "beta", "transB"))
    weight = alpha * np.asarray(weight if transposed else weight.T, np.float64)
    bias = None
    if offset is not None:
        count = len(weight)
        if offset.size != 1 and offset.shape not in ((count,), (1, count)):
            raise unsupported(node.where, f"takes a C of shape {offset.shape}",
                              f"one number, or one an output, of shape ({count},), is supported")
        bias = beta * np.broadcast_to(np.asarray(offset, np.float64).reshape(-1), (count,))
    return _product(builder, node, x, weight, f"{alpha} {transposed}", bias, f"{beta} {len(weight)}")


def _matmul(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.activation(node, inputs)
    weight = builder.constant(node, inputs, 1, "second operand")
    assert weight is not None
    return _product(builder, node, x, weight.T, "1.0 0")


def _normalize(images: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor,
               eps: float) -> Tensor:
    return functional.batch_norm(images, running_mean, running_var, weight, bias, False, 0.0, eps)


def _batch_norm(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    tensors: dict[str, Tensor] = {}
    for place, name in enumerate(("weight", "bias", "running_mean", "running_var"), 1):
        values = builder.constant(node, inputs, place, ("scale", "B", "mean", "var")[place - 1])
        assert values is not None
        tensors[name] = builder.parameter(node.inputs[place], values) if place < 3 else float_tensor(values)
    return builder.emit(node, functools.partial(_normalize, eps=node.attributes["epsilon"]),
                        (builder.activation(node, inputs),), tensors)


def _relu(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    return builder.emit(node, functional.relu, (builder.activation(node, inputs),))


def _leaky(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    leaky = functools.partial(functional.leaky_relu, negative_slope=node.attributes["alpha"])
    return builder.emit(node, leaky, (builder.activation(node, inputs),))


def _clip(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x, limits = builder.activation(node, inputs), {}
    for place, name in ((1, "min"), (2, "max")):
        value = builder.constant(node, inputs, place, name)
        if value is not None and not math.isinf(value.item()):
            limits[name] = float(value.item())
    return builder.emit(node, functools.partial(torch.clamp, **limits), (x,)) if limits else x


def _kernel(node: OnnxNode) -> tuple[int, ...]:
    return tuple(node.attributes["kernel_shape"])


def _nothing(node: OnnxNode) -> bool:
    """Whether a pooling's windows are single pixels of the map, all of them, as of adaptive pooling to its own size."""
    return not any(node.attributes["pads"] or ()) and {*_kernel(node), *(node.attributes["strides"] or ())} == {1}


def _max_pool(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.image(node, builder.activation(node, inputs))
    if _nothing(node):
        return x
    return builder.emit(node, max_pool(node, Window.of(node, _kernel(node), _size(x))), (x,))


def _average_pool(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.image(node, builder.activation(node, inputs))
    if _nothing(node):
        return x
    return builder.emit(node, average_pool(node, Window.of(node, _kernel(node), _size(x))), (x,))


def _global_max(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.image(node, builder.activation(node, inputs))
    pool = functional.max_pool1d if len(_size(x)) == 1 else functional.max_pool2d
    return builder.emit(node, functools.partial(pool, kernel_size=_size(x)), (x,))


def _mean(images: Tensor, keepdim: bool) -> Tensor:
    return images.mean(tuple(range(2, images.dim())), keepdim=keepdim)


def _global_average(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.image(node, builder.activation(node, inputs))
    return builder.emit(node, functools.partial(_mean, keepdim=True), (x,))


def _reduce_mean(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.activation(node, inputs)
    constant = builder.constant(node, inputs, 1, "axes")
    axes = node.attributes.get("axes") if constant is None else constant.ravel().tolist()
    if not axes and node.attributes.get("noop_with_empty_axes"):
        return x
    rank = 1 + len(x.logical)
    whole, said = ([2], "the length") if rank == 3 else ([2, 3], "height and width")
    if rank not in (3, 4) or not axes or sorted(axis % rank for axis in axes) != whole:
        raise unsupported(node.where, f"axes={axes} of {words(x.logical)} is not supported, only {said}",
                          f"use axes {whole}")
    return builder.emit(node, functools.partial(_mean, keepdim=bool(node.attributes["keepdims"])), (x,))


LAYERS: dict[str, Callable[[Builder, OnnxNode, Inputs], Activation]] = {
    "conv": _conv, "gemm": _gemm, "matmul": _matmul, "batch_norm": _batch_norm, "relu": _relu, "leaky": _leaky,
    "clip": _clip, "maxpool": _max_pool, "avgpool": _average_pool, "global_average": _global_average,
    "global_max": _global_max, "reduce_mean": _reduce_mean}
"""What makes the modules of each kind of operator."""
