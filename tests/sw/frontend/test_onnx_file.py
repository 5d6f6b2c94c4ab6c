"""ONNX files that can't be read as networks are refused with one clear message; commands take those that can."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.errors import ModelError, ToolError
from shiftwright.sim import golden
from shiftwright.sw.data import load
from shiftwright.sw.frontend.load import load_model
from shiftwright.sw.frontend.onnx_lower import load_onnx
from shiftwright.sw.network import QuantizedNetwork
from shiftwright.sw.zoo import network_info
from tests.graphs import OnnxGraph

onnx = pytest.importorskip("onnx")

Change = Callable[[Any], None]


def net() -> Any:
    """A small model."""
    g = OnnxGraph()
    x = g("Relu", g("Conv", "x", g.weights(4, 3, 3, 3), name="first"))
    return g.model(g("Gemm", g("Flatten", x), g.weights(168, 5), name="last"))


def axes(*sizes: int | str) -> Change:
    """Give the input another shape."""
    def change(model: Any) -> None:
        model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, sizes))

    return change


def another_input(*sizes: int | str, kind: str = "FLOAT") -> Change:
    def change(model: Any) -> None:
        model.graph.input.append(onnx.helper.make_tensor_value_info("z", getattr(onnx.TensorProto, kind), sizes))

    return change


def doubles(model: Any) -> None:
    values = onnx.numpy_helper.to_array(model.graph.initializer[0]).astype(np.float64)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, "c0"))


def two_numbers(model: Any) -> None:
    axes(5, 3, 9, 8)(model)
    another_input(2, 3, 9, 8)(model)


def not_finite(model: Any) -> None:
    values = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    values.reshape(-1)[[2, 5]] = np.nan, np.inf
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, "c0"))


def elsewhere(model: Any) -> None:
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")


def sparse(model: Any) -> None:
    values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "thin")
    places = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "places")
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [5]))


def attribute(number: int, **given: Any) -> Change:
    """Add attributes to a node."""
    def change(model: Any) -> None:
        model.graph.node[number].attribute.extend(onnx.helper.make_attribute(name, value)
                                                  for name, value in given.items())

    return change


def field(name: str, value: Any) -> Change:
    return lambda model: setattr(model, name, value)


def opset(version: int) -> Change:
    return lambda model: setattr(model.opset_import[0], "version", version)


def domain(model: Any) -> None:
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))


WRONG: dict[str, tuple[Change, str]] = {
    "new": (opset(99), f"opset must be at most {onnx.defs.onnx_opset_version()}, not 99; get a newer onnx package, or "
            "export with an older opset"),
    "ir": (field("ir_version", 99), f"IR version must be at most {onnx.IR_VERSION}, not 99; get a newer onnx package"),
    "empty": (lambda model: model.Clear(), "holds no nodes: not an ONNX file, or damaged; export the network again"),
    "missing_initializer": (
        lambda model: model.graph.initializer.pop(0), "first (Conv) reads 'c0', which no initializer, input or node "
        "before it makes; export the network again"),
    "order": (lambda model: model.graph.node.insert(0, model.graph.node.pop()), "last (Gemm) reads 't2', which no "
              "initializer, input or node before it makes; export the network again"),
    "no_output": (lambda model: setattr(model.graph.output[0], "name", "y"), "nothing makes the output 'y'; export the "
                  "network again"),
    "external": (elsewhere, "initializer 'c0' lies in 'weights.bin' beside it, which is not there; copy both files, or "
                 "export into one"),
    "sparse": (sparse, "initializer 'thin' is sparse; store it densely"),
    "not_finite": (not_finite, "initializer 'c0' has 2 of 108 values that are NaN or infinite; train the network "
                   "again"),
    "unknown_attribute": (attribute(0, output_padding=[1, 1]), "breaks a rule of ONNX: Unrecognized attribute: "
                          "output_padding for operator Conv ==> Context: Bad node spec for node. Name: first OpType: "
                          "Conv; export the network again"),
    "channels": (axes("N", 2, 9, 8), "first (Conv): can't be computed on (N, 2, 9, 8): Given groups=1, weight of size "
                 "[4, 3, 3, 3], expected input[2, 2, 9, 8] to have 3 channels, but got 2 channels instead; export the "
                 "network again"),
    "sizes": (axes("N", 3, 9, 9), "last (Gemm): can't be computed on (N, 196): mat1 and mat2 shapes cannot be "
              "multiplied (2x196 and 168x5); export the network again"),
    "types": (doubles, "breaks a rule of ONNX: (op_type:Conv, node name: first): W has inconsistent type "
              "tensor(double); export the network again"),
    "free_size": (axes("N", 3, "h", "w"), "input 'x' has the shape (N, 3, h, w); only the first size may be free: "
                  "export with fixed channels, height and width"),
    "unknown_size": (axes(1, 3, 0, 8), "input 'x' has the shape (1, 3, 0, 8); only the first size may be free: "
                     "export with fixed channels, height and width"),
    "free_length": (axes("N", 3, "l"), "input 'x' has the shape (N, 3, l); only the first size may be free: export "
                    "with fixed channels and length"),
    "no_inputs": (lambda model: model.graph.ClearField("input"), "first (Conv) reads 'x', which no initializer, input "
                  "or node before it makes; export the network again"),
    "no_outputs": (lambda model: model.graph.ClearField("output"), "the network must take and return tensors, not take "
                   "'x' and return nothing; export it with images as inputs and class scores as outputs"),
    "two_sizes": (another_input("N", 1, 8, 8), "inputs 'x' and 'z' must have one height and width, because they become "
                  "one image's channels, not the shapes (3, 9, 8) and (1, 8, 8) of one image; export the network with "
                  "inputs of one size"),
    "two_ranks": (another_input("N", 1, 8), "inputs 'x' and 'z' must have one height and width, because they become "
                  "one image's channels, not the shapes (3, 9, 8) and (1, 8) of one image; export the network with "
                  "inputs of one size"),
    "two_numbers": (two_numbers, "inputs 'x', 'z' must be fixed to one number of images, not to 2 and 5; export with a "
                    "free batch dimension"),
    "another_kind": (another_input("N", 3, 9, 8, kind="INT64"), "input 'z' must be floating point, not INT64; export "
                     "the network without the conversion of its images"),
    "domain": (domain, "Relu1 (Relu) is of the domain 'com.example'; only operators of ONNX itself and QONNX's Quant "
               "are read: export without it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_not_a_network(name: str, tmp_path: Path, one_thread: None) -> None:
    change, message = WRONG[name]
    model, path = net(), tmp_path / "m.onnx"
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        load_onnx(path)
    assert str(caught.value).removeprefix(f"{path}: ") == message


@pytest.mark.parametrize("data", [b"PK\x03\x04 a pickle", b"\x08\x09", b""])
def test_another_file(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=r"m.onnx: .*not an ONNX file, or damaged; export the network again$"):
        load_onnx(tmp_path / "m.onnx")


def test_a_file_that_is_cut(tmp_path: Path) -> None:
    data = net().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data[:len(data) // 2])
    with pytest.raises(ModelError, match=r"m.onnx: not an ONNX file, or damaged; export the network again$"):
        load_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize(("kind", "message"), [
    ("UINT8", "input 'x' must be floating point, not UINT8; export the network without the conversion of its images")])
def test_an_input_of_integers(kind: str, message: str, tmp_path: Path) -> None:
    g = OnnxGraph()
    g.inputs[0].type.tensor_type.elem_type = getattr(onnx.TensorProto, kind)
    g.save(tmp_path / "m.onnx", g("Conv", g("Cast", "x", to=1), g.weights(1, 3, 1, 1)))
    with pytest.raises(ModelError) as caught:
        load_onnx(tmp_path / "m.onnx")
    assert str(caught.value) == f"{tmp_path / 'm.onnx'}: {message}"


def test_an_input_of_one_number(tmp_path: Path) -> None:
    g = OnnxGraph(("N",))
    g.save(tmp_path / "m.onnx", g("Relu", "x"))
    with pytest.raises(ModelError) as caught:
        load_onnx(tmp_path / "m.onnx")
    assert str(caught.value) == (f"{tmp_path / 'm.onnx'}: input 'x' must have the shape (N, C, H, W), (N, C, L) or (N, "
                                 f"features), not (N); let the network take images, signals or vectors")


def test_weights_in_a_file_of_their_own(tmp_path: Path, one_thread: None) -> None:
    onnx.save(net(), tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    onnx.save(net(), tmp_path / "one.onnx")
    models = [load_onnx(tmp_path / name).module for name in ("m.onnx", "one.onnx")]
    assert all(torch.equal(a, b) for a, b in zip(*(model.state_dict().values() for model in models)))


def test_half_precision(tmp_path: Path, one_thread: None) -> None:
    g = OnnxGraph()
    half = onnx.TensorProto.FLOAT16
    g.inputs[0].type.tensor_type.elem_type = g.output_type = half
    weight = g.weights(2, 3, 1, 1).astype(np.float16)
    g.save(tmp_path / "m.onnx", g("Conv", "x", weight))
    found = load_onnx(tmp_path / "m.onnx").module.Conv0.weight
    assert found.dtype == torch.float32 and np.array_equal(found.detach().numpy(), weight)


def test_initializers_among_the_inputs(tmp_path: Path, one_thread: None) -> None:
    """As files of IR version 3 have them."""
    model = net()
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert [*load_onnx(tmp_path / "m.onnx").file.inputs] == ["x"]


def test_a_function_of_the_file_is_put_in_place(tmp_path: Path, one_thread: None) -> None:
    model = net()
    body = [onnx.helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(onnx.helper.make_function("local", "Act", ["a"], ["b"], body, [
        onnx.helper.make_opsetid("", 17)]))
    model.opset_import.append(onnx.helper.make_opsetid("local", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "Act", "local"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert "Relu" in [type(module).__name__ for module in load_onnx(tmp_path / "m.onnx").module.children()]


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shiftwright: Callable[..., Any]) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(net().SerializeToString())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ToolError) as caught:
        load_model(str(path))
    said = (f"{path}: the Python package 'onnx' reads ONNX files, and is missing; get it with: "
            f"pip install 'shiftwright[onnx]'")
    assert str(caught.value) == said
    result = shiftwright("info", path)
    assert result.code == 3 and said in " ".join(result.err.split())


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """The zoo's network for digits, not trained, with a Softmax at its end."""
    torch.manual_seed(1)
    module = network_info("digits").build()
    g, x = OnnxGraph(("N", 1, 8, 8)), "x"
    for name, part in module.named_children():
        state = {key: value.numpy() for key, value in part.state_dict().items()}
        kind = type(part).__name__
        if kind == "Conv2d":
            bias = [state["bias"]] if "bias" in state else []
            x = g("Conv", x, state["weight"], *bias, pads=[1, 1, 1, 1], name=name)
        elif kind == "BatchNorm2d":
            x = g("BatchNormalization", x, *(state[key] for key in ("weight", "bias", "running_mean", "running_var")),
                  name=name)
        elif kind == "MaxPool2d":
            x = g("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], name=name)
        elif kind == "Linear":
            x = g("Gemm", x, state["weight"], state["bias"], transB=1, name=name)
        else:
            x = g({"ReLU": "Relu", "Flatten": "Flatten"}[kind], x, name=name)
    return g.save(tmp_path / "my digits.onnx", g("Softmax", x, name="end"))


def test_load_model(digits: Path, one_thread: None) -> None:
    loaded = load_model(str(digits))
    assert loaded.input_shape == (1, 8, 8) and loaded.metadata == {"network": "my digits"}
    assert loaded.notes == ("end (Softmax) is left to the host: the class with the highest score is the same without "
                            "it",)


def test_compress(digits: Path, tmp_path: Path, shiftwright: Callable[..., Any], one_thread: None) -> None:
    output = tmp_path / "m.swc"
    result = shiftwright("compress", digits, "--data", "digits", "--set", "epochs=0", "-o", output, "--json")
    assert result.code == 0, result.err
    assert "my digits.onnx: end (Softmax) is left to the host" in result.err
    shown, network = json.loads(result.out), QuantizedNetwork.load(output)
    assert shown["network"] == "my digits" and shown["parameters"] == network.parameters == 3890
    assert shown["accuracy"] == pytest.approx(golden.accuracy(network, load("digits", split="test")), abs=1e-6)
    assert [layer.name for layer in network.layers] == ["conv1", "conv2", "pool2", "fc"]


def test_compress_needs_a_data_set(digits: Path, tmp_path: Path, shiftwright: Callable[..., Any]) -> None:
    result = shiftwright("compress", digits, "-o", tmp_path / "m.swc")
    assert result.code == 2 and "does not say which data set it was trained on; give it with --data" in result.err


def test_info(digits: Path, shiftwright: Callable[..., Any], one_thread: None) -> None:
    result = shiftwright("info", digits, "--json")
    assert result.code == 0, result.err
    shown = json.loads(result.out)
    assert shown["kind"] == "ONNX network" and shown["graph"] == "made" and shown["opset"] == 17
    assert shown["input"] == "x: 1x8x8" and shown["parameters"] == 3890
    assert [layer["layer"] for layer in shown["layers"]] == ["conv1", "conv2", "pool2", "fc"]
    assert shown["layers"][0] == {"layer": "conv1", "op": "conv", "kernel": "3x3", "stride": "1x1", "output": "8x8x8",
                                  "weights": 72, "adds": "-"}
    assert shiftwright("info", digits).code == 0
