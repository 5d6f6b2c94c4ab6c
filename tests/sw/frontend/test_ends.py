"""What networks end in: a softmax is left to the host, several outputs become one."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shiftwright.hw.arch.errors import ModelError, UnsupportedError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.training import _divergence
from shiftwright.sw.frontend.capture import capture, on_images
from shiftwright.sw.frontend.graph import Output
from shiftwright.sw.train import accuracy
from tests.conftest import Outcome
from tests.integration.test_random_imports import REFUSALS
from tests.sw.frontend.ends import Function, all_the_way, captured, images
from tests.torch_networks import random_module

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (2, 6, 6)
NOTE = "is left to the host: the class with the highest score is the same without it"


def ending(end: Callable[[Tensor], Any]) -> nn.Module:
    return Function(lambda conv, linear, x: end(linear(conv(x).relu().flatten(1))), nn.Conv2d(2, 4, 3),
                    nn.Linear(64, 5))


ENDS: dict[str, tuple[Callable[[Tensor], Any], tuple[str, ...]]] = {
    "softmax": (lambda x: x.softmax(1), ("softmax",)),
    "last_dimension": (lambda x: torch.softmax(x, -1, dtype=torch.float64), ("softmax",)),
    "log_softmax": (lambda x: nn.functional.log_softmax(x, dim=1).contiguous(), ("log_softmax",)),
    "argmax": (lambda x: x.argmax(1), ("argmax",)),
    "argmax_keepdim": (lambda x: torch.argmax(x, -1, keepdim=True).squeeze(1), ("argmax",)),
    "both": (lambda x: x.softmax(1).argmax(dim=1), ("softmax", "argmax")),
    "sigmoid": (lambda x: x.sigmoid(), ("sigmoid",)),
    "in_a_list": (lambda x: [x.softmax(1)], ("softmax",)),
}


@pytest.mark.parametrize("name", ENDS)
def test_left_to_the_host(name: str) -> None:
    end, names = ENDS[name]
    model, graph = captured(lambda: ending(end), SHAPE)
    assert graph.left_to_host == tuple(f"{each} (Function) {NOTE}" for each in names)
    plain = ending(lambda x: x).double()
    plain.load_state_dict(model.state_dict())
    x = torch.rand(7, *SHAPE).double()
    assert torch.equal(on_images(model, graph)(x), plain(x)), "for any number of images"


def test_what_ends_in_scores_stays_as_it_is() -> None:
    model, graph = captured(lambda: ending(lambda x: x), SHAPE)
    assert on_images(model, graph) is model and not graph.left_to_host


def test_a_module_is_named() -> None:
    _, graph = captured(lambda: nn.Sequential(nn.Conv2d(2, 4, 6), nn.LogSoftmax(1)), SHAPE)
    assert graph.left_to_host == (f"1 (LogSoftmax) {NOTE}",)


@pytest.mark.parametrize(("end", "message"), [
    (lambda x: x.softmax(0), r"dim=0 is not supported, only 1, the classes; name the dimension"),
    (lambda x: x.argmax(), r"dim=None is not supported, only 1, the classes"),
    (lambda x: x.softmax(1) * 2,
     r"^softmax \(Function\): operator aten.softmax.int is not supported; return the logits"),
    (lambda x: (x.softmax(1), x.softmax(1) + 1), r"^softmax_1 \(Function\): operator aten.softmax.int"),
    (lambda x: x.sigmoid() * 2, r"operator aten.sigmoid.default is not supported; use nn.Hardtanh\(0, 1\) \(only"),
])
def test_refused_by_name(end: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        capture(ending(end), SHAPE)


def test_a_softmax_of_constants() -> None:
    mixing = torch.tensor([0.3, 2.0, -1.0, 0.5, 1.0])
    captured(lambda: ending(lambda x: {"scores": x * mixing.softmax(0)}), SHAPE)
    with pytest.raises(UnsupportedError, match=r"^softmax \(Function\): is of constants, in a network that ends"):
        capture(ending(lambda x: (x * mixing.softmax(0)).softmax(1)), SHAPE)


@pytest.mark.parametrize("recipe", ["bqnet", "ptq"])
@pytest.mark.parametrize("name", ["softmax", "argmax", "sigmoid"])
def test_all_the_way(name: str, recipe: str, seed: int) -> None:
    data, (model, _) = images(SHAPE, 5), captured(lambda: ending(ENDS[name][0]), SHAPE)
    network = all_the_way(model, SHAPE, data, seed, recipe=recipe)
    assert network.metadata["left_to_host"] == [f"{name} (Function) {NOTE}"]
    plain = ending(lambda x: x)
    plain.load_state_dict(model.state_dict())
    same = all_the_way(plain, SHAPE, data, seed, recipe=recipe)
    assert "left_to_host" not in same.metadata
    x = network.quantize_input(data.images / 256)
    np.testing.assert_array_equal(golden.run(network, x), golden.run(same, x))
    assert accuracy(on_images(model, capture(model, SHAPE)), data) == accuracy(plain, data)


@pytest.mark.parametrize("name", ["softmax", "argmax_keepdim"])
def test_the_teacher_gives_logits(name: str, seed: int) -> None:
    """Training with a softmax at the end gives the same bits as without one."""
    data, (model, _) = images(SHAPE, 5), captured(lambda: ending(ENDS[name][0]), SHAPE)
    plain = ending(lambda x: x)
    plain.load_state_dict(model.state_dict())
    recipe = load_recipe("bqnet", settings=["epochs=2", "batch=8", "calibration_images=12"])
    trained = [compress(each.float(), recipe, data, seed=seed) for each in (model, plain)]
    x = trained[0].quantize_input(data.images / 256)
    np.testing.assert_array_equal(*(golden.run(network, x) for network in trained))


def heads(scale: float = 1.0, second: Callable[[nn.Module, Tensor], Tensor] = lambda layer, x: layer(x)) -> nn.Module:
    def forward(conv: nn.Module, a: nn.Module, b: nn.Module, x: Tensor) -> dict[str, Tensor]:
        x = conv(x).relu().flatten(1)
        return {"digit": a(x).softmax(1), "kind": second(b, x) if scale == 1 else second(b, x) * scale}

    return Function(forward, nn.Conv2d(2, 4, 3), nn.Linear(64, 5), nn.Linear(64, 3))


OUTPUTS = (Output(name="digit", start=0, stop=5), Output(name="kind", start=5, stop=8))


@pytest.mark.parametrize(("make", "layers"), [
    (heads, ["parts.0", "parts.1+parts.2"]),
    (lambda: heads(20), ["parts.0", "parts.1", "parts.2", "outputs"]),
    (lambda: heads(1, lambda layer, x: layer(x).relu()), ["parts.0", "parts.1", "parts.2", "outputs"]),
], ids=["one_layer", "scales", "clamp"])
def test_several_outputs(make: Callable[[], nn.Module], layers: list[str], seed: int) -> None:
    model, graph = captured(make, SHAPE)
    assert graph.outputs == OUTPUTS and [layer.name for layer in graph.layers] == layers
    network = all_the_way(model, SHAPE, images(SHAPE), seed)
    assert network.metadata["outputs"] == [{"name": "digit", "channels": [0, 5]}, {"name": "kind", "channels": [5, 8]}]
    assert network.layers[-1].target.channels == 8
    all_the_way(model, SHAPE, images(SHAPE), seed, recipe="ptq")


OUTPUT_FORMS: dict[str, tuple[Callable[..., Any], list[tuple[str, int, int]]]] = {
    "tuple": (lambda a, b, x: (a(x), b(x)), [("0", 0, 4), ("1", 4, 6)]),
    "nested": (lambda a, b, x: {"maps": [a(x), b(x).relu()], "none": None}, [("maps.0", 0, 4), ("maps.1", 4, 6)]),
    "twice": (lambda a, b, x: [a(x)] * 2, [("0", 0, 4), ("1", 4, 8)]),
    "on_the_way": (lambda a, b, x: ((y := a(x).relu()), b(torch.cat([y, x], 1))), [("0", 0, 4), ("1", 4, 6)]),
    "input": (lambda a, b, x: (a(x), x), [("0", 0, 4), ("1", 4, 6)]),
    "concatenated": (lambda a, b, x: (torch.cat([a(x), x], 1), a(x)), [("0", 0, 6), ("1", 6, 10)]),
    "alone": (lambda a, b, x: {"scores": a(x)}, [("scores", 0, 4)]),
}


@pytest.mark.parametrize("form", OUTPUT_FORMS)
def test_forms_of_outputs(form: str, seed: int) -> None:
    function, expected = OUTPUT_FORMS[form]
    channels = 6 if form == "on_the_way" else 2
    model, graph = captured(lambda: Function(function, nn.Conv2d(2, 4, 1), nn.Conv2d(channels, 2, 1)), SHAPE)
    assert [(output.name, output.start, output.stop) for output in graph.outputs] == expected
    network = all_the_way(model, SHAPE, images(SHAPE), seed)
    assert len(network.metadata.get("outputs", [0])) == len(expected)


def test_outputs_of_different_sizes() -> None:
    with pytest.raises(UnsupportedError, match=r"'a' of shape \(N, 4, 4, 4\) and 'b' of shape \(N, 4, 1, 1\); all"):
        capture(Function(lambda conv, x: {"a": conv(x), "b": conv(x).mean((2, 3))}, nn.Conv2d(2, 4, 3)), SHAPE)


def test_training_of_several_outputs(seed: int) -> None:
    data, (model, _) = images(SHAPE), captured(heads, SHAPE)
    settings = ["epochs=1", "calibration_images=12"]
    with pytest.raises(ModelError, match=r"the outputs digit, kind, but labels are of one; set distill=1, .* epochs=0"):
        compress(model.float(), load_recipe("bqnet", settings=settings), data, seed=seed)
    compress(model.float(), load_recipe("bqnet", settings=[*settings, "distill=1"]), data, seed=seed)


def test_outputs_are_distilled_each_by_itself(seed: int) -> None:
    """What is added to all scores of one output changes none of its probabilities."""
    graph, generator = captured(heads, SHAPE)[1], torch.Generator().manual_seed(seed)
    sizes = graph.output_sizes
    assert len(sizes) == 2 and sum(sizes) == math.prod(graph.layers[-1].out_shape)
    logits, wanted = torch.randn(2, 5, sum(sizes), generator=generator)
    moved = wanted + torch.cat([torch.full((size,), 3.0 * number) for number, size in enumerate(sizes)])
    found = _divergence(logits, wanted, sizes)
    parts = [_divergence(*pair, [size]) for *pair, size in zip(logits.split(sizes, 1), wanted.split(sizes, 1), sizes,
                                                              strict=True)]
    assert found > 0.1 and torch.allclose(found, torch.stack(parts).sum())
    assert torch.allclose(_divergence(moved, wanted, sizes), torch.zeros(()), atol=1e-6)
    assert _divergence(moved, wanted, [sum(sizes)]) > 0.1


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.flat, self.a, self.b, self.heads = nn.Flatten(), nn.Linear(64, 10), nn.Linear(64, 3), heads

    def forward(self, x):
        x = self.flat(x)
        return {"digit": self.a(x), "kind": self.b(x)} if self.heads else self.a(x).argmax(1)

def two():
    return Net(True)

def one():
    return Net(False)
"""


