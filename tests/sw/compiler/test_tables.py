"""Kernel tables, checked by walking every tap of every output pixel through the documented address formula."""

import dataclasses

import numpy as np

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.image import MicroOp, OpKind
from shiftwright.sw.compiler.layout import locate
from shiftwright.sw.compiler.memory import layouts
from shiftwright.sw.compiler.placement import TensorPlacement
from shiftwright.sw.compiler.tables import code_table, dictionary_words, kernel_tables
from shiftwright.sw.network import Layer
from tests.networks import random_network


def check_taps(layer: Layer, source: TensorPlacement, config: AcceleratorConfig) -> int:
    """Every tap of every output: in the padding exactly when first and last say so, else at its tensor's address."""
    rows, columns = (table.astype(int) for table in kernel_tables(layer, source, config))
    steps = source.steps(config)
    banks, addresses = locate(source, config)
    found = 0
    for o_y, o_x, k_y, k_x in np.ndindex(*layer.target.shape[1:], *layer.kernel):
        y = o_y * layer.stride[0] + k_y * layer.dilation[0] - layer.padding[0]
        x = o_x * layer.stride[1] + k_x * layer.dilation[1] - layer.padding[1]
        inside = 0 <= y < source.height and 0 <= x < source.width
        row, column = rows[k_y], columns[k_x]
        masked = (row[1] & 0xFFF) <= o_y <= row[2] and (column[1] & 0xFFF) <= o_x <= column[2]
        assert masked == inside
        if not inside:
            continue
        (b_y, i), (b_x, j) = divmod(o_y, config.lanes_y), divmod(o_x, config.lanes_x)
        r_y, r_x = (row[1] >> 12) + i, (column[1] >> 12) + j
        address = (source.base + b_y * steps.row + b_x * steps.col + row[0] + column[0]
                   + (steps.row if r_y >= config.lanes_y else 0) + (steps.col if r_x >= config.lanes_x else 0)) & 0xFFFF
        bank = r_y % config.lanes_y * config.lanes_x + r_x % config.lanes_x
        assert (bank, address) == (banks[0, y, x], addresses[0, y, x])
        found += 1
    return found


def test_every_tap_reads_its_pixel(seed: int) -> None:
    checked = 0
    for number in range(60):
        rng = np.random.default_rng((seed, number))
        config = AcceleratorConfig(lanes_y=int(rng.integers(1, 9)), lanes_x=int(rng.integers(1, 9)))
        network = random_network(seed + number, layers=2, size=16)
        phases = layouts(network)
        for layer in network.layers:
            source = TensorPlacement.of(layer.source, base=int(rng.integers(0, 100)), phases=phases[layer.source.name])
            checked += check_taps(layer, source, config)
    assert checked > 10_000


def test_tap_that_never_sees_the_input_is_closed() -> None:
    network = random_network(0, layers=1)
    layer = network.layers[0]
    spec = dataclasses.replace(layer.source, height=2, width=2)
    kernel = dataclasses.replace(layer, op="avgpool", source=spec, target=dataclasses.replace(layer.target, height=1,
                                 width=1), kernel=(5, 5), stride=(1, 1), dilation=(1, 1), padding=(0, 3, 3, 0),
                                 indices=None)
    rows, columns = kernel_tables(kernel, TensorPlacement.of(spec), AcceleratorConfig())
    assert [(int(w) & 0xFFF, int(last)) for _, w, last in rows] == [(0, 0), (0, 0), (1, 0), (1, 0), (1, 0)]
    assert [(int(w) & 0xFFF, int(last)) for _, w, last in columns] == [(1, 0), (1, 0), (1, 0), (0, 0), (0, 0)]


def test_code_table_counts_lengths() -> None:
    assert code_table(np.array([1, 3, 3, 3, 4, 4], np.uint8), 6).tolist() == [1, 0, 3, 2, 0, 0]


def test_dictionary_words_in_symbol_order() -> None:
    entries = ((MicroOp(kind=OpKind.EOR, last=True),),
               (MicroOp(kind=OpKind.SUB, last=False, shift=5, pre=3), MicroOp(kind=OpKind.ADD, last=True, post=1)))
    assert dictionary_words(entries).tolist() == [0b111, 1 | 5 << 3 | 3 << 7, 4 | 1 << 13]
