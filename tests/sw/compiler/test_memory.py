"""Allocation of the activation banks."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError, ModelError, UnsupportedError
from shiftwright.sw.compiler.memory import Lifetime, allocate, assign, layouts
from shiftwright.sw.network import QuantizedNetwork
from tests.networks import conv, linear, pool, random_network, tensor


def chain(sizes: list[int]) -> list[Lifetime]:
    return [Lifetime(name=str(n), size=size, first=n - 1, last=n) for n, size in enumerate(sizes)]


def check(tensors: list[Lifetime], bases: dict[str, int]) -> int:
    """No two tensors that live together overlap; returns the peak."""
    for n, one in enumerate(tensors):
        for two in tensors[n + 1:]:
            if one.overlaps(two):
                a, b = bases[one.name], bases[two.name]
                assert a + one.size <= b or b + two.size <= a, (one, two, bases)
    assert min(bases.values()) >= 0
    return max(bases[tensor.name] + tensor.size for tensor in tensors)


def test_chain_takes_no_more_than_its_largest_neighbours(rng: np.random.Generator) -> None:
    for _ in range(100):
        sizes = rng.integers(1, 100, size=int(rng.integers(2, 10))).tolist()
        peak = check(chain(sizes), assign(chain(sizes)))
        assert peak == max(a + b for a, b in zip(sizes, sizes[1:], strict=False))


def test_long_lives_do_not_overlap(rng: np.random.Generator) -> None:
    for _ in range(100):
        tensors = [Lifetime(name=str(n), size=int(rng.integers(1, 100)), first=n - 1, last=n + int(rng.integers(0, 4)))
                   for n in range(int(rng.integers(2, 10)))]
        peak = check(tensors, assign(tensors))
        assert peak <= sum(tensor.size for tensor in tensors)


def test_input_and_output_of_a_layer_never_overlap(seed: int) -> None:
    config = AcceleratorConfig(act_depth=16384, lanes_y=2, lanes_x=3)
    for number in range(50):
        network = random_network(seed + number, config, layers=4)
        memory = allocate(network, config)
        assert set(memory.placements) == {network.input.name, *(layer.target.name for layer in network.layers)}
        ends = []
        for layer in network.layers:
            one, two = memory.placements[layer.source.name], memory.placements[layer.target.name]
            one_end, two_end = (place.base + place.steps(config).size for place in (one, two))
            assert one_end <= two.base or two_end <= one.base
            ends += [one_end, two_end]
        assert memory.peak == max(ends)


def test_layout_is_the_readers_stride(rng: np.random.Generator) -> None:
    source = tensor("input", 2, 12, 12)
    first = conv(rng, source, "first", channels=3, kernel=(3, 3), stride=(2, 3))
    second = pool(rng, first.target, "second", kernel=(2, 2), stride=(1, 2))
    third = linear(rng, second.target, "third", features=4)
    network = QuantizedNetwork(input=source, layers=(first, second, third))
    assert layouts(network) == {"input": (2, 3), "first.out": (1, 2), "second.out": (1, 1), "third.out": (1, 1)}


def test_stride_without_effect_takes_any_layout(rng: np.random.Generator) -> None:
    source = tensor("input", 1, 4, 9)
    only = conv(rng, source, "only", channels=1, kernel=(4, 3), stride=(4, 2))
    assert layouts(QuantizedNetwork(input=source, layers=(only,)))["input"] == (1, 2)


def test_two_readers_with_different_strides_are_refused(rng: np.random.Generator) -> None:
    source = tensor("input", 1, 9, 9)
    one, two = conv(rng, source, "one", channels=1), conv(rng, source, "two", channels=1, stride=(2, 1))
    with pytest.raises(UnsupportedError, match=r"layer two: reads tensor input with stride \(2, 1\), but .* stride 1 "):
        layouts(QuantizedNetwork(input=source, layers=(one, two)))


def test_too_small_memory_names_layer_need_and_way_out(rng: np.random.Generator) -> None:
    source = tensor("input", 8, 16, 16)
    one = conv(rng, source, "one", channels=2, kernel=(3, 3), padding=(1, 1, 1, 1))
    two = conv(rng, one.target, "two", channels=32, kernel=(3, 3), padding=(1, 1, 1, 1))
    network = QuantizedNetwork(input=source, layers=(one, two))
    assert allocate(network, AcceleratorConfig(act_depth=544)).peak == 544
    with pytest.raises(CapacityError, match=r"layer two: activation memory \(act_depth\) must hold 544 activations in "
                                            r"each of the 16 banks \(one.out 32, two.out 512\), but has 543; raise "
                                            r"act_depth to 544, use more lanes \(now 4x4x1\)"):
        allocate(network, AcceleratorConfig(act_depth=543))


def test_unknown_source_and_repeated_name_are_refused(rng: np.random.Generator) -> None:
    source = tensor("input", 1, 8, 8)
    one = conv(rng, source, "one", channels=1)
    stray = conv(rng, tensor("elsewhere", 1, 8, 8), "stray", channels=1)
    again = conv(rng, source, "again", channels=1)
    again = dataclasses.replace(again, target=dataclasses.replace(again.target, name="one.out"))
    with pytest.raises(ModelError, match="layer stray: its source 'elsewhere' must be"):
        allocate(QuantizedNetwork(input=source, layers=(one, stray)), AcceleratorConfig())
    with pytest.raises(ModelError, match="layer again: its output name 'one.out' must be unique"):
        allocate(QuantizedNetwork(input=source, layers=(one, again)), AcceleratorConfig())
