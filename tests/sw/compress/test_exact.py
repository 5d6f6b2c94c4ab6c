"""The training's forward pass equals the integer golden model, bit for bit."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.sim import golden
from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.compress.calibrate import calibrate
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.lower import lower
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.graph import Graph

SEED = 20


def chain(kind: str) -> nn.Module:
    """Small networks that reach every layer kind and attribute between them."""
    if kind == "plain":
        return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 5))
    if kind == "signed":
        return nn.Sequential(nn.Conv2d(2, 6, 3, padding=(1, 2), stride=(2, 1)), nn.MaxPool2d(3, 2, padding=1),
                             nn.Conv2d(6, 4, 2), nn.Hardtanh(-0.3, 0.4), nn.Flatten(), nn.Linear(16, 5))
    if kind == "pools":
        return nn.Sequential(nn.Conv2d(2, 6, 4, padding="same", dilation=2), nn.BatchNorm2d(6), nn.ReLU6(),
                             nn.AvgPool2d(3, 2, padding=1), nn.Conv2d(6, 8, 1),
                             nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                             nn.Linear(8, 5))
    if kind == "vector":
        return nn.Sequential(nn.Flatten(), nn.Linear(128, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 5))
    assert kind == "map"  # ends in a requantized map
    return nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2))


def randomize(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give batch norms statistics that matter, and channels of different magnitude."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.05)
            module.weight.data = torch.randn(module.num_features, generator=generator) * 2
            module.bias.data = torch.randn(module.num_features, generator=generator) * 0.3
    return model.eval()


@functools.cache
def captured(kind: str) -> Graph:
    """The graph of a randomized network."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = randomize(chain(kind), torch.Generator().manual_seed(SEED))
    return capture(model, (2, 8, 8))


@pytest.mark.parametrize("options", [
    {}, {"levels": 4, "zero": False}, {"levels": 4, "guard_bits": 0}, {"levels": 5, "guard_bits": 2, "act_bits": 6},
    {"levels": 3, "act_bits": 4, "raw_output": False}, {"levels": 1, "act_bits": 2, "calibration": "percentile"},
    {"levels": 8, "guard_bits": 1, "zero": False, "max_shift": 9}], ids=str)
@pytest.mark.parametrize("kind", ["plain", "signed", "pools", "vector", "map"])
def test_fake_quantized_equals_golden(kind: str, options: dict[str, object]) -> None:
    graph = captured(kind)
    images = torch.randint(0, 256, (40, 2, 8, 8), generator=torch.Generator().manual_seed(SEED)) / 256
    recipe = BQNet(**options)  # type: ignore[arg-type]
    fake = FakeQuantized(graph, recipe)
    calibrate(fake, images, recipe)
    network = lower(fake, graph, recipe, {})
    expected = golden.run(network, network.quantize_input(images.numpy()))
    with torch.no_grad():
        real = fake(images).numpy().reshape(expected.shape)
        x = fake.input(images)
        for module in fake.chain:  # layer by layer, as it is lowered
            x = module(fake.reshape(module, x))
    assert np.array_equal(x.numpy().reshape(expected.shape), real)
    integers = real * 2.0**-network.output.exponent
    assert network.output.bits == (32 if network.layers[-1].raw else recipe.act_bits)
    assert np.array_equal(integers, expected), f"seed {SEED}: {np.abs(integers - expected).max()} apart"
    assert len(np.unique(expected)) > 5 or recipe.act_bits == 2  # not all clamped away
