"""Whole accelerators against the golden model: random networks over lanes, arithmetics and memory sizes, bit for bit.

Each configuration is built once; its networks run one after another, without a reset between them.
"""

import dataclasses
import shutil

import numpy as np
import pytest

from shiftwright.hw.arch.config import ROUNDINGS, AcceleratorConfig
from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sim.regression import RegressionCase, regression
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.network import Layer, QuantizedNetwork, TensorSpec, Term
from tests.networks import Arithmetic, arithmetic_of, conv, linear, pool, random_images, random_network, tensor

IMAGES = 2

SHAPES: dict[str, dict[str, object]] = {
    "1x1": {"lanes_y": 1, "lanes_x": 1, "interleave": 1, "shadow_chain": True},
    "1x8": {"lanes_y": 1, "lanes_x": 8},
    "2x2x3": {"lanes_y": 2, "lanes_x": 2, "streams": 3, "interleave": 2},
    "4x4": {},
    "4x2x2": {"lanes_y": 4, "lanes_x": 2, "streams": 2, "interleave": 1},
    "8x1": {"lanes_y": 8, "lanes_x": 1, "shadow_chain": True},
    "8x8": {"lanes_y": 8, "lanes_x": 8},
    "4x4x4": {"streams": 4},
}
ARITHMETICS: dict[str, dict[str, object]] = {
    "literal truncation": {"guard_bits": 0},
    "three guard bits": {"guard_bits": 3},
    "halves to even": {"rounding": "half_even"},
    "4-bit activations": {"act_bits": 4},
    "5-bit activations": {"act_bits": 5},
    "20-bit accumulators": {"acc_width": 20, "max_shift": 3},
    "32-bit accumulators, shifts to 15": {"acc_width": 32, "max_shift": 15},
    "codewords to 8 bits": {"max_code_bits": 8},
    "codewords to 15 bits": {"max_code_bits": 15},
    "256 operations": {"dict_depth": 256},
    "no shifts": {"max_shift": 0},
    "25 positions": {"positions": 25, "map_bits": 5},
}
ICARUS: dict[str, dict[str, int]] = {
    "2x2": {"lanes_y": 2, "lanes_x": 2}, "4x2x2, truncating": {"lanes_x": 2, "streams": 2, "guard_bits": 0}}

needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog (iverilog) is not installed")


def random_cases(config: AcceleratorConfig, seed: int, count: int, *, size: int = 12) -> list[RegressionCase]:
    """Random networks; those that return raw accumulators only where a byte fits an activation."""
    raw = None if config.act_bits == 8 else False
    networks = [random_network(number, config, size=size, raw=raw) for number in range(seed, seed + count)]
    return [RegressionCase(name=f"network {number}", network=network, inputs=random_images(network, IMAGES, number))
            for number, network in zip(range(seed, seed + count), networks)]


def chain(name: str, source: TensorSpec, *layers: Layer, arithmetic: Arithmetic) -> RegressionCase:
    """A network of layers that were made one after another."""
    network = QuantizedNetwork(input=source, layers=layers, max_shift=arithmetic.max_shift,
                               guard_bits=arithmetic.guard_bits, rounding=arithmetic.rounding,
                               acc_bits=arithmetic.acc_bits, parameters=1, metadata={})
    return RegressionCase(name=name, network=network, inputs=random_images(network, IMAGES))


