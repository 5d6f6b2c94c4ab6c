"""Operators of ONNX that add, multiply, join and cut tensors, and those that do nothing."""

import functools
import math
import operator
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .onnx_build import Builder, Inputs, float_tensor
from .onnx_file import OnnxNode
from .onnx_views import Activation, view, words
from .operators import unsupported

__all__ = ["ARITHMETIC"]

_SAYS = {"Add": "adds", "Sub": "subtracts", "Sum": "adds", "Mul": "multiplies", "Div": "divides"}


def _per_channel(node: OnnxNode, x: Activation, values: np.ndarray) -> float | Tensor:
    """A constant operand: a number, or a tensor that broadcasts over what PyTorch has."""
    if values.size == 1 and values.ndim <= 1 + len(x.shape):
        return float(values.item())
    alike = (x.shape[0], *(1 for _ in x.shape[1:]))
    if values.shape not in (alike, (1, *alike)):
        raise unsupported(node.where, f"takes a constant of shape {values.shape}",
                          f"one number, or one a channel, of shape {alike}, is supported")
    return float_tensor(values.reshape(alike))


def _with_number(images: Tensor, function: Callable[..., Tensor], number: float) -> Tensor:
    return function(images, number)


def _with_tensor(images: Tensor, other: Tensor, function: Callable[..., Tensor]) -> Tensor:
    return function(images, other)


def _taken_from(images: Tensor, constant: float | Tensor) -> Tensor:
    return images * -1 + constant


def _minus(x: Tensor, y: Tensor) -> Tensor:
    return x + y * -1


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Add": operator.add, "Sum": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.truediv}


def _combine(builder: Builder, node: OnnxNode, left: Activation | np.ndarray, right: Activation | np.ndarray,
             target: str = "") -> Activation:
    """Arithmetic of two operands, one of which at least is an activation."""
    if isinstance(left, Activation) and isinstance(right, Activation):
        if node.op in ("Mul", "Div"):
            raise unsupported(node.where, "both inputs are computed from the network's input",
                              "only products with constants run on the array")
        left, right = builder.plain(left), builder.plain(right)
        if left.shape != right.shape:
            raise unsupported(node.where, f"{_SAYS[node.op]} {words(left.shape)} and {words(right.shape)}",
                              "both must have the same shape")
        return builder.emit(node, _minus if node.op == "Sub" else operator.add, (left, right), target=target)
    turned = isinstance(left, np.ndarray)
    x, values = (right, left) if turned else (left, right)
    assert isinstance(x, Activation) and isinstance(values, np.ndarray)
    if turned and node.op == "Div":
        raise unsupported(node.where, "divides a constant by what is computed from the network's input",
                          "only products with constants run on the array")
    x = builder.plain(x)
    constant = _per_channel(node, x, values)
    if (node.op == "Add" or node.op == "Sub" and not turned) and _becomes_bias(
            builder, node, x, constant if node.op == "Add" else -constant):
        return x
    compute = _taken_from if turned and node.op == "Sub" else _FUNCTIONS[node.op]
    if isinstance(constant, float):
        function = functools.partial(_with_number, function=compute, number=constant)
        return builder.emit(node, function, (x,), target=target)
    function = functools.partial(_with_tensor, function=compute)
    return builder.emit(node, function, (x,), {"other": constant}, target=target)


def _becomes_bias(builder: Builder, node: OnnxNode, x: Activation, constant: float | Tensor) -> bool:
    """Give a constant to the convolution or matrix product before, if that has no bias and nothing else reads it."""
    module = builder.module_before(node, x)
    if module is None or type(module).__name__ not in ("Conv", "Gemm", "MatMul") or "bias" in module.names:
        return False
    values = np.broadcast_to(np.asarray(constant, np.float64).reshape(-1), (x.shape[0],))
    if isinstance(level := getattr(module, "level", None), Tensor):
        values = values / level.double().numpy().ravel()
    module.attach("bias", builder.parameter(f"{node.name}!bias", values))
    return True


