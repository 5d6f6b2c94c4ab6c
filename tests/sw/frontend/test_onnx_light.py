"""Networks of the ONNX model zoo, as other frameworks exported them: ``onnx`` brings the files, without weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.errors import UnsupportedError
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.onnx_lower import load_onnx
from tests.graphs import execute
from tests.sw.frontend.onnx_runtime import run

onnx = pytest.importorskip("onnx")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.regress]

OPSET = 13
TAKEN = ("squeezenet", "resnet50", "densenet121")
REFUSED = {
    "inception_v1": r"\(LRN\): operator LRN is not supported; use BatchNormalization",
    "inception_v2": r"\(AveragePool\): count_include_pad=0 with padding \[1, 1, 1, 1\] of a map of 28 x 28 is not supp",
    "shufflenet": r"\(Reshape\): changes the order of \(N, 112, 56, 56\)",
}


def light(name: str, rng: np.random.Generator) -> "onnx.ModelProto":
    """The network with random weights, of the oldest opset that is read."""
    from onnx import numpy_helper, version_converter

    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(folder / f"light_{name}.onnx")
    graph = model.graph
    shapes = {tensor.name: tuple(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    norms = [node.input for node in graph.node if node.op_type == "BatchNormalization"]
    positive = {inputs[place] for inputs in norms for place in (1, 4)}
    nodes, made = list[onnx.NodeProto](), list[onnx.TensorProto]()
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            nodes.append(node)
            continue
        shape, weights = shapes[node.input[0]], node.output[0]
        values = rng.standard_normal(shape, np.float32)
        if weights in positive:
            values = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        elif len(shape) > 1:
            values *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
        else:
            values *= np.float32(0.1)
        made.append(numpy_helper.from_array(values, weights))
    read = {name for node in nodes for name in node.input}
    made += [tensor for tensor in graph.initializer if tensor.name in read]
    constants = {tensor.name for tensor in made}
    inputs = [value for value in graph.input if value.name in read - constants]
    for field, values in (("node", nodes), ("initializer", made), ("input", inputs)):
        del getattr(graph, field)[:]
        getattr(graph, field).extend(values)
    model.ir_version = 8
    return version_converter.convert_version(model, OPSET)


@pytest.mark.parametrize("name", TAKEN)
def test_as_onnx_runtime_computes(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(light(name, rng), path)
    found = load_onnx(path)
    (shape,) = found.file.inputs.values()
    images = torch.from_numpy(rng.integers(0, 256, (1, *shape))).float() / 256
    (expected,) = run(path, images)
    scores = execute(capture(found.module, shape), images.double()).flatten()
    path.unlink()
    if found.notes:
        assert "(Softmax) is left to the host" in found.notes[0]
        scores = scores.softmax(0)
    deviation = float(expected.std())
    np.testing.assert_allclose(scores.numpy(), expected.ravel(), rtol=0, atol=1e-4 * deviation)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(light(name, rng), path)
    with pytest.raises(UnsupportedError, match=REFUSED[name]):
        found = load_onnx(path)
        capture(found.module, next(iter(found.file.inputs.values())))
    path.unlink()
