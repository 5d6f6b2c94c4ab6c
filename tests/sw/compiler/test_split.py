"""Convolutions in pieces, so that the map before a pooling needs less memory."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError
from shiftwright.sim import golden, interpreter
from shiftwright.sw.compiler.compile import compile_, compile_detailed
from shiftwright.sw.compiler.split import split
from shiftwright.sw.network import QuantizedNetwork, Residual, Term
from tests.networks import conv, linear, pool, random_images, tensor

CONFIG = AcceleratorConfig(lanes_y=2, lanes_x=2, streams=1, weight_depth=8192, act_depth=2048)


def network(rng: np.random.Generator, op: str = "maxpool") -> QuantizedNetwork:
    """Two convolutions with residuals, each pooled, and a linear layer."""
    picture = tensor("input", 3, 12, 10)
    first = conv(rng, picture, "first", channels=13, kernel=(3, 3), padding=(1, 1, 1, 1), residuals=(
        Residual(source=picture, terms=(Term(False, 2),), channel_offset=8),))
    small = pool(rng, first.target, "pool1", op=op)
    second = conv(rng, small.target, "second", channels=10, kernel=(3, 3), padding=(1, 1, 1, 1))
    smaller = pool(rng, second.target, "pool2", op=op, kernel=(3, 3), padding=(1, 1, 1, 1))
    layers = first, small, second, smaller, linear(rng, smaller.target, "linear", features=5)
    return QuantizedNetwork(input=picture, layers=layers)


@pytest.mark.parametrize("op", ["maxpool", "avgpool"])
def test_pieces_compute_what_the_whole_does(rng: np.random.Generator, op: str) -> None:
    whole = network(rng, op)
    images = random_images(whole, 3)
    wanted = golden.run(whole, images)
    for pieces in ({"first": 2}, {"first": 13}, {"first": 5, "second": 10}):
        apart = split(whole, pieces)
        assert len(apart.layers) == len(whole.layers) + 2 * sum(n - 1 for n in pieces.values())
        np.testing.assert_array_equal(golden.run(apart, images), wanted)


def test_memory_that_is_too_small_is_enough_for_pieces(rng: np.random.Generator) -> None:
    whole = network(rng)
    images = random_images(whole, 2)
    made = compile_detailed(whole, CONFIG)
    assert [layer.name for layer in made.layers] == [layer.name for layer in whole.layers]
    whole_peak = least = made.peak
    while True:
        try:
            made = compile_detailed(whole, CONFIG.replace(act_depth=least - 1))
        except CapacityError as error:
            assert str(error).startswith("layer pool1: ")  # it tells of the network as it is
            break
        assert made.peak < least
        least = made.peak
        found = interpreter.run(made.image.to_bytes(), images).final
        np.testing.assert_array_equal(found, golden.run(whole, images))
    assert least < whole_peak / 2, (least, whole_peak)
    assert any(layer.name == "first.channels0-0" for layer in made.layers)


def test_what_nothing_pools_is_refused(rng: np.random.Generator) -> None:
    picture = tensor("input", 3, 12, 10)
    first = conv(rng, picture, "first", channels=13, kernel=(3, 3), padding=(1, 1, 1, 1))
    other = conv(rng, first.target, "other", channels=2)
    pooled = pool(rng, first.target, "pool")
    for layers in ((first, other), (first, pooled), (first, pooled, other)):
        with pytest.raises(CapacityError, match=r"layer \w+: activation memory"):
            compile_(QuantizedNetwork(input=picture, layers=layers), CONFIG.replace(act_depth=128))
    grouped = conv(rng, dataclasses.replace(picture, channels=4), "grouped", channels=8, groups=4)
    assert split(QuantizedNetwork(input=grouped.source, layers=(grouped, pool(rng, grouped.target, "pool"))),
                 {"grouped": 2}).layers[0].name == "grouped"
