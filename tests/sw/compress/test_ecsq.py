"""Hessian-weighted k-means and entropy-constrained quantization: importance, rates, and values that stay shared."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress, phases
from shiftwright.sw.compress.constrained import Points, entropy_constrained, kmeans, uniform
from shiftwright.sw.compress.ecsq import ECSQ
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.importance import TEMPERATURE, diagonal
from shiftwright.sw.compress.phases import split_epochs
from shiftwright.sw.compress.rate import entropy_bits
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.weights import SharedWeights
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


def points_of(weight: list[float], importance: list[float] | None = None) -> Points:
    """Weights of one layer."""
    return Points(torch.tensor(weight), torch.tensor(importance or [1.0] * len(weight)),
                  torch.zeros(len(weight), dtype=torch.int64), torch.tensor([0]))


def random_points(count: int = 2000) -> Points:
    """Weights of a layer with random importance."""
    generator = torch.Generator().manual_seed(SEED)
    return Points(torch.randn(count, generator=generator), torch.rand(count, generator=generator) + 0.1,
                  torch.zeros(count, dtype=torch.int64), torch.tensor([0]))


def test_each_layer_has_codeword_lengths_of_its_own() -> None:
    points = random_points()
    layers = dataclasses.replace(points, layer=torch.arange(2000) // 1000, pruned=torch.tensor([0, 9000]))
    found = entropy_constrained(layers, 16, 0.02)
    zeros = layers.counts(found.labels, len(found.centers))[:, 0]
    assert zeros[1] > zeros[0] + 50, "0 is cheap where many weights are pruned"


def test_important_weights_pull_centers() -> None:
    found = kmeans(points_of([1.0, 2.0, -5.0], [1.0, 3.0, 1.0]), 2, seed=0)
    assert sorted(found.centers.tolist()) == pytest.approx([-5.0, 0.0])  # the nearest to 0 becomes 0
    found = kmeans(points_of([4.0, 6.0, -5.0, 0.1], [1.0, 3.0, 1.0, 1.0]), 3, seed=0)
    assert found.centers[found.labels].tolist() == pytest.approx([5.5, 5.5, -5.0, 0.0])
    assert kmeans(points_of([0.5, 0.5]), 4, seed=0).labels.tolist() == [0, 0]


def test_uniform_bins_have_weighted_means() -> None:
    found = uniform(points_of([0.1, 0.9, 1.3, -2.2], [1.0, 1.0, 3.0, 1.0]), 1.0, "here")
    assert found.centers[found.labels].tolist() == pytest.approx([0.0, 1.2, 1.2, -2.2])
    with pytest.raises(ModelError, match=r"here: bins 0\.001 wide would be 4401, more than 255; raise step"):
        uniform(points_of([2.2, -0.1]), 0.001, "here")


def test_a_dearer_bit_costs_error_and_saves_entropy() -> None:
    points = random_points()
    found = [entropy_constrained(points, 32, slope) for slope in (0.0, 0.01, 0.1)]
    bits = [entropy_bits(points.counts(each.labels, len(each.centers))[0]) for each in found]
    errors = [float((points.importance * (points.weight - each.centers[each.labels]).square()).sum())
              for each in found]
    assert 0.95 * bits[0] > bits[1] > 1.3 * bits[2] and errors == sorted(errors)
    assert all(each.centers[0] == 0 for each in found)


def test_entropy_is_saved_for_less_error_than_by_fewer_values() -> None:
    points = random_points()

    def cost(labels: torch.Tensor, centers: torch.Tensor) -> tuple[float, float]:
        error = (points.importance * (points.weight - centers[labels]).square()).sum()
        return float(error), entropy_bits(torch.bincount(labels))

    constrained = entropy_constrained(points, 32, 0.03)
    clustered = kmeans(points, 8, seed=0)
    error, bits = cost(constrained.labels, constrained.centers)
    worse, more = cost(clustered.labels, clustered.centers)
    assert bits < more and error < worse


def test_importance_is_the_mean_square_of_gradients() -> None:
    recipe = ECSQ(epochs=0)
    network = FakeQuantized(captured(digits_network(), recipe), recipe)
    images = torch.tensor(digits(3).images).float() / 256
    found = diagonal(network, images, torch.Generator().manual_seed(1))
    generator, total = torch.Generator().manual_seed(1), 0.0
    for image in images:
        logits = network(image[None]) / TEMPERATURE
        label = torch.multinomial(functional.softmax(logits.detach(), 1), 1, generator=generator)[:, 0]
        network.zero_grad()
        functional.cross_entropy(logits, label).backward()
        total = total + network.weighted["fc"].original("weight").grad.square() / 3  # type: ignore[union-attr]
    assert torch.allclose(found["fc"], total)


def test_epochs_of_phases() -> None:
    assert split_epochs(40, (0.2, 0.2)) == [24, 8, 8]
    assert split_epochs(4, (0.1, 0.1)) == [2, 1, 1]
    assert split_epochs(0, (0.2, 0.2)) == [0, 0, 0]
    assert split_epochs(3, (1.0, 0.0)) == [0, 3, 0]
    assert split_epochs(2, (0.5, 0.5)) == [0, 1, 1]


def test_weights_keep_sharing_values(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, seen = ECSQ(epochs=4, prune=0.5, samples=50), []
    network = FakeQuantized(captured(digits_network(), recipe), recipe)
    fine_tune = phases.fine_tune

    def spy(*args: object, **kwargs: object) -> None:
        fine_tune(*args, **kwargs)  # type: ignore[arg-type]
        seen.append({name: layer.weight.detach().clone() for name, layer in network.weighted.items()})

    monkeypatch.setattr(phases, "fine_tune", spy)
    recipe.train(network, digits_network(), digits(200), seed=SEED, progress=None)
    pruned, tuned, snapped = seen
    for name, layer in network.weighted.items():
        assert float((pruned[name] == 0).float().mean()) == pytest.approx(0.5, abs=0.02)
        assert bool((tuned[name][pruned[name] == 0] == 0).all()), "what is pruned stays out"
        quantizer = layer.weight_quantizer
        assert isinstance(quantizer, SharedWeights)
        for rank in range(quantizer.count):
            same = quantizer.indices == rank
            assert len(tuned[name][same].unique()) == 1 and len(snapped[name][same].unique()) == 1
        assert len(pruned[name].unique()) > quantizer.count


def test_targets() -> None:
    model, data = digits_network(), digits(200)
    small = compress(model, ECSQ(epochs=0, samples=50, target_bits=2.0), data, seed=SEED)
    large = compress(model, ECSQ(epochs=0, samples=50, target_bits=3.5, method="uniform"), data, seed=SEED)
    zeros = [sum(int((values == 0).sum()) for values in values_of(each).values()) for each in (small, large)]
    assert zeros[0] > zeros[1]
    with pytest.raises(ModelError, match="recipe ecsq: the smallest network that was found takes .* bytes, more than"):
        compress(model, ECSQ(epochs=0, samples=50, target_size=500), data, seed=SEED)


@pytest.mark.parametrize("recipe", [
    ECSQ(epochs=2, samples=20, guard_bits=0), ECSQ(epochs=3, method="kmeans", values=9, terms=1, importance="moments"),
    ECSQ(epochs=2, method="uniform", joint=False, importance="none", span=5, act_bits=5, prune=0.6)])
def test_training_equals_the_integers(recipe: ECSQ) -> None:
    _, network = check_exact(small_network(), recipe, digits(128))
    for layer in network.layers:
        if layer.op == "conv":
            assert all(len(terms) <= recipe.terms for terms in layer.codebook)
            if recipe.method == "kmeans" and not layer.residuals:
                assert len(layer.codebook) <= 9


def test_digits_and_seeds() -> None:
    network = compress(digits_network(), ECSQ(epochs=12, target_bits=2.8, samples=200), digits(), seed=SEED)
    assert golden.accuracy(network, load("digits", split="test")) >= 0.95, f"seed {SEED}"
    short = ECSQ(epochs=2, samples=50)
    again = [compress(digits_network(), short, digits(200), seed=seed).layers for seed in (1, 1, 2)]
    same = [all(np.array_equal(one.indices, two.indices) and np.array_equal(one.bias, two.bias)
                for one, two in zip(again[0], other, strict=True) if one.op == "conv") for other in again[1:]]
    assert same == [True, False]


@pytest.mark.parametrize(("settings", "message"), [
    (["method='x'"], "recipe ecsq: method must be 'entropy', 'kmeans' or 'uniform', not 'x'"),
    (["importance='x'"], "recipe ecsq: importance must be 'samples', 'moments' or 'none', not 'x'"),
    (["values=256"], "recipe ecsq: values must be an integer from 2 to 255, not 256"),
    (["layers.fc.prune=1"], "recipe ecsq: layers.fc: prune must be a number from 0 to 0.9999, not 1"),
    (["tune=0.7", "snapped=0.7"], "recipe ecsq: tune and snapped must be shares of all epochs, together at most 1"),
    (["target_bits=1", "target_size=900"], "recipe ecsq: target_bits and target_size must not both be given"),
    (["span=9"], "recipe ecsq: span must be an integer from 1 to 8, not 9")])
def test_bad_options(settings: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_recipe("ecsq", settings=settings)


@pytest.mark.parametrize(("recipe", "message"), [
    (ECSQ(epochs=0, importance="moments"), "recipe ecsq: importance = 'moments' needs epochs before"),
    (ECSQ(epochs=0, prune=0.9999, samples=5), "layer conv1: prune takes all of its 72 weights out; lower it"),
    (ECSQ(epochs=0, slope=1000, samples=5), "layer .*: all .* weights became 0; prune less, or ask for more")])
def test_dead_ends(recipe: ECSQ, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        compress(digits_network(), recipe, digits(50), seed=SEED)


@pytest.mark.regress
def test_rtl() -> None:
    check_rtl(compress(digits_network(), ECSQ(epochs=2, prune=0.4), digits(), seed=SEED))
