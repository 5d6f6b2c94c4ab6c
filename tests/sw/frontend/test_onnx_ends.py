"""ONNX files with several inputs, which become one image's channels, and several outputs, which become one output's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shiftwright.hw.arch.errors import UnsupportedError
from shiftwright.sim import golden
from shiftwright.sw.data import load
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.graph import Output
from shiftwright.sw.frontend.images import OnImages
from shiftwright.sw.frontend.load import load_model
from shiftwright.sw.frontend.onnx_lower import load_onnx
from shiftwright.sw.network import QuantizedNetwork
from tests.conftest import Outcome
from tests.graphs import OnnxGraph, execute
from tests.sw.frontend.ends import all_the_way, images
from tests.sw.frontend.onnx_runtime import exported, judged, run
from tests.sw.frontend.test_ends import Ended

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.usefixtures("one_thread")

Make = Callable[[OnnxGraph], tuple[str, ...]]
INPUTS = {"x": (2, 6, 7), "y": (1, 6, 7), "z": (3, 6, 7)}


def graph_of(shapes: dict[str, tuple[int, ...]]) -> OnnxGraph:
    g = OnnxGraph()
    g.inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("N", *shape))
                for name, shape in shapes.items()]
    return g


def conv(g: OnnxGraph, x: str, inputs: int, outputs: int = 4, **attributes: Any) -> str:
    return g("Conv", x, g.weights(outputs, inputs, 3, 3), g.weights(outputs), **attributes)


def linear(g: OnnxGraph, x: str, inputs: int, outputs: int) -> str:
    return g("Gemm", x, g.weights(inputs, outputs), g.weights(outputs))


def body(g: OnnxGraph) -> str:
    """Makes (4, 4, 5) of x."""
    return g("Relu", conv(g, "x", 2))


def heads(g: OnnxGraph) -> tuple[str, ...]:
    features = g("Flatten", body(g))
    return linear(g, features, 80, 5), linear(g, features, 80, 2)


SUPPORTED: dict[str, tuple[tuple[str, ...], Make]] = {
    "convolutions": (("x", "y", "z"), lambda g: (g("Sum", conv(g, "z", 3), g("Relu", conv(g, "y", 1)), conv(
        g, "x", 2)),)),
    "groups": (("x", "z"), lambda g: (g("Concat", g("Relu", conv(g, "z", 1, 6, group=3)), conv(g, "x", 2), axis=1),)),
    "all": (("x", "y", "z"), lambda g: (conv(g, g("Concat", "x", "y", "z", axis=1), 6),)),
    "all_and_one": (("x", "y"), lambda g: (g("Add", conv(g, g("Concat", "x", "y", axis=1), 3), conv(g, "y", 1)),)),
    "vectors": (("x", "y"), lambda g: (g("Add", linear(g, g("Flatten", "x"), 84, 4), linear(
        g, g("Reshape", "y", np.array([0, -1])), 42, 4)),)),
    "padded": (("y", "x"), lambda g: (g("Relu", conv(g, g("Pad", "x", np.array([0, 0, 1, 2, 0, 0, 0, 1])), 2)),)),
    "transposed": (("x", "y"), lambda g: (linear(g, g("Flatten", g("Transpose", "y", perm=[0, 2, 3, 1])), 42, 3),)),
    "heads": (("x",), heads),
    "maps": (("x",), lambda g: (g("Clip", body(g), "", np.array(0.5, np.float32)), conv(
        g, body(g), 4, 3, pads=[1, 1, 1, 1]))),
    "on_the_way": (("x",), lambda g: (lambda a: (a, g("Add", conv(g, a, 4, pads=[1, 1, 1, 1]), a)))(body(g))),
    "bias_of_an_output": (("x",), lambda g: (lambda a: (a, g("Add", a, g.weights(4, 1, 1))))(g(
        "Conv", "x", g.weights(4, 2, 3, 3)))),
    "views": (("x",), lambda g: (lambda a: (g("Flatten", a), g("Reshape", a, np.array([0, -1])), linear(
        g, g("Squeeze", a, np.array([2, 3])), 4, 3)))(g("GlobalAveragePool", body(g)))),
    "both": (("y", "x"), lambda g: (conv(g, "x", 2, 3), conv(g, "y", 1, 2))),
    "signals": (("s", "t"), lambda g: (g("Relu", g("Conv", "t", g.weights(3, 2, 4), g.weights(3))), g(
        "Conv", "s", g.weights(2, 1, 4), g.weights(2)))),
}
SIGNALS = {"s": (1, 24), "t": (2, 24)}


@pytest.mark.parametrize("name", SUPPORTED)
def test_as_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    names, make = SUPPORTED[name]
    shapes = {each: (INPUTS | SIGNALS)[each] for each in names}
    g = graph_of(shapes)
    outputs = make(g)
    g.save(tmp_path / "m.onnx", *outputs)
    found = load_onnx(tmp_path / "m.onnx")
    graph = judged(tmp_path / "m.onnx", found)
    assert found.file.inputs == shapes and found.file.outputs == outputs and found.notes == ()
    assert graph.inputs == (tuple(shapes.values()) if len(shapes) > 1 else ())
    assert [output.name for output in graph.outputs] == (list(outputs) if len(outputs) > 1 else [])


def test_outputs_in_the_order_of_the_file(tmp_path: Path) -> None:
    g = graph_of({"x": (2, 6, 7)})
    first, second = heads(g)
    g.save(tmp_path / "m.onnx", second, first)
    graph = judged(tmp_path / "m.onnx", load_onnx(tmp_path / "m.onnx"))
    assert graph.outputs == (Output(name=second, start=0, stop=2), Output(name=first, start=2, stop=7))
    assert [layer.name for layer in graph.layers] == ["Conv0", "Gemm4+Gemm3"]


def test_an_output_that_comes_twice(tmp_path: Path) -> None:
    """PyTorch's older exporter writes it so."""
    g = graph_of({"x": (2, 6, 7)})
    scores = linear(g, g("Flatten", body(g)), 80, 3)
    g.save(tmp_path / "m.onnx", scores, scores)
    graph = judged(tmp_path / "m.onnx", load_onnx(tmp_path / "m.onnx"))
    assert [output.name for output in graph.outputs] == [scores, f"{scores}@2"]


