"""The zoo, float training and its checkpoints."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from shiftwright.hw.arch.errors import DataError, ModelError
from shiftwright.sw import train as training
from shiftwright.sw.data import Dataset, load
from shiftwright.sw.zoo import NETWORKS, network_info

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits():
    return load("digits", split="train").take(256), load("digits", split="test").take(100)


@pytest.mark.parametrize(("name", "parameters"), [("digits", 3890), ("lenet300", 266_610), ("lenet5", 431_080),
                                                   ("resnet20", 271_098), ("resnet32", 466_426),
                                                   ("mobilenet_tiny", 38_634)])
def test_zoo(name, parameters):
    info = network_info(name)
    module = info.build()
    assert training.count_parameters(module) == parameters
    assert module(torch.zeros(2, *info.input_shape)).shape == (2, 10)


def test_unknown_network():
    with pytest.raises(ModelError, match=f"unknown network 'lenet'; the zoo has {', '.join(NETWORKS)}"):
        network_info("lenet")


def test_digits_reach_98_percent():
    """The default training of the embedded network, in full."""
    module, accuracy = training.train("digits", load("digits", split="train"))
    assert accuracy >= 0.98
    assert accuracy == training.accuracy(module, load("digits"), batch=100)
    assert not module.training


def test_training_is_repeatable_and_leaves_the_random_state_alone(digits):
    train, test = digits
    state = torch.get_rng_state()
    first, second, other = (training.train("digits", train, test=test, epochs=2, seed=seed)[0] for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_progress(digits):
    seen = []
    training.train("digits", digits[0], test=digits[1], epochs=3, progress=lambda *args: seen.append(args))
    assert [entry[:2] for entry in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[2][2] < seen[0][2]


def test_random_shifts_move_whole_images():
    generator = torch.Generator().manual_seed(1)
    images = torch.arange(1.0, 51).reshape(2, 1, 5, 5).repeat(20, 1, 1, 1)
    moved = training.shift_randomly(images, 2, generator)
    offsets = set()
    for image, before in zip(moved[:, 0], images[:, 0]):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        found = [(y, x) for y in range(5) for x in range(5) if torch.equal(image, padded[y:y + 5, x:x + 5])]
        assert len(found) == 1
        offsets.add(found[0])
    assert len(offsets) > 10


def test_signals_move_along_only() -> None:
    generator = torch.Generator().manual_seed(1)
    signals = torch.zeros(50, 2, 1, 9)
    signals[:, :, 0, 4] = 1
    moved = training.shift_randomly(signals, 2, generator)
    assert moved.shape == signals.shape and torch.equal(moved.sum((2, 3)), torch.ones(50, 2))
    assert set(moved[:, 0, 0].argmax(1).tolist()) == {2, 3, 4, 5, 6}


def test_wrong_arguments(digits):
    with pytest.raises(ModelError, match="epochs must be at least 1, not 0"):
        training.train("digits", digits[0], test=digits[1], epochs=0)
    other = Dataset(np.zeros((4, 1, 28, 28), np.uint8), np.zeros(4, np.int64), "mnist", "train", ())
    with pytest.raises(DataError, match=r"data set mnist has images of shape \(1, 28, 28\), but the network takes "
                                        r"\(1, 8, 8\); give digits, the default of digits$"):
        training.train("digits", other, test=other)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "digits.safetensors"
    torch.manual_seed(5)
    module = NETWORKS["digits"].build()
    training.save_checkpoint(path, training.Checkpoint(module, "digits", "digits", 0.75, 7, 9, 3890))
    return path, module


def test_checkpoint_round_trip(checkpoint):
    path, module = checkpoint
    found = training.load_checkpoint(path)
    assert (found.network, found.dataset, found.float_accuracy, found.epochs, found.seed, found.parameters) == (
        "digits", "digits", 0.75, 7, 9, 3890)
    assert not found.module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, found.module.state_dict()[name]), name


def _rewrite(path, *, drop=None, **metadata):
    tensors = load_file(path)
    tensors.pop(drop, None)
    base = {"format": "shiftwright.float", "network": "digits", "dataset": "digits", "float_accuracy": 0.5, "epochs": 1,
            "seed": 0, "parameters": 1}
    save_file(tensors, path, metadata={"shiftwright": json.dumps({**base, **metadata})})


@pytest.mark.parametrize(("damage", "message"), [
    (lambda path: path.write_bytes(path.read_bytes()[:100]), "not a safetensors checkpoint, or damaged"),
    (lambda path: path.write_bytes(b"\x80\x04pickle"), "not a safetensors checkpoint, or damaged"),
    (lambda path: path.unlink(), "can't read the checkpoint"),
    (lambda path: save_file({"a": torch.zeros(1)}, path),
     "is a safetensors file of another program, not a float checkpoint"),
    (lambda path: save_file({"a": torch.zeros(1)}, path, metadata={"shiftwright": "{"}), "or damaged"),
    (lambda path: _rewrite(path, format="shiftwright.swc"),
     "is a file of format 'shiftwright.swc', not a float checkpoint"),
    (lambda path: _rewrite(path, epochs=None), "damaged checkpoint metadata"),
    (lambda path: _rewrite(path, network="resnet"), "unknown network 'resnet'"),
    (lambda path: _rewrite(path, network="lenet5"), "its tensors don't fit network 'lenet5'"),
    (lambda path: _rewrite(path, drop="fc.bias"), "its tensors don't fit network 'digits'"),
])
def test_wrong_checkpoints(checkpoint, damage, message):
    damage(checkpoint[0])
    with pytest.raises(ModelError, match=message):
        training.load_checkpoint(checkpoint[0])


def published(path, *, change=None, **extra):
    """A state dict as people publish them: by DataParallel, among other things, in half precision."""
    torch.manual_seed(6)
    module = network_info("digits").build()
    state = {f"module.{name}": value.half() if value.is_floating_point() else value
             for name, value in module.state_dict().items()}
    torch.save({"state_dict": state if change is None else change(state), "best": 0.9, **extra}, path)
    return module


def test_weights_of_a_published_checkpoint(tmp_path):
    module = published(tmp_path / "w.th")
    found = training.load_weights("digits", tmp_path / "w.th")
    assert not found.training
    for name, value in module.state_dict().items():
        assert torch.equal(found.state_dict()[name], value.half().to(value.dtype)), name


@pytest.mark.parametrize(("network", "damage", "message"), [
    ("lenet5", published, "its tensors don't fit network 'lenet5'"),
    ("digits", lambda path: None, "can't read the weights: No such file"),
    ("digits", lambda path: path.write_bytes(b"no pickle"), "not a PyTorch checkpoint of tensors, or damaged"),
    ("digits", lambda path: published(path, code=print), "not a PyTorch checkpoint of tensors, or damaged"),
    ("digits", lambda path: torch.save([1, 2], path), "holds no state dict"),
    ("digits", lambda path: published(path, change=lambda state: {"a": 1}), "holds no state dict"),
])
def test_weights_that_do_not_load(tmp_path, network, damage, message):
    damage(tmp_path / "w.th")
    with pytest.raises(ModelError, match=f"w.th: {message}"):
        training.load_weights(network, tmp_path / "w.th")


def test_images_are_normalized_as_resnet_was_trained():
    x = torch.tensor([0.0, 128, 255])[:, None, None].expand(1, 3, 2, 2) / 256
    found = network_info("resnet20").build().normalize(x)[0, :, 0, 0]
    expected = [(pixel / 255 - mean) / deviation for pixel, mean, deviation in zip(
        (0, 128, 255), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_command(tmp_path, shiftwright):
    path = tmp_path / "digits.safetensors"
    result = shiftwright("train", "digits", "-o", path, "--epochs", 1, "--seed", 5, "--threads", 1, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    stored = training.load_checkpoint(path)
    assert (stored.seed, stored.epochs, stored.dataset) == (5, 1, "digits")
    assert found["float_accuracy"] == pytest.approx(stored.float_accuracy, abs=1e-6)
    assert stored.float_accuracy == training.accuracy(stored.module, load("digits"))


def test_command_names_its_errors(tmp_path, shiftwright):
    result = shiftwright("train", "lenet", "-o", tmp_path / "x")
    assert result.code == 2
    assert result.err == f"shiftwright: unknown network 'lenet'; the zoo has {', '.join(NETWORKS)}\n"
    result = shiftwright("train", "lenet5", "--data", "digits", "-o", tmp_path / "x")
    assert result.code == 2
    assert ("data set digits has images of shape (1, 8, 8), but the network takes (1, 28, 28); give mnist, the default "
            "of lenet5") in result.err
