"""From an ONNX file to a PyTorch module that computes the same."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from .onnx_arithmetic import ARITHMETIC
from .onnx_build import Builder, Inputs
from .onnx_file import OnnxFile, OnnxNode, read
from .onnx_fold import fold
from .onnx_layers import LAYERS
from .onnx_network import OnnxNetwork
from .onnx_operators import BY_OP, HOST, QUANT_DOMAINS, REWRITES
from .onnx_quantize import QUANTIZERS
from .onnx_views import Activation
from .operators import Attribute, unsupported

__all__ = ["OnnxModel", "load_onnx"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxModel:
    """A network from an ONNX file.

    Parameters
    ----------
    file : OnnxFile
    module : OnnxNetwork
        Computes what the file does, but for what is left to the host, in evaluation mode.
    notes : tuple of str
        What is left to the host.
    """

    file: OnnxFile
    module: OnnxNetwork
    notes: tuple[str, ...]


def load_onnx(path: str | Path) -> OnnxModel:
    """Make a PyTorch module of an ONNX file.

    Parameters
    ----------
    path : path
        What it may hold is in :data:`~.onnx_operators.OPERATORS`.

    Raises
    ------
    ToolError
        If the package ``onnx`` is missing.
    ModelError
        If the file can't be read, is damaged, or is not a network of images or signals.
    UnsupportedError
        If an operator or attribute is not supported; the message names node, attribute, value and a rewrite.
    """
    file = read(path)
    tails = [_tail(file, output) for output in file.outputs]
    results = [tensor for tensor, _ in tails]
    nodes = _live(file, results)
    readers = Counter([name for node in nodes for name in node.inputs if name] + results)
    builder = Builder(file, readers)
    values: dict[str, Activation | np.ndarray] = dict(file.constants)
    values |= {name: Activation(key=name, shape=shape) for name, shape in file.inputs.items()}
    for node in nodes:
        inputs: Inputs = [values[name] if name else None for name in node.inputs]
        if any(isinstance(value, Activation) for value in inputs):
            values[node.outputs[0]] = _translate(builder, node, inputs)
            continue
        made = fold(node, [value for value in inputs if not isinstance(value, Activation)], file.opset)
        values |= zip((name for name in node.outputs if name), made, strict=True)
    for output, (tensor, host) in zip(file.outputs, tails, strict=True):
        result = values[tensor]
        if not isinstance(result, Activation):
            raise unsupported(tensor, "does not depend on the network's input", "export the network again")
        for node in host:
            _check_host(node, result)
        if tensor in builder.integers:
            raise unsupported(builder.integers[tensor].node.where, "makes the network's output",
                              "export with a DequantizeLinear after it")
        builder.network.append_output(output, builder.plain(result).key)
    builder.network.notes = tuple(
        f"{node.where} is left to the host: the class with the highest score is the same without it"
        for node in dict.fromkeys(node for _, host in tails for node in host))
    return OnnxModel(file=file, module=builder.network.eval(), notes=builder.network.notes)


def _tail(file: OnnxFile, output: str) -> tuple[str, list[OnnxNode]]:
    """The tensor that holds an output's scores, and the nodes after it that don't change which is the highest."""
    makers = {name: node for node in file.nodes for name in node.outputs}
    scores, host, passed = output, list[OnnxNode](), list[OnnxNode]()
    while (node := makers.get(output)) is not None and node.op in (*HOST, *BY_OP["Flatten"].ops, "Identity", "Cast"):
        output = node.inputs[0]
        passed.append(node)
        if node.op in HOST:
            scores, host = output, [found for found in passed if found.op in HOST]
    return scores, host[::-1]


def _live(file: OnnxFile, results: list[str]) -> list[OnnxNode]:
    """The nodes that the results depend on."""
    wanted, nodes = {*results}, list[OnnxNode]()
    for node in reversed(file.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            nodes.append(node)
    return nodes[::-1]


def _translate(builder: Builder, node: OnnxNode, inputs: Inputs) -> Activation | np.ndarray:
    if node.proto.domain in QUANT_DOMAINS and node.op in QUANTIZERS:
        return QUANTIZERS[node.op](builder, node, inputs)
    for name in node.inputs:
        if name in builder.integers and node.op not in ("Clip", "DequantizeLinear"):
            raise unsupported(node.where, f"reads the integers of {builder.integers[name].node.where}",
                              "export with a DequantizeLinear after it")
    operator = None if node.proto.domain in QUANT_DOMAINS else BY_OP.get(node.op)
    if operator is None:
        raise unsupported(node.where, f"operator {node.op} is not supported",
                          REWRITES.get(node.op, "see the table of ONNX operators in the documentation"))
    _check_attributes(node, operator.attributes)
    for name in node.outputs[1:]:
        if builder.readers[name]:
            raise unsupported(node.where, f"its output {name!r} is used, where only the first is supported",
                              "leave it out")
    if operator.kind == "quantize" or node.inputs[0] in builder.integers:
        return QUANTIZERS[node.op](builder, node, inputs)
    if operator.kind == "shape":
        return _shape(builder, node, builder.activation(node, inputs))
    return (LAYERS | ARITHMETIC)[operator.kind](builder, node, inputs)


def _check_attributes(node: OnnxNode, rules: tuple[Attribute, ...]) -> None:
    known = {rule.name: rule for rule in rules}
    for name, value in node.attributes.items():
        rule = known.get(name)
        if rule is None and name in node.given or rule is not None and not rule.accepts(value):
            raise unsupported(node.where, f"{name}={value!r} is not supported, only "
                              f"{rule.rule if rule else 'its default'}", rule.rewrite if rule else "leave it out")


def _shape(builder: Builder, node: OnnxNode, x: Activation) -> np.ndarray:
    sizes = np.array([builder.batch, *x.logical], np.int64)
    if node.op == "Size":
        return np.array(sizes.prod())
    return sizes[node.attributes.get("start") or 0:node.attributes.get("end")]


def _check_host(node: OnnxNode, scores: Activation) -> None:
    """What is left to the host must be about the classes."""
    _check_attributes(node, HOST[node.op])
    axis, rank = node.attributes.get("axis", 1), 1 + len(scores.logical)
    if axis % rank != 1:
        raise unsupported(node.where, f"axis={axis} is not supported, only 1, the classes", "leave it out")
