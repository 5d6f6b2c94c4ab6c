"""ONNX files in other forms: of older opsets, on vectors, and with their images' channels last."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.errors import ModelError, UnsupportedError
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.load import load_model
from shiftwright.sw.frontend.onnx_lower import load_onnx
from tests.graphs import OnnxGraph, execute
from tests.sw.frontend.onnx_runtime import judged, run

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.usefixtures("one_thread")


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def network(g: OnnxGraph, opset: int) -> str:
    """Operators whose form has changed since, as they were."""
    x = g("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 1, 0], mode="constant") if opset < 11 else g(
        "Pad", "x", integers(0, 0, 1, 2, 0, 0, 1, 0))
    x = g("Conv", x, g.weights(4, 3, 3, 3), g.weights(4), kernel_shape=[3, 3])
    x = g("BatchNormalization", x, *(np.abs(g.weights(4)) + 0.3 for _ in range(4)))
    x = g("Clip", x, min=-0.5, max=2.0) if opset < 11 else g("Clip", x, *(np.array(v, np.float32) for v in (-0.5, 2)))
    x = g("Dropout", x, ratio=0.25) if opset < 12 else g("Dropout", x, np.array(0.25, np.float32))
    x = g("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = g("ReduceMean", x, axes=[2, 3], keepdims=1)
    x = g("Squeeze", x, axes=[2, 3])
    return g("Gemm", x, g.weights(4, 5), g.weights(5), alpha=0.5)


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12])
def test_older_opsets(opset: int, tmp_path: Path) -> None:
    g = OnnxGraph(opset=opset)
    path = g.save(tmp_path / "m.onnx", network(g, opset))
    found = load_onnx(path)
    assert found.file.opset == 13
    judged(path, found)


def test_older_softmax(tmp_path: Path) -> None:
    """Before opset 13 it was one over all dimensions from its axis on: converted, it stands between reshapes."""
    g = OnnxGraph(opset=11)
    x = g("GlobalAveragePool", g("Conv", "x", g.weights(5, 3, 3, 3)))
    path = g.save(tmp_path / "m.onnx", g("Softmax", x, axis=1, name="end"))
    found, images = load_onnx(path), torch.rand(3, 3, 9, 8)
    assert found.notes[0].startswith("end (Softmax) is left to the host")
    scores = execute(capture(found.module, (3, 9, 8)), images.double()).flatten(1)
    np.testing.assert_allclose(scores.softmax(1), run(path, images)[0].reshape(3, 5), atol=1e-6)


@pytest.mark.parametrize(("opset", "message"), [
    (0, "names no opset of ONNX's own operators; export the network again"),
    (10, "has opset 10, and onnx.version_converter can't make 13 of it: .*; export with opset_version=13 or later")])
def test_opsets_that_cannot_be_converted(opset: int, message: str, tmp_path: Path) -> None:
    g = OnnxGraph(opset=opset)
    model = g.model(g("Upsample", "x", np.ones(4, np.float32), mode="nearest") if opset else g("Relu", "x"))
    if opset:  # which is not of this opset any more
        model.graph.node[0].op_type = "Missing"
    else:
        del model.opset_import[:]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=message):
        load_onnx(tmp_path / "m.onnx")


def test_vectors(tmp_path: Path) -> None:
    g = OnnxGraph(("N", 16))
    x = g("Relu", g("Gemm", "x", g.weights(16, 12), g.weights(12)))
    x = g("Relu", g("Add", g("MatMul", g("Mul", x, np.array(0.5, np.float32)), g.weights(12, 8)), g.weights(8)))
    path = g.save(tmp_path / "m.onnx", g("Gemm", x, g.weights(8, 5), g.weights(5)))
    found = load_onnx(path)
    assert found.file.inputs == {"x": (16,)} and load_model(str(path)).input_shape == (16, 1, 1)
    judged(path, found)


def test_a_free_number_of_features(tmp_path: Path) -> None:
    g = OnnxGraph(("N", "features"))
    path = g.save(tmp_path / "m.onnx", g("Gemm", "x", g.weights(16, 12)))
    with pytest.raises(ModelError, match=r"input 'x' has the shape \(N, features\); .* a fixed number of features"):
        load_onnx(path)


LAST: dict[str, tuple[tuple[int, ...], Callable[[OnnxGraph], str]]] = {
    "maps": ((9, 8, 3), lambda g: g("Conv", g("Transpose", "x", perm=[0, 3, 1, 2]), g.weights(4, 3, 3, 3))),
    "twice": ((9, 8, 3), lambda g: g("Add", g("Conv", g("Transpose", "x", perm=[0, 3, 1, 2]), g.weights(4, 3, 3, 3)),
                                     g("Conv", g("Transpose", "x", perm=[0, 3, 1, 2]), g.weights(4, 3, 3, 3)))),
    "signals": ((20, 3), lambda g: g("Conv", g("Transpose", "x", perm=[0, 2, 1]), g.weights(4, 3, 5))),
    "one_channel_turned": ((9, 8, 1), lambda g: g("Conv", g("Transpose", "x", perm=[0, 3, 1, 2]),
                                                  g.weights(4, 1, 3, 3))),
    "one_channel": ((9, 8, 1), lambda g: g("Conv", g("Reshape", "x", integers(-1, 1, 9, 8)), g.weights(4, 1, 3, 3))),
    "dense": ((9, 8, 3), lambda g: g("Gemm", g("Reshape", g("Transpose", g("Relu", g("Conv", g(
        "Transpose", "x", perm=[0, 3, 1, 2]), g.weights(4, 3, 3, 3))), perm=[0, 2, 3, 1]), integers(-1, 168)),
        g.weights(168, 5))),
}


@pytest.mark.parametrize("name", LAST)
def test_channels_last(name: str, tmp_path: Path) -> None:
    """As tf2onnx writes networks of Keras."""
    shape, make = LAST[name]
    g = OnnxGraph(("N", *shape))
    path = g.save(tmp_path / "m.onnx", make(g))
    loaded, images = load_model(str(path)), torch.rand(3, *shape)
    first = images.movedim(-1, 1)
    assert loaded.notes[0] == "input 'x' takes images with their channels first, which the file has last"
    assert loaded.input_shape == (tuple(first.shape[1:]) if len(shape) == 3 else (3, 1, 20))
    found = load_onnx(path)
    given = tuple(first.shape[1:])
    made = execute(capture(found.module, given), first.reshape(3, *loaded.input_shape).double())
    np.testing.assert_allclose(made.flatten(1), run(path, images)[0].reshape(3, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [
    lambda g: g("Conv", g("Transpose", "x", perm=[0, 2, 3, 1]), g.weights(4, 8, 3, 3)),
    lambda g: g("Concat", g("Transpose", "x", perm=[0, 3, 1, 2]), g("Reshape", "x", integers(-1, 3, 9, 8)), axis=1)])
def test_other_orders_are_refused(make: Callable[[OnnxGraph], str], tmp_path: Path) -> None:
    g = OnnxGraph(("N", 9, 8, 3))
    path = g.save(tmp_path / "m.onnx", make(g))
    with pytest.raises(UnsupportedError, match=r"changes the order of \(N, 9, 8, 3\)|makes \(N, 3, 9, 8\) of"):
        load_onnx(path)
