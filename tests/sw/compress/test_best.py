"""Our own recipe: one budget for all layers, prices of values, and what may not happen."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compiler.compile import Compilation, compile_detailed
from shiftwright.sw.compress import compress, sparse, training
from shiftwright.sw.compress.allocation import GlobalBudget, Sensitivity
from shiftwright.sw.compress.best import Best
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.heldrate import LEAST, HeldRate
from shiftwright.sw.compress.measure import roomy
from shiftwright.sw.compress.prices import BlockCycles, CodeBits, PricedValue, _winners
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.sparse import make_sparse
from shiftwright.sw.compress.training import fine_tune
from shiftwright.sw.compress.weights import TermGrid
from shiftwright.sw.data import load
from shiftwright.sw.frontend.capture import capture
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
EXAMPLES = Path(__file__).parents[3] / "examples"


def left(recipe: Best, images: int = 200) -> dict[str, int]:
    """Weights of each layer of the digits network that stay."""
    fake = FakeQuantized(captured(digits_network(), recipe), recipe)
    recipe.train(fake, digits_network(), digits(images), seed=SEED, progress=None)
    return {name: int(layer.weight_quantizer.mask.sum()) for name, layer in fake.weighted.items()}


def test_bits() -> None:
    """A quarter of 4,000 weights stays, of two values, one thrice as frequent."""
    bits = CodeBits(TermGrid(1, 1)).of(torch.tensor([250, 3000, 750]), 4000).tolist()
    run = 2 + 0.75 / np.log(2)
    assert bits == pytest.approx([run + 2 + 16 / 251, 0, run - np.log2(0.75) + 16 / 751], abs=0.01)
    cycles = BlockCycles(TermGrid(2, 3), 6)  # from -5 to 5
    assert cycles.of(torch.zeros(11), 9).tolist() == [6 * terms for terms in (2, 1, 2, 1, 1, 0, 1, 1, 2, 1, 2)]


def test_the_winners_are_those_of_a_search() -> None:
    generator = torch.Generator().manual_seed(SEED)
    numbers = TermGrid(2, 4).numbers
    wanted = torch.linspace(-14, 14, 4001)
    for scale in (0.0, 1.0, 20.0):
        costs = torch.rand(len(numbers), generator=generator).double() * scale
        values, boundaries = _winners(numbers, costs)
        found = values[torch.bucketize(wanted, boundaries, right=True)]
        total = (wanted[:, None] - numbers).square() + costs
        best, chosen = total.min(1).values, total[torch.arange(len(wanted)), torch.searchsorted(numbers, found)]
        assert torch.allclose(best, chosen, atol=1e-4), f"seed {SEED}, costs up to {scale}"
    assert len(values) < len(numbers)


def test_a_price_makes_zeros_and_rare_values_fewer() -> None:
    weight = torch.randn(4000, generator=torch.Generator().manual_seed(SEED))
    counts = []
    for price in (0.0, 0.02, 0.1):
        grid = TermGrid(2, 4)
        quantizer = PricedValue(grid, CodeBits(grid))
        quantizer.price = price
        quantizer.fit(weight)
        numbers = quantizer.numbers(weight)
        assert set(numbers.tolist()) <= set(grid.numbers.tolist())
        counts.append((len(numbers.unique()), int(numbers.count_nonzero())))
    assert counts == sorted(counts, reverse=True) and counts[0][0] > counts[-1][0] > 1, f"seed {SEED}"


def test_sensitivity_is_that_of_gradients_of_rank_one() -> None:
    rows, columns = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([3.0, 0.0, 1.0, 2.0])
    sensitivity = Sensitivity()
    assert torch.equal(sensitivity.of(torch.zeros(3, 4)), torch.ones(3, 4))
    for sign in (1, -1, 1):
        sensitivity.add(sign * rows[:, None] * columns)
    assert torch.allclose(sensitivity.of(torch.zeros(3, 2, 2, 1)).flatten(1), (rows[:, None] * columns).square())


def test_the_share_is_of_the_whole_network() -> None:
    total = 72 + 1152 + 2560
    for epochs in (0, 1, 2):
        stay = left(Best(keep=0.3, epochs=epochs, batch=16))
        assert sum(stay.values()) == int(0.3 * total), f"{epochs} epochs"
    # The convolutions' weights count in 64 places of the map: they are worth more.
    assert stay["conv1"] / 72 > stay["conv2"] / 1152 > stay["fc"] / 2560


def image(recipe: Best, images: int = 200) -> Compilation:
    """What a recipe makes of the digits network."""
    network = compress(digits_network(), recipe, digits(images), seed=SEED)
    return compile_detailed(network, AcceleratorConfig(guard_bits=recipe.guard_bits))


@pytest.mark.parametrize(("start", "targets"), [
    ("float", (1600, 2400)), ("ptq", (1400,)), pytest.param("ptq", (1800,), marks=pytest.mark.regress)])
def test_the_image_has_the_target_size(start: str, targets: tuple[int, ...]) -> None:
    for target in targets:
        size = image(Best(start=start, target_size=target, terms=2, span=5, epochs=4, batch=16)).size
        assert 0.85 * target <= size <= 1.08 * target, f"{start}, {target}, seed {SEED}"


@pytest.mark.regress
@pytest.mark.parametrize("rate", [0.001, 0.01])
def test_the_size_is_held(rate: float) -> None:
    recipe = Best(start="ptq", target_size=1500, terms=2, span=5, epochs=20, batch=16, learning_rate=rate, hold=True)
    network = compress(digits_network(), recipe, digits(200), seed=SEED)
    # Less by how much the price lags behind, which differs between processors.
    assert 0.9 * 1500 <= compile_detailed(network, roomy(recipe)).size <= 1500, f"seed {SEED}"


def held_network(target: int, size: int) -> tuple[FakeQuantized, HeldRate]:
    """The digits network with values given, in training under a price, and a size that does not change."""
    recipe = Best(start="ptq", target_size=2000, terms=2, span=5)
    fake = FakeQuantized(captured(digits_network(), recipe), recipe)
    method = recipe._assigned(fake, digits(), SEED, None)
    assert isinstance(method, HeldRate)
    held = HeldRate(target, lambda _: size, method.slope, method.grids)
    held.begin(fake, 100)
    return fake, held


def _without_gradients(fake: FakeQuantized) -> None:
    for layer in fake.weighted.values():
        layer.original("weight").grad = torch.zeros_like(layer.original("weight"))


def test_weights_feel_a_force_to_shorter_codewords() -> None:
    fake, held = held_network(1000, 1000)
    held.before_step(fake, 0)
    assert held.price == pytest.approx(held.slope)
    wanted = {}
    for name, layer in fake.weighted.items():
        quantizer, weight = layer.weight_quantizer, layer.original("weight")
        values, counts = (layer.numbers().flatten() * 1.0).unique(return_counts=True)
        assert values.tolist() == quantizer.values.tolist()
        bits = held.rates[name].bits(torch.zeros(len(held.grids[name].numbers)).index_add_(
            0, torch.searchsorted(held.grids[name].numbers, values), counts.float()))
        with torch.no_grad():
            weight.copy_((values[-1] + values[-2]) / 2 * quantizer.unit)  # between the last two values
        dearer = bits[torch.searchsorted(held.grids[name].numbers, values[-2:])].diff()
        wanted[name] = held.slope * float(dearer) / float(values[-1] - values[-2]) / quantizer.unit
    _without_gradients(fake)
    held.after_backward(fake, 0)
    for name, layer in fake.weighted.items():
        gradient = layer.original("weight").grad
        assert gradient is not None
        assert gradient.flatten().tolist() == pytest.approx([wanted[name]] * gradient.numel())


def test_the_price_follows_the_size() -> None:
    fake, held = held_network(1000, 1100)
    prices = []
    for step in range(0, 1000, training.PRUNE_STEPS):
        held.before_step(fake, step)
        prices.append(held.price)
    assert prices == sorted(prices) and prices[0] > 20 * held.slope
    lower = held_network(1000, 900)[1]
    lower.before_step(fake, 0)
    assert lower.price < held.slope / 20


def test_layers_nearly_empty_are_left_alone() -> None:
    fake, held = held_network(1000, 1000)
    layer = fake.weighted["fc"]
    weight = layer.original("weight")
    with torch.no_grad():
        weight.flatten()[int(LEAST * weight.numel()) - 1:] = 0
        weight.flatten()[:int(LEAST * weight.numel()) - 1] = 4 * layer.weight_quantizer.unit
    held.before_step(fake, 0)
    _without_gradients(fake)
    held.after_backward(fake, 0)
    assert weight.grad is not None and not weight.grad.any()


@pytest.mark.parametrize("epochs", [pytest.param(0, marks=pytest.mark.regress), 2])
def test_the_size_is_met_in_the_end(epochs: int) -> None:
    recipe = Best(start="ptq", target_size=1500, terms=2, span=5, learning_rate=0.01, epochs=epochs)
    network = compress(digits_network(), recipe, digits(), seed=SEED)
    assert compile_detailed(network, roomy(recipe)).size <= 1500


def test_weights_go_to_their_next_value_until_the_size_is_met() -> None:
    """Training may end with an image that is too large by a little: weights nearest to it go to their next value."""
    recipe = Best(start="ptq", target_size=1500, terms=2, span=5)
    fake = FakeQuantized(captured(digits_network(), recipe), recipe)
    method = recipe._assigned(fake, digits(), SEED, None)
    assert isinstance(method, HeldRate)
    held = HeldRate(8 * 1300, method.measure, method.slope, method.grids)
    before = {name: layer.numbers() for name, layer in fake.weighted.items()}
    held.begin(fake, 1)
    held.finish(fake)
    assert 8 * 1200 < method.measure(fake) <= 8 * 1300
    for name, layer in fake.weighted.items():
        after = layer.numbers()
        assert bool((after.abs() <= before[name].abs()).all() and (after * before[name] >= 0).all()), name


def test_a_target_of_cycles_takes_from_convolutions() -> None:
    """Bytes buy weights of the convolutions, cycles those of the linear layer, which has one block."""
    size = image(Best(target_size=1600, epochs=4, batch=16))
    cycles = image(Best(target_cycles=4500, epochs=4, batch=16))
    assert 0.85 * 4500 <= cycles.cycles <= 1.08 * 4500
    share = [{layer.name: layer.bytes for layer in made.layers} for made in (size, cycles)]
    assert share[0]["fc"] / share[0]["conv2"] < share[1]["fc"] / share[1]["conv2"]


@pytest.mark.regress
def test_values_given_before_training_are_what_moves() -> None:
    recipe = Best(start="ptq", target_size=1800, terms=2, span=5, learning_rate=0.01)
    networks = [values_of(compress(digits_network(), dataclasses.replace(recipe, epochs=epochs), digits(), seed=SEED))
                for epochs in (0, 3)]
    moved = [name for name in networks[0] if not np.array_equal(networks[0][name], networks[1][name])]
    assert moved
    same = [float((networks[0][name] == networks[1][name]).mean()) for name in moved]
    assert all(share > 0.5 for share in same), same


@pytest.mark.parametrize("regrow", [False, True])
def test_what_is_out_for_good_stays_out(monkeypatch: pytest.MonkeyPatch, regrow: bool) -> None:
    """Weights that are out are trained only with regrowth, and only while the share falls; the choice then stays."""
    monkeypatch.setattr(training, "PRUNE_STEPS", 2)
    recipe = Best(keep=0.2, epochs=4, batch=16)
    network = FakeQuantized(captured(digits_network(), recipe), recipe)
    seen: list[tuple[torch.Tensor, bool]] = []

    class Spy(GlobalBudget):
        def after_backward(self, network: FakeQuantized, step: int) -> None:
            super().after_backward(network, step)
            layer = network.weighted["fc"]
            gradient = layer.original("weight").grad
            mask = layer.weight_quantizer.mask
            seen.append((mask.clone(), bool(gradient[~mask].any())))

    spy = Spy(0.2, rate=0.5, biases={}, regrow=regrow)
    fine_tune(network, digits_network(), digits(200), recipe, spy, seed=SEED, progress=None)
    half = len(seen) // 2
    assert [trained for _, trained in seen[2:]] == [regrow] * (half - 2) + [False] * half, f"seed {SEED}"
    layer = network.weighted["fc"]
    assert all(torch.equal(mask, layer.weight_quantizer.mask) for mask, _ in seen[half:])
    assert not bool(layer.weight[~layer.weight_quantizer.mask].any())


@pytest.mark.parametrize("options", [{"guard_bits": 0}, {"terms": 2, "span": 5, "act_bits": 5},
                                     {"bias": False, "target_cycles": 6000},
                                     {"start": "ptq", "target_size": 2500, "terms": 2, "span": 5}], ids=str)
def test_training_equals_the_integers(options: dict[str, int]) -> None:
    recipe = Best(keep=0.4, epochs=2, **options)  # type: ignore[arg-type]
    _, network = check_exact(small_network(), recipe, digits(128))
    limit = options.get("terms", 1)
    assert all(len(terms) <= limit for layer in network.layers for terms in layer.codebook)
    if not recipe.bias:
        assert [layer.name for layer in network.layers if layer.op == "conv" and layer.bias.any()] == ["same"]


def test_digits_and_seeds() -> None:
    losses: list[tuple[int, int]] = []
    network = compress(digits_network(), Best(keep=0.5, epochs=20, learning_rate=0.003), digits(), seed=SEED,
                       progress=lambda epoch, epochs, loss: losses.append((epoch, epochs)))
    assert losses == [(epoch, 20) for epoch in range(1, 21)]
    assert golden.accuracy(network, load("digits", split="test")) >= 0.95, f"seed {SEED}"
    again = [values_of(compress(digits_network(), Best(epochs=2, keep=0.5), digits(200), seed=seed))
             for seed in (1, 1, 2)]
    assert [all(np.array_equal(again[0][name], other[name]) for name in other) for other in again[1:]] == [True, False]


def stays(model: nn.Module) -> dict[str, float]:
    """Share of the weights that are not 0, by parameter."""
    return {name: float((weight != 0).float().mean()) for name, weight in model.named_parameters() if weight.dim() > 1}


def test_a_float_network_loses_weights_before() -> None:
    model, recipe = small_network(), Best(start="ptq", target_size=3000, keep=0.2, sparse_epochs=4, batch=32,
                                        distill=0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = capture(model, (1, 8, 8))
    losses: list[float] = []
    found = make_sparse(model, graph.output_sizes, digits(320), recipe, seed=SEED,
                        progress=lambda epoch, epochs, loss: losses.append(loss))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "the teacher stays"
    assert not model.training and not found.training and len(losses) == 4 and losses[-1] < 0.8 * losses[0]
    sizes = {name: weight.numel() for name, weight in found.named_parameters() if weight.dim() > 1}
    assert sum(round(share * sizes[name]) for name, share in stays(found).items()) == round(0.2 * sum(sizes.values()))
    # By magnitude alone: layers differ.
    assert len(set(stays(found).values())) == len(sizes) and min(stays(found).values()) > 0.02
    assert not torch.equal(found.norm.running_mean, before["norm.running_mean"])
    again = [make_sparse(model, graph.output_sizes, digits(320), recipe, seed=seed, progress=None)
             for seed in (SEED, SEED + 1)]
    assert [torch.equal(other.fc1.weight, found.fc1.weight) for other in again] == [True, False]


def test_sparse_training_of_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "supported", lambda: True)
    recipe, losses = Best(start="ptq", target_size=3000, sparse_epochs=3, batch=32, distill=0.0), list[float]()
    found = sparse.make_sparse(small_network(), [10], digits(320), recipe, seed=SEED,
                               progress=lambda epoch, epochs, loss: losses.append(loss))
    assert losses[-1] < 0.9 * losses[0] and {value.dtype for value in found.parameters()} == {torch.float32}


def test_what_a_sparse_network_starts_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network that is quantized is the sparse one, and the teacher is that which was given."""
    begun: list[tuple[FakeQuantized, nn.Module]] = []

    def spy(network: FakeQuantized, teacher: nn.Module, *arguments: object, **options: object) -> None:
        begun.append((network, teacher))
        fine_tune(network, teacher, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "fine_tune", spy)
    model, seen = digits_network(), list[tuple[int, int]]()
    recipe = Best(start="ptq", target_size=1500, terms=2, span=5, epochs=2, sparse_epochs=3, keep=0.3, batch=32)
    network = compress(model, recipe, digits(), seed=SEED,
                       progress=lambda epoch, epochs, _: seen.append((epoch, epochs)))
    assert seen == [(epoch, 5) for epoch in range(1, 6)]
    ((fake, teacher),) = begun
    assert teacher is model and min(stays(model).values()) > 0.9
    weights = [layer.weight for layer in fake.graph.layers if layer.weight is not None]
    share = sum(int((weight != 0).sum()) for weight in weights) / sum(weight.size for weight in weights)
    assert 0.29 < share < 0.31
    assert compile_detailed(network, roomy(recipe)).size <= 1500


