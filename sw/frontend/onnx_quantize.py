"""Quantizers of activations: QONNX's Quant, and QuantizeLinear with DequantizeLinear after it."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from .graph import Grid
from .onnx_build import Builder, Inputs
from .onnx_file import OnnxNode
from .onnx_fold import quant_range
from .onnx_views import Activation
from .operators import unsupported
from .quantize import quantize

__all__ = ["QUANTIZERS", "Integers"]

BITS = 8
"""Most bits of an activation on the array."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Integers:
    """What lies between QuantizeLinear and DequantizeLinear; both together are one quantizer.

    Parameters
    ----------
    node : OnnxNode
        The QuantizeLinear.
    source : Activation
        What it reads.
    grid : Grid
        What it rounds to, with the limits of a Clip between the two.
    zero : int
        What the integers are greater by than the grid's multiples.
    """

    node: OnnxNode
    source: Activation
    grid: Grid
    zero: int


def _quant(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x = builder.activation(node, inputs)
    bits = builder.constant(node, inputs, 3, "bitwidth")
    if node.op not in ("Quant", "IntQuant") or bits is None:
        raise unsupported(node.where, f"operator {node.op} of what is computed from the network's input is not "
                          "supported", "use Quant")
    low, high, mode = quant_range(node, bits)
    rounding = {"ROUND": "half_even", "HALF_EVEN": "half_even", "FLOOR": "floor", "CEIL": "ceil"}.get(mode)
    if mode == "DOWN" and low == 0:
        rounding = "floor"
    if rounding is None:
        raise unsupported(node.where, f"rounding_mode={mode!r} of what may be negative is not supported", "use ROUND")
    return _emit(builder, node, x, _grid(builder, node, inputs, low, high, rounding)[0])


def _grid(builder: Builder, node: OnnxNode, inputs: Inputs, low: int, high: int,
          rounding: str = "half_even") -> tuple[Grid, int]:
    """The grid of a quantizer's inputs, and its zero point: scale and zero point are the second and the third."""
    scale, zero = (builder.constant(node, inputs, place, name) for place, name in ((1, "scale"), (2, "zero point")))
    if scale is None or scale.size != 1 or not 0 < float(scale.item()) < math.inf:
        given = None if scale is None else f"shape {scale.shape}" if scale.size != 1 else float(scale.item())
        raise unsupported(node.where, f"its scale is {given}, but an activation has one, greater than 0",
                          "quantize activations with one scale for the whole tensor")
    if zero is not None and zero.size != 1:
        raise unsupported(node.where, f"its zero point has the shape {zero.shape}, but an activation has one",
                          "quantize activations with one zero point for the whole tensor")
    moved = 0 if zero is None else zero.item()
    # Quant rounds with the zero point, which is the same where that is even.
    if moved % 2 or not low <= moved <= high:
        raise unsupported(node.where, f"its zero point is {moved}, where only 0 is supported, and what leaves 8 bits",
                          "quantize activations symmetrically, or without sign after Relu")
    moved = int(moved)
    grid = Grid(scale=float(scale.item()), low=low - moved, high=high - moved, rounding=rounding)
    if (bits := grid.bits(grid.signed)) > BITS:
        less = f" less the zero point {moved}" if moved else ""
        raise unsupported(node.where, f"its integers{less}, from {grid.low} to {grid.high}, have {bits} bits",
                          "quantize activations symmetrically, or without sign after Relu" if moved else
                          f"give activations at most {BITS}")
    return grid, moved


def _rounded(images: Tensor, grid: Grid) -> Tensor:
    return quantize(images, grid.scale, grid.low, grid.high, grid.rounding)


def _emit(builder: Builder, node: OnnxNode, x: Activation, grid: Grid) -> Activation:
    return builder.emit(node, functools.partial(_rounded, grid=grid), (x,))


def _quantize_linear(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    x, zero = builder.activation(node, inputs), builder.constant(node, inputs, 2, "zero point")
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    if kind not in (np.int8, np.uint8):
        raise unsupported(node.where, f"its integers are of type {kind}", f"give activations at most {BITS} bits")
    limits = np.iinfo(kind)
    grid, moved = _grid(builder, node, inputs, int(limits.min), int(limits.max))
    builder.integers[node.outputs[0]] = Integers(node=node, source=x, grid=grid, zero=moved)
    return x


def _clip(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    """A Clip of integers, by which exporters write fewer than 8 bits."""
    held = builder.integers[node.inputs[0]]
    low, high = held.grid.low, held.grid.high
    least, most = (builder.constant(node, inputs, place, name) for place, name in ((1, "min"), (2, "max")))
    low = low if least is None else max(low, min(int(least.item()) - held.zero, 0))
    high = high if most is None else min(high, max(int(most.item()) - held.zero, 0))
    builder.integers[node.outputs[0]] = dataclasses.replace(held, grid=dataclasses.replace(held.grid, low=low,
                                                                                           high=high))
    return held.source


def _dequantize_linear(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation:
    held = builder.integers.get(node.inputs[0])
    if held is None:
        raise unsupported(node.where, "reads what QuantizeLinear has not made", "export the float network")
    grid, moved = _grid(builder, node, inputs, held.grid.low + held.zero, held.grid.high + held.zero)
    if grid != held.grid:
        differs = ("scale", f"{grid.scale:g}", f"{held.grid.scale:g}") if moved == held.zero else (
            "zero point", moved, held.zero)
        raise unsupported(node.where, "its {} is {}, that of {} {}".format(*differs[:2], held.node.where, differs[2]),
                          "give both the same")
    return _emit(builder, node, held.source, grid)


QUANTIZERS: dict[str, Callable[[Builder, OnnxNode, Inputs], Activation]] = {
    "Quant": _quant, "IntQuant": _quant, "BipolarQuant": _quant, "Trunc": _quant,
    "QuantizeLinear": _quantize_linear, "Clip": _clip, "DequantizeLinear": _dequantize_linear}
"""By type: those of QONNX's domains, those of ONNX, and what may lie between these."""
