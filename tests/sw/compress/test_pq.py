"""Product quantization and self-organizing maps: masked vectors, stages, limits."""

import numpy as np
import pytest

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.codebooks import Codebook, to_vectors
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.pq import PQ
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.som import SOM
from shiftwright.sw.data import load
from tests.sw.compress.recipes import SEED, captured, check_exact, check_rtl, digits, digits_network, small_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("recipe", [
    PQ(epochs=3, dimension=2, entries=32), PQ(epochs=3, dimension=8, entries=16, learner="som"),
    SOM(epochs=3, dimension=2, stages=(8, 4)), SOM(epochs=3)], ids=["pq2", "pq8", "som2", "som"])
def test_vectors_are_sums_of_codewords(recipe: PQ) -> None:
    network = FakeQuantized(captured(digits_network(), recipe), recipe)
    recipe.train(network, digits_network(), digits(200), seed=SEED, progress=None)
    for name, layer in network.weighted.items():
        quantizer = layer.weight_quantizer
        assert isinstance(quantizer, Codebook) and quantizer.quantized
        counts, dimension = recipe.codewords(name, layer)
        weight = layer.weight.detach()
        assert not weight[~quantizer.mask].any(), "what was pruned stays 0"
        assert int((~quantizer.mask).sum()) == round(recipe.prune * weight.numel())
        assert len(layer.master_weight) <= sum(counts) and quantizer.labels.shape[0] == len(counts)
        vectors, live = to_vectors(weight, dimension), to_vectors(quantizer.mask, dimension)
        for entry in quantizer.indices.unique():
            which = quantizer.indices == entry
            for column in range(dimension):
                some = vectors[which, column][live[which, column]]
                assert not len(some) or bool((some == some[0]).all()), f"{name}: one value for each coordinate"
        assert bool((layer.master_weight != quantizer.start).any())


@pytest.mark.parametrize("recipe", [
    PQ(epochs=3, guard_bits=0), PQ(epochs=0, dimension=3, prune=0), PQ(epochs=3, terms=1, span=4, act_bits=4),
    SOM(epochs=3, stages=(4, 2, 2)), SOM(epochs=0, learner="kmeans", terms=3, span=7)])
def test_training_equals_the_integers(recipe: PQ) -> None:
    _, network = check_exact(small_network(), recipe, digits(128))
    for layer in network.layers:
        if layer.op == "conv":
            assert all(len(terms) <= recipe.terms for terms in layer.codebook)
            assert bool((layer.values == 0).mean() >= recipe.prune - 0.01)
            assert type(recipe) is PQ or layer.residuals or len(layer.codebook) <= 33


@pytest.mark.parametrize("recipe", [PQ(epochs=14, prune=0.4, dimension=2), SOM(epochs=14, prune=0.4)],
                         ids=["pq", "som"])
def test_digits_and_seeds(recipe: PQ) -> None:
    network = compress(digits_network(), recipe, digits(), seed=SEED)
    assert golden.accuracy(network, load("digits", split="test")) >= 0.92, f"seed {SEED}"
    assert network.metadata["published_form"]["position_bits"] > 0
    short = recipe.replace(epochs=2)
    again = [compress(digits_network(), short, digits(200), seed=seed).layers for seed in (1, 1, 2)]
    same = [all(np.array_equal(one.indices, two.indices) and np.array_equal(one.bias, two.bias)
                for one, two in zip(again[0], other, strict=True) if one.op == "conv") for other in again[1:]]
    assert same == [True, False]


def test_nothing_pruned_takes_no_positions() -> None:
    network = compress(digits_network(), SOM(epochs=0, prune=0), digits(64))
    assert network.metadata["published_form"]["position_bits"] == 0
    assert network.metadata["options"]["stages"] == (8, 4)


def test_a_share_of_all_weights() -> None:
    message = "layer conv1: prune = 0.999 takes all 72 weights out; lower its prune"
    with pytest.raises(ModelError, match=message):
        compress(digits_network(), PQ(layers={"conv1": {"prune": 0.999}}), digits(64))


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("pq", ["dimension=9"], "recipe pq: dimension must be an integer from 1 to 8, not 9"),
    ("pq", ["entries=257"], "recipe pq: entries must be an integer from 1 to 256, not 257"),
    ("pq", ["prune=1"], "recipe pq: prune must be a number from 0 to 0.999, not 1"),
    ("pq", ["layers.fc.entries=0"], "layers.fc: entries must be an integer from 1 to 256, not 0"),
    ("pq", ["terms=4", "span=8"], "4 terms of 8 places have 341 values, and a layer's weights at most 256"),
    ("som", ["stages=[]"], r"recipe som: stages must be numbers of units, as \[8, 4\], not \[\]"),
    ("som", ["stages=8"], r"recipe som: stages must be numbers of units, as \[8, 4\], not 8"),
    ("som", ["stages=[8,0]"], "recipe som: a number of stages must be an integer from 1 to 256, not 0"),
    ("som", ["layers.fc.entries=4"], "layers.fc has no option 'entries'"),
    ("som", ["start='linear'"], "recipe som has no option 'start'")])
def test_bad_options(name: str, settings: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_recipe(name, settings=settings)


@pytest.mark.regress
@pytest.mark.parametrize("recipe", [PQ(epochs=3), SOM(epochs=3)], ids=["pq", "som"])
def test_rtl(recipe: PQ) -> None:
    check_rtl(compress(digits_network(), recipe, digits(), seed=SEED))
