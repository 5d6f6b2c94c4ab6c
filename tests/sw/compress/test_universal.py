"""Dithered lattices, and archives by universal codes."""

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.archive import CODERS, pack, unpack
from shiftwright.sw.compress.lattice import dithered
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.universal import Universal
from shiftwright.sw.data import load
from tests.sw.compress.recipes import SEED, check_exact, check_rtl, digits, digits_network, small_network, values_of

pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed: int = SEED) -> torch.Generator:
    """Of dithers."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
def test_the_error_is_uniform_whatever_the_weights(dimension: int) -> None:
    weight = torch.full((24_000,), 0.3)
    points, offsets = dithered(weight, 1.0, dimension=dimension, dither=1.0, generator=generator())
    errors = (points - offsets - weight.reshape(-1, dimension)).flatten()
    assert float(errors.abs().max()) <= 0.5 + 1e-6
    assert float(errors.mean()) == pytest.approx(0, abs=0.02)
    assert float(errors.var()) == pytest.approx(1 / 12, abs=0.004)
    assert offsets.shape == (24_000 // dimension, 1), "one dither a vector"
    rounded = (points != 0).float().mean()
    assert float(rounded) == pytest.approx(0.3, abs=0.02), "0.3 is rounded up as often as the dither says"


def test_without_dither_weights_are_rounded() -> None:
    points, offsets = dithered(torch.tensor([0.4, -0.6, 1.2]), 1.0, dimension=2, dither=0.0, generator=generator())
    assert points.tolist() == [[0, -1], [1, 0]] and not offsets.any()


@pytest.mark.parametrize("recipe", [
    Universal(epochs=2), Universal(epochs=2, dimension=3, terms=1, step=1.0, guard_bits=0),
    Universal(epochs=2, dimension=4, dither=0.5, prune=0.5, act_bits=4)])
def test_training_equals_the_integers(recipe: Universal) -> None:
    _, network = check_exact(small_network(), recipe, digits(128))
    for layer in network.layers:
        if layer.op == "conv":
            assert len(layer.codebook) <= 256 and all(len(terms) <= recipe.terms for terms in layer.codebook)


def test_archives_hold_the_network() -> None:
    network = compress(digits_network(), Universal(epochs=0, prune=0.9, step=1.0), digits(200), seed=SEED)
    assert network.metadata["archive_bytes"] == {coder: len(pack(network, coder)) for coder in CODERS}
    for coder in CODERS:
        found = unpack(pack(network, coder), coder)
        assert list(found) == list(values_of(network))
        for layer in network.layers:
            if layer.op == "conv":
                weights, biases = found[layer.name]
                assert np.array_equal(weights, layer.values) and np.array_equal(biases, layer.bias)
    with pytest.raises(ModelError, match="archive: can't be unpacked by lzma"):
        unpack(pack(network, "bz2"), "lzma")
    with pytest.raises(ModelError, match="archive: can't be unpacked by bz2"):
        unpack(pack(network, "bz2")[:-9], "bz2")


def test_digits_and_seeds() -> None:
    recipe = Universal(epochs=16, step=0.4, prune=0.2)
    network = compress(digits_network(), recipe, digits(), seed=SEED)
    assert golden.accuracy(network, load("digits", split="test")) >= 0.95, f"seed {SEED}"
    short = Universal(epochs=0)
    again = [compress(digits_network(), short, digits(200), seed=seed).layers for seed in (1, 1, 2)]
    same = [all(np.array_equal(one.indices, two.indices) for one, two in zip(again[0], other, strict=True)
                if one.op == "conv") for other in again[1:]]
    assert same == [True, False], "the dither comes from the seed"


def test_a_target() -> None:
    network = compress(digits_network(), Universal(epochs=0, target_bits=3.0, dimension=2), digits(200), seed=SEED)
    fewer = compress(digits_network(), Universal(epochs=0, target_bits=2.0, dimension=2), digits(200), seed=SEED)
    zeros = [sum(int((values == 0).sum()) for values in values_of(each).values()) for each in (network, fewer)]
    assert zeros[0] < zeros[1]


@pytest.mark.parametrize(("settings", "message"), [
    (["dimension=5"], "recipe universal: dimension must be an integer from 1 to 4, not 5"),
    (["dither=2"], "recipe universal: dither must be a number from 0 to 1, not 2"),
    (["step=0"], "recipe universal: step must be a number from 0.001 to 100, not 0"),
    (["layers.fc.step=1"], "recipe universal: layers.fc has no option 'step'")])
def test_bad_options(settings: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_recipe("universal", settings=settings)


@pytest.mark.regress
def test_rtl() -> None:
    check_rtl(compress(digits_network(), Universal(epochs=2, dimension=2), digits(), seed=SEED))
