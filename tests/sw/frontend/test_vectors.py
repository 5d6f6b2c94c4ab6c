"""Networks on vectors (N, features) run as ones on images of a single pixel."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.hw.arch.errors import ModelError, UnsupportedError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.data import Dataset
from shiftwright.sw.frontend.capture import capture, on_images
from shiftwright.sw.train import accuracy, shift_randomly
from tests.sw.frontend.ends import Function, all_the_way, captured, images

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (16,)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 12), nn.ReLU6(),
                         nn.Linear(12, 5))


SUPPORTED: dict[str, Callable[[], nn.Module]] = {
    "small": small,
    "flattened": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)),
    "normalized": lambda: nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 3)),
    "constants": lambda: Function(lambda a, x: a((x - 0.5) * torch.linspace(0.5, 2, 16).double()), nn.Linear(16, 3)),
    "residual": lambda: Function(lambda a, b, x: torch.relu(b(a(x).relu()) + a(x)), nn.Linear(16, 8), nn.Linear(8, 8)),
    "concatenation": lambda: Function(lambda a, b, x: b(torch.cat([a(x), a(x) * 2], 1).relu()), nn.Linear(16, 4),
                                      nn.Linear(8, 3)),
    "outputs": lambda: Function(lambda a, b, x: {"one": a(x).softmax(1), "two": b(x)}, nn.Linear(16, 4),
                                nn.Linear(16, 3)),
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_graph_computes_what_the_module_computes(name: str) -> None:
    _, graph = captured(SUPPORTED[name], SHAPE)
    assert graph.inputs == (SHAPE,) and graph.image_shape == (16, 1, 1)


def test_images_of_one_pixel_fit_both() -> None:
    for shape in (SHAPE, (16, 1, 1)):
        assert capture(small().eval(), shape).inputs == (SHAPE,)
    assert capture(nn.Sequential(nn.Conv2d(16, 2, 1)), (16, 1, 1)).inputs == ()
    assert capture(nn.Sequential(nn.Conv1d(16, 2, 1)), (16, 1, 1)).inputs == ((16, 1),)


def test_several_vectors() -> None:
    _, graph = captured(lambda: Function(lambda a, b, c, x, y: c(torch.cat([a(x).relu(), b(y).relu()], 1)),
                                         nn.Linear(6, 4), nn.Linear(10, 4), nn.Linear(8, 3)), [(6,), (10,)])
    assert graph.inputs == ((6,), (10,)) and graph.image_shape == (16, 1, 1)
    _, graph = captured(lambda: Function(lambda a, x, y: a(torch.cat([x, y], 1)), nn.Linear(16, 4)), [(6,), (10,)])
    assert [layer.in_shape for layer in graph.layers] == [(16, 1, 1)]


@pytest.mark.parametrize("recipe", ["bqnet", "ptq"])
def test_all_the_way(recipe: str, seed: int) -> None:
    data = images(SHAPE, classes=5)
    assert data.shape == (16, 1, 1)
    model, _ = captured(small, SHAPE)
    network = all_the_way(model, SHAPE, data, seed, recipe=recipe)
    assert network.input.shape == (16, 1, 1) and network.layers[-1].target.shape == (5, 1, 1)


def test_vectors_are_not_shifted(seed: int) -> None:
    vectors = torch.rand(20, 8, 1, 1)
    assert torch.equal(shift_randomly(vectors, 3, torch.Generator().manual_seed(seed)), vectors)


def test_training(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 256, (512, 8), dtype=np.uint8)
    labels = (features[:, 0] > features[:, 1]).astype(np.int64)
    data = Dataset(features, labels, "features", "train", ("low", "high"))
    model = nn.Sequential(nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-4.0, 4.0], [4.0, -4.0]]) @ torch.eye(2, 8))
        model[0].bias.zero_()
    assert accuracy(on_images(model, capture(model, (8,))), data) > 0.98
    network = compress(model, load_recipe("bqnet", settings=["epochs=2", "batch=64"]), data, seed=seed)
    assert golden.accuracy(network, data) > 0.95


@pytest.mark.parametrize(("make", "message"), [
    (lambda: nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3)), "unflatten"),
    (lambda: Function(lambda a, x: a(x.view(-1, 1, 4, 4)), nn.Conv2d(1, 2, 3)),
     r"reshapes \(N, 16\) to \(N, 1, 4, 4\)"),
    (lambda: nn.Sequential(nn.Conv1d(2, 3, 1)), r"changes the batch dimension from \(2, 16\) to \(3, 16\)"),
])
def test_refused_by_name(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        capture(make(), SHAPE)


def test_shapes() -> None:
    for shape in ((), (0,), (1, 2, 3, 4)):
        with pytest.raises(ModelError, match=r"input shape must be .* or features, not"):
            capture(small(), shape)
    with pytest.raises(ModelError, match=r"the inputs must have one height and width"):
        capture(small(), [(16,), (16, 2)])
