"""The cycle model: equal from both sides, and what must follow from its parts."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.image import MicroOp, OpKind
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compiler.cycles import LayerWork, predict, run_cycles
from shiftwright.sw.image import Image
from shiftwright.sw.network import Layer, QuantizedNetwork, Term
from tests.networks import conv, linear, random_network, tensor

CONFIG = AcceleratorConfig(act_depth=16384, positions=512)


def dense(rng: np.random.Generator, channels: int, size: int, inner: int = 16) -> Layer:
    """A 3 x 3 convolution of whose weights none is 0, each of one term."""
    layer = conv(rng, tensor("input", inner, size, size), "layer", channels=channels, padding=(1, 1, 1, 1),
                 scale_terms=1, bias=0.0)
    return dataclasses.replace(layer, codebook=((Term(False, 0),), (Term(True, 2),)),
                               indices=rng.integers(0, 2, size=layer.values.shape).astype(np.uint8))


def cycles(layer: Layer, **changes: int) -> int:
    network = QuantizedNetwork(input=layer.source, layers=(layer,))
    return compile_detailed(network, CONFIG.replace(**changes)).layers[0].cycles.total


def test_image_and_compiler_predict_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for number in range(30):
        config = CONFIG.replace(lanes_y=int(rng.choice([1, 2, 4, 8])), lanes_x=int(rng.choice([1, 2, 4, 8])),
                                streams=int(rng.integers(1, 9)), interleave=int(rng.choice([1, 2, 4])))
        result = compile_detailed(random_network(seed + number, config), config)
        found = predict(Image.from_bytes(result.image.to_bytes()))
        assert found == tuple(layer.cycles for layer in result.layers)
        assert result.cycles == run_cycles(found) > sum(layer.total for layer in found)
        for layer in found:
            assert layer.terms <= layer.operations <= layer.compute * config.streams


def test_work_counts_codewords_operations_and_terms() -> None:
    entries = ((MicroOp(kind=OpKind.ADD, last=True),), (MicroOp(kind=OpKind.EOR, last=True),),
               (MicroOp(kind=OpKind.SUB, last=False), MicroOp(kind=OpKind.SKIP, last=False),
                MicroOp(kind=OpKind.ADD, last=True)))
    words = np.array([op.pack() for entry in entries for op in entry], np.uint16)
    work = LayerWork.of([np.array([0, 2, 1, 1], np.uint8), np.array([], np.uint8)], words, 1)
    assert [part.tolist() for part in work.codewords] == [[3, 1], []]
    assert [part.tolist() for part in work.operations] == [[5, 1], []]
    assert [part.tolist() for part in work.terms] == [[3, 0], []]


def test_a_dense_convolution_takes_its_terms(rng: np.random.Generator) -> None:
    layer = dense(rng, 16, 32)
    terms = 16 * 9 * 16 * (32 // 4) ** 2
    assert terms < cycles(layer) < 1.02 * terms


def test_streams_divide_the_time(rng: np.random.Generator) -> None:
    layer = dense(rng, 64, 16)
    one = cycles(layer)
    for streams in (2, 4):
        assert one / streams < cycles(layer, streams=streams) < 1.1 * one / streams


def test_sparse_rows_wait_for_the_one_drain(rng: np.random.Generator) -> None:
    layer = dense(rng, 64, 16)
    sparse = dataclasses.replace(layer, codebook=(*layer.codebook, ()), indices=np.full_like(layer.indices, 2))
    drained = 64 * 16 * 16
    for streams in (1, 4):
        assert drained < cycles(sparse, streams=streams) < 1.1 * drained


@pytest.mark.parametrize("raw", [False, True])
def test_a_batch_takes_little_longer_than_one_image(rng: np.random.Generator, raw: bool) -> None:
    source = tensor("input", 400)
    layer = linear(rng, source, "fc", features=50, raw=raw, zeros=0.0)
    image = compile_detailed(QuantizedNetwork(input=source, layers=(layer,)), CONFIG).image
    (one,), (all_,) = predict(image), predict(image, 16)
    assert one.compute <= all_.compute <= one.compute + 16 * (4 if raw else 7)
