"""Layers that share a code, and positions that stay."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.image import KEPT_MAX, POSITION_WORDS, Flag
from shiftwright.sim import golden, interpreter
from shiftwright.sw.compiler.compile import compile_, compile_detailed
from shiftwright.sw.compiler.sharing import share_codes
from shiftwright.sw.compiler.tables import PositionTable
from shiftwright.sw.compiler.weights import LayerWeights, encode_weights
from shiftwright.sw.network import Layer, QuantizedNetwork, Term
from tests.networks import conv, linear, pool, tensor

CONFIG = AcceleratorConfig(lanes_y=2, lanes_x=2, act_depth=4096, weight_depth=1 << 16)
BOOK = ((), *((Term(neg, shift),) for neg in (False, True) for shift in range(2)))


def alike(rng: np.random.Generator, layer: Layer) -> Layer:
    """The layer with mostly zeros among few values."""
    assert layer.indices is not None
    indices = rng.choice(len(BOOK), layer.indices.shape, p=[0.6, 0.1, 0.1, 0.1, 0.1]).astype(np.uint8)
    return dataclasses.replace(layer, codebook=BOOK, indices=indices)


def chain(rng: np.random.Generator, *, channels: int = 6, layers: int = 4, pooled: bool = False) -> QuantizedNetwork:
    """Convolutions of one kind, perhaps with a pooling among them, and two linear layers."""
    source = tensor("input", channels, 8, 8)
    steps: list[Layer] = []
    for number in range(layers):
        last = steps[-1].target if steps else source
        steps.append(alike(rng, conv(rng, last, f"conv{number}", channels=channels, padding=(1, 1, 1, 1))))
        if pooled and number == 1:
            steps.append(pool(rng, steps[-1].target, "pool"))
    steps.append(alike(rng, linear(rng, steps[-1].target, "one", features=5)))
    steps.append(alike(rng, linear(rng, steps[-1].target, "two", features=5, raw=True)))
    return QuantizedNetwork(input=source, layers=tuple(steps), parameters=1000)


def same(network: QuantizedNetwork, config: AcceleratorConfig = CONFIG) -> list[bool]:
    return [Flag.SAME_CODE in view.flags for view in compile_(network, config).layers]


def test_small_neighbours_share_a_code_but_not_across_the_tail(rng: np.random.Generator) -> None:
    assert same(chain(rng)) == [False, True, True, True, False, True]


def test_a_pooling_stands_between(rng: np.random.Generator) -> None:
    assert same(chain(rng, pooled=True)) == [False, True, False, False, True, False, True]


def test_large_layers_have_codes_of_their_own(rng: np.random.Generator) -> None:
    assert not any(same(chain(rng, channels=64, layers=2))[:2])


def test_sharing_never_makes_an_image_larger(rng: np.random.Generator) -> None:
    for _ in range(5):
        network = chain(rng, channels=int(rng.integers(2, 12)))
        weights = [LayerWeights.of(layer, np.arange(9 if layer.name.startswith("conv") else layer.indices[0, 0].size),
                                   layer.indices.shape[1], np.zeros(layer.target.channels, bool), CONFIG)
                   for layer in network.layers if layer.indices is not None]
        encoded, found = share_codes(weights, len(weights), CONFIG)
        together = sum(each.codeword_bits + (not kept) * each.table_bits
                       for each, kept in zip(encoded, found, strict=True))
        assert together <= sum(encode_weights([each], CONFIG)[0].bits for each in weights)
        assert not found[0]


@pytest.mark.parametrize("config", [CONFIG, CONFIG.replace(streams=3, interleave=1), CONFIG.replace(lanes_x=8)])
def test_the_interpreter_reads_what_is_shared(rng: np.random.Generator, config: AcceleratorConfig) -> None:
    for pooled in (False, True):
        network = chain(rng, pooled=pooled)
        image = compile_(network, config)
        assert any(view.positions > view.fields["positions"] & 1023 for view in image.layers)
        x = rng.integers(0, 256, (1, 6, 8, 8))
        np.testing.assert_array_equal(interpreter.run(image.to_bytes(), x).final, golden.run(network, x))


def test_a_layer_tells_that_its_code_is_shared(rng: np.random.Generator) -> None:
    layers = compile_detailed(chain(rng), CONFIG).layers
    assert [layer.same_code for layer in layers] == [False, True, True, True, False, True]
    assert [layer.words["dictionary"] > 0 for layer in layers] == [not layer.same_code for layer in layers]
    assert len({layer.entries for layer in layers[:4]}) == 1


def test_positions_that_are_there_are_kept() -> None:
    table = PositionTable()
    words = np.arange(5 * POSITION_WORDS, dtype=np.uint16).reshape(5, POSITION_WORDS)
    other = words.copy()
    other[3] = 99
    assert [table.replace(each) for each in (words, words, other, words[:2], other)] == [0, 5, 3, 2, 5]
    many = np.zeros((KEPT_MAX + 5, POSITION_WORDS), np.uint16)
    assert [table.replace(each) for each in (many, many)] == [0, KEPT_MAX]
