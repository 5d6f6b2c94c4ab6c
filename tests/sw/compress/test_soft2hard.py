"""Soft assignments that become hard, and their entropy."""

import math

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.rate import entropy_bits
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.soft2hard import Soft2Hard
from shiftwright.sw.compress.softened import Annealing, SoftAssignment, assignment_of, entropy, hardened
from shiftwright.sw.data import load
from tests.sw.compress.recipes import (
    SEED,
    captured,
    check_exact,
    check_rtl,
    digits,
    digits_network,
    small_network,
    values_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_soft_values_become_hard_ones() -> None:
    quantizer = SoftAssignment(3, zero=True)
    weight = torch.tensor([-1.0, -0.9, -1.1, 0.1, 0.05, 0.15, 1.0, 1.1, 0.9])
    quantizer.fit(weight)
    assert quantizer.centers.tolist() == pytest.approx([-1.0, 0.0, 1.0])
    quantizer.hardness = 2.0
    soft = quantizer(torch.tensor([0.3]))
    shares = [math.exp(-2 * (0.3 - center)**2) for center in (-1, 0, 1)]
    assert soft.item() == pytest.approx((shares[2] - shares[0]) / sum(shares))
    assert quantizer.histogram.tolist() == pytest.approx([share / sum(shares) for share in shares])
    quantizer.hardness = 1e4
    assert quantizer(weight).tolist() == pytest.approx([-1.0] * 3 + [0.0] * 3 + [1.0] * 3)


def test_values_and_weights_are_trained_but_zero_stays() -> None:
    quantizer = SoftAssignment(3, zero=True)
    weight = torch.tensor([-1.0, 0.1, 1.0, 0.8], requires_grad=True)
    quantizer.fit(weight.detach())
    quantizer.hardness = 3.0
    (quantizer(weight).square().sum() + entropy(quantizer.histogram)).backward()
    assert weight.grad is not None and bool((weight.grad != 0).all())
    assert quantizer.moved.grad is not None and (quantizer.moved.grad != 0).tolist() == [True, False, True]


def test_entropy_of_histograms() -> None:
    assert float(entropy(torch.tensor([0.5, 0.25, 0.25, 0.0]))) == pytest.approx(1.5)


def test_hardness_grows_geometrically() -> None:
    recipe = Soft2Hard(values=4)
    network = FakeQuantized(captured(digits_network(), recipe), recipe)
    annealing, found = Annealing(1.0, 1.0, 16.0, 5), []
    annealing.begin(network, 5)
    for step in range(6):
        annealing.before_step(network, step)
        found.append(assignment_of(network.weighted["fc"]).hardness)
    assert found == pytest.approx([1, 2, 4, 8, 16, 16])
    labels, centers = hardened(network.weighted["fc"])
    weight = network.weighted["fc"].master_weight
    assert torch.equal((weight[..., None] - centers).abs().argmin(-1), labels)


def test_a_dearer_bit_saves_entropy() -> None:
    bits = []
    for rate in (0.0, 2.0):
        recipe = Soft2Hard(epochs=6, rate=rate, values=8, learning_rate=1e-2)
        network = compress(digits_network(), recipe, digits(), seed=SEED)
        bits.append(sum(entropy_bits(torch.unique(torch.tensor(values), return_counts=True)[1])
                        for values in values_of(network).values()))
    assert bits[1] < 0.9 * bits[0], f"seed {SEED}"


@pytest.mark.parametrize("recipe", [
    Soft2Hard(epochs=2, values=5), Soft2Hard(epochs=3, zero=False, terms=1, span=6, guard_bits=0),
    Soft2Hard(epochs=0, act_bits=5)])
def test_training_equals_the_integers(recipe: Soft2Hard) -> None:
    _, network = check_exact(small_network(), recipe, digits(128))
    for layer in network.layers:
        if layer.op == "conv":  # where a residual joins, channels have powers of two of their own
            assert len(layer.codebook) <= recipe.values * (4 if layer.residuals else 1)
            assert all(len(terms) <= recipe.terms for terms in layer.codebook)


def test_digits_and_seeds() -> None:
    network = compress(digits_network(), Soft2Hard(epochs=12), digits(), seed=SEED)
    assert golden.accuracy(network, load("digits", split="test")) >= 0.96, f"seed {SEED}"
    short = Soft2Hard(epochs=2, values=6)
    again = [compress(digits_network(), short, digits(200), seed=seed).layers for seed in (1, 1, 2)]
    same = [all(np.array_equal(one.indices, two.indices) and np.array_equal(one.bias, two.bias)
                for one, two in zip(again[0], other, strict=True) if one.op == "conv") for other in again[1:]]
    assert same == [True, False]


@pytest.mark.parametrize(("settings", "message"), [
    (["values=65"], "recipe soft2hard: values must be an integer from 2 to 64, not 65"),
    (["softest=9", "hardest=3"], "recipe soft2hard: softest must be at most hardest, not 9 and 3"),
    (["layers.fc.values=1"], "recipe soft2hard: layers.fc: values must be an integer from 2 to 64, not 1"),
    (["zero=1"], "recipe soft2hard: zero must be true or false, not 1")])
def test_bad_options(settings: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_recipe("soft2hard", settings=settings)


@pytest.mark.regress
def test_rtl() -> None:
    check_rtl(compress(digits_network(), Soft2Hard(epochs=2), digits(), seed=SEED))
