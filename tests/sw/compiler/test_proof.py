"""The overflow proof: sound (nothing ever exceeds it) and tight (inputs exist that reach it)."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import OverflowProofError
from shiftwright.sw.compiler.parameters import Scales
from shiftwright.sw.compiler.proof import accumulator_range, prove
from shiftwright.sw.network import Layer, Residual, Term
from tests.networks import Arithmetic, conv, linear, pool, tensor

RANGES = [(0, 255), (-128, 127), (0, 15), (-2, 1)]


def product(x: np.ndarray, term: Term, truncate: int) -> np.ndarray:
    y = x << term.shift >> truncate
    return -y if term.neg else y


def every_prefix(layer: Layer, x: np.ndarray, channel: int, truncate: int) -> np.ndarray:
    """All partial sums of one output of a fully connected layer, in tap order and codebook order, for x (N, taps)."""
    assert layer.indices is not None
    sums, total = [], np.zeros(len(x), np.int64)
    for tap, index in enumerate(layer.indices[channel].transpose(1, 2, 0).ravel()):
        for term in layer.codebook[index]:
            total = total + product(x[:, tap], term, truncate)
            sums.append(total)
    return np.array(sums or [total])


@pytest.mark.parametrize("guard_bits", [7, 3, 0])
@pytest.mark.parametrize("x_range", RANGES)
def test_bound_holds_and_is_reached(rng: np.random.Generator, x_range: tuple[int, int], guard_bits: int) -> None:
    arithmetic = Arithmetic(guard_bits=guard_bits)
    for _ in range(5):
        layer = linear(rng, tensor("input", 3, 2, 2, signed=x_range[0] < 0), "fc", features=4, terms=4,
                       arithmetic=arithmetic)
        low, high, prefix_low, prefix_high = accumulator_range(layer, [x_range], arithmetic.truncate)
        values = np.unique(np.append(np.arange(x_range[0], x_range[1] + 1), 0))
        assert layer.indices is not None
        for channel in range(4):
            index = layer.indices[channel].transpose(1, 2, 0).ravel()
            # The worst input of each tap by itself, then random ones.
            sums = np.array([sum((product(values, term, arithmetic.truncate) for term in layer.codebook[i]),
                                 np.zeros(values.size, np.int64)) for i in index])
            worst = np.stack([values[sums.argmin(axis=1)], values[sums.argmax(axis=1)]])
            x = np.concatenate((worst, rng.choice(values, size=(200, index.size))))
            prefixes = every_prefix(layer, x, channel, arithmetic.truncate)
            assert prefixes[-1].min() == low[channel]
            assert prefixes[-1].max() == high[channel]
            assert prefix_low[channel] <= prefixes.min() and prefixes.max() <= prefix_high[channel]


def test_sum_within_a_tap_counts() -> None:
    """Seven times x passes through eight times x."""
    rng = np.random.default_rng(0)
    layer = dataclasses.replace(linear(rng, tensor("input", 2), "fc", features=1),
                                codebook=((Term(False, 3), Term(True, 0)),), indices=np.zeros((1, 2, 1, 1), np.uint8))
    low, high, prefix_low, prefix_high = (int(v[0]) for v in accumulator_range(layer, [(0, 100)], 0))
    assert (low, high) == (0, 1400)
    assert prefix_high == 700 + 800
    assert prefix_low == -100


def test_pooling_ranges() -> None:
    rng = np.random.default_rng(0)
    source = tensor("input", 2, 6, 6, signed=True)
    largest, average = (pool(rng, source, "pool", op=op, kernel=(3, 2)) for op in ("maxpool", "avgpool"))
    for truncate in (0, 5):
        # A maximum is taken of activations that are read as x + 128, and passes through its distance from each.
        assert [int(v[1]) for v in accumulator_range(largest, [(0, 255)], truncate)] == [0, 255, -255, 255]
        assert [int(v[1]) for v in accumulator_range(average, [(-128, 127)], truncate)] == [-768, 762] * 2
    proof = prove(largest, [(-128, 127)], Scales.of(largest), AcceleratorConfig())
    assert (proof.low, proof.high, proof.bits) == (-255, 255, 9)


def test_residual_is_a_tap_with_its_own_range(rng: np.random.Generator) -> None:
    source, other = tensor("input", 2, 4, 4), tensor("other", 3, 4, 4)
    layer = conv(rng, source, "layer", channels=5, kernel=(1, 1))
    residual = Residual(source=other, terms=(Term(False, 3), Term(True, 0)), channel_offset=1)
    joined = dataclasses.replace(layer, residuals=(residual,))
    alone, both = accumulator_range(layer, [(0, 9)], 0), accumulator_range(joined, [(0, 9), (0, 100)], 0)
    # Channels 1 to 3 take 8x - x.
    gain = np.array([0, 1, 1, 1, 0])
    assert both[0].tolist() == alone[0].tolist() and both[1].tolist() == (alone[1] + 700 * gain).tolist()
    assert (both[2][gain > 0] <= alone[0][gain > 0] - 100).all()
    assert (both[3][gain > 0] >= alone[1][gain > 0] + 800).all()


def test_negated_rows_have_the_mirrored_range() -> None:
    rng = np.random.default_rng(0)
    layer = dataclasses.replace(linear(rng, tensor("input", 4), "fc", features=2, bias=0.0, scale_terms=1),
                                codebook=((Term(False, 0),),), indices=np.zeros((2, 4, 1, 1), np.uint8))
    for negative, expected in ((False, (0, 1020)), (True, (-1020, 0))):
        turned = dataclasses.replace(layer, scale=((Term(negative, 0),),) * 2)
        proof = prove(turned, [(0, 255)], Scales.of(turned), AcceleratorConfig())
        assert (proof.low, proof.high) == expected


@pytest.mark.parametrize("raw", [False, True])
def test_refused_one_bit_below_what_is_needed(rng: np.random.Generator, raw: bool) -> None:
    layer = linear(rng, tensor("input", 3000), "fc", features=3, raw=raw, bias=0.0, scale_terms=1, terms=3)
    scales = Scales.of(layer)
    proof = prove(layer, [(0, 255)], scales, AcceleratorConfig(acc_width=32))
    assert 18 < proof.bits < 32
    assert proof == prove(layer, [(0, 255)], scales, AcceleratorConfig(acc_width=proof.bits))
    with pytest.raises(OverflowProofError) as caught:
        prove(layer, [(0, 255)], scales, AcceleratorConfig(acc_width=proof.bits - 1))
    limit = 1 << proof.bits - 2
    bound = proof.high if proof.high >= limit else proof.low
    assert f"the accumulator could reach {bound}, outside the {proof.bits - 1} bits of its register ({-limit} to " \
           f"{limit - 1}); raise acc_width (now {proof.bits - 1}) to {proof.bits}," in str(caught.value)
    assert str(caught.value).startswith("layer fc, channel ")


def test_channel_of_the_overflow_is_named() -> None:
    rng = np.random.default_rng(0)
    layer = dataclasses.replace(linear(rng, tensor("input", 400), "fc", features=3, raw=True, bias=0.0),
                                codebook=((), (Term(True, 7),)), indices=np.zeros((3, 400, 1, 1), np.uint8))
    assert layer.indices is not None
    layer.indices[2] = 1
    with pytest.raises(OverflowProofError, match=f"channel 2: the accumulator could reach {-400 * 255 * 128},"):
        prove(layer, [(0, 255)], Scales.of(layer), AcceleratorConfig(acc_width=20))


def test_bias_beyond_its_register_is_refused() -> None:
    rng = np.random.default_rng(0)
    layer = linear(rng, tensor("input", 4), "fc", features=2, bias=0.0, scale_terms=1)
    layer = dataclasses.replace(layer, scale=((Term(False, 0),),) * 2)
    low, high, _, _ = accumulator_range(layer, [(0, 255)], 0)
    edge = (1 << 20) - 1 - int(high.max())
    for bias in (edge, -(1 << 20) - int(low.min())):
        fits = dataclasses.replace(layer, bias=np.full(2, bias))
        prove(fits, [(0, 255)], Scales.of(fits), AcceleratorConfig(acc_width=20))
    over = dataclasses.replace(layer, bias=np.full(2, edge + 1))
    with pytest.raises(OverflowProofError, match=r"accumulator plus bias could reach 1048576, outside the 21 bits .*it "
                                                 r"needs 22 bits; raise acc_width \(now 20\)"):
        prove(over, [(0, 255)], Scales.of(over), AcceleratorConfig(acc_width=20))


def test_raw_output_has_32_bits() -> None:
    rng = np.random.default_rng(0)
    layer = dataclasses.replace(linear(rng, tensor("input", 4), "fc", features=2, raw=True),
                                codebook=((Term(False, 0),),), indices=np.zeros((2, 4, 1, 1), np.uint8),
                                bias=np.array([0, (1 << 31) - 4 * 255]))
    with pytest.raises(OverflowProofError, match=f"channel 1: accumulator plus bias could reach {1 << 31}, outside the "
                                                 f"32 bits"):
        prove(layer, [(0, 255)], Scales.of(layer), AcceleratorConfig(acc_width=32))


def test_scaled_values_fit_two_more_bits(rng: np.random.Generator) -> None:
    """Whatever passes the bias register passes all Horner steps: their sum is less than twice the value."""
    for _ in range(50):
        layer = conv(rng, tensor("input", 2, 6, 6), "layer", channels=6, scale_terms=4, bias=0.0)
        bits = prove(layer, [(0, 255)], Scales.of(layer), AcceleratorConfig(acc_width=32)).bits
        prove(layer, [(0, 255)], Scales.of(layer), AcceleratorConfig(acc_width=max(16, bits)))
