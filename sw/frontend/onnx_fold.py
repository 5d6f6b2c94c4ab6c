"""What nodes make of constants alone: QONNX's Quant here, everything else by ONNX's own reference."""

from collections.abc import Callable

import numpy as np

from .onnx_file import OnnxNode
from .onnx_operators import QUANT_DOMAINS
from .operators import unsupported

__all__ = ["fold", "quant_range"]

_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ROUND": np.round, "HALF_EVEN": np.round, "CEIL": np.ceil, "FLOOR": np.floor, "DOWN": np.trunc}
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def fold(node: OnnxNode, inputs: list[np.ndarray | None], opset: int) -> list[np.ndarray]:
    """The outputs of a node whose inputs are all constant.

    Parameters
    ----------
    node : OnnxNode
    inputs : list of arrays
        None where optional and left out.
    opset : int

    Raises
    ------
    UnsupportedError
        If it can't be evaluated.
    """
    if node.proto.domain in QUANT_DOMAINS:
        return [_quant(node, inputs)]
    if node.op in _RANDOM:
        raise unsupported(node.where, f"operator {node.op} is not supported", "export the network in evaluation mode")
    import onnx
    from onnx.reference import ReferenceEvaluator

    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        opset = max(opset, 19)  # the reference has no older ones; what is new there has defaults that change nothing
    names = [name for name in dict.fromkeys(node.inputs) if name]
    outputs = [name for name in node.outputs if name]
    try:
        reads, makes = ([onnx.ValueInfoProto(name=name) for name in side] for side in (names, outputs))
        graph = onnx.helper.make_graph([node.proto], "fold", reads, makes)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        given = {name: value for name, value in zip(node.inputs, inputs, strict=True) if name}
        found = ReferenceEvaluator(model).run(None, given)
    except Exception as error:  # whatever the reference raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise unsupported(node.where, f"can't be evaluated: {reason}",
                          "simplify the file, so that constants are initializers") from error
    return [np.asarray(value) for value in found]


def _quant(node: OnnxNode, inputs: list[np.ndarray | None]) -> np.ndarray:
    """QONNX's Quant (IntQuant) and BipolarQuant, in float32: points of a grid, as real numbers.

    As QONNX's documents define them (docs/qonnx-custom-ops, version 1): divided by the scale, moved by the zero point,
    clamped, rounded, and back.
    """
    tensors = [np.asarray(value, np.float32) for value in inputs if value is not None]
    if node.op == "BipolarQuant" and len(tensors) == 2:
        return np.where(tensors[0] >= 0, tensors[1], -tensors[1]).astype(np.float32)
    if node.op not in ("Quant", "IntQuant") or len(tensors) != 4:
        raise unsupported(node.where, f"is an operator of {node.proto.domain!r} that is not read",
                          "of these only Quant and BipolarQuant of constants are")
    values, scale, zero, bits = tensors
    low, high, mode = quant_range(node, bits)
    grid = _ROUNDINGS[mode]((values / scale + zero).clip(low, high))
    return np.asarray((grid - zero) * scale, np.float32)


def quant_range(node: OnnxNode, bits: np.ndarray) -> tuple[int, int, str]:
    """Least and greatest integer of a Quant, and how it rounds.

    Raises
    ------
    UnsupportedError
        If an attribute has a value that is not defined.
    """
    attributes = {"rounding_mode": "ROUND"} | node.attributes
    signed, narrow, mode = (attributes.pop(name, None) for name in ("signed", "narrow", "rounding_mode"))
    for name, value, rule, right in (
            ("signed", signed, "0 or 1", signed in (0, 1)), ("narrow", narrow, "0 or 1", narrow in (0, 1)),
            ("rounding_mode", mode, f"one of {', '.join(_ROUNDINGS)}", str(mode).upper() in _ROUNDINGS),
            ("bitwidth", bits.tolist(), "one whole number, from 2 on if signed (BipolarQuant is for one bit)",
             bits.size == 1 and bits.item() >= 1 + bool(signed) and bits.item() % 1 == 0),
            *((name, value, "the attributes of version 1", False) for name, value in attributes.items())):
        if not right:
            raise unsupported(node.where, f"{name}={value!r} is not supported, only {rule}",
                              "export the weights themselves, as initializers")
    width = int(bits.item()) - signed
    low, high = (-(1 << width) + narrow, (1 << width) - 1) if signed else (0, (1 << width) - 1 - narrow)
    return low, high, str(mode).upper()
