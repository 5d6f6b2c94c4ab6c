"""What the tests of recipes share: the digits, a network of them, and exactness."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sim import golden
from shiftwright.sim.simulate import simulate
from shiftwright.sw import train
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.lower import lower
from shiftwright.sw.compress.lowrank import split_linear
from shiftwright.sw.compress.options import QuantizedRecipe
from shiftwright.sw.compress.seq import SEQ
from shiftwright.sw.data import Dataset, load
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.graph import Graph
from shiftwright.sw.network import QuantizedNetwork

SEED = 5


@functools.cache
def digits_network() -> nn.Module:
    """A float network of the digits, trained for some epochs on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train.train("digits", load("digits", split="train"), epochs=10, seed=SEED)[0]
    finally:
        torch.set_num_threads(threads)


def small_network() -> nn.Module:
    """A convolution with batch norm, a residual, and two linear layers, untrained."""
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 6, 3, padding=1)
            self.same = nn.Conv2d(6, 6, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(6)
            self.fc1, self.fc2 = nn.Linear(96, 40), nn.Linear(40, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.conv(x))
            x = nn.functional.max_pool2d(torch.relu(self.norm(self.same(x)) + x), 2)
            return self.fc2(torch.relu(self.fc1(x.flatten(1))))

    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = Small().eval()
        model.norm.weight.data = torch.rand(6) * 2 + 0.1
    return model


def digits(count: int | None = None) -> Dataset:
    """Training images."""
    data = load("digits", split="train")
    return data if count is None else data.take(count)


def captured(model: nn.Module, recipe: QuantizedRecipe) -> Graph:
    """The graph that a recipe works on."""
    graph = capture(model, (1, 8, 8))
    return split_linear(graph, lambda layer: recipe.options_of(layer)["energy"]) if isinstance(recipe, SEQ) else graph


def check_exact(model: nn.Module, recipe: QuantizedRecipe, data: Dataset, *, seed: int = SEED
                ) -> tuple[FakeQuantized, QuantizedNetwork]:
    """Train; the forward pass of training must hold the integers of the golden model."""
    graph = captured(model, recipe)
    fake = FakeQuantized(graph, recipe)
    recipe.train(fake, model, data, seed=seed, progress=None)
    network = lower(fake, graph, recipe, {})
    images = torch.tensor(data.images[:40]) / 256
    expected = golden.run(network, network.quantize_input(images.numpy()))
    with torch.no_grad():
        real = fake(images).numpy().reshape(expected.shape)
    assert np.array_equal(real * 2.0**-network.output.exponent, expected), f"seed {seed}"
    assert len(np.unique(expected)) > 5
    return fake, network


def values_of(network: QuantizedNetwork) -> dict[str, np.ndarray]:
    """Integer weights by layer."""
    return {layer.name: layer.values for layer in network.layers if layer.op == "conv"}


def check_rtl(network: QuantizedNetwork, images: int = 4) -> None:
    """The compiled network on the simulated RTL, every layer bit for bit."""
    compilation = compile_detailed(network, AcceleratorConfig(weight_depth=1 << 14))
    inputs = network.quantize_input(load("digits", split="test").images[:images] / 256.0)
    expected = golden.run(compilation.network, inputs, layers=True)
    try:
        found = simulate(compilation.image, inputs, expected=expected)
    except FileNotFoundError as error:
        pytest.skip(f"needs a simulator: {error}")
    assert found.images == images and found.values == sum(output.size for output in expected.values())
