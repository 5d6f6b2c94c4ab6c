"""From the trained network to integers."""

from typing import Any

import numpy as np
import torch

from ...hw.arch.errors import OverflowProofError
from ..frontend.graph import Graph
from ..network import Layer, QuantizedNetwork, TensorSpec, Term
from .bqnet import BQNet
from .fakequant import ConvLayer, FakeQuantized, PoolLayer
from .quantizers import ActivationQuantizer, round_half_up

__all__ = ["lower"]

RAW_BITS = 32
ONE = (Term(False, 0),)


@torch.no_grad()
def lower(network: FakeQuantized, graph: Graph, recipe: BQNet, metadata: dict[str, Any]) -> QuantizedNetwork:
    """The integer network that computes exactly what a fake-quantized one computes in real values.

    Parameters
    ----------
    network : FakeQuantized
        Calibrated and trained.
    graph : Graph
        The float network it was made from.
    recipe : BQNet
        The options.
    metadata : dict
        For the result.

    Raises
    ------
    OverflowProofError
        If an accumulator could leave ``acc_bits``.
    """
    names = {layer.name for layer in graph.layers}
    first = source = _spec("input" if "input" not in names else "input@0", graph.input_shape, network.input)
    layers = []
    for module in network.chain:
        if isinstance(module, ConvLayer):
            module.in_exponent = source.exponent
        layer = _conv(module, source, recipe) if isinstance(module, ConvLayer) else _pool(module, source)
        layers.append(layer)
        source = layer.target
    return QuantizedNetwork(input=first, layers=tuple(layers), max_shift=recipe.max_shift, guard_bits=recipe.guard,
                            acc_bits=recipe.acc_bits, parameters=graph.parameters, metadata=metadata)


def _spec(name: str, shape: tuple[int, int, int], quantizer: ActivationQuantizer) -> TensorSpec:
    return TensorSpec(name=name, channels=shape[0], height=shape[1], width=shape[2], bits=quantizer.bits,
                      signed=quantizer.signed, exponent=quantizer.exponent)


def _geometry(module: ConvLayer | PoolLayer) -> dict[str, Any]:
    layer = module.layer
    return {"name": layer.name, "op": layer.op, "kernel": layer.kernel, "stride": layer.stride,
            "padding": layer.padding, "dilation": layer.dilation}


def _conv(module: ConvLayer, source: TensorSpec, recipe: BQNet) -> Layer:
    layer, rows = module.layer, module.layer.out_shape[0]
    weight = module.master_weight
    signs, levels = (codes.numpy() for codes in module.weight_quantizer.codes(weight))
    indices, codebook = _codebook(signs, levels, module.base_shift)
    master_bias = module.parametrizations["bias"].original  # type: ignore[index, union-attr]
    bias = round_half_up(master_bias.double(), module.acc_exponent).long().numpy()
    if module.raw:
        target = TensorSpec(name=layer.name, channels=rows, height=layer.out_shape[1], width=layer.out_shape[2],
                            bits=RAW_BITS, signed=True, exponent=module.acc_exponent)
        shift, (qmin, qmax) = np.zeros(rows, np.int64), target.range
    else:
        target = _spec(layer.name, layer.out_shape, module.output)
        channel_exponents = module.channel_exponents.long().numpy()
        shift, (qmin, qmax) = target.exponent - module.acc_exponent - channel_exponents, module.output.range
    result = Layer(source=source, target=target, indices=indices, codebook=codebook, bias=bias, scale=(ONE,) * rows,
                   shift=shift, qmin=qmin, qmax=qmax, raw=module.raw, **_geometry(module))
    _prove(result, recipe)
    return result


def _codebook(signs: np.ndarray, levels: np.ndarray,
              base_shift: int) -> tuple[np.ndarray, tuple[tuple[Term, ...], ...]]:
    """Codebook indices and entries, the values in use in the order 0, then rising in magnitude, plus before minus."""
    keys = np.where(signs == 0, 0, 2 * (base_shift - levels) + np.where(signs < 0, 2, 1))
    used, indices = np.unique(keys, return_inverse=True)
    codebook = tuple(() if key == 0 else (Term(bool(key % 2 == 0), int(key - 1) // 2),) for key in used)
    return indices.reshape(signs.shape).astype(np.uint8), codebook


def _pool(module: PoolLayer, source: TensorSpec) -> Layer:
    layer, rows = module.layer, module.layer.out_shape[0]
    module.output.exponent = source.exponent
    target = _spec(layer.name, layer.out_shape, module.output)
    qmin, qmax = module.output.range
    return Layer(source=source, target=target, bias=np.zeros(rows, np.int64), scale=(module.terms,) * rows,
                 shift=np.full(rows, module.shift, np.int64), qmin=qmin, qmax=qmax, **_geometry(module))


def _prove(layer: Layer, recipe: BQNet) -> None:
    """Bound the accumulators from the actual weights and the range of the input, in every order of summation."""
    truncate = recipe.max_shift - recipe.guard
    values = layer.values.reshape(layer.target.channels, -1)
    low, high = layer.source.range
    positive, negative = np.maximum(values, 0).sum(1), np.maximum(-values, 0).sum(1)
    # Rounding a product towards minus infinity moves it by less than one unit.
    slack = np.count_nonzero(values, axis=1) if truncate else 0
    most = ((positive * max(high, 0) - negative * min(low, 0)) >> truncate) + slack + np.maximum(layer.bias, 0)
    least = ((positive * min(low, 0) - negative * max(high, 0)) >> truncate) - slack + np.minimum(layer.bias, 0)
    bits = max(int(most.max()).bit_length(), int(-least.min() - 1).bit_length()) + 1
    if bits > recipe.acc_bits:
        row = int(np.argmax(np.maximum(most, -least)))
        reach = max(int(most[row]), -int(least[row]))
        raise OverflowProofError(
            f"layer {layer.name}: channel {row} can reach {reach}, which takes {bits} bits, "
            f"but accumulators have {recipe.acc_bits}; lower levels or act_bits, or raise acc_bits (and the device's "
            f"acc_width)")
