"""Parameter words: read back and run as the hardware does, they are the network's requantization."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError, ModelError, UnsupportedError
from shiftwright.hw.arch.image import Flag
from shiftwright.sw.compiler.parameters import Scales, pack_parameters, parameter_shape, row_bias
from shiftwright.sw.network import Layer, Term
from tests.networks import conv, pool, tensor


def layer_with(rng: np.random.Generator, **options: object) -> Layer:
    return conv(rng, tensor("input", 2, 6, 6), "layer", **{"channels": 6, **options})  # type: ignore[arg-type]


def pack(layer: Layer) -> tuple[list[int], Flag]:
    """The words of a layer with one stream."""
    scales = Scales.of(layer)
    bias = row_bias(layer, scales, AcceleratorConfig())
    (words,), flags = pack_parameters(layer, bias, scales, [np.arange(layer.target.channels)], False)
    return words.tolist(), flags


def read_rows(words: list[int], flags: Flag, rows: int) -> list[tuple[int, int, int, list[tuple[int, bool]]]]:
    """(channel, bias, final shift, [(right shift, negative), ...]) of every row, read as docs/image.md says."""
    at = 0

    def take() -> int:
        nonlocal at
        at += 1
        return words[at - 1]

    def scale() -> tuple[int, list[tuple[int, bool]]]:
        first = take()
        assert not first >> 8
        terms = [(0, False)]
        extra = first >> 6 & 3
        packed = [take() for _ in range((extra + 1) // 2)]
        terms += [(byte & 31, bool(byte >> 5 & 1)) for word in packed for byte in (word & 255, word >> 8)][:extra]
        return first & 63, terms

    found = []
    shared = scale() if Flag.SHARED_SCALE in flags else None
    for row in range(rows):
        channel, bias = take() if Flag.ORDER in flags else row, 0
        if Flag.COMPACT in flags:
            word = take()
            found.append((channel, (word & 4095) - (word << 1 & 4096), word >> 12, [(0, False)]))
            continue
        if Flag.BIAS in flags:
            bits = 32 if Flag.WIDE_BIAS in flags else 16
            bias = take() | (take() << 16 if bits == 32 else 0)
            bias -= (bias >> bits - 1) << bits
        found.append((channel, bias, *(shared or scale())))
    assert at == len(words)
    return found


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_words_requantize_like_the_definition(rng: np.random.Generator, per_channel: bool, wide: bool) -> None:
    for _ in range(30):
        layer = layer_with(rng, per_channel=per_channel, scale_terms=4)
        if wide:
            layer = dataclasses.replace(layer, bias=layer.bias + 40_000)
        words, flags = pack(layer)
        assert Flag.WIDE_BIAS in flags or not wide
        acc = rng.integers(-1 << 20, 1 << 20, size=64)
        for channel, bias, final, terms in read_rows(words, flags, layer.target.channels):
            # The weights of a row whose scale begins with a negative term are negated.
            negated = layer.scale[channel][0].neg
            assert bias == (-1) ** negated * layer.bias[channel]
            r = t = (-acc if negated else acc) + bias
            for step, negative in terms[1:]:
                r = (r >> step) + (-t if negative else t)
            t = -t if negated else t
            found = (r + ((1 << final) >> 1)) >> final
            scale = sum(-(1 << term.shift) if term.neg else 1 << term.shift for term in layer.scale[channel])
            shift = int(layer.shift[channel])
            np.testing.assert_array_equal(found, (t * scale + ((1 << shift) >> 1)) >> shift)


def test_equal_scales_are_shared_and_zero_biases_left_out(rng: np.random.Generator) -> None:
    layer = layer_with(rng, per_channel=False, scale_terms=1, bias=0.0)
    layer = dataclasses.replace(layer, shift=np.full(6, 5, np.int64))
    layer = dataclasses.replace(layer, scale=((Term(False, 0),),) * 6)
    words, flags = pack(layer)
    assert flags == Flag.SHARED_SCALE
    assert words == [5]


def test_one_different_shift_makes_scales_separate(rng: np.random.Generator) -> None:
    layer = layer_with(rng, per_channel=False, scale_terms=1, bias=0.0)
    layer = dataclasses.replace(layer, shift=np.array([5, 5, 5, 5, 5, 6]))
    words, flags = pack(layer)
    assert flags == Flag(0)
    assert words == [5, 5, 5, 5, 5, 6]


@pytest.mark.parametrize(("bias", "shifts", "compact"), [
    ((-2048, 2047), (0, 15), True), ((-2049, 0), (1, 2), False), ((2048, 0), (1, 2), False),
    ((1, 2), (1, 16), False), ((1, 2), (3, 3), False), ((0, 0), (1, 2), False),
])
def test_bias_and_scale_are_one_word_where_they_fit_and_that_is_less(
        rng: np.random.Generator, bias: tuple[int, int], shifts: tuple[int, int], compact: bool) -> None:
    layer = dataclasses.replace(layer_with(rng, scale_terms=1, channels=2), bias=np.array(bias),
                                shift=np.array(shifts), scale=((Term(False, 0),),) * 2)
    words, flags = pack(layer)
    assert (Flag.COMPACT in flags) == compact
    assert [row[1:3] for row in read_rows(words, flags, 2)] == list(zip(bias, shifts, strict=True))
    count, steps, per_row = parameter_shape(np.array(words), flags, 2)
    assert count.tolist() == [1, 1] and not steps.any()
    assert per_row.sum() + (Flag.SHARED_SCALE in flags) == len(words)


def test_several_scale_terms_are_not_one_word(rng: np.random.Generator) -> None:
    layer = dataclasses.replace(layer_with(rng, channels=2), bias=np.array([1, 2]), shift=np.array([4, 5]),
                                scale=((Term(False, 0),), (Term(False, 0), Term(False, 2))))
    assert Flag.COMPACT not in pack(layer)[1]


def test_streams_have_rows_of_their_own(rng: np.random.Generator) -> None:
    for per_channel in (False, True):
        layer = layer_with(rng, per_channel=per_channel, scale_terms=4)
        scales = Scales.of(layer)
        bias = row_bias(layer, scales, AcceleratorConfig())
        whole = read_rows(*pack(layer), 6)
        channels = [np.array(rows, int) for rows in ([4, 0, 2], [1, 5], [3], [])]
        streams, flags = pack_parameters(layer, bias, scales, channels, True)
        assert Flag.ORDER in flags
        for words, rows in zip(streams, channels, strict=True):
            if rows.size:
                assert read_rows(words.tolist(), flags, rows.size) == [whole[row] for row in rows]
        assert streams[3].size == 0


def test_a_negative_scale_turns_the_row(rng: np.random.Generator) -> None:
    layer = layer_with(rng, scale_terms=1)
    layer = dataclasses.replace(layer, scale=((Term(True, 0), Term(False, 2)),) * 6, shift=np.full(6, 9, np.int64))
    scales = Scales.of(layer)
    assert scales.negated.all() and scales.negative[0].tolist() == [False, True, False, False]
    assert row_bias(layer, scales, AcceleratorConfig()).tolist() == (-layer.bias).tolist()


def test_a_pooling_has_no_negative_scale(rng: np.random.Generator) -> None:
    layer = pool(rng, tensor("input", 3, 6, 6), "pool")
    layer = dataclasses.replace(layer, scale=(*layer.scale[:2], (Term(True, 0),)))
    message = "a pooling's scale must begin with a positive"
    for each in (layer, dataclasses.replace(layer, op="avgpool")):
        with pytest.raises(UnsupportedError, match=f"layer pool, channel 2: {message}"):
            Scales.of(each)
    layer = dataclasses.replace(layer, op="avgpool", scale=((Term(True, 0),),) * 3)
    assert Scales.of(layer).negated.all() and not Scales.of(layer).negative.any()
    with pytest.raises(UnsupportedError, match=f"layer pool, channel 0: {message}"):
        layer = dataclasses.replace(layer, op="maxpool")
        Scales.of(layer)


def test_a_maximum_of_signed_activations_is_read_with_an_offset(rng: np.random.Generator) -> None:
    for signed, act_bits, expected in ((False, 8, 0), (True, 8, -128), (True, 5, -16)):
        layer = pool(rng, tensor("input", 3, 6, 6, signed=signed, bits=act_bits), "pool")
        assert row_bias(layer, Scales.of(layer), AcceleratorConfig(act_bits=act_bits)).tolist() == [expected] * 3


def test_bias_of_one_word_at_the_edges(rng: np.random.Generator) -> None:
    layer = layer_with(rng, raw=True)
    for bias, flag in ((-32768, Flag(0)), (32767, Flag(0)), (-32769, Flag.WIDE_BIAS), (32768, Flag.WIDE_BIAS)):
        edge = dataclasses.replace(layer, bias=np.array([bias, 0, 0, 0, 0, 0]))
        assert pack(edge)[1] == Flag.SHARED_SCALE | Flag.BIAS | flag


def test_shape_of_rows_is_read_back(rng: np.random.Generator) -> None:
    for per_channel in (False, True):
        for _ in range(10):
            layer = layer_with(rng, per_channel=per_channel, scale_terms=4, bias=float(rng.integers(2)))
            scales = Scales.of(layer)
            packed, flags = pack(layer)
            count, shifts, words = parameter_shape(np.array(packed), flags, 6)
            np.testing.assert_array_equal(count, scales.count)
            np.testing.assert_array_equal(shifts, scales.step.sum(axis=1))
            shared = len(scales.words(0)) if Flag.SHARED_SCALE in flags else 0
            assert words.sum() + shared == len(packed)


def scaled(layer: Layer, shifts: tuple[int, ...], shift: int) -> Layer:
    return dataclasses.replace(layer, scale=(tuple(Term(False, s) for s in shifts),) * 6,
                               shift=np.full(6, shift, np.int64))


@pytest.mark.parametrize(("shifts", "shift", "message"), [
    ((), 4, "must have 1 to 4 terms, not 0"), ((0, 1, 2, 3, 4), 9, "must have 1 to 4 terms, not 5"),
    ((1, 2), 4, r"exponents from 0 that rise by 1 to 31, not \[1, 2\]"),
    ((0, 2, 2), 4, r"exponents from 0 that rise by 1 to 31, not \[0, 2, 2\]"),
    ((0, 32), 40, r"exponents from 0 that rise by 1 to 31, not \[0, 32\]"),
    ((0, 4), 4, "has shift 4, which must be above its greatest exponent 4"),
    ((0,), -1, "has shift -1, which must be"), ((0,), 32, "at most 31"),
])
def test_scale_that_breaks_a_rule_is_refused(rng: np.random.Generator, shifts: tuple[int, ...], shift: int,
                                             message: str) -> None:
    with pytest.raises(ModelError, match=f"layer layer, channel 0: its scale .*{message}"):
        Scales.of(scaled(layer_with(rng), shifts, shift))


def test_bias_beyond_32_bits_is_refused(rng: np.random.Generator) -> None:
    layer = layer_with(rng)
    layer = dataclasses.replace(layer, bias=np.array([0, 0, 1 << 31, 0, 0, 0]), scale=((Term(False, 0),),) * 6)
    with pytest.raises(CapacityError, match="layer layer, channel 2: a bias must fit 32 bits, not 2147483648"):
        pack(layer)


def test_missing_values_are_refused(rng: np.random.Generator) -> None:
    layer = layer_with(rng)
    with pytest.raises(ModelError, match="bias must have one value for each of the 6 output channels"):
        pack(dataclasses.replace(layer, bias=np.zeros(5, np.int64)))
    with pytest.raises(ModelError, match="scale and shift must have one value for each of the 6"):
        Scales.of(dataclasses.replace(layer, scale=layer.scale[:5]))
