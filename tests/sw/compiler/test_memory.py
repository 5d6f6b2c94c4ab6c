"""Allocation of the activation banks."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError
from shiftwright.sw.compiler.layout import locate
from shiftwright.sw.compiler.lower import lower
from shiftwright.sw.compiler.memory import Lifetime, allocate, assign
from shiftwright.sw.network import Layer, QuantizedNetwork, Residual, TensorSpec, Term
from tests.networks import conv, join, linear, pool, random_network, tensor


def part(rng: np.random.Generator, source: TensorSpec, name: str, channels: int) -> Layer:
    """A convolution whose output can be joined with others of its kind."""
    layer = conv(rng, source, name, channels=channels, padding=(1, 1, 1, 1))
    return dataclasses.replace(layer, target=dataclasses.replace(layer.target, exponent=0))


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


def leaves(tensor: TensorSpec, parts: dict[str, tuple[TensorSpec, ...]]) -> list[TensorSpec]:
    """The tensors that layers write, of which `tensor` consists."""
    return [leaf for part in parts[tensor.name] for leaf in leaves(part, parts)] if tensor.name in parts else [tensor]


def test_nothing_that_is_still_read_is_overwritten(seed: int) -> None:
    """Play the layers: who owns each address, and does everybody find what he reads?"""
    config = AcceleratorConfig(act_depth=16384, lanes_y=2, lanes_x=4, streams=3)
    in_place = 0
    for number in range(50):
        network = lower(random_network(seed + number, config, layers=4), config)
        memory = allocate(network, config)
        owner = np.full((config.act_depth, config.lanes), "", object)

        def cells(name: str, place: dict = memory.placements) -> tuple[np.ndarray, np.ndarray]:
            bank, address = locate(place[name], config)
            return address, bank

        parts = {concat.target.name: concat.parts for concat in network.concats}
        whole_of = {part.name for concat in network.concats for part in concat.parts} | set(parts)
        written = [network.input.name, *(layer.target.name for layer in network.layers)]
        owner[cells(written[0])] = written[0]
        for layer in network.layers:
            for source in layer.sources:
                whole = owner[cells(source.name)]
                for leaf in leaves(source, parts):
                    assert (owner[cells(leaf.name)] == leaf.name).all(), (number, layer.name, leaf.name)
                assert set(whole.ravel()) == {leaf.name for leaf in leaves(source, parts)}
            owner[cells(layer.target.name)] = layer.target.name
            for source in layer.sources:
                if memory.storage[layer.target.name] == memory.storage[source.name] and source.name not in whole_of:
                    assert all(np.array_equal(*both) for both in zip(cells(layer.target.name), cells(source.name),
                                                                     strict=True))
                    in_place += 1
                else:
                    assert layer.target.name not in owner[cells(source.name)]
        ends = [place.base + place.steps(config).size for place in memory.placements.values()]
        assert memory.peak == max(ends) <= config.act_depth
    assert in_place


def test_parts_lie_side_by_side_in_the_whole(rng: np.random.Generator) -> None:
    source = tensor("input", 2, 9, 9)
    one, two = (part(rng, source, name, n) for name, n in (("one", 3), ("two", 4)))
    whole = join("whole", two.target, one.target)
    last = conv(rng, whole.target, "last", channels=2)
    places = allocate(QuantizedNetwork(input=source, layers=(one, two, last), concats=(whole,)),
                      AcceleratorConfig()).placements
    assert places["two.out"].base == places["whole"].base == places["one.out"].base - 4
    assert {places[name].col_step for name in ("one.out", "two.out", "whole")} == {7}
    assert {places[name].row_step for name in ("one.out", "two.out", "whole")} == {21}


def test_the_tails_input_keeps_its_place_while_other_images_run(rng: np.random.Generator) -> None:
    source = tensor("input", 3, 8, 8)
    one = conv(rng, source, "one", channels=8)
    two = conv(rng, one.target, "two", channels=2)
    dense = linear(rng, two.target, "dense", features=5)
    config = AcceleratorConfig()
    memory = allocate(QuantizedNetwork(input=source, layers=(one, two, dense)), config)
    assert memory.tail == 2
    vector = memory.placements["two.out"]
    assert vector.vector and (vector.col_step, vector.row_step, vector.steps(config).size) == (2, 8, 32)
    kept = range(vector.base, vector.base + 32)
    for name in ("input", "one.out"):
        place = memory.placements[name]
        assert not set(kept) & set(range(place.base, place.base + place.steps(config).size))


def test_batch_lanes_are_not_used_when_vectors_do_not_fit(rng: np.random.Generator) -> None:
    source = tensor("input", 8, 8, 8)
    dense = linear(rng, source, "dense", features=5)
    network = QuantizedNetwork(input=source, layers=(dense,))
    assert allocate(network, AcceleratorConfig(act_depth=517)).tail == 0
    assert allocate(network, AcceleratorConfig(act_depth=516)).tail == 1


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


def test_what_is_made_of_each_activation_alone_is_written_in_its_place(rng: np.random.Generator) -> None:
    source = tensor("input", 8, 8, 8)
    one = conv(rng, source, "one", channels=16, kernel=(3, 3), padding=(1, 1, 1, 1), signed=True)
    two = conv(rng, source, "two", channels=16, kernel=(3, 3), padding=(1, 1, 1, 1), signed=True)
    added = conv(rng, one.target, "added", channels=16, kernel=(1, 1), groups=16, signed=True,
                 residuals=(Residual(source=two.target, terms=(Term(False, 0),)),))
    leaky = pool(rng, added.target, "leaky", op="leaky", kernel=(1, 1), stride=(1, 1))
    last = conv(rng, leaky.target, "last", channels=2, kernel=(1, 1))
    config = AcceleratorConfig()
    memory = allocate(QuantizedNetwork(input=source, layers=(one, two, added, leaky, last)), config)
    assert {name: memory.storage[name] for name in ("added.out", "leaky.out")} == dict.fromkeys(
        ("added.out", "leaky.out"), "one.out")
    assert memory.peak == 2 * 16 * 4 + 8 * 4
    # Somebody reads it again, another layout is wanted, or it is raw: it has a place of its own.
    again = conv(rng, added.target, "again", channels=16, kernel=(1, 1),
                 residuals=(Residual(source=leaky.target, terms=(Term(False, 0),)),))
    strided = conv(rng, leaky.target, "strided", channels=2, stride=(2, 2))
    raw = conv(rng, one.target, "raw", channels=16, kernel=(1, 1), groups=16, raw=True)
    begun = one, two, added, leaky
    for layers, name in (((*begun, again), "leaky.out"), ((*begun, strided), "leaky.out"), ((one, raw), "raw.out")):
        memory = allocate(QuantizedNetwork(input=source, layers=layers), config)
        assert memory.storage[name] == name
