"""Single- and multi-level quantization: clusters in their order, and layer after layer."""

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress, incremental
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.incremental import cluster_weights, freeze_clusters
from shiftwright.sw.compress.mlq import MLQ
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.slq import SLQ
from shiftwright.sw.compress.weights import PartlyFrozen
from shiftwright.sw.data import load
from tests.sw.compress.recipes import SEED, captured, check_exact, check_rtl, digits, digits_network, small_network

pytestmark = pytest.mark.usefixtures("one_thread")


def test_clusters_of_weights() -> None:
    values = torch.tensor([1.0, 1.1, 0.9, -2.0, -2.1, 0.01])
    labels, centroids = cluster_weights(values, 3)
    assert centroids[labels].tolist() == pytest.approx([1.0, 1.0, 1.0, -2.05, -2.05, 0.01])
    labels, centroids = cluster_weights(torch.full((4,), 0.5), 17)
    assert centroids[labels].tolist() == [0.5] * 4


@pytest.mark.parametrize("first", ["loss", "centroid"])
def test_clusters_are_frozen_in_their_order(first: str) -> None:
    recipe = SLQ(clusters=5)
    network = FakeQuantized(captured(digits_network(), recipe), recipe)
    layer = network.weighted["fc"]
    quantizer = layer.weight_quantizer
    assert isinstance(quantizer, PartlyFrozen)
    quantizer.k_top = recipe.grid("fc").scale(layer.master_weight)
    before = layer.master_weight.clone()
    labels, centroids = cluster_weights(before.flatten(), 5)
    rank = torch.zeros(5).index_add_(0, labels, (before.flatten() - centroids[labels]).square())
    rank = rank if first == "loss" else centroids.abs()
    rank[centroids.abs().argmin()] = -1
    freeze_clusters(layer, 5, 0, 2, first=first, zero=True)
    chosen = torch.isin(labels, rank.topk(2).indices).reshape(before.shape)
    assert torch.equal(quantizer.frozen, chosen)
    assert len(torch.unique(quantizer.values[chosen])) == 2
    assert torch.equal(layer.master_weight[~chosen], before[~chosen])
    values = quantizer.values.clone()
    freeze_clusters(layer, 5, 2, 5, first=first, zero=True)
    assert quantizer.quantized and torch.equal(quantizer.values[chosen], values[chosen])
    assert len(torch.unique(quantizer.values)) <= 5 and 0 in quantizer.values


