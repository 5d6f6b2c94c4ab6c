"""The position table, checked by walking every tap of every output pixel through the documented address formula."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError
from shiftwright.sw.compiler.layout import locate
from shiftwright.sw.compiler.layouts import plan
from shiftwright.sw.compiler.lower import lower
from shiftwright.sw.compiler.placement import TensorPlacement
from shiftwright.sw.compiler.tables import live_pixels, position_table
from shiftwright.sw.network import Layer, Residual, Term
from tests.networks import conv, random_network, tensor

CONFIG = AcceleratorConfig()


def unpack(words: np.ndarray) -> dict[str, int]:
    """The fields of a position, by the table of the document."""
    first, second = int(words[1]), int(words[2])
    return {"offset": int(words[0]), "residue_y": first & 7, "residue_x": first >> 3 & 7, "first_y": first >> 6 & 15,
            "first_x": first >> 10 & 15, "last_y": second & 15, "last_x": second >> 4}


def check_tap(words: np.ndarray, layer: Layer, source: TensorPlacement, read: TensorPlacement,
              config: AcceleratorConfig, stride: tuple[int, int], d: tuple[int, int]) -> int:
    """Every output of one tap: in the padding exactly when the table says so, else at its tensor's address."""
    position = unpack(words)
    banks, addresses = locate(read, config)
    _, out_h, out_w = layer.target.shape
    found = 0
    for o_y, o_x in np.ndindex(out_h, out_w):
        y, x = o_y * stride[0] + d[0], o_x * stride[1] + d[1]
        inside = 0 <= y < read.height and 0 <= x < read.width
        assert inside == (position["first_y"] <= o_y <= out_h - 1 - position["last_y"]
                          and position["first_x"] <= o_x <= out_w - 1 - position["last_x"])
        if not inside:
            continue
        (b_y, i), (b_x, j) = divmod(o_y, config.lanes_y), divmod(o_x, config.lanes_x)
        r_y, r_x = position["residue_y"] + i, position["residue_x"] + j
        address = (source.base + b_y * source.row_step + b_x * source.col_step + position["offset"]
                   + (source.row_step if r_y >= config.lanes_y else 0)
                   + (source.col_step if r_x >= config.lanes_x else 0)) & 0xFFFF
        bank = r_y % config.lanes_y * config.lanes_x + r_x % config.lanes_x
        assert (bank, address) == (banks[0, y, x], addresses[0, y, x])
        found += 1
    return found


def test_every_tap_reads_its_pixel(seed: int) -> None:
    checked = joined = 0
    for number in range(60):
        rng = np.random.default_rng((seed, number))
        config = CONFIG.replace(lanes_y=int(rng.choice([1, 2, 4, 8])), lanes_x=int(rng.choice([1, 2, 4, 8])))
        network = lower(random_network(seed + number, layers=3, size=16), config)
        places = {name: dataclasses.replace(place, base=place.base + 100 * n) for n, (name, place) in
                  enumerate(plan(network, config, len(network.layers)).placements.items())}
        for layer in network.layers:
            source, *others = (places[read.name] for read in layer.sources)
            channels = 1 if layer.indices is None else layer.indices.shape[1]
            table = position_table(layer, source, tuple(others), channels, config)
            pixels = live_pixels(layer, source, config)
            for pixel, words in zip(pixels, table, strict=False):
                k_y, k_x = divmod(int(pixel), layer.kernel[1])
                d = (k_y * layer.dilation[0] - layer.padding[0], k_x * layer.dilation[1] - layer.padding[1])
                found = check_tap(words, layer, source, source, config, layer.stride, d)
                assert found, "a position that never sees the input"
                checked += found
            at = max(1, len(pixels))
            for residual, place in zip(layer.residuals, others, strict=True):
                # The channel that channel 0 of each position's taps is; a grouped layer's first group is its first row.
                for channel in range(0, place.channels, channels) if layer.groups == 1 else [-residual.channel_offset]:
                    shifted = dataclasses.replace(place, base=place.base + channel)
                    check_tap(table[at], layer, source, shifted, config, residual.stride, (0, 0))
                    at, joined = at + 1, joined + 1
            assert at == len(table)
    assert checked > 10_000 and joined > 10


def test_taps_that_never_see_the_input_have_no_position() -> None:
    rng = np.random.default_rng(0)
    layer = conv(rng, tensor("input", 1, 2, 2), "layer", channels=1, kernel=(5, 5), padding=(0, 3, 3, 0))
    source = TensorPlacement.of(layer.source, CONFIG)
    # Rows 0 and 1 lie on the input, columns 3 and 4.
    assert live_pixels(layer, source, CONFIG).tolist() == [3, 4, 8, 9]
    assert len(position_table(layer, source, (), 1, CONFIG)) == 4


def test_vector_has_one_position() -> None:
    rng = np.random.default_rng(0)
    layer = conv(rng, tensor("input", 3, 4, 5), "layer", channels=2, kernel=(4, 5))
    source = TensorPlacement.of(layer.source, CONFIG, base=7, vector=True)
    assert live_pixels(layer, source, CONFIG).tolist() == list(range(20))
    assert position_table(layer, source, (), 60, CONFIG).tolist() == [[0, 0, 0]]


def test_residual_of_a_grouped_layer_counts_from_its_group() -> None:
    rng = np.random.default_rng(0)
    spec, other = tensor("input", 4, 3, 3), tensor("other", 3, 3, 3)
    layer = conv(rng, spec, "layer", channels=4, kernel=(1, 1), groups=4)
    layer = dataclasses.replace(layer, residuals=(Residual(source=other, terms=(Term(False, 0),), channel_offset=1),))
    source, place = (TensorPlacement.of(t, CONFIG, base=base) for t, base in ((spec, 10), (other, 50)))
    # Row c reads from input base 10 + c; channel c - 1 of the other is at 50 + c - 1.
    assert position_table(layer, source, (place,), 1, CONFIG)[1].tolist() == [39, 0, 0]


def test_wide_residual_has_several_positions() -> None:
    rng = np.random.default_rng(0)
    spec, other = tensor("input", 4, 3, 3), tensor("other", 10, 3, 3)
    layer = conv(rng, spec, "layer", channels=10, kernel=(1, 1))
    layer = dataclasses.replace(layer, residuals=(Residual(source=other, terms=(Term(False, 0),)),))
    source, place = (TensorPlacement.of(t, CONFIG, base=base) for t, base in ((spec, 50), (other, 10)))
    offsets = position_table(layer, source, (place,), 4, CONFIG)[1:, 0].tolist()
    assert offsets == [0x10000 - 40, 0x10000 - 36, 0x10000 - 32]


def test_tap_too_far_from_the_edge_is_refused() -> None:
    rng = np.random.default_rng(0)
    layer = conv(rng, tensor("input", 1, 4, 40), "layer", channels=1, kernel=(1, 2), padding=(0, 16, 0, 0))
    with pytest.raises(CapacityError, match="layer layer: a tap lies in the padding for 16 output columns in turn, "
                                            "more than 15; use less padding"):
        position_table(layer, TensorPlacement.of(layer.source, CONFIG), (), 1, CONFIG)
