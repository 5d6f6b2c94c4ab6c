"""What float graphs of the front end compute, and ONNX files made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from shiftwright.sw.frontend.graph import INPUT, FloatConcat, Graph

__all__ = ["OnnxGraph", "execute"]


def execute(graph: Graph, images: Tensor) -> Tensor:
    """The graph in float64, from the meaning of its fields."""
    tensors = {INPUT: images.reshape(-1, *graph.input_shape)}
    for layer in graph.steps:
        if isinstance(layer, FloatConcat):
            tensors[layer.name] = torch.cat([tensors[part] for part in layer.parts], 1)
            continue
        top, left, bottom, right = layer.padding
        x = functional.pad(tensors[layer.source].reshape(-1, *layer.in_shape), (left, right, top, bottom),
                           value=float("-inf") if layer.op == "maxpool" else 0.0)
        if layer.op == "conv":
            assert layer.weight is not None and layer.bias is not None
            x = functional.conv2d(x, torch.tensor(layer.weight), torch.tensor(layer.bias), layer.stride, 0,
                                  layer.dilation, layer.groups)
            for residual in layer.residuals:
                source = tensors[residual.source][:, :, ::residual.stride[0], ::residual.stride[1]]
                for channel in range(source.shape[1]):
                    x[:, channel + residual.channel_offset] += source[:, channel]
        elif layer.op == "leaky":
            x = functional.leaky_relu(x, 2.0**-layer.leak)
        elif layer.op == "maxpool":
            x = functional.max_pool2d(x, layer.kernel, layer.stride, 0, layer.dilation)
        else:
            x = functional.avg_pool2d(x, layer.kernel, layer.stride, divisor_override=1) / layer.divisor
        x = x.clamp(layer.clamp.low, layer.clamp.high)
        assert x.shape[1:] == layer.out_shape
        tensors[layer.name] = x
    signed = graph.signed
    for name, values in tensors.items():
        assert signed[name] or values.min() >= 0, name
    return x


class OnnxGraph:
    """An ONNX graph in the making; calling it adds a node.

    Parameters
    ----------
    shape : tuple
        Of the input ``x``; the batch dimension is free where it begins with a string.
    opset : int
        Version of ONNX's operators.
    """

    def __init__(self, shape: tuple[int | str, ...] = ("N", 3, 9, 8), opset: int = 17) -> None:
        from onnx import TensorProto, helper

        self.opset, self.nodes = opset, list[Any]()
        self.initializers: dict[str, np.ndarray] = {}
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        self.output_type = TensorProto.FLOAT
        self.rng = np.random.default_rng(7)

    def weights(self, *shape: int) -> np.ndarray:
        """Random numbers, float32."""
        return self.rng.normal(size=shape).astype(np.float32)

    def __call__(self, op: str, *inputs: str | np.ndarray, name: str | None = None, domain: str = "",
                 outputs: int = 1, **attributes: Any) -> str:
        """Add a node that reads tensors and constants; its first output."""
        from onnx import helper

        names = []
        for value in inputs:
            if isinstance(value, str):
                names.append(value)
            else:
                names.append(f"c{len(self.initializers)}")
                self.initializers[names[-1]] = value
        made = [f"t{len(self.nodes)}{'abc'[k] if k else ''}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, name=f"{op}{len(self.nodes)}" if name is None else name,
                                           domain=domain, **attributes))
        return made[0]

    def model(self, *results: str) -> Any:
        """The whole model."""
        from onnx import helper, numpy_helper

        outputs = [helper.make_tensor_value_info(result, self.output_type, None) for result in results]
        graph = helper.make_graph(self.nodes, "made", self.inputs, outputs, [
            numpy_helper.from_array(value, name) for name, value in self.initializers.items()])
        domains = {"": self.opset} | {node.domain: 1 for node in self.nodes if node.domain}
        return helper.make_model(graph, ir_version=8, opset_imports=[
            helper.make_opsetid(domain, version) for domain, version in domains.items()])

    def save(self, path: Path, *results: str) -> Path:
        """Write the model."""
        path.write_bytes(self.model(*results).SerializeToString())
        return path