def phases_of(monkeypatch: pytest.MonkeyPatch, recipe: SLQ) -> list[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """What is frozen in each phase, and the weights after it."""
    seen = []
    fine_tune = incremental.fine_tune
    network = FakeQuantized(captured(digits_network(), recipe), recipe)

    def spy(*args: object, **kwargs: object) -> None:
        fine_tune(*args, **kwargs)  # type: ignore[arg-type]
        seen.append({name: (getattr(layer.weight_quantizer, "frozen", torch.tensor(True)).clone(),
                            layer.weight.detach().clone()) for name, layer in network.weighted.items()})

    monkeypatch.setattr(incremental, "fine_tune", spy)
    recipe.train(network, digits_network(), digits(128), seed=SEED, progress=None)
    return seen


def test_the_default_freezes_what_the_paper_does() -> None:
    assert [round(share * 17) for share in SLQ().portions] == [5, 9, 13, 15, 17]


def test_frozen_parts_do_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = phases_of(monkeypatch, SLQ(epochs=5))
    assert len(seen) == 5
    for one, two in zip(seen, seen[1:], strict=False):
        for name, (frozen, weight) in one.items():
            assert torch.equal(weight[frozen], two[name][1][frozen])
            assert bool((weight != two[name][1])[~frozen].any()) and bool((two[name][0] >= frozen).all())


def test_levels_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = phases_of(monkeypatch, MLQ(epochs=4, tune=0.25))
    done = [[bool(frozen.all()) for frozen, _ in phase.values()] for phase in seen]
    assert done == [[True, False, False], [True, True, False], [True] * 3, [True] * 3]
    for phase, after in ((0, 1), (1, 2)):
        for name, (frozen, weight) in seen[phase].items():
            assert torch.equal(weight, seen[after][name][1]) == bool(frozen.all())
    tuned, assigned = seen[3]["fc"][1], seen[2]["fc"][1]
    pairs = torch.unique(torch.stack([assigned.flatten(), tuned.flatten()]), dim=1)
    assert pairs.shape[1] == 3, "weights of one value keep having one"


@pytest.mark.parametrize(("order", "levels"), [
    ("first", [["conv1"], ["conv2"], ["fc"]]), ("last", [["fc"], ["conv2"], ["conv1"]]),
    ("largest", [["fc"], ["conv2"], ["conv1"]])])
def test_orders(order: str, levels: list[list[str]]) -> None:
    recipe = MLQ(order=order)
    network = FakeQuantized(captured(digits_network(), recipe), recipe)
    sizes = {name: layer.master_weight.numel() for name, layer in network.weighted.items()}
    if order == "largest":
        levels = [[name] for name in sorted(sizes, key=lambda name: -sizes[name])]
    assert [list(names) for names in recipe.levels(network)] == levels


@pytest.mark.parametrize("recipe", [
    SLQ(epochs=2, guard_bits=0), SLQ(epochs=2, terms=1, zero=False, tune=0.5), MLQ(epochs=2, act_bits=4, span=5)])
def test_training_equals_the_integers(recipe: SLQ) -> None:
    _, network = check_exact(small_network(), recipe, digits(128))
    for layer in network.layers:
        if layer.op == "conv":  # where a residual joins, channels have powers of two of their own
            assert len(layer.codebook) <= recipe.clusters * (4 if layer.residuals else 1)
            assert all(len(terms) <= recipe.terms for terms in layer.codebook)


@pytest.mark.parametrize(("recipe", "least"), [
    (SLQ(epochs=8), 0.96), (MLQ(epochs=16, learning_rate=5e-3), 0.9)], ids=["slq", "mlq"])
def test_digits_and_seeds(recipe: SLQ, least: float) -> None:
    network = compress(digits_network(), recipe, digits(), seed=SEED)
    assert golden.accuracy(network, load("digits", split="test")) >= least, f"seed {SEED}"
    short = recipe.replace(epochs=2)
    again = [compress(digits_network(), short, digits(200), seed=seed).layers for seed in (1, 1, 2)]
    same = [all(np.array_equal(one.indices, two.indices) and np.array_equal(one.bias, two.bias)
                for one, two in zip(again[0], other, strict=True) if one.op == "conv") for other in again[1:]]
    assert same == [True, False]


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("slq", ["clusters=1"], "recipe slq: clusters must be an integer from 2 to 256, not 1"),
    ("slq", ["span=9"], "recipe slq: span must be an integer from 1 to 8, not 9"),
    ("slq", ["first='x'"], "recipe slq: first must be 'loss' or 'centroid', not 'x'"),
    ("slq", ["layers.fc.zero=1"], "recipe slq: layers.fc: zero must be true or false, not 1"),
    ("slq", ["tune=2"], "recipe slq: tune must be a number from 0 to 1, not 2"),
    ("mlq", ["layer_portions=[]"], "recipe mlq: layer_portions must be shares that rise"),
    ("mlq", ["order='x'"], "recipe mlq: order must be 'first', 'last' or 'largest', not 'x'"),
    ("mlq", ["levels=2"], "recipe mlq has no option 'levels'")])
def test_bad_options(name: str, settings: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_recipe(name, settings=settings)


@pytest.mark.regress
@pytest.mark.parametrize("recipe", [SLQ(epochs=2), MLQ(epochs=2)], ids=["slq", "mlq"])
def test_rtl(recipe: SLQ) -> None:
    check_rtl(compress(digits_network(), recipe, digits(), seed=SEED))
