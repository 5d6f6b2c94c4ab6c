"""The verb and the command, on the embedded digits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.hw.arch.errors import DataError, ModelError
from shiftwright.sim import golden
from shiftwright.sw import train
from shiftwright.sw.compress import compress, training
from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.data import Dataset, load
from shiftwright.sw.network import QuantizedNetwork

SEED = 5


@pytest.fixture(scope="module")
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float network of the digits, trained for some epochs."""
    module, accuracy = train.train("digits", load("digits", split="train"), epochs=10, seed=SEED)
    path = tmp_path_factory.mktemp("float") / "digits.safetensors"
    train.save_checkpoint(path, train.Checkpoint(module, "digits", "digits", accuracy, 10, SEED, 3890))
    return path


@pytest.fixture(scope="module")
def module(checkpoint: Path) -> nn.Module:
    return train.load_checkpoint(checkpoint).module


@pytest.mark.parametrize("options", [{}, {"guard_bits": 0, "levels": 3, "zero": False}], ids=["exact", "literal"])
def test_digits_keep_their_accuracy(module: nn.Module, options: dict[str, Any]) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    losses: list[float] = []
    network = compress(module, BQNet(epochs=8, **options), load("digits", split="train"), seed=SEED,
                       progress=lambda epoch, epochs, loss: losses.append(loss))
    accuracy = golden.accuracy(network, load("digits", split="test"))
    assert accuracy >= 0.95, f"seed {SEED}"
    assert len(losses) == 8 and losses[-1] < losses[0]
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    convolutions = [layer for layer in network.layers if layer.op == "conv"]
    assert all(len(terms) <= 1 for layer in convolutions for terms in layer.codebook)
    assert all(len(layer.codebook) <= (5 if not options else 6) for layer in convolutions)
    assert network.parameters == 3890
    assert (network.input.bits, network.input.signed, network.input.exponent) == (8, False, -8)
    assert max(int(np.abs(layer.bias).max()) for layer in network.layers) < 1 << 15


def test_training_gains_over_rounding(module: nn.Module) -> None:
    data, test = load("digits", split="train"), load("digits", split="test")
    rounded = golden.accuracy(compress(module, BQNet(epochs=0, levels=1), data, seed=SEED), test)
    trained = golden.accuracy(compress(module, BQNet(epochs=6, levels=1), data, seed=SEED), test)
    assert trained > rounded + 0.1


def test_the_same_seed_gives_the_same_network(module: nn.Module, tmp_path: Path) -> None:
    data = load("digits", split="train").take(300)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        compress(module, BQNet(epochs=2), data, seed=seed).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


def test_layers_with_level_sets_of_their_own(module: nn.Module) -> None:
    data = load("digits", split="train").take(64)
    recipe = BQNet(epochs=0, levels=1, layers={"conv1": {"levels": 4, "zero": False}})
    network = compress(module, recipe, data)
    assert [len(layer.codebook) for layer in network.layers if layer.op == "conv"] == [8, 3, 3]
    assert network.metadata["options"]["layers"] == {"conv1": {"levels": 4, "zero": False}}
    message = r"layers names 'conv9', which is no layer with weights; did you mean '\w+'\?; the network has conv1"
    with pytest.raises(ModelError, match=message):
        compress(module, BQNet(layers={"conv9": {"levels": 1}}), data)


def test_images_of_another_shape(module: nn.Module) -> None:
    data = Dataset(np.zeros((4, 1, 9, 9), np.uint8), np.zeros(4, np.int64), "other", "train", ("a",))
    message = r"data set other has images of shape \(1, 9, 9\), but the network takes \(1, 8, 8\)"
    with pytest.raises(DataError, match=message):
        compress(module, "bqnet", data, input_shape=(1, 8, 8))


def test_labels_of_another_network(module: nn.Module) -> None:
    images = np.zeros((4, 1, 8, 8), np.uint8)
    data = Dataset(images, np.array([1, 2, 10, 3]), "other", "train", ("a",))
    with pytest.raises(DataError, match="data set other has labels from 1 to 10, but the network tells"):
        compress(module, "bqnet", data)
    with pytest.raises(DataError, match="has 0 images"):
        compress(module, "bqnet", data.take(0))


@pytest.mark.parametrize("epochs", [1, 10, 11])
def test_short_trainings(module: nn.Module, epochs: int) -> None:
    losses: list[float] = []
    compress(module, BQNet(epochs=epochs, batch=64), load("digits", split="train").take(20),
             progress=lambda epoch, total, loss: losses.append(loss))
    assert len(losses) == epochs


def test_a_training_that_diverges(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "loss_of", lambda logits, *rest: logits.sum() * float("nan"))
    with pytest.raises(ModelError, match=r"the training diverged in epoch 1; lower learning_rate \(now 0.002\)"):
        compress(module, "bqnet", load("digits", split="train").take(64))


def test_command(checkpoint: Path, tmp_path: Path, shiftwright: Callable[..., Any]) -> None:
    path = tmp_path / "d.swc"
    result = shiftwright("compress", checkpoint, "--set", "epochs=3", "--set", "levels=3", "-o", path, "--seed", 4,
                         "--json")
    assert result.code == 0, result.err
    shown = json.loads(result.out)
    network = QuantizedNetwork.load(path)
    assert shown["accuracy"] == pytest.approx(golden.accuracy(network, load("digits", split="test")), abs=1e-6)
    metadata = network.metadata
    assert [metadata[name] for name in ("recipe", "seed", "network", "dataset")] == ["bqnet", 4, "digits", "digits"]
    assert metadata["options"]["levels"] == 3
    assert metadata["accuracy"] == pytest.approx(shown["accuracy"], abs=1e-6)
    assert metadata["float_accuracy"] == pytest.approx(train.load_checkpoint(checkpoint).float_accuracy)


@pytest.mark.parametrize(("arguments", "message"), [
    (["m.onnx"], "m.onnx: can't read the network: No such file or directory"),
    (["nothing.safetensors"], "nothing.safetensors: can't read the checkpoint"),
    (["--set", "level=2"], "recipe bqnet has no option 'level'"),
    (["--recipe", "magic"], "unknown recipe 'magic'"),
    (["--data", "digitz"], "digitz"),
    (["--recipe-file", "none.toml"], "none.toml: can't read the recipe"),
])
def test_command_refuses(checkpoint: Path, tmp_path: Path, shiftwright: Callable[..., Any], arguments: list[str],
                         message: str) -> None:
    source = [] if "." in arguments[0] else [checkpoint]
    result = shiftwright("compress", *source, *arguments, "-o", tmp_path / "x.swc")
    assert result.code == 2
    assert message in result.err and "Traceback" not in result.err
    assert not (tmp_path / "x.swc").exists()


def test_command_refuses_nan(checkpoint: Path, tmp_path: Path, shiftwright: Callable[..., Any]) -> None:
    found = train.load_checkpoint(checkpoint)
    with torch.no_grad():
        found.module.fc.weight[0, 0] = float("nan")  # type: ignore[index, union-attr]
    train.save_checkpoint(tmp_path / "nan.safetensors", found)
    result = shiftwright("compress", tmp_path / "nan.safetensors", "-o", tmp_path / "x.swc")
    assert (result.code, result.err) == (2, "shiftwright: parameter fc.weight has 1 of 2560 values that are NaN or "
                                            "infinite; train the network again\n")
