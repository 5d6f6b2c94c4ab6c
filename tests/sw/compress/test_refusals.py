"""Networks, data and recipes that can't be: one message each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.hw.arch.errors import DataError, ModelError
from shiftwright.sw.commands._compress import hold_out
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.data import Dataset
from tests.sw.compress.recipes import digits, small_network

pytestmark = pytest.mark.usefixtures("one_thread")


def with_labels(labels: list[int]) -> Dataset:
    images = np.zeros((4, 1, 8, 8), np.uint8)
    return Dataset(images, np.array(labels, np.int64), "some", "train", ("a",))


@pytest.mark.parametrize(("labels", "message"), [
    ([1, 2, 10, 3], "data set some has labels from 1 to 10, but the network tells 10 classes apart"),
    ([1, -1, 2, 3], "data set some has labels from -1 to 3, but the network tells 10 classes apart"),
    ([1, 2, 3], "data set some has 4 images but 3 labels"),
])
def test_labels(labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        compress(small_network(), BQNet(epochs=0), with_labels(labels))


def test_no_images() -> None:
    with pytest.raises(DataError, match="data set digits has 0 images"):
        compress(small_network(), BQNet(epochs=0), digits(0))


def test_too_few_images_for_validation() -> None:
    with pytest.raises(DataError, match="has 190 training images; a validation part of a tenth would be too small"):
        hold_out(digits(190), 0)
    train, validation = hold_out(digits(400), 3)
    assert (len(train), len(validation)) == (360, 40)
    assert sorted([*train.images.sum((1, 2, 3)), *validation.images.sum((1, 2, 3))]) \
        == sorted(digits(400).images.sum((1, 2, 3)))
    again = hold_out(digits(400), 3)[1]
    assert np.array_equal(again.images, validation.images)
    assert not np.array_equal(hold_out(digits(400), 4)[1].images, validation.images)


@pytest.mark.parametrize(("value", "name", "message"), [
    (float("nan"), "fc1.weight", "parameter fc1.weight has 1 of 3840 values that are NaN or infinite"),
    (float("-inf"), "norm.running_var", "parameter norm.running_var has 1 of 6 values that are NaN or infinite"),
])
def test_values_that_are_no_numbers(value: float, name: str, message: str) -> None:
    model = small_network()
    model.state_dict()[name].view(-1)[3] = value
    with pytest.raises(ModelError, match=message):
        compress(model, BQNet(epochs=0), digits(20))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_empty_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 0), nn.ReLU(), nn.Linear(0, 10)).eval()
    with pytest.raises(ModelError, match=r"parameter 1.weight has no values: its shape is \(0, 64\); take its layer"):
        compress(model, BQNet(epochs=0), digits(20))


@pytest.mark.parametrize("options", [{"prune": 0.999}, {"layers": {"conv": {"prune": 0.999}}}], ids=str)
def test_a_layer_without_weights(options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="layer conv: recipe bqnet made all 54 weights 0; prune less, or give"):
        compress(small_network(), BQNet(epochs=1, **options), digits(40))


def test_a_layer_that_had_no_weights_to_lose() -> None:
    model = small_network()
    with torch.no_grad():
        model.fc1.weight.zero_()  # type: ignore[union-attr]
    network = compress(model, BQNet(epochs=0), digits(40))
    (layer,) = (layer for layer in network.layers if layer.name == "fc1")
    assert not layer.values.any()


@pytest.mark.parametrize(("setting", "message"), [
    ("pruen=0.5", "recipe bqnet has no option 'pruen'; did you mean 'prune'?"),
    ("layers.conv1.prun=0.5", "layers.conv1 has no option 'prun'; did you mean 'prune'?"),
    ("layers.conv11.prune=0.5", "layers names 'conv11', which is no layer with weights; did you mean 'conv1'?"),
])
def test_the_command_tells_what_was_meant(setting: str, message: str, tmp_path: Any,
                                          shiftwright: Callable[..., Any]) -> None:
    from shiftwright.sw import train
    from tests.sw.compress.recipes import SEED, digits_network

    path = tmp_path / "d.safetensors"
    train.save_checkpoint(path, train.Checkpoint(digits_network(), "digits", "digits", 0.9, 10, SEED, 3890))
    result = shiftwright("compress", path, "--set", setting, "-o", tmp_path / "x.swc")
    assert result.code == 2 and message in result.err and result.err.count("\n") == 1
