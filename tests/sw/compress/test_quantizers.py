"""Quantizers, calibration and lowering, against their definitions."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from shiftwright.hw.arch.errors import OverflowProofError
from shiftwright.sw.compress.bqnet import BQNet, LevelSet
from shiftwright.sw.compress.calibrate import choose_exponent
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.lower import lower
from shiftwright.sw.compress.quantizers import ActivationQuantizer, FixedPoint
from shiftwright.sw.compress.scales import reciprocal
from shiftwright.sw.compress.weights import PowerOfTwo
from shiftwright.sw.frontend.graph import Clamp, FloatLayer, Graph
from shiftwright.sw.network import Term


def weights(generator_seed: int = 3) -> Tensor:
    """Weights from tiny to large, with the exact boundaries among them."""
    random = torch.randn(500, generator=torch.Generator().manual_seed(generator_seed))
    return torch.cat([random, torch.tensor([0.0, -0.0, 0.125, 0.25, 0.375, -0.375, 0.75, 3.0, -3.0])])


@pytest.mark.parametrize(("levels", "zero"), [*itertools.product((1, 2, 4), (True, False))])
def test_nearest_value(levels: int, zero: bool) -> None:
    quantizer = PowerOfTwo(LevelSet(levels, zero, -4, 8))
    quantizer.k_top = 1
    values = np.array([sign * 2.0 ** -(1 + j) for j in range(levels) for sign in (1, -1)] + [0.0] * zero)
    w = weights().double()
    found = quantizer.quantize(w).numpy()
    assert set(np.abs(found)) <= set(np.abs(values))
    distance = np.abs(w.numpy()[:, None] - values)
    np.testing.assert_array_equal(np.abs(found - w.numpy()), distance.min(1))


@pytest.mark.parametrize(("levels", "zero"), [*itertools.product((1, 3), (True, False))])
def test_codes_are_the_values(levels: int, zero: bool) -> None:
    quantizer = PowerOfTwo(LevelSet(levels, zero, -4, 8))
    quantizer.fit(weights())
    numbers = quantizer.numbers(weights())
    assert torch.equal(numbers * quantizer.unit, quantizer.quantize(weights()) + 0.0)
    assert int(numbers.abs().min()) == (0 if zero else 1) and int(numbers.abs().max()) == 1 << levels - 1


@pytest.mark.parametrize(("scale", "k_range"), [(1.0, (-4, 8)), (0.013, (-4, 8)), (0.013, (0, 3)), (50.0, (0, 8))])
def test_scale_has_the_least_squared_error(scale: float, k_range: tuple[int, int]) -> None:
    w = weights() * scale
    quantizer = PowerOfTwo(LevelSet(2, True, *k_range))
    quantizer.fit(w)
    errors = {}
    for k in range(k_range[0], k_range[1]):  # two levels: the scale leaves room for one more
        values = torch.tensor([0.0, 2.0**-k, 2.0 ** -(k + 1)])
        errors[k] = float((w.abs()[:, None] - values).abs().min(1).values.square().sum(dtype=torch.float64))
    assert quantizer.k_top == min(errors, key=errors.__getitem__)


def test_gradients_go_straight_through() -> None:
    w = weights().requires_grad_()
    quantizer, fixed = PowerOfTwo(LevelSet(2, True, 0, 3)), FixedPoint()
    for function in (quantizer, fixed):
        w.grad = None
        (function(w) * torch.arange(len(w))).sum().backward()
        assert w.grad is not None and torch.equal(w.grad, torch.arange(len(w)).float())


def test_activation_rounds_half_up_and_clamps() -> None:
    quantizer = ActivationQuantizer(4, signed=True)
    quantizer.exponent = -1
    x = torch.tensor([0.25, -0.25, 0.24, -0.26, 1.75, 3.5, 3.74, 3.75, 9.0, -4.0, -4.25, -4.3, -9.0]).requires_grad_()
    y = quantizer(x)
    assert y.tolist() == [0.5, 0.0, 0.0, -0.5, 2.0, 3.5, 3.5, 3.5, 3.5, -4.0, -4.0, -4.0, -4.0]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0]  # nothing where it was clamped


@pytest.mark.parametrize(("bits", "signed", "clamp", "exponent", "expected"), [
    (8, False, Clamp(0.0), -4, (0, 255)), (8, False, Clamp(0.0, 6.0), -4, (0, 96)), (8, True, Clamp(), 0, (-128, 127)),
    (8, True, Clamp(-1.0, 1.0), -4, (-16, 16)), (3, True, Clamp(-0.3, 0.4), -2, (-1, 2)),
    (2, False, Clamp(0.0, 6.0), 0, (0, 3)),
    (8, True, Clamp(-0.375, 0.375), -2, (-1, 2))])
def test_range_of_a_clamp(bits: int, signed: bool, clamp: Clamp, exponent: int, expected: tuple[int, int]) -> None:
    quantizer = ActivationQuantizer(bits, signed, clamp.low, clamp.high)
    quantizer.exponent = exponent
    assert quantizer.range == expected


@pytest.mark.parametrize(("method", "percentile", "expected"), [
    ("mse", 100.0, -6), ("minmax", 99.0, 0), ("percentile", 100.0, 0), ("percentile", 99.0, -7)])
def test_calibration(method: str, percentile: float, expected: int) -> None:
    """A thousand values up to 1.9 and one of 200, which only the largest scale holds."""
    values = torch.cat([torch.linspace(0, 1.9, 1000), torch.tensor([4.0 if method == "mse" else 200.0])])
    assert choose_exponent(values, ActivationQuantizer(8, False, 0.0), method, percentile, -99) == expected
    assert choose_exponent(values, ActivationQuantizer(8, False, 0.0), method, percentile, 3) == 3


def test_calibration_of_zeros() -> None:
    assert choose_exponent(torch.zeros(10), ActivationQuantizer(8, True), "mse", 100.0, -20) == -7


@pytest.mark.parametrize("divisor", [*range(1, 50), 49, 64, 196, 784])
def test_reciprocal_rounds_averages_rightly(divisor: int) -> None:
    terms, shift = reciprocal(divisor)
    scale = sum(-(1 << term.shift) if term.neg else 1 << term.shift for term in terms)
    assert 1 <= len(terms) <= 4 and terms[0].shift == 0
    assert [term.shift for term in terms] == sorted({term.shift for term in terms})
    assert len(terms) == 1 or shift > terms[-1].shift
    if divisor & (divisor - 1) == 0:
        assert (terms, shift) == ((Term(False, 0),), divisor.bit_length() - 1)
    totals = np.arange(255 * divisor + 1)
    half = 1 << shift >> 1
    np.testing.assert_allclose((totals * scale + half) >> shift, totals / divisor, atol=0.5 + 255 / 250)
    assert abs(Fraction(scale, 1 << shift) * divisor - 1) < Fraction(1, 250)


def linear(values: list[list[float]]) -> Graph:
    weight = np.array(values)[:, :, None, None]
    layer = FloatLayer(name="fc", op="conv", in_shape=(weight.shape[1], 1, 1), out_shape=(weight.shape[0], 1, 1),
                       kernel=(1, 1), weight=weight, bias=np.array([0.5, -0.25][:len(weight)]))
    return Graph(image_shape=layer.in_shape, input_shape=layer.in_shape, layers=(layer,), parameters=weight.size)


def test_lowered_by_hand() -> None:
    recipe = BQNet(levels=2)
    graph = linear([[0.5, -0.26, 0.0], [0.49, 0.01, 0.25]])
    layer = lower(FakeQuantized(graph, recipe), graph, recipe, {"a": 1}).layers[0]
    assert layer.codebook == ((), (Term(False, 0),), (Term(True, 0),), (Term(False, 1),))
    assert layer.values[:, :, 0, 0].tolist() == [[2, -1, 0], [2, 0, 1]]
    assert layer.target.exponent == -8 - 2  # input 2**-8, one unit of weight 2**-2
    assert layer.bias.tolist() == [512, -256]
    assert layer.raw and layer.target.bits == 32


def test_lowered_for_truncation() -> None:
    """The largest level shifts by max_shift, so that nothing of it is cut off."""
    recipe = BQNet(levels=2, guard_bits=0, max_shift=5)
    graph = linear([[0.5, -0.26, 0.0]])
    network = lower(FakeQuantized(graph, recipe), graph, recipe, {})
    assert network.layers[0].values[0, :, 0, 0].tolist() == [32, -16, 0]
    assert (network.max_shift, network.guard_bits) == (5, 0)
    assert network.output.exponent == -8 - 1  # input 2**-8, the largest weight 2**-1
    assert network.layers[0].bias.tolist() == [256]


def test_an_accumulator_that_could_overflow() -> None:
    graph = linear([[0.5] * 200 + [-0.5] * 30, [0.25] * 230])
    recipe = BQNet(levels=2, acc_bits=17)
    message = ("layer fc: channel 0 can reach 102512, which takes 18 bits, but accumulators have 17; lower levels or "
               "act_bits, or raise acc_bits")
    with pytest.raises(OverflowProofError, match=message):
        lower(FakeQuantized(graph, recipe), graph, recipe, {})
    assert lower(FakeQuantized(graph, recipe), graph, recipe.replace(acc_bits=18), {}).acc_bits == 18
