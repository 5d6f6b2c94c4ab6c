"""Modules made of ONNX files compute what ONNX Runtime computes, and their graphs what the modules compute."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.sim import golden, interpreter
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.compress.measure import roomy
from shiftwright.sw.compress.ptq import PTQ
from shiftwright.sw.data import Dataset
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.graph import FloatResidual
from shiftwright.sw.frontend.onnx_lower import OnnxModel, load_onnx
from shiftwright.sw.frontend.onnx_operators import BY_OP, HOST, OPERATORS, OPSET, markdown
from tests.graphs import OnnxGraph, execute

onnx = pytest.importorskip("onnx")

SEED = 7
Make = Callable[[OnnxGraph], str]


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def conv(g: OnnxGraph, x: str = "x", inputs: int = 3, outputs: int = 4, kernel: tuple[int, int] = (3, 3),
         **attributes: Any) -> str:
    """A convolution with bias."""
    return g("Conv", x, g.weights(outputs, inputs, *kernel), g.weights(outputs), **attributes)


def same(g: OnnxGraph, x: str = "x", inputs: int = 3, outputs: int = 4, **attributes: Any) -> str:
    """A convolution that keeps the map's size."""
    return conv(g, x, inputs, outputs, pads=[1, 1, 1, 1], **attributes)


def relu(g: OnnxGraph, **attributes: Any) -> str:
    return g("Relu", conv(g, **attributes))


def normalized(g: OnnxGraph, x: str, channels: int = 4, **attributes: Any) -> str:
    return g("BatchNormalization", x, g.weights(channels), g.weights(channels), g.weights(channels),
             g.weights(channels) ** 2 + np.float32(0.1), **attributes)


def two(function: Callable[[OnnxGraph, str, str], str]) -> Make:
    """What is made of a clamped convolution, and one behind it, both (4, 9, 8)."""
    def make(g: OnnxGraph) -> str:
        a = g("Relu", same(g))
        return function(g, a, same(g, a, 4))

    return make


def flattened(g: OnnxGraph, how: Callable[[OnnxGraph, str], str]) -> str:
    """A matrix product of a convolution (4, 7, 6) that is flattened."""
    return g("Gemm", how(g, relu(g)), g.weights(5, 168), g.weights(5), transB=1)


def flattened_by_shape(g: OnnxGraph, x: str) -> str:
    """As PyTorch exports ``x.view(x.size(0), -1)``."""
    size = g("Gather", g("Shape", x), g("Constant", value=onnx.numpy_helper.from_array(np.array(0))), axis=0)
    return g("Reshape", x, g("Concat", g("Unsqueeze", size, integers(0)), integers(-1), axis=0))


def pool(op: str, shape: tuple[int, int] = (3, 3), **attributes: Any) -> Make:
    return lambda g: g(op, relu(g), kernel_shape=list(shape), **attributes)


