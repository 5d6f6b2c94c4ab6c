"""Post-training quantization: the sweep against its definition, targets, exactness on every structure."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compiler.compile import compile_
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.lower import lower
from shiftwright.sw.compress.moments import Reference, curvature, input_moments
from shiftwright.sw.compress.posttraining import PostTraining
from shiftwright.sw.compress.ptq import PTQ
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.sweep import Problem, Rate
from shiftwright.sw.compress.weights import TermGrid
from shiftwright.sw.data import Dataset, load
from shiftwright.sw.frontend.graph import FloatLayer
from shiftwright.sw.network import QuantizedNetwork
from shiftwright.sw.terms import signed_digits
from tests.sw.compress.recipes import SEED, captured, check_exact, check_rtl, digits, digits_network, small_network
from tests.sw.compress.test_structures import SHAPE, STRUCTURES
from tests.sw.compress.test_structures import captured as structure

pytestmark = pytest.mark.usefixtures("one_thread")

GRID = TermGrid(2, 6)
RATE = Rate(GRID, 0.0)


def problem(columns: int = 40, *, rows: int = 5, groups: int = 1, ordered: bool = True, cross: bool = False) -> Problem:
    """Random weights and inputs that depend on each other."""
    generator = torch.Generator().manual_seed(SEED)
    inputs = torch.randn(groups, columns, 4 * columns, generator=generator)
    inputs = torch.randn(groups, columns, columns, generator=generator) @ inputs
    moments = inputs @ inputs.mT / inputs.shape[2]
    lacking = torch.randn(groups, rows, columns, generator=generator) * float(cross)
    return Problem(torch.randn(groups, rows, columns, generator=generator), moments,
                   torch.rand(groups, rows, generator=generator) + 0.1, cross=lacking @ moments, damping=1e-6,
                   ordered=ordered)


def by_the_inverse(weight: Tensor, moments: Tensor, unit: float) -> Tensor:
    """The sweep as GPTQ's paper has it: later columns move by the inverse moments of those that are left."""
    weight, chosen = weight.double().clone(), torch.zeros_like(weight)
    for column in range(weight.shape[1]):
        inverse = torch.linalg.inv(moments[column:, column:].double())
        chosen[:, column] = GRID.nearest(weight[:, column].float() / unit) * unit
        error = (weight[:, column] - chosen[:, column]) / inverse[0, 0]
        weight[:, column:] -= error[:, None] * inverse[0]
    return chosen


@pytest.mark.parametrize("columns", [1, 7, 40])
def test_the_sweep_is_that_of_the_inverse_moments(columns: int) -> None:
    case, unit = problem(columns, ordered=False), 2.0**-3
    choice = case.solve(GRID, unit, 0.0, RATE, 1)
    moments = case.factor[0] @ case.factor[0].mT
    assert torch.equal(choice.numbers[0] * unit, by_the_inverse(case.weight[0], moments, unit)), f"seed {SEED}"


@pytest.mark.parametrize("ordered", [False, True])
def test_errors_are_made_up_for(ordered: bool) -> None:
    case, unit = problem(200, groups=3, ordered=ordered), 2.0**-2
    plain = problem(200, groups=3, ordered=False)
    choice = case.solve(GRID, unit, 0.0, RATE, 1)

    def error(numbers: Tensor) -> float:
        away = numbers * unit - plain.weight
        return float(((away @ plain.factor).square().sum(2) * plain.importance).sum())

    assert choice.error == pytest.approx(error(choice.numbers), rel=1e-3)
    assert choice.error < 0.5 * error(GRID.nearest(plain.weight / unit)), f"seed {SEED}"


def test_weights_make_up_for_what_outputs_lack() -> None:
    plain, case = problem(ordered=False), problem(ordered=False, cross=True)
    generator = torch.Generator().manual_seed(SEED)
    for shape in ((1, 40, 160), (1, 40, 40)):
        torch.randn(shape, generator=generator)
    lacking = torch.randn(1, 5, 40, generator=generator)
    assert torch.allclose(case.weight, plain.weight + lacking, atol=1e-2)