def test_the_command_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shiftwright: Callable[..., Outcome]
                           ) -> None:
    (tmp_path / "mine_of_test_ends.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    options = "--data", "digits", "--set", "epochs=0", "-o"
    ran = shiftwright("--json", "compress", "mine_of_test_ends:one", *options, "a.swc")
    assert ran.code == 0 and f"argmax (Net) {NOTE}" in ran.err and '"float_accuracy"' in ran.out
    ran = shiftwright("info", "a.swc", "--json")
    assert f"argmax (Net) {NOTE}" in ran.out
    two = "mine_of_test_ends:two", *options, "b.swc"
    ran = shiftwright("--json", "compress", *two)
    assert ran.code == 0 and "outputs are one tensor's channels: digit from 0 to 9, kind from 10 to 12" in ran.err
    assert "accuracy" not in ran.out
    ran = shiftwright("info", "b.swc", "--json")
    assert ran.code == 0 and '"digit"' in ran.out
    ran = shiftwright("compress", *two, "--target-size", "500")
    assert ran.code == 2 and "has the outputs digit, kind, but a search needs an accuracy" in ran.err
    ran = shiftwright("compare", *two[:3], "--recipes", "bqnet", "-o", "out")
    assert ran.code == 2 and "has the outputs digit, kind, but accuracy is that of one" in ran.err


class Ended(nn.Module):
    """A random network that returns a softmax, and values on the way that have its height and width."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.network, self.shape = random_module(seed), random_module(seed).shape
        rng, last = np.random.default_rng(seed), self.values(torch.zeros(2, *self.shape))
        alike = [number for number, value in enumerate(last[1:-1], 1) if value.shape[2:] == last[-1].shape[2:]]
        self.chosen = [int(rng.choice(alike)) for _ in range(rng.integers(1, 3))] if alike else []

    def values(self, x: Tensor) -> list[Tensor]:
        values = [x]
        for op, reads in zip(self.network.ops, self.network.reads, strict=True):
            values.append(op(*(values[source] for source in reads)))
        return values

    def forward(self, x: Tensor) -> list[Tensor]:
        values = self.values(x)
        return [values[-1].softmax(1), *(values[number] for number in self.chosen)]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_random_networks_with_several_outputs(seed: int) -> None:
    several = 0
    for number in range(1000 * seed, 1000 * seed + 12):
        model = Ended(number)
        try:
            _, graph = captured(lambda model=model: model, model.shape)  # type: ignore[misc]
        except UnsupportedError as error:
            patterns = (*REFUSALS, "ends in padding or a slice", "all outputs must have one height")
            assert any(re.search(pattern, str(error)) for pattern in patterns), error
            continue
        several += len(graph.outputs) > 1
        assert graph.left_to_host == (f"softmax (Ended) {NOTE}",)
        if number % 6 == 0:
            all_the_way(model, model.shape, images(model.shape), number)
    assert several >= 4
