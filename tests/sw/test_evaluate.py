"""``shiftwright evaluate`` on compressed networks and images."""

import dataclasses
import json

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sim import golden
from shiftwright.sw.compiler.compile import compile_
from shiftwright.sw.data import load
from shiftwright.sw.network import QuantizedNetwork
from tests.networks import conv, linear, pool, tensor

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def network(rng):
    source = tensor("input", 1, 8, 8, exponent=-8)
    one = conv(rng, source, "conv", channels=6)
    two = pool(rng, one.target, "pool")
    three = linear(rng, two.target, "fc", features=10, raw=True)
    parameters = sum(layer.indices.size + layer.bias.size for layer in (one, three))
    return QuantizedNetwork(input=source, layers=(one, two, three), parameters=parameters,
                            metadata={"float_accuracy": 0.5})


def test_both_kinds_of_file_agree(tmp_path, shiftwright, network):
    network.save(tmp_path / "n.swc")
    compile_(network, AcceleratorConfig()).save(tmp_path / "n.swi")
    (tmp_path / "acc.toml").write_text("lanes_y = 4\n")
    expected = golden.accuracy(network, load("digits"))
    plain = shiftwright("evaluate", tmp_path / "n.swc", "--data", "digits", "--json")
    assert plain.code == 0, plain.err
    plain = json.loads(plain.out)
    assert plain["accuracy"] == pytest.approx(expected, abs=1e-6)
    assert (plain["images"], plain["float_accuracy"], plain["model"]) == (360, 0.5, "golden")
    assert "image_bytes" not in plain
    sized = json.loads(shiftwright("evaluate", tmp_path / "n.swc", "--data", "digits", "--config",
                                   tmp_path / "acc.toml", "--json").out)
    image = json.loads(shiftwright("evaluate", tmp_path / "n.swi", "--data", "digits", "--json").out)
    assert image["accuracy"] == plain["accuracy"] == sized["accuracy"]
    size = (tmp_path / "n.swi").stat().st_size
    assert image["image_bytes"] == sized["image_bytes"] == size
    assert sized["ratio"] == round(4 * network.parameters / size, 2)
    assert image["predicted_cycles"] == sized["predicted_cycles"] > 0


def test_part_of_a_data_set(tmp_path, shiftwright, network):
    network.save(tmp_path / "n.swc")
    found = json.loads(shiftwright("evaluate", tmp_path / "n.swc", "--data", "digits", "--split", "train",
                                   "--images", 50, "--json").out)
    dataset = load("digits", split="train").take(50)
    assert (found["images"], found["split"]) == (50, "train")
    assert found["accuracy"] == pytest.approx(np.mean(golden.predict(network, dataset.images) == dataset.labels))


def test_several_outputs_have_no_accuracy(tmp_path, shiftwright, network):
    outputs = [{"name": "colour", "channels": [0, 4]}, {"name": "shape", "channels": [4, 10]}]
    dataclasses.replace(network, metadata={"outputs": outputs}).save(tmp_path / "n.swc")
    found = shiftwright("evaluate", tmp_path / "n.swc", "--data", "digits")
    assert found.code == 2 and "the network has the outputs colour, shape, but labels are of one" in found.err


@pytest.mark.parametrize(("name", "content", "message"), [
    ("n.swc", b"nothing", "not a compressed network"),
    ("n.swi", b"SWI1", "image: 4 bytes are fewer than a header of 16"),
    ("n.txt", None, "can't read: No such file or directory"),
])
def test_wrong_files(tmp_path, shiftwright, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = shiftwright("evaluate", tmp_path / name, "--data", "digits")
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err


def test_an_image_needs_no_board(tmp_path, shiftwright, network):
    compile_(network, AcceleratorConfig()).save(tmp_path / "n.swi")
    result = shiftwright("evaluate", tmp_path / "n.swi", "--data", "digits", "--board", "ulx3s-85f")
    assert result.code == 2
    assert "an image is compiled for its accelerator already" in result.err


def test_images_of_another_shape(tmp_path, shiftwright, rng):
    layer = linear(rng, tensor("input", 1, 9, 9, exponent=-8), "fc", features=10)
    network = QuantizedNetwork(input=layer.source, layers=(layer,))
    network.save(tmp_path / "n.swc")
    compile_(network, AcceleratorConfig()).save(tmp_path / "n.swi")
    for name in ("n.swc", "n.swi"):
        result = shiftwright("evaluate", tmp_path / name, "--data", "digits")
        assert result.code == 2
        assert "takes inputs of shape (1, 9, 9); data of shape (1, 8, 8) doesn't fit" in result.err
