"""Networks on signals (N, C, L) run as maps of height 1."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from shiftwright.hw.arch.errors import ModelError, UnsupportedError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.data import Dataset
from shiftwright.sw.frontend.capture import capture, on_images
from shiftwright.sw.train import accuracy
from tests.sw.frontend.ends import Function, all_the_way, captured, images

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (3, 40)


def small() -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 8, 5, padding="same"), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
                         nn.Conv1d(8, 8, 3, 2, 1, groups=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
                         nn.Linear(8, 4))


SUPPORTED: dict[str, Callable[[], nn.Module]] = {
    "small": small,
    "attributes": lambda: nn.Sequential(nn.Conv1d(3, 6, 4, 3, 2, 2, groups=3, bias=False), nn.Dropout1d()),
    "valid": lambda: nn.Sequential(nn.Conv1d(3, 4, 3, padding="valid", dilation=3)),
    "same": lambda: nn.Sequential(nn.Conv1d(3, 4, 4, padding="same", dilation=3)),
    "norm": lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Conv1d(3, 4, 3)),
    "max_pool": lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.MaxPool1d(3, 2, 1, 2, ceil_mode=True)),
    "avg_pool": lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.AvgPool1d(4, 3, 2)),
    "adaptive": lambda: nn.Sequential(nn.AdaptiveAvgPool1d(5), nn.Conv1d(3, 4, 5)),
    "mean": lambda: Function(lambda conv, linear, x: linear(conv(x).relu().mean(-1)), nn.Conv1d(3, 4, 3),
                             nn.Linear(4, 3)),
    "mean_keepdim": lambda: Function(lambda conv, x: conv(x.mean((2,), keepdim=True)), nn.Conv1d(3, 4, 1)),
    "flatten": lambda: nn.Sequential(nn.Conv1d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(76, 5)),
    "padded": lambda: nn.Sequential(nn.ConstantPad1d((3, 1), 0.0), nn.Conv1d(3, 4, 3)),
    "residual": lambda: Function(lambda a, b, x: torch.relu(
        b(a(x).relu()) + functional.pad(x[:, :, ::2], (0, 0, 1, 2))), nn.Conv1d(3, 4, 3, 2, 1), nn.Conv1d(4, 6, 1)),
    "concatenation": lambda: Function(lambda a, b, x: torch.cat([a(x), b(x)], 1).clamp(-0.3, 0.5), nn.Conv1d(3, 4, 3),
                                      nn.Conv1d(3, 2, 3)),
    "constants": lambda: Function(lambda a, x: a(x - 0.5) * torch.tensor([[1.0], [2.0]]).double(),
                                  nn.Conv1d(3, 2, 3)),
    "to_a_map": lambda: Function(lambda a, b, x: b(a(x).unsqueeze(2)).squeeze(2), nn.Conv1d(3, 4, 3),
                                 nn.Conv2d(4, 2, (1, 3))),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", SUPPORTED)
def test_graph_computes_what_the_module_computes(name: str) -> None:
    _, graph = captured(SUPPORTED[name], SHAPE)
    assert graph.inputs == (SHAPE,) and graph.image_shape == (3, 1, 40)


def test_images_of_height_1_fit_both() -> None:
    _, graph = captured(small, (3, 1, 40))
    assert graph.inputs == (SHAPE,)
    _, graph = captured(lambda: nn.Sequential(nn.Conv2d(3, 2, (1, 3))), (3, 1, 40))
    assert graph.inputs == ()
    _, graph = captured(lambda: Function(lambda conv, x: conv(x.squeeze(2)), nn.Conv1d(3, 2, 3)), (3, 1, 40))
    assert graph.inputs == ()


@pytest.mark.parametrize("recipe", ["bqnet", "ptq"])
def test_all_the_way(recipe: str, seed: int) -> None:
    data = images(SHAPE, classes=4)
    assert data.shape == (3, 1, 40)
    model, _ = captured(small, SHAPE)
    network = all_the_way(model, SHAPE, data, seed, recipe=recipe)
    assert network.input.shape == (3, 1, 40) and network.layers[-1].target.shape == (4, 1, 1)


def test_training(seed: int) -> None:
    """The teacher takes signals; they are not shifted up or down."""
    labels = np.arange(256) % 2
    signals = np.zeros((256, 1, 32), np.uint8)
    signals[np.arange(256), 0, np.arange(256) // 2 % 30] = 200
    signals[labels == 1] = 200 - signals[labels == 1]
    data = Dataset(signals, labels, "spikes", "train", ("low", "high"))
    model = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
                          nn.Linear(4, 2))
    with torch.no_grad():
        for parameter, values in zip(model.parameters(), ([0, 1, 0], 0, 0, [1.5, -1.5]), strict=True):
            parameter.copy_(torch.tensor(values).float().expand_as(parameter) if parameter.dim() != 2 else
                            torch.tensor([[-1.0], [1.0]]).expand_as(parameter))
    network = compress(model, load_recipe("bqnet", settings=["epochs=2", "batch=64"]), data, seed=seed)
    assert accuracy(on_images(model, capture(model, (1, 1, 32))), data) > 0.9
    assert golden.accuracy(network, data) > 0.9


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "map_pooling": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.MaxPool2d(2)),
                    r"^1 \(MaxPool2d\): input has shape \(N, 4, 38\); it needs \(N, C, H, W\)$"),
    "avg_ceil": (lambda: nn.Sequential(nn.AvgPool1d(3, ceil_mode=True)),
                 r"^0 \(AvgPool1d\): ceil_mode=True with a map of 1 x 40 .* set ceil_mode=False$"),
    "count_include_pad": (lambda: nn.Sequential(nn.AvgPool1d(3, 3, 1, count_include_pad=False)),
                          r"^0 \(AvgPool1d\): count_include_pad=False with padding .* set count_include_pad=True$"),
    "adaptive": (lambda: nn.Sequential(nn.AdaptiveAvgPool1d(7)),
                 r"does not divide the map of 1 x 40; use nn.AvgPool1d$"),
    "mean_of_channels": (lambda: Function(lambda x: x.mean(1)), r"dim=\[1\] is not supported, .*; use x.mean\(2\)$"),
    "linear": (lambda: nn.Sequential(nn.Linear(40, 2)),
               r"^0 \(Linear\): input has shape \(N, 3, 40\); put nn.Flatten\(\) before it$"),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose1d(3, 3, 3)),
                   r"^0 \(ConvTranspose1d\): operator aten.conv_transpose1d.default is not supported; use nn.Conv1d"),
    "transpose": (lambda: nn.Sequential(nn.Conv1d(3, 3, 3), Function(lambda x: x.transpose(1, 2))),
                  r"keep the layout N, C, H, W, or N, C, L$"),
    "width_to_height": (lambda: nn.Sequential(nn.Conv1d(3, 3, 3), nn.Unflatten(2, (2, 19))), r"unflatten"),
    "unsqueezed": (lambda: Function(lambda a, x: a(x.unsqueeze(3)), nn.Conv2d(3, 2, 1)),
                   r"reshapes \(N, 3, 40\) to \(N, 3, 40, 1\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        capture(make(), SHAPE)


def test_neither_shape_fits() -> None:
    with pytest.raises(ModelError, match=r"can't be traced with an input of shape \(2, 5, 1, 9\): .*, nor of shape "
                                         r"\(2, 5, 9\): .*; check the input shape"):
        capture(small(), (5, 1, 9))
