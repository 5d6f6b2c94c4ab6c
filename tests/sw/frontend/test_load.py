"""Finding a network by what a person writes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sw.frontend.load import load_model
from shiftwright.sw.train import Checkpoint, save_checkpoint
from shiftwright.sw.zoo import network_info

MODULE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 2, 3))

trained = Net()
number = 3

def broken():
    raise ValueError("no weights here")

def of(size):
    return Net()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "a_module_of_the_load_tests"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize("name", ["Net", "trained"])
def test_a_python_name(module: str, name: str) -> None:
    loaded = load_model(f"{module}:{name}")
    assert isinstance(loaded.model[0], nn.Conv2d)  # type: ignore[index]
    assert loaded.input_shape is None and loaded.metadata == {"network": name}


@pytest.mark.parametrize(("name", "message"), [
    ("number", "is a int, not an nn.Module"), ("missing", "can't import the network: .*missing"),
    ("broken", "by calling it without arguments: ValueError.'no weights here'"),
    ("of", "name a function that needs none")])
def test_a_python_name_that_is_no_network(module: str, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=f"^{module}:{name}: .*{message}"):
        load_model(f"{module}:{name}")


def test_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = network_info("digits").build()
    path = tmp_path / "f.safetensors"
    save_checkpoint(path, Checkpoint(model, "digits", "digits", 0.5, 3, 9, 3890))
    loaded = load_model(str(path))
    assert loaded.input_shape == (1, 8, 8)
    assert loaded.metadata == {"network": "digits", "dataset": "digits", "float_accuracy": 0.5, "seed": 9}
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.model.state_dict().values()))


def test_a_zoo_network_and_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = network_info("lenet5").build()
    path = tmp_path / "w.th"
    torch.save(model.state_dict(), path)
    loaded = load_model(f"lenet5:{path}")
    assert loaded.input_shape == (1, 28, 28) and loaded.metadata == {"network": "lenet5", "dataset": "mnist"}
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.model.state_dict().values()))


@pytest.mark.parametrize(("source", "message"), [
    ("lenet5:nothing.th", "nothing.th: can't read the weights"),
    ("nothing.safetensors", "nothing.safetensors: can't read the checkpoint"),
    ("m.onnx", "^m.onnx: can't read the network: No such file or directory; give an existing file$"),
    ("m.swc", "is compressed already"), ("m.swi", "is compressed already"), ("no_such_package.x:Net", "can't import"),
    (":", "can't import")])
def test_no_network(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(source)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"PK\x03\x04 a pickle in a zip")
    with pytest.raises(ModelError, match="not a safetensors checkpoint, or damaged"):
        load_model(str(path))