def keras(g: OnnxGraph) -> str:
    """As tf2onnx writes a network that was made for channels last, with --inputs-as-nchw."""
    x = g("Add", g("Conv", "x", g.weights(4, 3, 3, 3), auto_pad="SAME_UPPER"), g.weights(1, 4, 1, 1))
    x = g("MaxPool", g("Relu", x), kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID")
    x = g("Reshape", g("Transpose", x, perm=[0, 2, 3, 1]), integers(-1, 64))
    return g("Add", g("MatMul", x, g.weights(64, 5)), g.weights(5))


def quantized(g: OnnxGraph) -> str:
    """Weights on a grid, as QCDQ exporters write them."""
    weight = np.asarray(g.rng.integers(-128, 128, (4, 3, 3, 3)), np.int8)
    scale = np.array([0.5, 0.25, 0.125, 2.0**-7], np.float32)
    values = g("DequantizeLinear", weight, scale, np.zeros(4, np.int8), axis=0)
    bias = g("DequantizeLinear", np.array([1, -2, 3, 4], np.int32), number(2.0**-10))
    return g("Conv", "x", values, bias)


def quantized_here(g: OnnxGraph) -> str:
    """Float weights that the graph itself puts on a grid."""
    scale, zero = number(0.125), np.array(3, np.int8)
    return g("Conv", "x", g("DequantizeLinear", g("QuantizeLinear", g.weights(4, 3, 3, 3), scale, zero), scale, zero))


SUPPORTED: dict[str, Make] = {
    "conv": lambda g: conv(g, kernel=(3, 2), strides=[2, 1], pads=[1, 2, 1, 2], dilations=[1, 2]),
    "conv_asymmetric": lambda g: conv(g, pads=[0, 1, 2, 0]),
    "conv_valid": lambda g: conv(g, auto_pad="VALID", strides=[2, 2]),
    "conv_same_upper": lambda g: conv(g, kernel=(3, 4), auto_pad="SAME_UPPER", strides=[2, 1]),
    "conv_same_lower": lambda g: conv(g, kernel=(2, 3), auto_pad="SAME_LOWER", strides=[2, 3], dilations=[1, 1]),
    "conv_group": lambda g: g("Conv", conv(g, outputs=6), g.weights(4, 3, 1, 5), group=2, pads=[0, 2, 0, 2]),
    "conv_depthwise": lambda g: conv(g, inputs=1, outputs=3, group=3, kernel_shape=[3, 3]),
    "conv_bias_added": lambda g: g("Add", g("Conv", "x", g.weights(4, 3, 2, 2)), g.weights(1, 4, 1, 1)),
    "conv_bias_subtracted": lambda g: g("Sub", g("Conv", "x", g.weights(4, 3, 2, 2)), g.weights(4, 1, 1)),
    "gemm": lambda g: g("Gemm", g("Flatten", "x"), g.weights(5, 216), g.weights(5), transB=1, alpha=0.5, beta=-2.0),
    "gemm_plain": lambda g: g("Gemm", g("Flatten", "x"), g.weights(216, 5)),
    "gemm_scalar": lambda g: g("Gemm", g("Flatten", "x"), g.weights(216, 5), number(0.3)),
    "gemm_row": lambda g: g("Gemm", g("Flatten", "x"), g.weights(216, 5), g.weights(1, 5)),
    "matmul": lambda g: g("MatMul", g("Flatten", "x"), g.weights(216, 5)),
    "matmul_add": lambda g: g("Add", g.weights(5), g("MatMul", g("Flatten", "x"), g.weights(216, 5))),
    "batch_norm": lambda g: normalized(g, conv(g), epsilon=0.01, momentum=0.5),
    "batch_norm_first": lambda g: conv(g, normalized(g, "x", 3)),
    "batch_norm_folded": lambda g: g("Relu", g("Conv", "x", g.weights(4, 3, 3, 3) * np.array(
        [0.01, 1, 30, 0], np.float32)[:, None, None, None], g.weights(4))),
    "batch_norm_folded_add": lambda g: g("Add", g("Gemm", g("Flatten", "x"), g.weights(216, 4) * np.array(
        [0.01, 1, 30, 0], np.float32)), g.weights(4)),
    "clip": lambda g: g("Clip", conv(g), number(-0.5), number(0.25)),
    "clip_low": lambda g: g("Clip", conv(g), number(0)),
    "clip_high": lambda g: g("Clip", conv(g), "", number(0.25)),
    "clip_nothing": lambda g: conv(g, g("Clip", "x", number(-np.inf))),
    "max_pool": pool("MaxPool", (3, 2), strides=[2, 1], pads=[1, 0, 1, 0], dilations=[2, 1]),
    "max_pool_default": pool("MaxPool", (2, 2)),
    "max_pool_nothing": pool("MaxPool", (1, 1)),
    "average_pool_nothing": pool("AveragePool", (1, 1), strides=[1, 1], pads=[0, 0, 0, 0]),
    "max_pool_ceil": pool("MaxPool", (2, 2), strides=[2, 2], ceil_mode=1),
    "max_pool_ceil_left_out": pool("MaxPool", (2, 2), strides=[3, 3], pads=[0, 0, 1, 1], ceil_mode=1),
    "max_pool_padded": lambda g: g("MaxPool", g("Pad", conv(g), integers(0, 0, 1, 0, 0, 0, 0, 2), number(-np.inf)),
                                   kernel_shape=[3, 3]),
    "max_pool_asymmetric": pool("MaxPool", (3, 3), strides=[2, 1], pads=[0, 1, 1, 2]),
    "max_pool_same_upper": pool("MaxPool", (2, 2), auto_pad="SAME_UPPER"),
    "max_pool_same_strided": pool("MaxPool", (3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    "max_pool_same_lower": pool("MaxPool", (2, 3), strides=[1, 2], auto_pad="SAME_LOWER"),
    "max_pool_valid": pool("MaxPool", (2, 2), strides=[2, 2], auto_pad="VALID", storage_order=0),
    "max_pool_wide": pool("MaxPool", (3, 3), pads=[2, 2, 0, 2], strides=[2, 2]),
    "max_pool_of_signed": lambda g: g("MaxPool", conv(g), kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
    "average_pool": pool("AveragePool", (2, 3), strides=[2, 1]),
    "average_pool_pads": pool("AveragePool", (3, 3), pads=[1, 1, 1, 1], count_include_pad=1, strides=[2, 2]),
    "average_pool_asymmetric": pool("AveragePool", (3, 3), pads=[0, 1, 1, 0], count_include_pad=1),
    "average_pool_unreached": pool("AveragePool", (3, 2), pads=[0, 0, 1, 0], strides=[2, 2]),
    "average_pool_ceil": pool("AveragePool", (3, 2), strides=[2, 2], ceil_mode=1),
    "average_pool_same": pool("AveragePool", (3, 3), auto_pad="SAME_LOWER", count_include_pad=1),
    "global_average": lambda g: g("GlobalAveragePool", relu(g)),
    "global_max": lambda g: g("GlobalMaxPool", conv(g)),
    "mean": lambda g: g("Gemm", g("ReduceMean", relu(g), axes=[-1, 2], keepdims=0), g.weights(4, 2)),
    "mean_keepdims": lambda g: conv(g, g("ReduceMean", relu(g), axes=[2, 3]), 4, 2, (1, 1)),
    "mean_of_nothing": lambda g: g("Relu", conv(g, g("ReduceMean", "x", integers(), noop_with_empty_axes=1))),
    "leaky": lambda g: g("LeakyRelu", conv(g), alpha=0.125),
    "add": two(lambda g, a, b: g("Relu", g("Add", b, a))),
    "add_of_two_convolutions": two(lambda g, a, b: g("Add", g("Conv", a, g.weights(4, 4, 1, 1)), b)),
    "sub": two(lambda g, a, b: g("Sub", a, b)),
    "sum": two(lambda g, a, b: g("Sum", a, b)),
    "sum_of_four": two(lambda g, a, b: g("Sum", number(0.5), a, b, g("Sum", a))),
    "constants": two(lambda g, a, b: g("Mul", number(2), g("Add", g("Div", g("Sub", b, number(0.5)), g.weights(
        4, 1, 1)), g.weights(1, 4, 1, 1)))),
    "constant_minus": two(lambda g, a, b: g("Sub", number(1), g("Sub", g.weights(4, 1, 1), b))),
    "constants_of_vectors": lambda g: g("Mul", g("Flatten", g("GlobalAveragePool", relu(g))), g.weights(4)),
    "image_over_255": lambda g: conv(g, g("Div", g("Mul", "x", number(256)), np.array([255], np.float32))),
    "concat": two(lambda g, a, b: g("MaxPool", g("Concat", a, b, axis=1), kernel_shape=[2, 2])),
    "concat_negative": two(lambda g, a, b: conv(g, g("Concat", b, a, axis=-3), 8)),
    "concat_one": two(lambda g, a, b: g("Concat", b, axis=1)),
    "pad": lambda g: conv(g, g("Pad", "x", integers(0, 0, 1, 2, 0, 0, 3, 0))),
    "pad_value": lambda g: conv(g, g("Pad", "x", integers(0, 0, 1, 1, 0, 0, 1, 1), number(0), mode="constant")),
    "pad_pool": lambda g: g("AveragePool", g("Pad", relu(g), integers(0, 0, 1, 1, 0, 0, 0, 0)), kernel_shape=[2, 2]),
    "pad_nothing": lambda g: conv(g, g("Pad", "x", integers(0, 0, 0, 0, 0, 0, 0, 0))),
    "shortcut": two(lambda g, a, b: g("Relu", g("Add", conv(g, g("Relu", b), 4, 8, (1, 1), strides=[2, 2]), g(
        "Pad", g("Slice", a, integers(0, 0), integers(9, 2**31 - 1), integers(2, -1), integers(2, 2)),
        integers(0, 2, 0, 0, 0, 2, 0, 0))))),
    "slice_nothing": lambda g: conv(g, g("Slice", "x", integers(0), integers(3), integers(1))),
    "flatten": lambda g: flattened(g, lambda g, x: g("Flatten", x)),
    "flatten_negative": lambda g: flattened(g, lambda g, x: g("Flatten", x, axis=-3)),
    "reshape": lambda g: flattened(g, lambda g, x: g("Reshape", x, integers(-1, 168))),
    "reshape_zero": lambda g: flattened(g, lambda g, x: g("Reshape", x, integers(0, -1))),
    "reshape_by_shape": lambda g: flattened(g, flattened_by_shape),
    "reshape_twice": lambda g: flattened(g, lambda g, x: g("Reshape", g("Reshape", x, integers(0, 4, -1)),
                                                           integers(0, -1))),
    "reshape_and_back": lambda g: conv(g, g("Reshape", g("Flatten", relu(g)), integers(0, 4, 7, 6)), 4),
    "flatten_last": lambda g: g("Flatten", conv(g)),
    "transposed_flatten": lambda g: flattened(g, lambda g, x: g("Flatten", g("Transpose", x, perm=[0, 2, 3, 1]))),
    "transposed_and_back": lambda g: conv(g, g("Transpose", g("Transpose", relu(g), perm=[0, 2, 3, 1]),
                                               perm=[0, 3, 1, 2]), 4),
    "transposed_point": lambda g: g("MatMul", g("Reshape", g("Transpose", g("GlobalAveragePool", relu(g)), perm=[
        0, 3, 2, 1]), integers(-1, 4)), g.weights(4, 3)),
    "squeeze": lambda g: g("MatMul", g("Squeeze", g("GlobalAveragePool", relu(g)), integers(2, 3)), g.weights(4, 3)),
    "squeeze_unsqueeze": lambda g: conv(g, g("Unsqueeze", g("Squeeze", g("GlobalMaxPool", relu(g)), integers(-1, -2)),
                                             integers(2, 3)), 4, 2, (1, 1)),
    "identity_dropout": lambda g: g("Identity", g("Dropout", g("Identity", relu(g)), number(0.5), np.array(False))),
    "cast": lambda g: g("Cast", relu(g), to=1),
    "unused_outputs": lambda g: g("Dropout", g("MaxPool", relu(g), kernel_shape=[2, 2], outputs=2), outputs=2),
    "shared_weights": lambda g: (lambda w: g("Conv", g("Relu", g("Conv", "x", w)), "c0"))(g.weights(3, 3, 3, 3)),
    "dead_node": lambda g: (conv(g), g("Sin", "x"), conv(g))[2],
    "constant_arithmetic": lambda g: g("Conv", "x", g("Mul", g("Constant", value_floats=[0.5]), g.weights(4, 3, 2, 2))),
    "keras": keras,
    "quantized_weights": quantized,
    "quantized_here": quantized_here,
}
OPSETS = {"mean_of_nothing": 18}


def made(name: str, path: Path) -> OnnxModel:
    """A supported network; the file is left at `path`."""
    graph = OnnxGraph(opset=OPSETS.get(name, 17))
    graph.save(path, SUPPORTED[name](graph))
    return load_onnx(path)


def judged(path: Path, images: torch.Tensor) -> np.ndarray:
    """What ONNX Runtime makes of images."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    result: np.ndarray = runtime.InferenceSession(path, options).run(None, {"x": images.numpy()})[0]
    return result


def some_images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(SEED))


@pytest.mark.parametrize("name", SUPPORTED)
def test_as_onnx_runtime_computes(name: str, tmp_path: Path, one_thread: None) -> None:
    module = made(name, tmp_path / "made.onnx").module
    images = some_images(3, 3, 9, 8)
    expected = judged(tmp_path / "made.onnx", images)
    found = module(images).detach().numpy()
    assert found.shape == expected.shape and np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)
    exact = module.double()
    values = execute(capture(exact, (3, 9, 8)), images.double())
    np.testing.assert_allclose(values.reshape(expected.shape), exact(images.double()).detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("opset", [OPSET, 22])
def test_other_opsets(opset: int, tmp_path: Path, one_thread: None) -> None:
    """Attributes came and went; a file of another opset is the same network."""
    images = some_images(2, 3, 9, 8)
    for name in SUPPORTED:
        if name in OPSETS or name.startswith("mean") and opset > 17:
            continue
        graph = OnnxGraph(opset=opset)
        graph.save(tmp_path / "m.onnx", SUPPORTED[name](graph))
        found = load_onnx(tmp_path / "m.onnx").module(images)
        assert torch.equal(found, made(name, tmp_path / "m.onnx").module(images)), name


def test_modules_are_named_like_nodes(tmp_path: Path, one_thread: None) -> None:
    g = OnnxGraph((5, 3, 9, 8))
    x = g("Relu", same(g, name="/layer1/conv.0/Conv"), name="")
    x = g("Relu", g("Add", same(g, x, 4, name="b"), x, name="forward"), name="b")
    g.save(tmp_path / "m.onnx", g("Gemm", g("Reshape", x, integers(5, -1)), g.weights(288, 2), name="fc"))
    found = load_onnx(tmp_path / "m.onnx")
    assert [name for name, _ in found.module.named_children()] == [
        "layer1_conv_0_Conv", "t1", "b", "forward_2", "b_2", "Reshape5", "fc"]
    assert found.file.inputs == {"x": (3, 9, 8)} and found.file.batch == 5 and found.notes == ()
    graph = capture(found.module, (3, 9, 8))
    assert [layer.name for layer in graph.layers] == ["layer1_conv_0_Conv", "b", "fc"]
    assert graph.layers[1].residuals == (FloatResidual(source="layer1_conv_0_Conv"),)
    assert graph.parameters == 112 + 148 + 576


def test_a_weight_that_two_nodes_read_counts_once(tmp_path: Path, one_thread: None) -> None:
    assert capture(made("shared_weights", tmp_path / "m.onnx").module, (3, 9, 8)).parameters == 81


def test_channels_of_a_folded_batch_norm(tmp_path: Path, one_thread: None) -> None:
    layers = {name: capture(made(name, tmp_path / "m.onnx").module, (3, 9, 8)).layers[0]
              for name in ("batch_norm_folded", "batch_norm_folded_add", "batch_norm", "conv")}
    assert [layer.normalized for layer in layers.values()] == [True, True, True, False]
    model = onnx.load(tmp_path / "m.onnx")
    np.testing.assert_array_equal(layers["conv"].weight, onnx.numpy_helper.to_array(model.graph.initializer[0]))
    made("batch_norm_folded", tmp_path / "m.onnx")
    weight = onnx.numpy_helper.to_array(onnx.load(tmp_path / "m.onnx").graph.initializer[0])
    np.testing.assert_array_equal(layers["batch_norm_folded"].weight, weight)  # bit for bit


@pytest.mark.parametrize(("op", "attributes"), [("Softmax", {}), ("LogSoftmax", {"axis": 1}), ("ArgMax", {"axis": 1}),
                                                ("Sigmoid", {})])
def test_the_end_is_left_to_the_host(op: str, attributes: dict[str, Any], tmp_path: Path, one_thread: None) -> None:
    g = OnnxGraph()
    scores = g("Gemm", g("Flatten", "x"), g.weights(216, 5))
    if op == "ArgMax":
        g.output_type = onnx.TensorProto.INT64
    g.save(tmp_path / "m.onnx", g("Identity", g(op, scores, name="end", **attributes)))
    found = load_onnx(tmp_path / "m.onnx")
    assert found.notes == (f"end ({op}) is left to the host: the class with the highest score is the same without it",)
    expected = judged(tmp_path / "m.onnx", some_images(9, 3, 9, 8))
    classes = expected.ravel() if op == "ArgMax" else expected.argmax(1)
    assert found.module(some_images(9, 3, 9, 8)).argmax(1).tolist() == classes.tolist()


@pytest.mark.parametrize(("attributes", "bits", "expected"), [
    ({"signed": 1, "narrow": 0}, 3, [-2, -1.5, 0, 0.5, 1.5]),
    ({"signed": 1, "narrow": 1}, 4, [-3.5, -1.5, 0, 0.5, 3.5]),
    ({"signed": 0, "narrow": 0}, 2, [0, 0, 0, 0.5, 1.5]), ({"signed": 0, "narrow": 1}, 2, [0, 0, 0, 0.5, 1]),
    ({"signed": 1, "narrow": 0, "rounding_mode": "FLOOR"}, 8, [-10, -1.5, 0, 0.5, 10]),
    ({"signed": 1, "narrow": 0, "rounding_mode": "CEIL"}, 8, [-10, -1, 0.5, 1, 10])])
def test_qonnx_weights(attributes: dict[str, Any], bits: int, expected: list[float], tmp_path: Path,
                       one_thread: None) -> None:
    g = OnnxGraph(("N", 5, 1, 1))
    values = np.array([-10, -1.3, 0.1, 0.6, 10], np.float32).reshape(1, 5, 1, 1)
    weight = g("Quant", values, number(0.5), number(0), number(bits), domain="qonnx.custom_op.general", **attributes)
    g.save(tmp_path / "m.onnx", g("Conv", "x", weight))
    assert load_onnx(tmp_path / "m.onnx").module.Conv1.weight.flatten().tolist() == expected


def test_bipolar_weights(tmp_path: Path, one_thread: None) -> None:
    g = OnnxGraph(("N", 2, 1, 1))
    weight = g("BipolarQuant", np.array([-0.1, 7], np.float32).reshape(1, 2, 1, 1), number(0.25),
               domain="qonnx.custom_op.general")
    g.save(tmp_path / "m.onnx", g("Conv", "x", weight))
    assert load_onnx(tmp_path / "m.onnx").module.Conv1.weight.flatten().tolist() == [-0.25, 0.25]


def test_the_same_integers_as_from_pytorch(tmp_path: Path, one_thread: None) -> None:
    torch.manual_seed(SEED)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10))
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    g = OnnxGraph(("N", 1, 8, 8))
    x = g("Conv", "x", state["0.weight"], state["0.bias"], pads=[1, 1, 1, 1])
    x = g("MaxPool", g("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    g.save(tmp_path / "m.onnx", g("Gemm", g("Flatten", x), state["4.weight"], state["4.bias"], transB=1))
    pixels = np.random.default_rng(SEED).integers(256, size=(20, 1, 8, 8), dtype=np.uint8)
    data = Dataset(pixels, np.arange(20) % 10, "random", "train", tuple("0123456789"))
    recipe = BQNet(epochs=1, calibration_images=20)
    networks = [compress(model, recipe, data, seed=SEED) for model in (net, load_onnx(tmp_path / "m.onnx").module)]
    first, second = (golden.run(network, pixels.astype(np.int64)) for network in networks)
    np.testing.assert_array_equal(first, second)
    assert networks[0].parameters == networks[1].parameters
    assert [layer.name for layer in networks[1].layers] == ["Conv0", "MaxPool2", "Gemm4"]


@pytest.mark.parametrize("name", ["max_pool_same_upper", "max_pool_wide", "max_pool_same_lower", "pad_pool",
                                  "average_pool_asymmetric", "conv_asymmetric", "shortcut", "sub", "keras",
                                  "batch_norm_folded", "image_over_255"])
def test_down_to_the_image(name: str, tmp_path: Path, one_thread: None) -> None:
    """The golden model is near the file's floats, and the compiled image is the golden model."""
    module = made(name, tmp_path / "m.onnx").module
    pixels = np.random.default_rng(SEED).integers(256, size=(20, 3, 9, 8), dtype=np.uint8)
    floats = module(torch.tensor(pixels).float() / 256).detach().flatten(1).numpy()
    data = Dataset(pixels, np.zeros(20, np.int64), "random", "train", ("0", "1"))
    recipe = PTQ(slope=1e-5, terms=3)
    network = compress(module, recipe, data, seed=SEED)
    values = golden.run(network, pixels.astype(np.int64))
    found = values.reshape(20, -1) * 2.0**network.layers[-1].target.exponent
    assert np.corrcoef(found.ravel(), floats.ravel())[0, 1] > 0.999
    program = interpreter.read_image(compile_detailed(network, roomy(recipe)).image.to_bytes())
    np.testing.assert_array_equal(interpreter.run(program, pixels.astype(np.int64)).final, values)


def test_the_table_names_every_attribute() -> None:
    """An attribute that the table does not know would be refused when used, or worse, missed."""
    for op in (*BY_OP, *HOST):
        rules = HOST[op] if op in HOST else BY_OP[op].attributes
        for opset in range(OPSET, onnx.defs.onnx_opset_version() + 1):
            assert set(onnx.defs.get_schema(op, opset, "").attributes) <= {rule.name for rule in rules}, (op, opset)


def test_the_table_as_documentation() -> None:
    text = markdown()
    assert text.count("\n") == len(OPERATORS) + 3
    assert "`transA`: 0" in text
