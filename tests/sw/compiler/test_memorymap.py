"""The map of both memories."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.image import HEADER_WORDS
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compiler.descriptor import SECTIONS
from shiftwright.sw.compiler.layout import locate
from shiftwright.sw.compiler.memorymap import layout_name, memory_map, model_map
from shiftwright.sw.network import QuantizedNetwork
from tests.networks import conv, join, linear, random_network, tensor

CONFIG = AcceleratorConfig(act_depth=4096)


def test_lifetimes_layouts_and_what_lies_within(rng: np.random.Generator) -> None:
    source = tensor("input", 3, 8, 8)
    one = conv(rng, source, "one", channels=4)
    two = conv(rng, source, "two", channels=6)
    two = dataclasses.replace(two, target=dataclasses.replace(two.target, exponent=one.target.exponent))
    whole = join("whole", one.target, two.target)
    strided = conv(rng, whole.target, "strided", channels=5, kernel=(3, 3), padding=(1, 1, 1, 1), stride=(2, 2))
    dense = linear(rng, strided.target, "dense", features=7)
    network = QuantizedNetwork(input=source, layers=(one, two, strided, dense), concats=(whole,))
    compiled = compile_detailed(network, CONFIG)
    rows = {row.name: row for row in memory_map(compiled.network, compiled.memory, CONFIG)}
    assert list(rows) == ["input", "one.out", "two.out", "whole", "strided.out", "dense.out"]
    assert {name: (row.first, row.last) for name, row in rows.items()} == {
        "input": ("start", "two"), "one.out": ("one", "strided"), "two.out": ("two", "strided"),
        "whole": ("one", "strided"), "strided.out": ("start", "dense"), "dense.out": ("dense", "end")}
    assert {name: row.within for name, row in rows.items() if row.within} == {"one.out": "whole", "two.out": "whole"}
    assert {name: layout_name(row.place) for name, row in rows.items()} == {
        "input": "plain", "one.out": "polyphase 2x2", "two.out": "polyphase 2x2", "whole": "polyphase 2x2",
        "strided.out": "vector", "dense.out": "vector"}
    assert rows["two.out"].place.base == rows["one.out"].place.base + 4
    assert not any(row.copy_of for row in rows.values())


def test_readers_that_disagree_read_copies(rng: np.random.Generator) -> None:
    source = tensor("input", 3, 8, 8)
    one = conv(rng, source, "one", channels=4)
    plain = conv(rng, one.target, "plain", channels=4)
    strided = conv(rng, one.target, "strided", channels=4, kernel=(3, 3), padding=(1, 1, 1, 1), stride=(2, 2))
    network = QuantizedNetwork(input=source, layers=(one, plain, strided))
    compiled = compile_detailed(network, CONFIG)
    rows = {row.name: row for row in memory_map(compiled.network, compiled.memory, CONFIG)}
    assert [(name, layout_name(row.place)) for name, row in rows.items() if row.copy_of == "one.out"] == [
        ("one.out.copy0", "polyphase 2x2")]
    assert layout_name(rows["one.out"].place) == "plain"
    assert [layer.name for layer in compiled.network.layers] == ["one", "plain", "one.out.copy0", "strided"]


def test_a_layer_that_is_named_like_a_copy_is_none(rng: np.random.Generator) -> None:
    source = tensor("input", 3, 4, 4)
    layer = conv(rng, source, "input.copy0", channels=3)
    network = QuantizedNetwork(input=source, layers=(layer,))
    compiled = compile_detailed(network, CONFIG)
    assert not any(row.copy_of for row in memory_map(compiled.network, compiled.memory, CONFIG))


@pytest.mark.parametrize("seed", range(6))
def test_what_lives_at_a_time_does_not_overlap(seed: int) -> None:
    compiled = compile_detailed(random_network(seed, CONFIG, layers=5), CONFIG)
    order = {layer.name: number for number, layer in enumerate(compiled.network.layers)}
    order |= {"start": -1, "end": len(order)}
    rows = memory_map(compiled.network, compiled.memory, CONFIG)
    parts = {row.name: {*locate(row.place, CONFIG)[1].ravel().tolist()} for row in rows}
    for row in rows:
        own = parts[row.name]
        assert row.place.base == min(own)
        assert max(own) < row.place.base + row.addresses <= compiled.peak
        for other in rows:
            alone = other.name != row.name and (row.within or row.name) != (other.within or other.name)
            if alone and order[row.first] <= order[other.last] and order[other.first] <= order[row.last]:
                assert not own & parts[other.name], (row, other)


def test_words_of_every_section() -> None:
    image = compile_detailed(random_network(3, CONFIG), CONFIG).image
    at = HEADER_WORDS
    for layer, sections in zip(image.layers, model_map(image.layers), strict=True):
        assert tuple(sections) == SECTIONS
        for name, words in sections.items():
            assert words.start == at
            np.testing.assert_array_equal(image.words[words.start:words.stop], layer.parts[name])
            at = words.stop
    assert at == image.words.size