def test_a_bit_that_is_worth_more_is_spent_less() -> None:
    case, rate = problem(100), Rate(GRID, 0.0)
    choices = [case.solve(GRID, 2.0**-3, slope, rate, 4) for slope in (0.0, 0.1, 1.0, 10.0)]
    assert all(a.bits > b.bits and a.error < b.error for a, b in zip(choices, choices[1:], strict=False))
    zeros = [int((choice.numbers == 0).sum()) for choice in choices]
    assert zeros == sorted(zeros) and zeros[-1] > 250
    cheap = case.solve(GRID, 2.0**-3, 0.1, Rate(GRID, 4.0), 4)
    terms = [sum(len(signed_digits(int(number))) for number in choice.numbers.flatten()) for choice in
             (choices[1], cheap)]
    assert terms[1] < terms[0]


def test_bits_of_a_value() -> None:
    rate, counts = Rate(TermGrid(2, 3), 0.0), torch.zeros(len(TermGrid(2, 3).numbers))
    counts[[5, 6, 8]] = torch.tensor([256.0, 128.0, 128.0])  # 0, 1 and 3 = 4 - 1
    assert TermGrid(2, 3).numbers[[5, 6, 8]].tolist() == [0, 1, 3]
    assert rate.total(counts) == pytest.approx(256 + 128 * 2 * 2 + 16 * 3)
    bits = rate.bits(counts)
    assert bits[[5, 6, 8]].tolist() == pytest.approx([1, 2 + 16 / 129, 2 + 32 / 129], abs=0.01)
    assert bits[7] > 10 + 16


@pytest.mark.parametrize("layer", [
    {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 0, 1, 1), "groups": 2}, {"kernel": (2, 2), "dilation": (2, 3)},
    {"kernel": (6, 7)}], ids=["grouped", "dilated", "linear"])
