"""From the trained network to integers."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...hw.arch.errors import ModelError, OverflowProofError
from ..frontend.graph import INPUT, FloatConcat, Graph
from ..network import Concat, Layer, QuantizedNetwork, Residual, TensorSpec, Term
from ..terms import power_terms, signed_digits
from .fakequant import AffineLayer, ConvLayer, FakeQuantized, PoolLayer, QuantizedLayer
from .options import QuantizedRecipe
from .quantizers import ActivationQuantizer, round_half_up

if TYPE_CHECKING:
    from .keep import Keep

__all__ = ["RAW_BITS", "codebook_of", "lower", "prove"]

RAW_BITS = 32
ONE = (Term(False, 0),)
ENTRIES_MAX = 256
"""Values of a layer's weights."""


@torch.no_grad()
def lower(network: FakeQuantized, graph: Graph, recipe: QuantizedRecipe, metadata: dict[str, Any]) -> QuantizedNetwork:
    """The integer network that computes exactly what a fake-quantized one computes in real values.

    Parameters
    ----------
    network : FakeQuantized
        Calibrated and trained.
    graph : Graph
        The float network it was made from.
    recipe : QuantizedRecipe
        The options.
    metadata : dict
        For the result.

    Raises
    ------
    OverflowProofError
        If an accumulator could leave ``acc_bits``.
    """
    names = {step.name for step in graph.steps}
    tensors = {INPUT: _spec("input" if "input" not in names else "input@0", graph.input_shape, network.input)}
    layers, concats = [], []
    modules = {module.layer.name: module for module in network.chain}
    for step in graph.steps:
        if isinstance(step, FloatConcat):
            parts = tuple(tensors[part] for part in step.parts)
            target = dataclasses.replace(parts[0], name=step.name, channels=sum(part.channels for part in parts))
            concats.append(Concat(target=target, parts=parts))
        else:
            layer = _layer(modules[step.name], [tensors[source] for source in step.sources], recipe)
            prove(layer, recipe)
            layers.append(layer)
            target = layer.target
        tensors[step.name] = target
    return QuantizedNetwork(input=tensors[INPUT], layers=tuple(layers), concats=tuple(concats),
                            max_shift=recipe.max_shift, guard_bits=recipe.guard, acc_bits=recipe.acc_bits,
                            parameters=graph.parameters, metadata=metadata)


def _spec(name: str, shape: tuple[int, int, int], quantizer: ActivationQuantizer) -> TensorSpec:
    return TensorSpec(name=name, channels=shape[0], height=shape[1], width=shape[2], bits=quantizer.bits,
                      signed=quantizer.signed, exponent=quantizer.exponent)


def _layer(module: QuantizedLayer, sources: list[TensorSpec], recipe: QuantizedRecipe) -> Layer:
    layer, source = module.layer, sources[0]
    geometry: dict[str, Any] = {"name": layer.name, "op": layer.op, "source": source, "kernel": layer.kernel,
                                "stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation,
                                "groups": layer.groups, "leak": layer.leak}
    if isinstance(module, PoolLayer):
        module.output.exponent = source.exponent
        rows, (qmin, qmax) = layer.out_shape[0], module.output.range
        return Layer(**geometry, target=_spec(layer.name, layer.out_shape, module.output),
                     bias=np.zeros(rows, np.int64), scale=(module.terms,) * rows,
                     shift=np.full(rows, module.shift, np.int64), qmin=qmin, qmax=qmax)
    module.in_exponent, *exponents = (tensor.exponent for tensor in sources)
    module.residual_exponents = tuple(exponents)
    numbers = _conv(module) if isinstance(module, ConvLayer) else _affine(module, recipe)
    truncate = recipe.max_shift - recipe.guard
    residuals = tuple(
        Residual(source=tensor, stride=joined.stride, channel_offset=joined.channel_offset, terms=power_terms(
            module.residual_power(module.acc_exponent, tensor.exponent, tensor.name) + truncate, recipe.max_shift))
        for tensor, joined in zip(sources[1:], layer.residuals, strict=True))
    return Layer(**geometry, **numbers, residuals=residuals, raw=module.raw)


