"""Weights that move between levels without a master copy, and activations with a rectangular gradient."""

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress, training
from shiftwright.sw.compress.discrete import DiscreteWeights, NeighbourSteps
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.lowbit import LowBit
from shiftwright.sw.compress.quantizers import ActivationQuantizer
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.data import load
from tests.sw.compress.recipes import SEED, captured, check_exact, check_rtl, digits, digits_network, small_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("bits", "terms", "values"), [
    (2, 1, [-1, 0, 1]), (3, 2, [-3, -2, -1, 0, 1, 2, 3]), (3, 1, [-2, -1, 0, 1, 2]),
    (4, 1, [-4, -2, -1, 0, 1, 2, 4]), (8, 4, list(range(-127, 128)))])
def test_levels(bits: int, terms: int, values: list[int]) -> None:
    quantizer = DiscreteWeights(bits, terms)
    assert quantizer.values.tolist() == values
    weight = torch.tensor([0.3, -0.11, 0.02, 0.26])
    start = quantizer.right_inverse(weight)
    assert torch.equal(quantizer.right_inverse(start), start) and torch.equal(quantizer(start), start)
    k_top = quantizer.k_top
    quantizer.right_inverse(weight * 9)
    assert quantizer.k_top == k_top, "the scale stays"


def test_weights_only_move_to_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the forward and the backward pass see is always a level, and the next one is at most one level away."""
    recipe = LowBit(epochs=2, bits=3)
    network = FakeQuantized(captured(digits_network(), recipe), recipe)
    fc = network.weighted["fc"]
    seen: list[torch.Tensor] = []
    loss = training.loss_of

    def spy(*arguments: object) -> torch.Tensor:
        seen.append(fc.weight.detach().clone())
        assert torch.equal(seen[-1], fc.master_weight)
        return loss(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "loss_of", spy)
    recipe.train(network, digits_network(), digits(640), seed=SEED, progress=None)
    numbers = [(weight / fc.weight_quantizer.unit).round() for weight in seen]
    assert all(torch.equal(number * fc.weight_quantizer.unit, weight) and number.abs().max() <= 3
               for number, weight in zip(numbers, seen, strict=True))
    moves = torch.stack([(two - one).abs() for one, two in zip(numbers, numbers[1:], strict=False)])
    assert len(seen) == 10 and moves.max() == 1 and 0 < (moves != 0).float().mean() < 0.5


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_the_probability_is_the_residue_s_tanh(keep: float) -> None:
    recipe = LowBit(bits=3, gain=2.0)
    network = FakeQuantized(captured(small_network(), recipe), recipe)
    layer = network.weighted["fc1"]
    weight = layer.original("weight")
    unit = layer.weight_quantizer.unit
    weight.data.zero_()
    optimizer = NeighbourSteps(network, 0.2 * unit, gain=2.0, keep=keep, generator=torch.Generator().manual_seed(SEED))
    before = weight.clone()
    weight.grad = torch.ones_like(weight)
    optimizer.step()  # a constant gradient is its own root mean square, so the residue is the learning rate
    moved = (weight != before).float()
    assert set((weight / unit).unique().tolist()) == {-1.0, 0.0}
    expected = np.tanh(2.0 * 0.2)
    assert float(moved.mean()) == pytest.approx(expected, abs=4 / np.sqrt(moved.numel())), f"seed {SEED}"
    residue = optimizer._discrete[list(network.weighted).index("fc1")][2]
    assert not residue[moved.bool()].any(), "a weight that moved has no residue"
    stayed = weight == 0
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    again = float((weight[stayed] != 0).float().mean())
    assert again == pytest.approx(np.tanh(2.0 * 0.2 * (1 + keep)), abs=4 / np.sqrt(int(stayed.sum())))


def test_the_ends_hold() -> None:
    recipe = LowBit(bits=2, gain=1e6)
    network = FakeQuantized(captured(small_network(), recipe), recipe)
    layer = network.weighted["fc2"]
    weight = layer.original("weight")
    optimizer = NeighbourSteps(network, 0.1, gain=1e6, keep=0.9, generator=torch.Generator().manual_seed(SEED))
    for _ in range(5):
        weight.grad = -torch.ones_like(weight)
        optimizer.step()
        assert weight.max() <= layer.weight_quantizer.unit
    assert torch.equal(weight, torch.full_like(weight, layer.weight_quantizer.unit))
    for _ in range(2):
        weight.grad = torch.full_like(weight, 1e6)
        optimizer.step()
    assert torch.equal(weight, torch.full_like(weight, -layer.weight_quantizer.unit)), "no residue held it back"


@pytest.mark.parametrize(("width", "expected"), [
    (1.0, [0, 1, 1, 1, 1, 1, 0]), (0.5, [0, 2, 0, 2, 0, 2, 0]), (3.0, [1 / 3, 2 / 3, 1, 1, 1, 2 / 3, 1 / 3])])
def test_rectangles(width: float, expected: list[float]) -> None:
    """Values 0 to 3, so steps at a half, one and a half, and two and a half; they add up to the whole way."""
    quantizer = ActivationQuantizer(2, signed=False)
    plain = ActivationQuantizer(2, signed=False)
    quantizer.exponent = plain.exponent = -2
    quantizer.width = width
    x = (torch.tensor([-0.6, 0.4, 1.05, 1.6, 1.95, 2.6, 3.6]) / 4).requires_grad_()
    y = quantizer(x)
    assert torch.equal(y, plain(x))
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == pytest.approx(expected)
    fine = torch.arange(-4, 8, 2**-8).requires_grad_()
    (quantizer(fine / 4) * 4).sum().backward()
    assert fine.grad is not None and float(fine.grad.sum()) * 2**-8 == pytest.approx(3)


@pytest.mark.parametrize("options", [{"guard_bits": 0}, {"bits": 2, "act_bits": 2, "width": 2.0},
                                     {"bits": 8, "terms": 4, "act_bits": 8, "width": 0.5}], ids=str)
def test_training_equals_the_integers(options: dict[str, int]) -> None:
    recipe = LowBit(epochs=2, **options)  # type: ignore[arg-type]
    _, network = check_exact(small_network(), recipe, digits(128))
    for layer in network.layers:
        if layer.op == "conv":
            assert all(len(terms) <= recipe.terms for terms in layer.codebook)
            assert layer.target.bits == recipe.act_bits or layer.raw


def test_digits_and_seeds() -> None:
    network = compress(digits_network(), LowBit(epochs=10), digits(), seed=SEED)
    assert all(len(layer.codebook) <= 7 for layer in network.layers if layer.op == "conv")
    assert golden.accuracy(network, load("digits", split="test")) >= 0.93, f"seed {SEED}"
    again = [compress(digits_network(), LowBit(epochs=1), digits(200), seed=seed).layers for seed in (1, 1, 2)]
    same = [all(np.array_equal(one.indices, two.indices) and np.array_equal(one.bias, two.bias)
                for one, two in zip(again[0], other, strict=True) if one.op == "conv") for other in again[1:]]
    assert same == [True, False]


@pytest.mark.parametrize(("settings", "message"), [
    (["bits=1"], "recipe lowbit: bits must be an integer from 2 to 8, not 1"),
    (["bits=5", "max_shift=3"], "recipe lowbit: bits must be an integer from 2 to 4, not 5"),
    (["act_bits=9"], "recipe lowbit: act_bits must be an integer from 2 to 8, not 9"),
    (["keep=-1"], "recipe lowbit: keep must be a number from 0 to 1, not -1"),
    (["width=0"], "recipe lowbit: width must be a number from 0.1 to 8, not 0"),
    (["layers.fc.terms='a'"], "recipe lowbit: layers.fc: terms must be an integer from 1 to 8, not 'a'")])
def test_bad_options(settings: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_recipe("lowbit", settings=settings)


@pytest.mark.regress
def test_rtl() -> None:
    check_rtl(compress(digits_network(), LowBit(epochs=2, act_bits=8), digits(), seed=SEED))
