"""Deep compression: thresholds, shared values and their gradients, and the published form's size."""

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.clustered import grid_values
from shiftwright.sw.compress.codebooks import Codebook, ThresholdPruning, from_vectors, to_vectors
from shiftwright.sw.compress.codesizes import differences, huffman_bits
from shiftwright.sw.compress.deepcompression import DeepCompression
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.training import fine_tune
from shiftwright.sw.compress.weights import TermGrid
from shiftwright.sw.data import load
from tests.sw.compress.recipes import SEED, captured, check_exact, check_rtl, digits, digits_network, small_network

pytestmark = pytest.mark.usefixtures("one_thread")


def fake(recipe: DeepCompression) -> FakeQuantized:
    """The digits' network before it is trained."""
    return FakeQuantized(captured(digits_network(), recipe), recipe)


def test_threshold_rises_and_what_is_out_stays_out(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = DeepCompression(epochs=4, quality=0.8, rounds=3)
    network = fake(recipe)
    first = {name: layer.master_weight.clone() for name, layer in network.weighted.items()}
    masks = []
    before_step = ThresholdPruning.before_step

    def spy(self: ThresholdPruning, network: FakeQuantized, step: int) -> None:
        before_step(self, network, step)
        masks.append({name: layer.weight_quantizer.mask.clone() for name, layer in network.weighted.items()})

    monkeypatch.setattr(ThresholdPruning, "before_step", spy)
    fine_tune(network, digits_network(), digits(200), recipe, recipe.pruning(network), seed=SEED, progress=None)
    for name, weight in first.items():
        kept = [int(mask[name].sum()) for mask in masks]
        assert len(set(kept)) == 3 and kept == sorted(kept, reverse=True)
        assert torch.equal(masks[0][name], weight.abs() >= 0.8 / 3 * weight.std(correction=0))
        assert all(bool((after[name] <= before[name]).all()) for before, after in zip(masks, masks[1:], strict=False))
        assert not network.weighted[name].weight[~masks[-1][name]].any()


def test_gradient_of_a_centroid_is_the_sum_of_its_weights() -> None:
    labels, mask = torch.tensor([[0, 1, 1, 0, 1, 0]]), torch.tensor([True, True, True, False, True, True])
    quantizer = Codebook([torch.tensor([[0.5], [-0.25]])], labels, mask.reshape(2, 3, 1, 1))
    centroids = nn.Parameter(quantizer.start.clone())
    (quantizer(centroids) * torch.arange(1.0, 7).reshape(2, 3, 1, 1)).sum().backward()
    assert quantizer.uses.tolist() == [[2.0], [3.0]]
    assert centroids.grad is not None and centroids.grad.tolist() == [[7.0], [10.0]]
    quantizer.snap(TermGrid(1, 3))
    quantizer.fit(centroids.detach())
    assert quantizer(centroids).flatten().tolist() == [0.5, -0.25, -0.25, 0.0, -0.25, 0.5]


@pytest.mark.parametrize("dimension", [1, 2, 3, 8])
def test_vectors_are_consecutive_taps(dimension: int) -> None:
    weight = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    vectors = to_vectors(weight, dimension)
    assert vectors.shape == (2 * -(-12 // dimension), dimension)
    assert vectors.flatten()[:3].tolist() == [0.0, 4.0, 8.0]
    assert torch.equal(from_vectors(vectors, weight.shape), weight)


@pytest.mark.parametrize("start", ["linear", "density", "random"])
def test_assignments_are_fixed_and_centroids_move(start: str) -> None:
    recipe = DeepCompression(epochs=3, portions=(0.3, 0.6, 1), fc_bits=3, start=start)
    network = fake(recipe)
    recipe.train(network, digits_network(), digits(200), seed=SEED, progress=None)
    for name, layer in network.weighted.items():
        quantizer = layer.weight_quantizer
        assert isinstance(quantizer, Codebook) and quantizer.quantized
        centroids = layer.master_weight
        assert bool((centroids != quantizer.start).any())
        assert name != "fc" or len(centroids) == 8
        weights = to_vectors(layer.weight.detach(), 1)[:, 0]
        live = to_vectors(quantizer.mask, 1)[:, 0]
        assert not weights[~live].any()
        pairs = torch.unique(torch.stack([quantizer.indices.double(), weights.double()])[:, live], dim=1)
        assert pairs.shape[1] == len(centroids), "one value for each centroid"


def test_sizes() -> None:
    assert huffman_bits(np.array([5, 5, 5, 5, 1, 1, 2, 3])) == 4 * 1 + 2 * 2 + 2 * 3
    found, real = differences(np.array([0, 3, 4, 14, 15]), 2)
    assert found.tolist() == [1, 3, 1, 4, 4, 2, 1] and real.tolist() == [1, 1, 1, 0, 0, 1, 1]
    assert grid_values(1, 4) == 9 and grid_values(2, 6) == len(TermGrid(2, 6).numbers)


@pytest.mark.parametrize("recipe", [
    DeepCompression(epochs=3, guard_bits=0), DeepCompression(epochs=0),
    DeepCompression(epochs=3, learner="som", bits=4),
    DeepCompression(epochs=3, act_bits=4, terms=1, span=4, quality=0)])
def test_training_equals_the_integers(recipe: DeepCompression) -> None:
    _, network = check_exact(small_network(), recipe, digits(128))
    for layer in network.layers:
        if layer.op == "conv":
            assert all(len(terms) <= recipe.terms for terms in layer.codebook)
            assert bool((layer.values == 0).mean() > 0.4) or not recipe.quality


def test_digits_and_seeds() -> None:
    recipe = DeepCompression(epochs=14, quality=0.75)
    network = compress(digits_network(), recipe, digits(), seed=SEED)
    assert golden.accuracy(network, load("digits", split="test")) >= 0.93, f"seed {SEED}"
    size = network.metadata["published_form"]
    parts = [size[f"{name}_bits"] for name in ("codebook", "codeword", "position", "bias")]
    assert size["bytes"] == -(-sum(parts) // 8) and parts[3] == 34 * 32 and all(parts)
    short = recipe.replace(epochs=3, start="random")
    again = [compress(digits_network(), short, digits(200), seed=seed).layers for seed in (1, 1, 2)]
    same = [all(np.array_equal(one.indices, two.indices) and np.array_equal(one.bias, two.bias)
                for one, two in zip(again[0], other, strict=True) if one.op == "conv") for other in again[1:]]
    assert same == [True, False]


def test_a_threshold_beyond_all_weights() -> None:
    message = r"layer fc: quality = 50 takes all 2560 weights out, as none reaches [\d.]+; lower its quality"
    with pytest.raises(ModelError, match=message):
        compress(digits_network(), DeepCompression(layers={"fc": {"quality": 50}}), digits(64))


@pytest.mark.parametrize(("settings", "message"), [
    (["quality=-1"], "recipe deepcompression: quality must be a number from 0 to 100, not -1"),
    (["bits=9"], "recipe deepcompression: bits must be an integer from 1 to 8, not 9"),
    (["layers.fc.bits=0"], "layers.fc: bits must be an integer from 1 to 8, not 0"),
    (["rounds=0"], "rounds must be an integer from 1 to 1000, not 0"),
    (["start='x'"], "recipe deepcompression: start must be 'linear', 'density' or 'random', not 'x'"),
    (["learner='x'"], "recipe deepcompression: learner must be 'kmeans' or 'som', not 'x'"),
    (["portions=[0.5,1.0]"], r"portions must be 3 shares, as \[0.6, 0.8, 1.0\], not \[0.5, 1.0\]"),
    (["radius=2"], "radius must be a number from 0 to 1, not 2"),
    (["span=9"], "span must be an integer from 1 to 8, not 9"),
    (["dimension=2"], "recipe deepcompression has no option 'dimension'")])
def test_bad_options(settings: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_recipe("deepcompression", settings=settings)


@pytest.mark.regress
def test_rtl() -> None:
    check_rtl(compress(digits_network(), DeepCompression(epochs=3), digits(), seed=SEED))