def _add(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    left, right = inputs
    assert left is not None and right is not None
    return _combine(builder, node, left, right)


def _sum(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    total, *others = (value for value in inputs if isinstance(value, Activation))
    rest: list[Activation | np.ndarray] = [*others, *(value for value in inputs if isinstance(value, np.ndarray))]
    for number, value in enumerate(rest):
        last = number == len(rest) - 1
        total = _combine(builder, node, total, value, target="" if last else f"{node.outputs[0]}!{number}")
    return total


def _join(*parts: Tensor) -> Tensor:
    return torch.cat(parts, 1)


def _concat(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    parts = [value for value in inputs if isinstance(value, Activation)]
    if len(parts) < len(inputs):
        raise unsupported(node.where, "joins a constant to what is computed from the network's input",
                          "pad channels with zeros, or leave it out")
    axis, rank = node.attributes["axis"], 1 + len(parts[0].logical)
    if axis % rank != 1:
        raise unsupported(node.where, f"axis={axis} is not supported, only 1", "join channels")
    return builder.emit(node, _join, tuple(parts)) if len(parts) > 1 else parts[0]


def _pad(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.activation(node, inputs)
    pads, value, axes = (builder.constant(node, inputs, place, name)
                         for place, name in ((1, "pads"), (2, "constant_value"), (3, "axes")))
    fill = float(value.item()) if value is not None and value.size else 0.0
    if fill not in (0.0, -math.inf):
        raise unsupported(node.where, f"constant_value={fill!r} is not supported, only 0, and -inf before MaxPool",
                          "pad with 0")
    assert pads is not None
    rank, given = 1 + len(x.logical), pads.ravel().tolist()
    if not any(given):
        return x
    x = builder.image(node, x)
    places = list(range(rank)) if axes is None else [axis % rank for axis in axes.ravel().tolist()]
    before, after = [0] * rank, [0] * rank
    for number, axis in enumerate(places):
        before[axis], after[axis] = given[number], given[number + len(places)]
    channels, maps = (before[1], after[1]), (*before[2:], *after[2:])
    if min(given) < 0 or before[0] or after[0] or any(channels) and any(maps):
        raise unsupported(node.where, f"pads={given} is not supported, only padding of height and width, or of "
                          "channels, that is not negative", "pad or cut outside the network")
    sides = [side for axis in range(rank - 1, 1, -1) for side in (before[axis], after[axis])]
    sides += channels if any(channels) else ()
    return builder.emit(node, functools.partial(functional.pad, pad=sides, value=fill), (x,))


def _take(images: Tensor, steps: Sequence[int]) -> Tensor:
    return images[:, :, *(slice(None, None, step) for step in steps)]


def _slice(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.activation(node, inputs)
    starts, ends, axes, steps = (
        None if (value := builder.constant(node, inputs, place, name)) is None else value.ravel().tolist()
        for place, name in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps")))
    assert starts is not None and ends is not None
    sizes = (builder.batch, *x.logical)
    taken = [1] * len(sizes)
    for number, start in enumerate(starts):
        axis = (axes[number] if axes else number) % len(sizes)
        step, size = steps[number] if steps else 1, sizes[axis]
        whole = step > 0 and slice(start, ends[number], step).indices(size)[:2] == (0, size)
        if axis < 2 and step != 1 or not whole:
            raise unsupported(node.where, f"the slice of axis {axis} from {start} to {ends[number]} with step {step} "
                              "is not supported", "take whole maps with a step, [:, :, ::s, ::s]")
        taken[axis] = step
    if set(taken) == {1}:
        return x
    x = builder.image(node, x)
    return builder.emit(node, functools.partial(_take, steps=taken[2:]), (x,))


def _view(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.activation(node, inputs)
    return view(node, x, builder.constant(node, inputs, 1, "shape or axes"), builder.batch)


def _identity(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    return builder.activation(node, inputs)


def _dropout(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    training = builder.constant(node, inputs, 2, "training_mode")
    if training is not None and training.item():
        raise unsupported(node.where, "training_mode=True is not supported, only False", "export in evaluation mode")
    return builder.activation(node, inputs)


ARITHMETIC: dict[str, Callable[[Builder, OnnxNode, Inputs], Activation]] = {
    "add": _add, "multiply": _add, "sum": _sum, "concat": _concat, "pad": _pad, "slice": _slice, "view": _view,
    "identity": _identity, "dropout": _dropout}
"""What makes the modules of each kind of operator."""
