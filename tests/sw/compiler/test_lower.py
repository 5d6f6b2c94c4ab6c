"""Lowering and layouts: an equal network, of which every tensor has one layout."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import ROUNDINGS, AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError
from shiftwright.sim import golden
from shiftwright.sw.compiler.layouts import agree, first_of_tail, plan
from shiftwright.sw.compiler.lower import lower
from shiftwright.sw.compiler.streams import dealable
from shiftwright.sw.network import Concat, Layer, QuantizedNetwork, Residual, TensorSpec, Term
from tests.networks import conv, join, linear, pool, random_images, random_network, tensor

CONFIG = AcceleratorConfig(streams=4)
ROOMY = {"act_depth": 16384, "positions": 512}


def part(rng: np.random.Generator, source: TensorSpec, name: str, channels: int) -> Layer:
    """A convolution whose output can be joined with others of its kind."""
    layer = conv(rng, source, name, channels=channels, padding=(1, 1, 1, 1))
    return dataclasses.replace(layer, target=dataclasses.replace(layer.target, exponent=0))


def names(network: QuantizedNetwork) -> list[str]:
    return [layer.name for layer in network.layers]


@pytest.mark.usefixtures("one_thread")
def test_lowered_networks_compute_the_same(seed: int) -> None:
    copies = dense = 0
    for number in range(40):
        config = AcceleratorConfig(streams=number % 8 + 1, **ROOMY)
        network = random_network(seed + number, config, layers=4)
        lowered = lower(network, config)
        x = random_images(network, 2)
        before, after = golden.run(network, x, layers=True), golden.run(lowered, x, layers=True)
        for name, expected in before.items():
            np.testing.assert_array_equal(after[name], expected)
        assert all(dealable(layer, config.streams) for layer in lowered.layers)
        owners = [part.name for concat in lowered.concats for part in concat.parts]
        assert len(owners) == len(set(owners))
        plan(lowered, config, first_of_tail(lowered, config))
        copies += len(lowered.layers) > len(network.layers)
        dense += sum(layer.groups for layer in lowered.layers) < sum(layer.groups for layer in network.layers)
    assert copies > 3 and dense > 0


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_normalization_gets_one_scale_term(rng: np.random.Generator, rounding: str) -> None:
    source = tensor("input", 6, 5, 7)
    scales = [(1, -16, 64, 512), (-1, -8, 256, 2048), (1, 4), (-1, 2), (1,), (1, 4)]
    layer = conv(rng, source, "affine", channels=6, kernel=(1, 1), groups=6, signed=True)
    assert layer.indices is not None
    layer = dataclasses.replace(
        layer, codebook=((Term(False, 4),), (Term(True, 3), Term(False, 0))), indices=layer.indices * 0 + np.array(
            [0, 0, 1, 1, 0, 1], np.uint8).reshape(-1, 1, 1, 1), bias=rng.integers(-3000, 3000, 6),
        scale=tuple(tuple(Term(value < 0, abs(value).bit_length() - 1) for value in scale) for scale in scales),
        shift=np.array([14, 16, 5, 4, 2, 12]), qmin=-128, qmax=127)
    network = QuantizedNetwork(input=source, layers=(layer,), rounding=rounding)
    lowered = lower(network, CONFIG)
    assert {len(terms) for terms in lowered.layers[0].scale} == {1}
    x = random_images(network, 20)
    expected = golden.run(network, x)
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(golden.run(lowered, x), expected)


def test_layout_is_the_readers_stride(rng: np.random.Generator) -> None:
    source = tensor("input", 2, 12, 12)
    first = conv(rng, source, "first", channels=3, kernel=(3, 3), stride=(2, 3))
    second = pool(rng, first.target, "second", kernel=(2, 2), stride=(1, 2))
    third = conv(rng, second.target, "third", channels=4, kernel=(2, 1))
    network = QuantizedNetwork(input=source, layers=(first, second, third))
    assert names(lower(network, CONFIG)) == names(network)
    places = plan(network, CONFIG, 3).placements
    assert {name: (place.phases_y, place.phases_x) for name, place in places.items()} == {
        "input": (2, 3), "first.out": (1, 2), "second.out": (1, 1), "third.out": (1, 1)}


def test_demands_agree() -> None:
    assert agree([]) == (1, 1)
    assert agree([(0, 0)]) == (1, 1)
    assert agree([(0, 2), (3, 2), (3, 0)]) == (3, 2)
    assert agree([(1, 2), (2, 2)]) is None


def test_stride_without_effect_takes_any_layout(rng: np.random.Generator) -> None:
    source = tensor("input", 1, 4, 9)
    only = conv(rng, source, "only", channels=1, kernel=(4, 3), stride=(4, 2))
    place = plan(QuantizedNetwork(input=source, layers=(only,)), CONFIG, 1).placements["input"]
    assert (place.phases_y, place.phases_x) == (1, 2)


def test_readers_with_different_strides_get_copies(rng: np.random.Generator) -> None:
    source = tensor("input", 1, 9, 9)
    one, two, three = (conv(rng, source, name, channels=1, stride=stride)
                       for name, stride in (("one", (1, 1)), ("two", (2, 1)), ("three", (2, 1))))
    lowered = lower(QuantizedNetwork(input=source, layers=(one, two, three)), CONFIG)
    assert names(lowered) == ["one", "input.copy0", "two", "three"]
    assert [layer.source.name for layer in lowered.layers] == ["input", "input", "input.copy0", "input.copy0"]
    places = plan(lowered, CONFIG, 4).placements
    assert (places["input"].phases_y, places["input.copy0"].phases_y) == (1, 2)


def test_tensor_in_two_concatenations_is_copied(rng: np.random.Generator) -> None:
    source = tensor("input", 2, 6, 6)
    one = conv(rng, source, "one", channels=3)
    double, unread = join("double", one.target, one.target), join("unread", one.target, one.target)
    last = conv(rng, double.target, "last", channels=2)
    lowered = lower(QuantizedNetwork(input=source, layers=(one, last), concats=(double, unread)), CONFIG)
    assert names(lowered) == ["one", "one.out.copy0", "last"]
    assert [[part.name for part in concat.parts] for concat in lowered.concats] == [["one.out", "one.out.copy0"]]


def test_concatenations_lie_inside_each_other(rng: np.random.Generator) -> None:
    source = tensor("input", 2, 6, 6)
    one, two, three = (part(rng, source, name, n) for name, n in (("one", 3), ("two", 4), ("three", 1)))
    inner = join("inner", two.target, three.target)
    outer = join("outer", one.target, inner.target)
    last = conv(rng, outer.target, "last", channels=2)
    network = QuantizedNetwork(input=source, layers=(one, two, three, last), concats=(inner, outer))
    layouts = plan(lower(network, CONFIG), CONFIG, 4)
    assert {name: (layouts.storage[name], place.base, place.col_step) for name, place in layouts.placements.items()
            if name not in ("input", "last.out")} == {
        "outer": ("outer", 0, 8), "one.out": ("outer", 0, 8), "inner": ("outer", 3, 8), "two.out": ("outer", 3, 8),
        "three.out": ("outer", 7, 8)}


def test_residual_has_the_steps_of_the_input(rng: np.random.Generator) -> None:
    source = tensor("input", 3, 20, 20)
    first = conv(rng, source, "first", channels=8, padding=(1, 1, 1, 1))
    second = conv(rng, first.target, "second", channels=8, padding=(1, 1, 1, 1))
    second = dataclasses.replace(second, residuals=(Residual(source=source, terms=(Term(False, 2),)),))
    network = QuantizedNetwork(input=source, layers=(first, second))
    places = plan(network, CONFIG, 2).placements
    assert (places["input"].col_step, places["input"].row_step) == (8, 40)
    # In a map of one block nothing is stepped.
    wide = AcceleratorConfig(lanes_y=8, lanes_x=8)
    small = tensor("input", 3, 8, 8)
    first = conv(rng, small, "first", channels=8, padding=(1, 1, 1, 1))
    second = conv(rng, first.target, "second", channels=8, padding=(1, 1, 1, 1))
    second = dataclasses.replace(second, residuals=(Residual(source=small, terms=(Term(False, 2),)),))
    places = plan(QuantizedNetwork(input=small, layers=(first, second)), wide, 2).placements
    assert places["input"].col_step == 3


@pytest.mark.parametrize(("groups", "rows", "expected"), [(6, 3, 1), (8, 3, 8), (6, 4, 6), (6, 1, 6)])
def test_groups_that_streams_can_not_share_become_one(rng: np.random.Generator, groups: int, rows: int,
                                                      expected: int) -> None:
    layer = conv(rng, tensor("input", 2 * groups, 5, 5), "layer", channels=groups * rows, groups=groups)
    lowered = lower(QuantizedNetwork(input=layer.source, layers=(layer,)), CONFIG).layers[0]
    assert lowered.groups == expected
    assert (lowered.values != 0).sum() == (layer.values != 0).sum()


def test_full_codebook_can_not_take_the_zeros_of_one_group(rng: np.random.Generator) -> None:
    layer = conv(rng, tensor("input", 12, 5, 5), "layer", channels=18, groups=6)
    full = tuple((Term(bool(n & 1), n >> 1 & 7), Term(bool(n >> 4 & 1), n >> 5)) for n in range(256))
    network = QuantizedNetwork(input=layer.source, layers=(dataclasses.replace(layer, codebook=full),))
    with pytest.raises(CapacityError, match="layer layer: its 6 groups of 3 output channels can't be dealt to 4 "
                                            "streams, and its codebook of 256 entries has no room"):
        lower(network, CONFIG)


def tail(*layers: Layer, concats: tuple[Concat, ...] = (), config: AcceleratorConfig = CONFIG) -> int:
    return first_of_tail(QuantizedNetwork(input=layers[0].source, layers=layers, concats=concats), config)


def test_tail_is_the_fully_connected_end(rng: np.random.Generator) -> None:
    one = conv(rng, tensor("input", 3, 8, 8), "one", channels=4)
    two = linear(rng, one.target, "two", features=7)
    three = linear(rng, two.target, "three", features=5, raw=True)
    assert tail(one) == 1
    assert tail(one, two, three) == 1
    assert tail(two, three) == 0
    # A map that is narrower than the lanes' block can't be counted.
    assert tail(one, two, three, config=AcceleratorConfig(map_bits=2, lanes_x=8)) == 3
    # Padding, groups and larger outputs need the spatial way.
    assert tail(one, linear(rng, one.target, "padded", features=2, padding=(1, 0, 0, 0))) == 2
    assert tail(conv(rng, tensor("input", 4), "grouped", channels=4, kernel=(1, 1), groups=2)) == 1


def test_vector_that_another_layer_reads_begins_no_tail(rng: np.random.Generator) -> None:
    one = conv(rng, tensor("input", 3, 8, 8), "one", channels=4, kernel=(8, 8))
    beside = pool(rng, one.target, "beside", kernel=(1, 1), stride=(1, 1))
    two = linear(rng, one.target, "two", features=4)
    three = linear(rng, two.target, "three", features=4)
    assert tail(one, two, three) == 0
    assert tail(one, beside, two, three) == 3
    joined = join("joined", two.target, two.target)
    assert tail(one, two, linear(rng, joined.target, "last", features=2), concats=(joined,)) == 3
