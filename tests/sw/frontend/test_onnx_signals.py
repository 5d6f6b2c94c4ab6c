"""ONNX files of networks on signals (N, C, L): ONNX Runtime computes what their graphs compute."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.errors import UnsupportedError
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.load import load_model
from shiftwright.sw.frontend.onnx_lower import load_onnx
from tests.graphs import OnnxGraph, execute
from tests.sw.frontend.ends import all_the_way, images
from tests.sw.frontend.onnx_runtime import exported, judged
from tests.sw.frontend.test_signals import small

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (3, 40)
Make = Callable[[OnnxGraph], str]


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def conv(g: OnnxGraph, x: str = "x", inputs: int = 3, outputs: int = 4, kernel: int = 3, **attributes: Any) -> str:
    return g("Conv", x, g.weights(outputs, inputs, kernel), g.weights(outputs), **attributes)


def relu(g: OnnxGraph) -> str:
    """Makes (4, 40)."""
    return g("Relu", conv(g, pads=[1, 1]))


def pool(op: str, kernel: int, **attributes: Any) -> Make:
    return lambda g: g(op, relu(g), kernel_shape=[kernel], **attributes)


def as_a_map(g: OnnxGraph, x: str, channels: int, **attributes: Any) -> str:
    """A convolution as exporters write it that have none of one dimension."""
    x = g("Conv", g("Unsqueeze", x, integers(2)), g.weights(4, channels, 1, 3), g.weights(4), **attributes)
    return g("Squeeze", x, integers(2))


def flattened(how: Callable[[OnnxGraph, str], str]) -> Make:
    return lambda g: g("Gemm", how(g, relu(g)), g.weights(160, 5), g.weights(5))


def shortcut(g: OnnxGraph) -> str:
    a = relu(g)
    b = g("Pad", g("Slice", a, integers(0), integers(40), integers(-1), integers(2)), integers(0, 1, 0, 0, 2, 0))
    return g("Relu", g("Add", conv(g, a, 4, 7, 1, strides=[2]), b))


def normalized(g: OnnxGraph) -> str:
    return g("BatchNormalization", conv(g), g.weights(4), g.weights(4), g.weights(4), g.weights(4) ** 2 + np.float32(1))


SUPPORTED: dict[str, Make] = {
    "conv": lambda g: conv(g, kernel=4, strides=[3], pads=[2, 2], dilations=[2]),
    "conv_asymmetric": lambda g: conv(g, pads=[0, 2]),
    "conv_group": lambda g: g("Conv", conv(g, outputs=6), g.weights(4, 3, 5), group=2, kernel_shape=[5]),
    "conv_same": lambda g: conv(g, kernel=4, auto_pad="SAME_UPPER", strides=[2]),
    "conv_valid": lambda g: conv(g, auto_pad="VALID"),
    "conv_bias_added": lambda g: g("Add", g("Conv", "x", g.weights(4, 3, 2)), g.weights(1, 4, 1)),
    "batch_norm": normalized,
    "batch_norm_folded": lambda g: g("Conv", "x", g.weights(4, 3, 3) * np.array(
        [0.01, 1, 30, 0], np.float32)[:, None, None], g.weights(4)),
    "max_pool": pool("MaxPool", 3, strides=[2], pads=[1, 1], dilations=[2]),
    "max_pool_ceil": pool("MaxPool", 3, strides=[2], ceil_mode=1),
    "max_pool_asymmetric": pool("MaxPool", 3, strides=[2], pads=[0, 2]),
    "max_pool_wide": pool("MaxPool", 3, pads=[2, 2]),
    "max_pool_padded": lambda g: g("MaxPool", g("Pad", conv(g), integers(0, 0, 1, 0, 0, 2), np.array(
        -np.inf, np.float32)), kernel_shape=[3]),
    "max_pool_nothing": pool("MaxPool", 1),
    "average_pool": pool("AveragePool", 4, strides=[3]),
    "average_pool_pads": pool("AveragePool", 3, pads=[1, 1], count_include_pad=1),
    "average_pool_asymmetric": pool("AveragePool", 3, pads=[0, 1], count_include_pad=1),
    "global_average": lambda g: conv(g, g("GlobalAveragePool", relu(g)), 4, 2, 1),
    "global_max": lambda g: g("GlobalMaxPool", conv(g)),
    "mean": lambda g: g("Gemm", g("ReduceMean", relu(g), axes=[-1], keepdims=0), g.weights(4, 2)),
    "mean_keepdims": lambda g: conv(g, g("ReduceMean", relu(g), axes=[2]), 4, 2, 1),
    "mean_as_a_map": lambda g: g("Flatten", g("Squeeze", g("ReduceMean", g("Unsqueeze", relu(g), integers(
        -2)), axes=[-1, -2]), integers(-2))),
    "sub": lambda g: g("Sub", conv(g, relu(g), 4, pads=[1, 1]), g("Clip", conv(g, pads=[1, 1]), np.array(
        -0.5, np.float32), np.array(0.5, np.float32))),
    "constants": lambda g: g("Mul", conv(g, g("Sub", "x", np.array(0.5, np.float32))), g.weights(4, 1)),
    "concat": lambda g: conv(g, g("Concat", relu(g), conv(g, pads=[1, 1]), axis=-2), 8),
    "pad": lambda g: conv(g, g("Pad", "x", integers(0, 0, 3, 0, 0, 1))),
    "shortcut": shortcut,
    "as_a_map": lambda g: as_a_map(g, g("Relu", as_a_map(g, "x", 3, pads=[0, 1, 0, 1], strides=[1, 2])), 4),
    "pool_as_a_map": lambda g: conv(g, g("Reshape", g("MaxPool", g("Reshape", relu(g), integers(0, 4, 1, 40)),
                                                      kernel_shape=[1, 2]), integers(-1, 4, 39)), 4),
    "flatten": flattened(lambda g, x: g("Flatten", x)),
    "reshape": flattened(lambda g, x: g("Reshape", x, integers(0, -1))),
    "transposed_flatten": flattened(lambda g, x: g("Flatten", g("Transpose", x, perm=[0, 2, 1]))),
    "transposed_and_back": lambda g: conv(g, g("Transpose", g("Transpose", relu(g), perm=[0, 2, 1]),
                                               perm=[0, 2, 1]), 4),
    "ends_as_a_map": lambda g: g("Unsqueeze", conv(g), integers(2)),
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_as_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    g = OnnxGraph(("N", *SHAPE))
    g.save(tmp_path / "m.onnx", SUPPORTED[name](g))
    found = load_onnx(tmp_path / "m.onnx")
    assert found.file.inputs == {"x": SHAPE}
    judged(tmp_path / "m.onnx", found)


def test_a_map_that_becomes_a_signal(tmp_path: Path) -> None:
    g = OnnxGraph(("N", 3, 1, 40))
    g.save(tmp_path / "m.onnx", conv(g, g("Squeeze", "x", integers(2))))
    graph = judged(tmp_path / "m.onnx", load_onnx(tmp_path / "m.onnx"))
    assert graph.inputs == () and len(graph.layers) == 1


@pytest.mark.parametrize("exporter", ["script", "export"])
def test_as_pytorch_writes_it(exporter: str, tmp_path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    module = small().eval()
    signals = torch.rand(2, *SHAPE)
    exported(module, tmp_path / "m.onnx", exporter, SHAPE)
    graph = judged(tmp_path / "m.onnx", load_onnx(tmp_path / "m.onnx"))
    assert [(layer.op, layer.kernel) for layer in graph.layers] == [
        ("conv", (1, 5)), ("maxpool", (1, 2)), ("conv", (1, 3)), ("avgpool", (1, 10)), ("conv", (1, 1))]
    with torch.no_grad():
        np.testing.assert_allclose(execute(graph, signals.double()).flatten(1), module(signals), atol=1e-5)


def test_all_the_way(tmp_path: Path, seed: int) -> None:
    g = OnnxGraph(("N", *SHAPE))
    x = g("MaxPool", relu(g), kernel_shape=[2], strides=[2])
    g.save(tmp_path / "m.onnx", g("Softmax", g("Flatten", g("GlobalAveragePool", conv(g, x, 4, 2))), name="end"))
    loaded = load_model(str(tmp_path / "m.onnx"))
    assert loaded.input_shape == (3, 1, 40) and loaded.outputs == ()
    network = all_the_way(loaded.model, (3, 1, 40), images(SHAPE), seed)
    assert network.input.shape == (3, 1, 40) and network.metadata["left_to_host"] == list(loaded.notes)
    assert [layer.name for layer in network.layers][:2] == ["Conv0", "MaxPool2"]


REFUSED: dict[str, tuple[Make, str]] = {
    "kernel": (lambda g: g("Conv", relu(g), g.weights(2, 4, 1, 3), name="bad"),
               "bad (Conv): kernel_shape=[1, 3] does not fit the map of 40; export the network again"),
    "strides": (lambda g: conv(g, strides=[1, 2], name="bad"), "bad (Conv): strides=[1, 2] is not supported, only one "
                "number on its map; export the network again"),
    "pads": (lambda g: conv(g, pads=[1, 1, 1, 1], name="bad"), "bad (Conv): pads=[1, 1, 1, 1] is not supported, only "
             "two numbers that are not negative; cut maps with strides"),
    "too_long": (lambda g: conv(g, kernel=41, name="bad"), "bad (Conv): kernel_shape=[41] is larger than the map of 40 "
                 "with its padding; give images of the size that it was trained with"),
    "mean_of_channels": (lambda g: g("ReduceMean", relu(g), axes=[1], name="bad"), "bad (ReduceMean): axes=[1] of "
                         "(N, 4, 40) is not supported, only the length; use axes [2]"),
    "width_to_height": (lambda g: g("Relu", g("Unsqueeze", relu(g), integers(3), name="bad")), "bad (Unsqueeze): makes "
                        "(N, 4, 40, 1) of (N, 4, 40); only flattening to (N, C*H*W) is supported, and shapes that come "
                        "back"),
    "transpose": (lambda g: conv(g, g("Transpose", relu(g), perm=[0, 2, 1], name="bad"), 40), "bad (Transpose): "
                  "changes the order of (N, 4, 40); only a Gemm or MatMul can read it so, after it is flattened; keep "
                  "the layout N, C, H, W (tf2onnx: --inputs-as-nchw)"),
    "matmul": (lambda g: g("MatMul", relu(g), g.weights(40, 2), name="bad"), "bad (MatMul): input has shape (N, 4, 40);"
               " put Flatten before it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    g = OnnxGraph(("N", *SHAPE))
    g.save(tmp_path / "m.onnx", make(g))
    with pytest.raises(UnsupportedError) as caught:
        capture(load_onnx(tmp_path / "m.onnx").module, SHAPE)
    assert str(caught.value) == message