def test_ends_are_left_to_the_host(tmp_path: Path) -> None:
    """Scores and their softmax, and one that two outputs share."""
    g = graph_of({"x": (2, 6, 7)})
    first, second = heads(g)
    soft = g("Softmax", first, name="soft")
    outputs = first, soft, g("Identity", soft), g("LogSoftmax", second, name="log")
    g.save(tmp_path / "m.onnx", *outputs)
    found = load_onnx(tmp_path / "m.onnx")
    assert found.notes == tuple(f"{end} is left to the host: the class with the highest score is the same without it"
                                for end in ("soft (Softmax)", "log (LogSoftmax)"))
    x = torch.rand(9, 2, 6, 7, generator=torch.Generator().manual_seed(1))
    made = found.module(x)
    assert list(made) == list(outputs)
    for result, values in zip(run(tmp_path / "m.onnx", x), made.values(), strict=True):
        assert values.argmax(1).tolist() == result.argmax(1).tolist()
    graph = capture(found.module, (2, 6, 7))
    assert [(output.name, output.start, output.stop) for output in graph.outputs] == [
        (outputs[0], 0, 5), (outputs[1], 5, 10), (outputs[2], 10, 15), (outputs[3], 15, 17)]


class TwoToTwo(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 3), nn.Conv2d(1, 4, 3), nn.Linear(80, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        features = (self.norm(self.a(x)) + self.b(y)).relu()
        return self.c(features.flatten(1)), features.mean((2, 3))


def test_as_pytorch_writes_it(tmp_path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    exported(TwoToTwo().eval(), tmp_path / "m.onnx", "script", (2, 6, 7), (1, 6, 7))
    judged(tmp_path / "m.onnx", load_onnx(tmp_path / "m.onnx"))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_random_networks_with_several_outputs(tmp_path: Path, seed: int) -> None:
    """Their first output is a softmax of what the graph has."""
    judged_ones = 0
    for number in range(1000 * seed, 1000 * seed + 12):
        model = Ended(number).eval()
        exported(model, tmp_path / "m.onnx", "script", model.shape)
        x = torch.rand(2, *model.shape)
        try:
            graph = capture(load_onnx(tmp_path / "m.onnx").module, model.shape)
            expected = run(tmp_path / "m.onnx", x)
        except UnsupportedError:
            continue
        except Exception as error:
            assert "Dilation not supported for AutoPadType" in str(error), (number, error)
            continue
        values, judged_ones = execute(graph, x.double()), judged_ones + 1
        values = values.reshape(2, sum(result.shape[1] for result in expected), -1)
        parts = values.split([result.shape[1] for result in expected], 1)
        for part, result in zip([parts[0].softmax(1), *parts[1:]], expected, strict=True):
            limit = 1e-4 * max(1, float(np.abs(result).max()))
            np.testing.assert_allclose(part.reshape(result.shape), result, rtol=0, atol=limit, err_msg=str(number))
    assert judged_ones >= 4


@pytest.mark.parametrize(("name", "recipe"), [("all_and_one", "ptq"), ("both", "bqnet"), ("heads", "bqnet"),
                                              ("views", "ptq")])
def test_all_the_way(name: str, recipe: str, tmp_path: Path, seed: int) -> None:
    names, make = SUPPORTED[name]
    g = graph_of({each: INPUTS[each] for each in names})
    outputs = make(g)
    g.save(tmp_path / "m.onnx", *outputs)
    loaded = load_model(str(tmp_path / "m.onnx"))
    assert isinstance(loaded.model, OnImages) and loaded.input_shape is not None
    assert loaded.outputs == (outputs if len(outputs) > 1 else ())
    network = all_the_way(loaded.model, loaded.input_shape, images(loaded.input_shape), seed, recipe=recipe)
    assert [output["name"] for output in network.metadata.get("outputs", [])] == list(loaded.outputs)


def test_fixed_to_one_image(tmp_path: Path) -> None:
    """One input says how many images there are."""
    g = graph_of({"x": (2, 6, 7), "y": (1, 6, 7)})
    g.inputs[1].type.tensor_type.shape.dim[0].dim_value = 3
    g.save(tmp_path / "m.onnx", linear(g, g("Reshape", conv(g, "x", 2), np.array([3, -1])), 80, 2))
    found = load_onnx(tmp_path / "m.onnx")
    assert found.file.batch == 3
    judged(tmp_path / "m.onnx", found)


REFUSED: dict[str, tuple[Make, str]] = {
    "pooling": (lambda g: (conv(g, g("MaxPool", "x", kernel_shape=[2, 2], name="bad"), 2),), "bad (MaxPool): reads one "
                "of several inputs, which only convolutions, linear layers and a concatenation of all of them in order "
                "can; put a 1 x 1 convolution before it"),
    "another_order": (lambda g: (conv(g, g("Concat", "y", "x", axis=1, name="bad"), 3),), "bad (Concat): reads one of "
                      "several inputs, which only convolutions, linear layers and a concatenation of all of them in "
                      "order can; put a 1 x 1 convolution before it"),
    "returned": (lambda g: (conv(g, "x", 2, pads=[1, 1, 1, 1]), "y"), "the network: reads one of several inputs, which "
                 "only convolutions, linear layers and a concatenation of all of them in order can; put a 1 x 1 "
                 "convolution before it"),
    "sizes": (lambda g: (lambda a: (a, g("GlobalAveragePool", a)))(conv(g, "x", 2)), "the network: returns 't0' of "
              "shape (N, 4, 4, 5) and 't1' of shape (N, 4, 1, 1); all outputs must have one height and width: they "
              "become one tensor's channels"),
    "constant": (lambda g: (conv(g, "x", 2), g("Identity", g.weights(1, 2))), "t1: does not depend on the network's "
                 "input; export the network again"),
    "axis": (lambda g: (conv(g, "x", 2), g("Softmax", conv(g, "y", 1), axis=2, name="bad")), "bad (Softmax): axis=2 is "
             "not supported, only 1, the classes; leave it out"),
    "read_on": (lambda g: (lambda a: (a, conv(g, a, 4)))(g("Softmax", conv(g, "x", 2), axis=1, name="bad")), "bad "
                "(Softmax): operator Softmax is not supported; only the last operator may be one: leave it out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    g = graph_of({"x": (2, 6, 7), "y": (1, 6, 7)})
    g.save(tmp_path / "m.onnx", *make(g))
    with pytest.raises(UnsupportedError) as caught:
        found = load_onnx(tmp_path / "m.onnx")
        capture(found.module, tuple(found.file.inputs.values()))
    assert str(caught.value) == message


def test_the_image_itself_is_an_output(tmp_path: Path) -> None:
    g = graph_of({"x": (2, 6, 7)})
    g.save(tmp_path / "m.onnx", conv(g, "x", 2, pads=[1, 1, 1, 1]), g("Identity", "x"))
    judged(tmp_path / "m.onnx", load_onnx(tmp_path / "m.onnx"))


@pytest.fixture
def two_heads(tmp_path: Path) -> Path:
    g = graph_of({"pixels": (1, 8, 8)})
    features = g("Flatten", "pixels")
    g.save(tmp_path / "m.onnx", g("Softmax", linear(g, features, 64, 10), name="end"), linear(g, features, 64, 3))
    return tmp_path / "m.onnx"


def test_commands(two_heads: Path, tmp_path: Path, shiftwright: Callable[..., Outcome]) -> None:
    said = ["--data", "digits", "--set", "epochs=0", "-o", tmp_path / "m.swc"]
    done = shiftwright("compress", two_heads, *said, "--json")
    assert done.code == 0, done.err
    assert "m.onnx: end (Softmax) is left to the host" in done.err
    assert "m.onnx: its outputs are one tensor's channels: t2 from 0 to 9, t3 from 10 to 12" in done.err
    assert "accuracy" not in done.out
    expected = [{"name": "t2", "channels": [0, 10]}, {"name": "t3", "channels": [10, 13]}]
    network = QuantizedNetwork.load(tmp_path / "m.swc")
    assert network.metadata["outputs"] == expected and len(network.metadata["left_to_host"]) == 1
    digits = load("digits", split="test").images[:50]
    values = golden.run(network, digits.reshape(50, 64, 1, 1).astype(np.int64)).reshape(50, 13)
    for channels, result in zip((slice(0, 10), slice(10, 13)), run(two_heads, torch.tensor(digits) / 256), strict=True):
        assert (values[:, channels].argmax(1) == result.argmax(1)).mean() > 0.7
    shown = json.loads(shiftwright("info", two_heads, "--json").out)
    assert shown["outputs"] == expected and shown["input"] == "pixels: 1x8x8"
    assert shiftwright("info", two_heads).code == 0
    done = shiftwright("compress", two_heads, *said, "--target-size", "500")
    assert done.code == 2 and "has the outputs t2, t3, but a search needs an accuracy" in done.err


def test_info_of_several_inputs(tmp_path: Path, shiftwright: Callable[..., Outcome]) -> None:
    g = graph_of(SIGNALS)
    g.save(tmp_path / "m.onnx", *SUPPORTED["signals"][1](g)[:1])
    done = shiftwright("info", tmp_path / "m.onnx", "--json")
    assert done.code == 0 and json.loads(done.out)["input"] == "s: 1x24, t: 2x24" and '"outputs"' not in done.out
