"""ONNX Runtime, the judge of what is read from ONNX files, and PyTorch's exporters, which write them."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.sw.frontend.capture import capture, image_shape
from shiftwright.sw.frontend.graph import Graph
from shiftwright.sw.frontend.onnx_lower import OnnxModel
from tests.graphs import execute

__all__ = ["exported", "judged", "run"]

SEED = 7


def exported(module: nn.Module, path: Path, exporter: str, *shapes: tuple[int, ...]) -> None:
    """Write a network that takes tensors of these shapes with PyTorch's exporter by torch.export (``"export"``), or the
    older one by TorchScript, which folds batch norms (``"script"``)."""
    inputs = tuple(torch.zeros(2, *shape) for shape in shapes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "script":
            names = [f"x{number}" for number in range(len(shapes))]
            torch.onnx.export(module, inputs, path, dynamo=False, opset_version=17, input_names=names,
                              dynamic_axes={name: {0: "n"} for name in names})
        else:
            pytest.importorskip("onnxscript")
            torch.onnx.export(module, inputs, path, dynamo=True, verbose=False, external_data=False,
                              dynamic_shapes=tuple({0: torch.export.Dim("n")} for _ in shapes))


def run(path: Path, *inputs: torch.Tensor) -> list[np.ndarray]:
    """All outputs of a file."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(path, options)
    given = {value.name: each.numpy() for value, each in zip(session.get_inputs(), inputs, strict=True)}
    results: list[np.ndarray] = session.run(None, given)
    return results


def judged(path: Path, found: OnnxModel) -> Graph:
    """The graph of a file whose end has nothing for the host: module, graph and ONNX Runtime compute the same."""
    shapes = tuple(found.file.inputs.values())
    images = torch.rand(3, *image_shape(shapes), generator=torch.Generator().manual_seed(SEED))
    inputs = [part.reshape(3, *shape)
              for part, shape in zip(images.split([shape[0] for shape in shapes], 1), shapes, strict=True)]
    expected = run(path, *inputs)
    with torch.no_grad():
        made = found.module(*inputs)
    for result, (name, values) in zip(expected, made.items() if isinstance(made, dict) else [("", made)], strict=True):
        assert values.shape == result.shape and np.abs(result).max() > 0.01, name
        np.testing.assert_allclose(values, result, atol=1e-4, rtol=1e-5)
    graph = capture(found.module, shapes)
    joined = np.concatenate([result.reshape(3, result.shape[1], -1) for result in expected], 1)
    np.testing.assert_allclose(execute(graph, images.double()).reshape(joined.shape), joined, atol=1e-4, rtol=1e-5)
    return graph