def test_a_sparse_training_needs_logits() -> None:
    recipe = Best(start="ptq", target_size=1500, sparse_epochs=1)
    with pytest.raises(ModelError, match=r"sparse_epochs train the network itself, but 1 \(Softmax\) is at its end"):
        compress(nn.Sequential(small_network(), nn.Softmax(1)), recipe, digits(200), seed=SEED)


def test_a_sparse_training_that_diverges() -> None:
    recipe = Best(start="ptq", target_size=1500, sparse_epochs=1, sparse_rate=1e3, batch=4)
    with pytest.raises(ModelError, match="diverged in epoch 1; lower sparse_rate"):
        compress(digits_network(), recipe, digits(200), seed=SEED)


@pytest.mark.parametrize(("settings", "message"), [
    (["sparse_epochs=3"], "recipe best: sparse_epochs come before start = 'ptq'"),
    (["sparse_epochs=-1"], "recipe best: sparse_epochs must be an integer from 0 to 100000, not -1"),
    (["sparse_rate=-1"], "recipe best: sparse_rate must be a number from 0 to 1000.0, not -1"),
    (["keep=0"], "recipe best: keep must be a number from 1e-06 to 1, not 0"),
    (["keep=1.5"], "recipe best: keep must be a number from 1e-06 to 1, not 1.5"),
    (["start='bytes'"], "recipe best: start must be 'float' or 'ptq', not 'bytes'"),
    (["start='ptq'"], "recipe best: start = 'ptq' needs a target_size: it spends one"),
    (["target_size=9", "target_cycles=9"], "recipe best: target_size and target_cycles are two targets; leave one"),
    (["target_size=0"], "recipe best: target_size must be an integer from 1 to 1099511627776, not 0"),
    (["terms=5"], "recipe best: terms must be an integer from 1 to 4, not 5"),
    (["layers.fc.span=9"], "recipe best: layers.fc: span must be an integer from 1 to 8, not 9"),
    (["layers.fc.bias=1"], "recipe best: layers.fc: bias must be true or false, not 1"),
    (["layers.fc.keep=0.5"], "recipe best: layers.fc has no option 'keep'; it has terms, span, bias"),
    (["rate=-1"], "recipe best: rate must be a number from 0 to 100, not -1")])
def test_bad_options(settings: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_recipe("best", settings=settings)


def test_a_layer_that_would_lose_all() -> None:
    with pytest.raises(ModelError, match="layer [a-z0-9]+: keep = 0.0003 would take all of its weights out; raise"):
        compress(digits_network(), Best(keep=0.0003, epochs=0), digits(50), seed=SEED)
    recipe = Best()
    network = FakeQuantized(captured(digits_network(), recipe), recipe)
    layer = network.weighted["fc"]
    layer.weight_quantizer.mask = torch.zeros_like(layer.master_weight, dtype=torch.bool)
    with pytest.raises(ModelError, match="layer fc: all 2560 weights became 0; raise keep, or lower rate"):
        GlobalBudget.check(network)


@pytest.mark.regress
def test_rtl() -> None:
    check_rtl(compress(digits_network(), Best(keep=0.3, epochs=2, terms=2), digits(), seed=SEED))
