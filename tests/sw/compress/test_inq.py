"""Incremental quantization to powers of two: what is frozen, when, and that it stays."""

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.incremental import epochs_of, freeze_largest
from shiftwright.sw.compress.inq import INQ
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.weights import PartlyFrozen, TermGrid
from shiftwright.sw.data import load
from tests.sw.compress.recipes import SEED, captured, check_exact, check_rtl, digits, digits_network, small_network

pytestmark = pytest.mark.usefixtures("one_thread")


def test_frozen_weights_keep_their_values_and_get_no_gradient() -> None:
    weight = torch.tensor([0.9, -0.3, 0.2, 0.02], requires_grad=True)
    quantizer = PartlyFrozen(TermGrid(1, 3))
    assert not quantizer.quantized
    quantizer.freeze(weight.detach(), torch.tensor([True, True, False, False]))
    assert quantizer(weight).tolist() == pytest.approx([1.0, -0.25, 0.2, 0.02])
    quantizer(weight).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [0, 0, 1, 1]
    quantizer.freeze(weight.detach() * 0, torch.tensor([True] * 4))
    assert quantizer.quantized and quantizer.numbers(weight).tolist() == [4, -1, 0, 0]


@pytest.mark.parametrize("first", ["largest", "random"])
def test_steps(monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    """The shares are frozen, the largest first; what is frozen never moves; the rest does."""
    recipe = INQ(epochs=4, first=first)
    model = digits_network()
    network = FakeQuantized(captured(model, recipe), recipe)
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def spy(*args: object, **kwargs: object) -> None:
        layer = network.weighted["fc"]
        quantizer = layer.weight_quantizer
        assert isinstance(quantizer, PartlyFrozen)
        before = layer.master_weight.clone()
        fine_tune(*args, **kwargs)  # type: ignore[arg-type]
        seen.append((quantizer.frozen.clone(), before, layer.weight.detach().clone()))

    from shiftwright.sw.compress import incremental
    fine_tune = incremental.fine_tune
    monkeypatch.setattr(incremental, "fine_tune", spy)
    recipe.train(network, model, digits(300), seed=SEED, progress=None)
    assert [float(frozen.float().mean()) for frozen, _, _ in seen] == pytest.approx(recipe.portions, abs=0.01)
    for (frozen, before, after), (later, _, end) in zip(seen, seen[1:], strict=False):
        assert torch.equal(before[frozen], after[frozen]) and torch.equal(after[frozen], end[frozen])
        assert bool((before != after)[~frozen].any()) and bool((later >= frozen).all())
        if first == "largest":
            free = later & ~frozen
            assert after[free].abs().min() >= after[~later].abs().max() if bool((~later).any()) else True


def test_values_are_those_of_the_paper() -> None:
    """From 2**n1 with n1 = floor(log2(4 s / 3)) over 2**(bits - 2) powers of two."""
    recipe = INQ(bits=4, epochs=0)
    fake, network = check_exact(digits_network(), recipe, digits(100))
    float_weights = {name: np.abs(layer.layer.weight) for name, layer in fake.weighted.items()}
    for layer in network.layers:
        if layer.op == "conv":
            assert all(len(terms) <= 1 for terms in layer.codebook) and len(layer.codebook) <= 9
            quantizer = fake.weighted[layer.name].weight_quantizer
            assert quantizer.span == 4
            assert 2.0**-quantizer.k_top == 2 ** np.floor(np.log2(4 / 3 * float_weights[layer.name].max()))


@pytest.mark.parametrize("options", [{"guard_bits": 0}, {"bits": 3, "act_bits": 5}], ids=str)
def test_training_equals_the_integers(options: dict[str, int]) -> None:
    check_exact(small_network(), INQ(epochs=2, **options), digits(128))  # type: ignore[arg-type]


def test_digits_and_seeds() -> None:
    losses: list[tuple[int, int]] = []
    network = compress(digits_network(), INQ(epochs=8), digits(), seed=SEED,
                       progress=lambda epoch, epochs, loss: losses.append((epoch, epochs)))
    assert losses == [(epoch, 8) for epoch in range(1, 9)]
    assert golden.accuracy(network, load("digits", split="test")) >= 0.96, f"seed {SEED}"
    again = [compress(digits_network(), INQ(epochs=2), digits(200), seed=seed).layers for seed in (1, 1, 2)]
    same = [all(np.array_equal(one.indices, two.indices) and np.array_equal(one.bias, two.bias)
                for one, two in zip(again[0], other, strict=True) if one.op == "conv") for other in again[1:]]
    assert same == [True, False]


def test_epochs_are_dealt_out() -> None:
    assert (epochs_of(10, 4), epochs_of(2, 4), epochs_of(0, 2)) == ([3, 3, 2, 2], [1, 1, 0, 0], [0, 0])


@pytest.mark.parametrize(("settings", "message"), [
    (["bits=6"], "recipe inq: bits must be an integer from 2 to 5, not 6"),
    (["layers.fc.bits=1"], "recipe inq: layers.fc: bits must be an integer from 2 to 5, not 1"),
    (["portions=[0.5, 0.4, 1.0]"], r"recipe inq: portions must be shares that rise from above 0 to 1, as \[0.5, 1.0\]"),
    (["portions=0.5"], "portions must be shares that rise"), (["portions=[0.5]"], "portions must be shares that rise"),
    (["portions=['a', 1.0]"], "recipe inq: a share of portions must be a number from 0 to 1, not 'a'"),
    (["first='smallest'"], "recipe inq: first must be 'largest' or 'random', not 'smallest'")])
def test_bad_options(settings: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_recipe("inq", settings=settings)


def test_a_layer_that_would_become_zero() -> None:
    recipe = INQ(bits=2)
    network = FakeQuantized(captured(digits_network(), recipe), recipe)
    layer = network.weighted["fc"]
    layer.weight_quantizer.k_top = -12
    with pytest.raises(ModelError, match="layer fc: all [0-9]+ weights became 0; give it more values"):
        freeze_largest(layer, 1.0)


@pytest.mark.regress
def test_rtl() -> None:
    check_rtl(compress(digits_network(), INQ(epochs=2), digits(), seed=SEED))