def test_input_moments(layer: dict[str, Any]) -> None:
    """Weights times inputs have, about their means, the variance that the moments tell."""
    generator, groups = torch.Generator().manual_seed(SEED), layer.get("groups", 1)
    x = torch.rand(30, 4, 6, 7, generator=generator) + 1
    weight = torch.randn(8, 4 // groups, *layer["kernel"], generator=generator)
    top, left, bottom, right = layer.get("padding", (0, 0, 0, 0))
    made = functional.conv2d(functional.pad(x, (left, right, top, bottom)), weight, None, layer.get("stride", 1), 0,
                             layer.get("dilation", 1), groups)
    shape = (8, made.shape[2], made.shape[3])
    float_layer = FloatLayer(name="a", op="conv", in_shape=(4, 6, 7), out_shape=shape, weight=weight.numpy(), **layer)
    moments = input_moments(float_layer, x, made, generator)
    rows = weight.reshape(groups, 8 // groups, -1)
    variance = ((rows @ moments.inputs) * rows).sum(2).flatten()
    assert torch.allclose(variance, made.transpose(0, 1).flatten(1).var(1, correction=0), rtol=1e-3)
    assert torch.allclose(moments.cross, rows @ moments.inputs, atol=1e-3 * float(moments.cross.abs().max()))


def test_curvature_is_what_noise_costs() -> None:
    """Small noise on a layer's sums raises the divergence from the float network by what the curvature tells."""
    model, recipe = digits_network(), PTQ()
    images = torch.tensor(digits(200).images) / 256
    reference = Reference(captured(model, recipe), recipe, images)
    cost = curvature(reference, 1.0, torch.Generator().manual_seed(SEED))
    generator, deviation = torch.Generator().manual_seed(SEED), 0.3
    layer = reference.network.weighted["fc"]
    hook = layer.register_forward_hook(
        lambda _, __, made: made + deviation * torch.randn(made.shape, generator=generator))
    with torch.no_grad():
        wanted, runs = model(images).log_softmax(1), [reference.network(images).log_softmax(1) for _ in range(8)]
    hook.remove()
    found = float(np.mean([float((wanted.exp() * (wanted - run)).sum(1).mean()) for run in runs]))
    assert found == pytest.approx(float(cost["fc"].sum()) * deviation**2, rel=0.4), f"seed {SEED}"


@functools.cache
def compressed(**options: Any) -> QuantizedNetwork:
    """The digits' network, compressed once for each set of options."""
    return compress(digits_network(), PTQ(**options), digits(), seed=SEED)


@pytest.mark.parametrize(("terms", "span"), [(1, 8), (2, 4), (4, 8)])
def test_digits_keep_their_accuracy(terms: int, span: int) -> None:
    network = compressed(terms=terms, span=span)
    assert golden.accuracy(network, load("digits", split="test")) >= 0.95, f"seed {SEED}"
    values = [value for layer in network.layers if layer.op == "conv" for value in layer.codebook]
    assert max(map(len, values)) <= terms
    assert all(term.shift < span for value in values for term in value)


def test_equal_seeds_give_equal_networks() -> None:
    again = compress(digits_network(), PTQ(terms=1), digits(), seed=SEED)
    assert all(np.array_equal(one.values, other.values) and np.array_equal(one.bias, other.bias) for one, other in
               zip(compressed(terms=1, span=8).layers, again.layers, strict=True) if one.op == "conv")


@pytest.mark.parametrize("options", [
    {}, {"guard_bits": 0, "terms": 1, "span": 3}, {"act_bits": 4}, {"correction": 0.0}], ids=str)
def test_exact(options: dict[str, Any]) -> None:
    check_exact(small_network(), PTQ(**options, slope=1e-4, calibration_images=100), digits(200))


@pytest.mark.parametrize("name", STRUCTURES)
def test_exact_on_structures(name: str) -> None:
    recipe, graph, rng = PTQ(span=6, slope=1e-7), structure(name), np.random.default_rng(SEED)
    data = Dataset(rng.integers(0, 256, (60, *SHAPE), np.uint8), rng.integers(0, 5, 60), "noise", "train",
                   tuple("01234"))
    fake = FakeQuantized(graph, recipe)
    PostTraining(fake, recipe, data, seed=SEED, progress=None).run()
    network, images = lower(fake, graph, recipe, {}), torch.tensor(data.images) / 256
    expected = golden.run(network, network.quantize_input(images.numpy()))
    with torch.no_grad():
        real = fake(images).numpy().reshape(expected.shape)
        reference = Reference(graph, recipe, images).network(images).numpy().reshape(expected.shape)
    assert np.array_equal(real * 2.0**-network.output.exponent, expected), f"seed {SEED}"
    assert np.abs(real - reference).mean() < 0.3 * reference.std(0).mean() + 0.02


def test_targets() -> None:
    images = digits(300)
    graph = captured(digits_network(), PTQ())
    seen: list[tuple[int, int]] = []
    for target in ({"target_bits": 2.5}, {"target_size": 2000}):
        recipe = PTQ(**target)
        fake = FakeQuantized(graph, recipe)
        passes = PostTraining(fake, recipe, images, seed=SEED,
                              progress=lambda done, total, _: seen.append((done, total)))
        passes.run()
        assert seen[-1][0] <= seen[-1][1]
        size = len(compile_(lower(fake, graph, recipe, {}), AcceleratorConfig()).to_bytes())
        if recipe.target_size:
            assert 1850 <= size <= 2000
        else:
            assert 2.4 <= passes.bits / passes.weights <= 2.5


@pytest.mark.parametrize(("options", "message"), [
    ({"terms": 5}, "terms must be an integer from 1 to 4, not 5"), ({"span": 9}, "span must be an integer from 1 to 8"),
    ({"slope": -1}, "slope must be a number from 0 to"), ({"epochs": 3}, "epochs must be 0 or left out, not 3"),
    ({"target_bits": 2, "target_size": 9}, "target_bits and target_size are two targets"),
    ({"target_size": 0}, "target_size must be an integer from 1 to"),
    ({"ordered": 1}, "ordered must be true or false, not 1"),
    ({"layers": {"fc": {"damping": 1}}}, "layers.fc has no option 'damping'; it has terms, span, slope")])
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        PTQ(**options)


def test_what_can_not_be_reached_is_told() -> None:
    with pytest.raises(ModelError, match="layer conv1: none of its weights is worth its bits at slope = 1e\\+05; lo"):
        compress(digits_network(), load_recipe("ptq", settings=["layers.conv1.slope=1e5"]), digits(100), seed=SEED)
    with pytest.raises(ModelError, match="target_size = 100 is not reached|none of its weights is worth"):
        compress(digits_network(), PTQ(target_size=100), digits(100), seed=SEED)


@pytest.mark.regress
def test_rtl() -> None:
    check_rtl(compressed(terms=2, span=4))
    check_rtl(compressed(terms=1, span=8))
