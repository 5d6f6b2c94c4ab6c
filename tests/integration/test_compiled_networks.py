"""Compiled networks, read back and run by the image interpreter, against the golden model: two independent readers."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sim import golden, interpreter
from shiftwright.sw.compiler.compile import compile_
from shiftwright.sw.network import QuantizedNetwork
from tests.networks import arithmetic_of, conv, linear, pool, random_images, random_network, tensor

ROOMY = AcceleratorConfig(act_depth=16384)


def check(network: QuantizedNetwork, config: AcceleratorConfig, seed: int) -> None:
    x = random_images(network, 3, seed)
    expected = golden.run(network, x, layers=True)
    found = interpreter.run(compile_(network, config).to_bytes(), x)
    for layer, values in zip(network.layers, found.outputs, strict=True):
        np.testing.assert_array_equal(values, expected[layer.name], err_msg=f"layer {layer.name}, network {seed}")
    np.testing.assert_array_equal(found.final, expected[network.layers[-1].name], err_msg=f"final, network {seed}")


@pytest.mark.parametrize("guard_bits", [None, 3, 0])
def test_random_networks(seed: int, guard_bits: int | None) -> None:
    for number in range(seed, seed + 12):
        rng = np.random.default_rng(number)
        config = ROOMY.replace(lanes_y=int(rng.integers(1, 9)), lanes_x=int(rng.integers(1, 9)), guard_bits=guard_bits)
        check(random_network(number, config), config, number)


@pytest.mark.parametrize("act_bits", [2, 5])
def test_narrow_activations(seed: int, act_bits: int) -> None:
    config = ROOMY.replace(act_bits=act_bits, lanes_y=2, lanes_x=3)
    for number in range(seed, seed + 10):
        check(random_network(number, config, raw=False), config, number)


def test_other_shifts_and_code_lengths(seed: int) -> None:
    for number, changes in enumerate(({"max_shift": 0}, {"max_shift": 15, "acc_width": 32}, {"max_code_bits": 5},
                                      {"dict_depth": 256}, {"max_shift": 4, "guard_bits": 1})):
        config = ROOMY.replace(**changes)
        for offset in range(5):
            check(random_network(seed + 10 * number + offset, config), config, seed + 10 * number + offset)


def test_grouped_and_depthwise_convolutions(rng: np.random.Generator) -> None:
    source = tensor("input", 6, 9, 7, signed=True)
    one = conv(rng, source, "grouped", channels=4, groups=2, stride=(2, 1), padding=(1, 1, 1, 1))
    two = conv(rng, one.target, "depthwise", channels=4, groups=4, kernel=(2, 3), dilation=(1, 2))
    check(QuantizedNetwork(input=source, layers=(one, two)), ROOMY, 1)


def test_tensor_with_two_readers_outlives_the_first(rng: np.random.Generator) -> None:
    source = tensor("input", 3, 8, 8)
    first = conv(rng, source, "first", channels=4, padding=(1, 1, 1, 1))
    second = conv(rng, first.target, "second", channels=8, padding=(1, 1, 1, 1))
    third = pool(rng, second.target, "third")
    fourth = linear(rng, first.target, "fourth", features=5, raw=True)
    check(QuantizedNetwork(input=source, layers=(first, second, third, fourth)), ROOMY, 2)


def test_extreme_accumulators(rng: np.random.Generator) -> None:
    """The least accumulator that the proof admits is enough for the worst inputs."""
    from shiftwright.sw.compiler.compile import compile_detailed

    source = tensor("input", 200)
    layer = linear(rng, source, "fc", features=8, raw=True, arithmetic=arithmetic_of(ROOMY), bias=0.0)
    network = QuantizedNetwork(input=source, layers=(layer,), acc_bits=32)
    bits = max(16, compile_detailed(network, ROOMY).layers[0].proof.bits)
    check(dataclasses.replace(network, acc_bits=bits), ROOMY.replace(acc_width=bits), 3)