def _conv(module: ConvLayer) -> dict[str, Any]:
    """The fields of a convolution that hold numbers."""
    layer, rows = module.layer, module.layer.out_shape[0]
    indices, codebook = codebook_of(module.numbers().numpy(), layer.name, module.max_shift)
    bias = round_half_up(module.original("bias").double(), module.acc_exponent).long().numpy()
    if module.raw:
        target = TensorSpec(name=layer.name, channels=rows, height=layer.out_shape[1], width=layer.out_shape[2],
                            bits=RAW_BITS, signed=True, exponent=module.acc_exponent)
        shift, (qmin, qmax) = np.zeros(rows, np.int64), target.range
    else:
        target = _spec(layer.name, layer.out_shape, module.output)
        channel_exponents = module.channel_exponents.long().numpy()
        shift, (qmin, qmax) = target.exponent - module.acc_exponent - channel_exponents, module.output.range
    return {"target": target, "indices": indices, "codebook": codebook, "bias": bias, "scale": (ONE,) * rows,
            "shift": shift, "qmin": qmin, "qmax": qmax}


def codebook_of(numbers: np.ndarray, name: str, max_shift: int) -> tuple[np.ndarray, tuple[tuple[Term, ...], ...]]:
    """Codebook indices and entries, the values in use in the order 0, then rising in magnitude, plus before minus.

    Parameters
    ----------
    numbers : int64 array
        Weights as sums of terms.
    name : str
        The layer's, for messages.
    max_shift : int
        The device's.

    Raises
    ------
    ModelError
        If there are more than 256 values, or a shift is beyond the device's.
    """
    used, indices = np.unique(2 * np.abs(numbers) - (numbers > 0), return_inverse=True)
    if used.size > ENTRIES_MAX:
        raise ModelError(f"layer {name}: its weights have {used.size} values, more than a dictionary's "
                         f"{ENTRIES_MAX}; let the recipe choose fewer")
    codebook = tuple(signed_digits(int(key + 1) // 2 * (1 if key % 2 else -1)) for key in used)
    most = max((term.shift for entry in codebook for term in entry), default=0)
    if most > max_shift:
        raise ModelError(f"layer {name}: a term shifts left by {most}, more than max_shift = {max_shift}; "
                         f"raise max_shift, or let values have fewer places")
    return indices.reshape(numbers.shape).astype(np.uint8), codebook


def _affine(module: AffineLayer, recipe: QuantizedRecipe) -> dict[str, Any]:
    """The fields of a layer with one factor a channel that hold numbers: its signs are weights, the rest is scale."""
    layer, exponent = module.layer, module.acc_exponent
    truncate = recipe.max_shift - recipe.guard
    one = power_terms(module.residual_power(exponent, module.in_exponent, layer.source) + truncate, recipe.max_shift)
    target = _spec(layer.name, layer.out_shape, module.output)
    signs = module.signs.long().numpy()
    used, indices = np.unique(signs, return_inverse=True)
    entries = {0: (), 1: one, -1: tuple(Term(True, term.shift) for term in one)}
    qmin, qmax = module.output.range
    return {"target": target, "indices": indices.reshape(-1, 1, 1, 1).astype(np.uint8),
            "codebook": tuple(entries[int(sign)] for sign in used), "bias": module.bias.numpy(),
            "scale": tuple(terms for terms, _ in module.scales),
            "shift": np.array([shift for _, shift in module.scales], np.int64) + target.exponent - exponent,
            "qmin": qmin, "qmax": qmax}


def prove(layer: Layer, recipe: "QuantizedRecipe | Keep") -> None:
    """Bound the accumulators from the actual weights and the range of the input, in every order of summation."""
    if layer.op != "conv":
        return
    truncate = recipe.max_shift - recipe.guard
    values = layer.values.reshape(layer.target.channels, -1)
    low, high = layer.source.range
    positive, negative = np.maximum(values, 0).sum(1), np.maximum(-values, 0).sum(1)
    # Rounding a product towards minus infinity moves it by less than one unit.
    slack = np.count_nonzero(values, axis=1) if truncate else 0
    most = ((positive * max(high, 0) - negative * min(low, 0)) >> truncate) + slack + np.maximum(layer.bias, 0)
    least = ((positive * min(low, 0) - negative * max(high, 0)) >> truncate) - slack + np.minimum(layer.bias, 0)
    for residual in layer.residuals:  # its terms lose nothing
        joined, (low, high) = residual.channels(len(most)), residual.source.range
        weight = sum(1 << term.shift for term in residual.terms) >> truncate
        most[joined.start:joined.stop] += weight * max(high, 0)
        least[joined.start:joined.stop] += weight * min(low, 0)
    bits = max(int(most.max()).bit_length(), int(-least.min() - 1).bit_length()) + 1
    if bits > recipe.acc_bits:
        row = int(np.argmax(np.maximum(most, -least)))
        reach = max(int(most[row]), -int(least[row]))
        raise OverflowProofError(
            f"layer {layer.name}: channel {row} can reach {reach}, which takes {bits} bits, "
            f"but accumulators have {recipe.acc_bits}; lower levels or act_bits, or raise acc_bits (and the device's "
            f"acc_width)")
