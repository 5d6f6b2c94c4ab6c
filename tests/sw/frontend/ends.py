"""What the tests of inputs, signals and ends share: networks all the way to images that two readers agree on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from shiftwright.sw.compress import compress
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.data import Dataset
from shiftwright.sw.frontend.capture import InputShape, capture, on_images
from shiftwright.sw.frontend.graph import Graph
from shiftwright.sw.network import QuantizedNetwork
from tests.graphs import execute
from tests.integration.test_compiled_networks import check, random_config

__all__ = ["Function", "all_the_way", "captured", "images"]

SEED = 7


class Function(nn.Module):
    """Modules, and a function that takes them and the inputs."""

    def __init__(self, function: Callable[..., Any], *modules: nn.Module) -> None:
        super().__init__()
        self.parts, self.function = nn.ModuleList(modules), function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*self.parts, *inputs)


def images(shape: Sequence[int], classes: int = 2) -> Dataset:
    """Random ones."""
    rng = np.random.default_rng(SEED)
    return Dataset(rng.integers(0, 256, (24, *shape), dtype=np.uint8), rng.integers(0, classes, 24), "random", "train",
                   tuple(map(str, range(classes))))


def captured(make: Callable[[], nn.Module], shape: InputShape) -> tuple[nn.Module, Graph]:
    """A network with random weights and statistics, and its graph, which computes what it does, ends left out."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = make().double().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.1, 2)
    graph = capture(model, shape)
    x = torch.rand(3, *graph.image_shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    expected = on_images(model, graph)(x).detach()
    np.testing.assert_allclose(execute(graph, x).reshape(expected.shape), expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 0.01
    return model, graph


def all_the_way(model: nn.Module, shape: InputShape, data: Dataset, seed: int, *settings: str, recipe: str = "bqnet"
                ) -> QuantizedNetwork:
    """Compress, without training unless settings say so; compile; the golden model and the interpreter agree."""
    given = ["epochs=0" if recipe == "bqnet" else "slope=0.000001", *settings]
    network = compress(model.float(), load_recipe(recipe, settings=["calibration_images=12", *given]), data,
                       input_shape=shape, seed=seed)
    check(network, random_config(seed, act_depth=16384), seed, images=2)
    return network
