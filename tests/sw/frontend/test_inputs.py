"""Several inputs become the channels of one image."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from shiftwright.hw.arch.errors import DataError, ModelError, UnsupportedError
from shiftwright.sw.compress import compress
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.graph import INPUT
from shiftwright.sw.frontend.images import OnImages
from tests.sw.frontend.ends import Function, all_the_way, captured, images

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = ((2, 6, 7), (1, 6, 7), (3, 6, 7))


def taking(function: Callable[..., Tensor], *modules: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Function(function, *modules)


SUPPORTED: dict[str, Callable[[], nn.Module]] = {
    "convolutions": taking(lambda a, b, c, x, y, z: a(x) + b(y).relu() + c(z), nn.Conv2d(2, 4, 3), nn.Conv2d(1, 4, 3),
                           nn.Conv2d(3, 4, 3)),
    "groups": taking(lambda a, b, x, y, z: torch.cat([a(z).relu(), b(x)], 1), nn.Conv2d(3, 6, 3, groups=3),
                     nn.Conv2d(2, 4, 3, groups=2)),
    "padded": taking(lambda a, x, y, z: a(nn.functional.pad(y, (1, 0, 2, 0))), nn.Conv2d(1, 4, 3)),
    "all": taking(lambda a, x, y, z: a(torch.cat([x, y, z], 1)), nn.Conv2d(6, 4, 3)),
    "all_and_one": taking(lambda a, b, x, y, z: a(torch.cat([x, y, z], 1)) + b(y), nn.Conv2d(6, 4, 3),
                          nn.Conv2d(1, 4, 3)),
    "vectors": taking(lambda a, b, x, y, z: a(x.flatten(1)) + b(z.flatten(1)), nn.Linear(84, 4), nn.Linear(126, 4)),
    "all_vectors": taking(lambda a, x, y, z: a(torch.cat([x.flatten(1), y.flatten(1), z.flatten(1)], 1)),
                          nn.Linear(252, 4)),
    "unused": taking(lambda a, x, y, z: a(z), nn.Conv2d(3, 4, 3)),
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_graph_computes_what_the_module_computes(name: str) -> None:
    _, graph = captured(SUPPORTED[name], SHAPES)
    assert graph.inputs == SHAPES and graph.image_shape == (6, 6, 7)


def test_structure() -> None:
    _, graph = captured(SUPPORTED["groups"], SHAPES)
    first = graph.layers[0]
    assert first.source == INPUT and first.groups == 1 and first.weight is not None
    assert first.weight.shape == (6, 6, 3, 3) and (first.weight != 0).sum() == 6 * 9
    assert not captured(SUPPORTED["all"], SHAPES)[1].concats


@pytest.mark.parametrize("recipe", ["bqnet", "ptq"])
@pytest.mark.parametrize("name", ["all_and_one", "groups", "vectors"])
def test_all_the_way(name: str, recipe: str, seed: int) -> None:
    model, _ = captured(SUPPORTED[name], SHAPES)
    network = all_the_way(model, SHAPES, images((6, 6, 7)), seed, recipe=recipe)
    assert network.input.channels * network.input.height * network.input.width == 6 * 6 * 7


def test_training_and_signals(seed: int) -> None:
    """The teacher takes each input by itself."""
    shapes = ((1, 24), (2, 24))
    model, graph = captured(taking(lambda a, b, x, y: (a(x) + b(y)).relu().mean(2).softmax(1), nn.Conv1d(1, 4, 3),
                                   nn.Conv1d(2, 4, 3)), shapes)
    assert graph.inputs == shapes
    all_the_way(model, shapes, images((3, 24)), seed, "epochs=1", "batch=12")


def test_wrapped() -> None:
    """What a command can be given, which has no way to tell shapes."""
    model, graph = captured(SUPPORTED["all"], SHAPES)
    wrapped = capture(OnImages(model, SHAPES), (6, 6, 7))
    assert wrapped.inputs == SHAPES and wrapped.parameters == graph.parameters
    with pytest.raises(ModelError, match=r"takes images of shape \(6, 6, 7\), not \(5, 6, 7\)"):
        capture(OnImages(model, SHAPES), (5, 6, 7))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "pooling": (taking(lambda a, x, y, z: a(nn.functional.max_pool2d(x, 2)), nn.Conv2d(2, 4, 2)),
                r"^max_pool2d \(Function\): reads one of several inputs, .*; put a 1 x 1 convolution before it$"),
    "addition": (taking(lambda a, x, y, z: a(x) + z, nn.Conv2d(2, 3, 1)), r"^add \(Function\): reads one of several"),
    "constant": (taking(lambda a, x, y, z: a(x - 0.5), nn.Conv2d(2, 3, 1)), r"^sub \(Function\): reads one of several"),
    "another_order": (taking(lambda a, x, y, z: a(torch.cat([y, x, z], 1)), nn.Conv2d(6, 3, 1)),
                      r"^cat \(Function\): reads one of several"),
    "not_all": (taking(lambda a, x, y, z: a(torch.cat([x, y], 1)), nn.Conv2d(3, 3, 1)),
                r"^cat \(Function\): reads one of several"),
    "flattened": (taking(lambda a, x, y, z: a(torch.cat([y.flatten(1), z.flatten(1)], 1)), nn.Linear(168, 3)),
                  r"^cat \(Function\): reads one of several"),
    "returned": (taking(lambda a, x, y, z: (a(x), y), nn.Conv2d(2, 3, 1)), r"^the network: reads one of several"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        capture(make(), SHAPES)


def test_shapes_that_do_not_fit() -> None:
    model = SUPPORTED["all"]()
    with pytest.raises(ModelError, match=r"must have one height and width, .*, but have the shapes \(2, 6, 7\) and "
                                         r"\(1, 6, 6\)$"):
        capture(model, [(2, 6, 7), (1, 6, 6)])
    with pytest.raises(ModelError, match=r"can't be traced with inputs of shape \(2, 2, 6, 7\) and \(2, 1, 6, 7\): .*, "
                                         r"and that forward takes 2 tensors \(of several, give the shape of each\)"):
        capture(model, SHAPES[:2])
    with pytest.raises(DataError, match=r"has images of shape \(5, 6, 7\), but the network takes \(6, 6, 7\)"):
        compress(model, "bqnet", images((5, 6, 7)), input_shape=SHAPES)
