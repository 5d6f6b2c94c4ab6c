"""Signal-to-noise ratios of layers."""

import math

import numpy as np
import pytest
import torch

from shiftwright.sim import golden
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.moments import float_twin
from shiftwright.sw.compress.noise import signal_to_noise
from tests.sw.compress.recipes import captured, digits, digits_network, small_network

pytestmark = pytest.mark.usefixtures("one_thread")


def test_ratios_are_those_of_the_integer_network_and_the_float_one() -> None:
    network = compress(digits_network(), BQNet(epochs=0, levels=4), digits(100), seed=0)
    found = network.metadata["signal_to_noise"]
    images = digits(100).images[:32]
    activations = {}
    module = digits_network().eval()
    names = dict(module.named_modules())
    for name in found:
        names[name].register_forward_hook(lambda _, __, made, name=name: activations.__setitem__(name, made))
    with torch.no_grad():
        module(torch.tensor(images).float() / 256)
    layers = golden.run(network, network.quantize_input(images / 256), layers=True)
    last = network.layers[-1]
    made = layers[last.name] * 2.0**last.target.exponent
    exact = activations[last.name].numpy().reshape(made.shape)
    expected = 10 * math.log10(np.square(exact).sum() / np.square(exact - made).sum())
    assert list(found) == [layer.name for layer in network.layers]
    assert found[last.name] == pytest.approx(expected, abs=0.02)


def test_finer_weights_have_less_noise_and_float_ones_none() -> None:
    data = digits(64)
    coarse, fine = (compress(digits_network(), BQNet(epochs=0, levels=levels), data, seed=0).metadata["signal_to_noise"]
                    for levels in (1, 6))
    weighted = [name for name in fine if fine[name] is not None]
    assert all(fine[name] > coarse[name] for name in weighted[1:])
    recipe, images = BQNet(), torch.tensor(data.images[:8]).float() / 256
    graph = captured(small_network(), recipe)
    assert set(signal_to_noise(float_twin(graph, recipe, images), recipe, images).values()) == {None}


def test_measuring_leaves_the_network_as_it_is() -> None:
    recipe, images = BQNet(), torch.tensor(digits(64).images[:8]).float() / 256
    network = FakeQuantized(captured(small_network(), recipe), recipe)
    before = network(images)
    signal_to_noise(network, recipe, images)
    assert torch.equal(network(images), before)
