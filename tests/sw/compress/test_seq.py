"""Split linear layers, and uniform values with a boundary by least squares."""

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.lowrank import rank_of, split_layer, split_linear
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.seq import SEQ
from shiftwright.sw.compress.uniform import Uniform
from shiftwright.sw.compress.weights import TermGrid
from shiftwright.sw.data import load
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.graph import FloatLayer
from tests.sw.compress.recipes import SEED, check_exact, check_rtl, digits, digits_network, small_network

pytestmark = pytest.mark.usefixtures("one_thread")


def product(one: FloatLayer, two: FloatLayer) -> np.ndarray:
    """The matrix of two linear layers."""
    assert one.weight is not None and two.weight is not None
    return two.weight.reshape(len(two.weight), -1) @ one.weight.reshape(len(one.weight), -1)


@pytest.mark.parametrize("energy", [1.0, 0.99, 0.9, 0.5, 0.01])
def test_a_split_layer_is_the_layer_but_for_the_energy_that_was_cut(energy: float) -> None:
    layer = next(layer for layer in capture(small_network(), (1, 8, 8)).layers if layer.name == "fc1")
    assert layer.weight is not None and layer.bias is not None
    matrix = layer.weight.reshape(40, -1)
    rank = rank_of(matrix, energy)
    one, two = split_layer(layer, rank)
    cut = np.square(product(one, two) - matrix).sum() / np.square(matrix).sum()
    assert cut <= 1 - energy + 1e-9
    kept = np.cumsum(np.linalg.svd(matrix, compute_uv=False) ** 2) / np.square(matrix).sum()
    assert cut == pytest.approx(1 - kept[rank - 1], abs=1e-9) and (rank == 1 or kept[rank - 2] < energy)
    assert (one.name, two.name, one.out_shape, two.in_shape) == ("fc1.0", "fc1.1", (rank, 1, 1), (rank, 1, 1))
    assert not one.clamp.active and two.clamp == layer.clamp and np.array_equal(two.bias, layer.bias)  # type: ignore[arg-type]
    assert one.bias is not None and not one.bias.any()


def test_only_linear_layers_that_get_smaller_are_split() -> None:
    class Joined(nn.Module):
        """Linear layers that others read by name: as a residual and as a part of a concatenation."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(64, 32), nn.Linear(32, 32)
            self.c = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.a(x.flatten(1)))
            return self.c(torch.cat([x, torch.relu(self.b(x) + x)], 1))

    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = Joined().eval()
        model.a.weight.data = torch.randn(32, 2) @ torch.randn(2, 64)
        model.b.weight.data = torch.randn(32, 2) @ torch.randn(2, 32)
    graph = capture(model, (1, 8, 8))
    whole = split_linear(graph, lambda layer: 0.0)
    assert [layer.name for layer in whole.layers] == [layer.name for layer in graph.layers]
    split = split_linear(graph, lambda layer: 1 - 1e-9)
    assert [layer.name for layer in split.layers] == ["a.0", "a.1", "b.0", "b.1", "c"]  # c has full rank
    assert split.parameters == graph.parameters and split.weights < graph.weights
    assert [part for concat in split.concats for part in concat.parts] == ["a.1", "b.1"]
    assert [joined.source for layer in split.layers for joined in layer.residuals] == ["a.1"]
    check_exact(model, SEQ(epochs=1, energy=0.9), digits(128))


def test_the_boundary_has_the_least_squared_error() -> None:
    weight = torch.randn(4000, generator=torch.Generator().manual_seed(SEED))
    for bits, grid in ((2, TermGrid(1, 1)), (3, TermGrid(2, 6)), (4, TermGrid(2, 6)), (8, TermGrid(4, 8))):
        quantizer = Uniform(bits, grid)
        quantizer.fit(weight)
        error = float((quantizer.quantize(weight) - weight).square().mean())
        assert len(quantizer.values) <= 2**bits - 1 and torch.isin(quantizer.values, grid.numbers).all()
        assert torch.equal(quantizer.values, -quantizer.values.flip(0))
        # Least errors of a uniform quantizer of the normal distribution, and a share for values that were snapped.
        least = {2: 0.190, 3: 0.0444, 4: 0.0134, 8: 0.0003}[bits]
        assert error <= least * (1.5 if bits == 2 else 1.25 if bits < 8 else 3), f"{bits} bits, error {error}"
        assert bits == 8 or quantizer.boundary < 0.9 * float(weight.abs().max())


def test_later_boundaries_stay_within_the_scale() -> None:
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(SEED))
    quantizer = Uniform(4, TermGrid(2, 6))
    quantizer.fit(weight)
    k_top, boundary, quantizer.settled = quantizer.k_top, quantizer.boundary, True
    quantizer.fit(weight * 0.7)
    assert quantizer.k_top == k_top and quantizer.boundary < boundary
    quantizer.fit(weight * 16)
    assert quantizer.k_top == k_top


@pytest.mark.parametrize("options", [{"guard_bits": 0}, {"bits": 8, "terms": 4, "span": 8, "energy": 0},
                                     {"bits": 2, "energy": 0.5, "act_bits": 4}], ids=str)
def test_training_equals_the_integers(options: dict[str, int]) -> None:
    recipe = SEQ(epochs=4, **options)  # type: ignore[arg-type]
    _, network = check_exact(small_network(), recipe, digits(128))
    for layer in network.layers:
        if layer.op == "conv":
            assert all(len(terms) <= recipe.terms for terms in layer.codebook)
            assert layer.residuals or len(layer.codebook) <= 2**recipe.bits - 1


def test_digits_and_seeds() -> None:
    network = compress(digits_network(), SEQ(epochs=6, energy=0.95), digits(), seed=SEED)
    assert [layer.name for layer in network.layers if layer.op == "conv"] == ["conv1", "conv2", "fc.0", "fc.1"]
    assert network.parameters == 3890
    assert golden.accuracy(network, load("digits", split="test")) >= 0.96, f"seed {SEED}"
    again = [compress(digits_network(), SEQ(epochs=2), digits(200), seed=seed).layers for seed in (1, 1, 2)]
    same = [all(np.array_equal(one.indices, two.indices) and np.array_equal(one.bias, two.bias)
                for one, two in zip(again[0], other, strict=True) if one.op == "conv") for other in again[1:]]
    assert same == [True, False]


def test_options_of_a_split_layer() -> None:
    recipe = SEQ(epochs=0, layers={"fc": {"energy": 0.5, "bits": 6}, "fc.1": {"bits": 2}})
    layers = {layer.name: layer for layer in compress(digits_network(), recipe, digits(64)).layers}
    assert len(layers["fc.1"].codebook) <= 3 and len(layers["fc.0"].codebook) > 15
    with pytest.raises(ModelError, match=r"layers names 'fc.1', which is no layer with weights"):
        compress(digits_network(), SEQ(energy=0, layers={"fc.1": {"bits": 2}}), digits(64))


@pytest.mark.parametrize(("settings", "message"), [
    (["bits=9"], "recipe seq: bits must be an integer from 2 to 8, not 9"),
    (["energy=1.5"], "recipe seq: energy must be a number from 0 to 1, not 1.5"),
    (["layers.fc.terms=0"], "recipe seq: layers.fc: terms must be an integer from 1 to 8, not 0"),
    (["span=9"], "recipe seq: span must be an integer from 1 to 8, not 9")])
def test_bad_options(settings: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_recipe("seq", settings=settings)


@pytest.mark.regress
def test_rtl() -> None:
    check_rtl(compress(digits_network(), SEQ(epochs=2), digits(), seed=SEED))