def chosen_cases(config: AcceleratorConfig, seed: int) -> list[RegressionCase]:
    """One case for each thing that the array can do."""
    rng, arithmetic = np.random.default_rng(seed), arithmetic_of(config)
    picture = tensor("input", 3, 11, 9, signed=True)
    strided = conv(rng, picture, "strided", channels=5, kernel=(3, 5), stride=(2, 3), padding=(1, 2, 1, 2), terms=4)
    dilated = conv(rng, strided.target, "dilated", channels=4, kernel=(2, 2), dilation=(2, 2), padding=(1, 1, 1, 1),
                   signed=True)
    depthwise = conv(rng, dilated.target, "depthwise", channels=4, kernel=(3, 3), padding=(1, 1, 1, 1), groups=4)
    most = pool(rng, picture, "maxpool", kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    average = pool(rng, most.target, "avgpool", op="avgpool", kernel=(3, 2), stride=(1, 1))
    leaky = pool(rng, picture, "leaky", op="leaky", kernel=(1, 1), stride=(1, 1))
    vector = tensor("input", 37)
    hidden = linear(rng, vector, "hidden", features=19, entries=24, terms=3, zeros=0.9)
    long = linear(rng, tensor("input", 400), "long", features=3, entries=2, terms=1, zeros=0.97)
    grouped = conv(rng, tensor("input", 6, 4, 4), "grouped", channels=9, kernel=(2, 3), groups=3, bias=0.0,
                   per_channel=False)
    few = conv(rng, tensor("input", 2, 7, 5), "few", channels=9, kernel=(1, 1), zeros=0.9, scale_terms=1)
    one = linear(rng, tensor("input", 1), "one", features=1)
    halves = dataclasses.replace(
        conv(rng, tensor("input", 2, 12, 10, bits=4), "halves", channels=6, kernel=(1, 1), entries=3, signed=True),
        codebook=((Term(False, 0),), (Term(True, 1), Term(False, 0)), (Term(False, 1),)), bias=np.arange(-3, 3),
        scale=tuple(tuple(Term(value < 0, abs(value).bit_length() - 1) for value in scale) for scale in (
            (1,), (1, 4), (1, -2, 8), (-1, 2), (1, -4), (1, -2, -4, 8))), shift=np.array([1, 3, 4, 2, 3, 4]),
        qmin=-128, qmax=127)
    wide = conv(rng, tensor("input", 1, 12, 10), "wide", channels=20, entries=3, terms=1, kernel=(3, 3),
                padding=(1, 1, 1, 1))
    return [
        chain("strides, dilation, groups", picture, strided, dilated, depthwise, arithmetic=arithmetic),
        chain("poolings", picture, most, average, arithmetic=arithmetic),
        chain("leaky ReLU", picture, leaky, pool(rng, leaky.target, "pool"), arithmetic=arithmetic),
        chain("more channels than memory", wide.source, wide, pool(rng, wide.target, "pool"),
              conv(rng, pool(rng, wide.target, "pool").target, "few", channels=3, kernel=(1, 1)),
              arithmetic=arithmetic),
        chain("fully connected, raw", vector, hidden, linear(rng, hidden.target, "raw", features=10, raw=True),
              arithmetic=arithmetic),
        chain("long runs of zeros", long.source, long, arithmetic=arithmetic),
        chain("groups without bias, one scale", grouped.source, grouped, arithmetic=arithmetic),
        chain("rows of zeros", few.source, few, arithmetic=arithmetic),
        chain("one activation", one.source, one, arithmetic=arithmetic),
        chain("halves", halves.source, halves, arithmetic=arithmetic),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 2, 1), pytest.param((4, 2, 2), marks=pytest.mark.regress)],
                         ids=lambda shape: "x".join(map(str, shape)))
def test_networks_are_bit_exact(shape: tuple[int, int, int], seed: int) -> None:
    # Configurations that other tests build too: builds are what takes time.
    config = AcceleratorConfig(lanes_y=shape[0], lanes_x=shape[1], streams=shape[2],
                               weight_depth=2048 if shape == (2, 2, 1) else 4096, act_depth=512,
                               rounding="half_up" if shape == (2, 2, 1) else "half_even")
    cases = chosen_cases(config, seed) + random_cases(config, seed, 6)
    result = regression(config, cases, seed=seed)
    assert result.networks == len(cases) and result.images == IMAGES * len(cases)
    halves = next(case for case in cases if case.name == "halves")
    roundings = [golden.run(dataclasses.replace(halves.network, rounding=rounding), halves.inputs)
                 for rounding in ROUNDINGS]
    assert (roundings[0] != roundings[1]).sum() > 40
    # Even images are compared layer by layer, odd ones by the last layer, and all again as a batch.
    outputs = [[int(np.prod(layer.target.shape)) for layer in compile_detailed(case.network, config).network.layers]
               for case in cases]
    assert result.values == sum((1 + IMAGES) * sum(sizes) + sizes[-1] for sizes in outputs)


@pytest.mark.regress
@needs_icarus
def test_a_tiny_network_on_icarus(seed: int) -> None:
    config = AcceleratorConfig(lanes_y=2, lanes_x=2, weight_depth=2048, act_depth=256)
    assert regression(config, random_cases(config, seed, 2, size=5), simulator="icarus", seed=seed).networks == 2


@pytest.mark.regress
@pytest.mark.parametrize("name", SHAPES)
def test_all_shapes(name: str, seed: int) -> None:
    config = AcceleratorConfig(act_depth=4096, **SHAPES[name])
    cases = chosen_cases(config, seed) + random_cases(config, seed + 100 * list(SHAPES).index(name), 24, size=16)
    assert regression(config, cases, seed=seed).networks == len(cases)


@pytest.mark.regress
@pytest.mark.parametrize("name", ARITHMETICS)
def test_all_arithmetics(name: str, seed: int) -> None:
    config = AcceleratorConfig(lanes_y=2, lanes_x=4, act_depth=4096, **ARITHMETICS[name])
    first = seed + 10_000 + 100 * list(ARITHMETICS).index(name)
    assert regression(config, random_cases(config, first, 24), seed=seed).networks == 24


@pytest.mark.regress
@needs_icarus
@pytest.mark.parametrize("name", ICARUS)
def test_on_icarus(name: str, seed: int) -> None:
    config = AcceleratorConfig(**ICARUS[name], act_depth=1024)
    cases = random_cases(config, seed + 20_000, 6, size=8)
    assert regression(config, cases, simulator="icarus", seed=seed).networks == 6


def test_a_regression_needs_a_network() -> None:
    with pytest.raises(ModelError, match="a regression needs at least one network"):
        regression(AcceleratorConfig(), [])
