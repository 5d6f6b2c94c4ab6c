"""Compiled networks, read back and run by the image interpreter, against the golden model: two independent readers."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import ROUNDINGS, AcceleratorConfig
from shiftwright.sim import golden, interpreter
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compress.scales import reciprocal
from shiftwright.sw.network import QuantizedNetwork, Residual, Term
from tests.networks import arithmetic_of, conv, join, linear, pool, random_images, random_network, tensor

pytestmark = pytest.mark.usefixtures("one_thread")

ROOMY = AcceleratorConfig(act_depth=16384, positions=256)
ONE = (Term(False, 0),)
SAME = (1, 1, 1, 1)


def check(network: QuantizedNetwork, config: AcceleratorConfig, seed: int, images: int = 3) -> interpreter.Program:
    """Every layer's output, image by image, and the batch's outputs; the layers that the compiler adds, too; and what
    the cycle model counts."""
    x = random_images(network, images, seed)
    compilation = compile_detailed(network, config)
    program, lowered = interpreter.read_image(compilation.image.to_bytes()), compilation.network
    expected = golden.run(lowered, x, layers=True)
    found = interpreter.run(program, x)
    for layer, values in zip(lowered.layers, found.outputs, strict=True):
        np.testing.assert_array_equal(values, expected[layer.name], err_msg=f"layer {layer.name}, network {seed}")
    for name, values in golden.run(network, x, layers=True).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=f"layer {name} lowered, network {seed}")
    np.testing.assert_array_equal(found.final, expected[network.layers[-1].name], err_msg=f"final, network {seed}")
    for layer, streams in zip(compilation.layers, interpreter.statistics(program), strict=True):
        for name in ("codewords", "operations", "terms"):
            counted = sum(getattr(stream, name) for stream in streams)
            assert counted == getattr(layer.cycles, name), f"{name} of layer {layer.name}, network {seed}"
    batch = interpreter.run_batch(program, x)
    np.testing.assert_array_equal(batch.final, found.final, err_msg=f"batch, network {seed}")
    return program


def random_config(number: int, **changes: object) -> AcceleratorConfig:
    """Lanes, streams and contexts by a seed."""
    rng = np.random.default_rng(number)
    return ROOMY.replace(**{"lanes_y": int(rng.choice([1, 2, 4, 8])), "lanes_x": int(rng.choice([1, 2, 4, 8])),
                            "streams": int(rng.integers(1, 9)) if rng.random() < 0.6 else 1,
                            "interleave": int(rng.choice([1, 2, 4])), **changes})


@pytest.mark.parametrize("guard_bits", [None, 3, 0])
def test_random_networks(seed: int, guard_bits: int | None) -> None:
    for number in range(seed, seed + 16):
        config = random_config(number, guard_bits=guard_bits, rounding=ROUNDINGS[number % 2])
        check(random_network(number, config), config, number)


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7)])
@pytest.mark.parametrize("signed", [False, True])
def test_averages_whose_scale_begins_with_a_negative_term(kernel: tuple[int, int], signed: bool, seed: int) -> None:
    """As :mod:`~shiftwright.sw.compress.scales` writes 1/9, 1/25 and 1/49."""
    rng, config = np.random.default_rng(seed), ROOMY
    source = tensor("input", 3, 9, 8)
    first = conv(rng, source, "first", channels=4, kernel=(1, 1), arithmetic=arithmetic_of(config), signed=signed)
    terms, shift = reciprocal(kernel[0] * kernel[1])
    assert terms[0].neg
    average = dataclasses.replace(pool(rng, first.target, "average", op="avgpool", kernel=kernel), scale=(terms,) * 4,
                                  shift=np.full(4, shift, np.int64))
    network = QuantizedNetwork(input=source, layers=(first, average), max_shift=7, guard_bits=7, acc_bits=24,
                               parameters=16)
    check(network, config, seed)


@pytest.mark.parametrize("act_bits", [2, 5])
def test_narrow_activations(seed: int, act_bits: int) -> None:
    for number in range(seed, seed + 10):
        config = random_config(number, act_bits=act_bits)
        check(random_network(number, config, raw=False), config, number)


def test_other_shifts_and_code_lengths(seed: int) -> None:
    for number, changes in enumerate(({"max_shift": 0}, {"max_shift": 15, "acc_width": 32}, {"max_code_bits": 5},
                                      {"dict_depth": 256}, {"max_shift": 4, "guard_bits": 1}, {"acc_width": 16})):
        for offset in range(5):
            config = random_config(seed + 10 * number + offset, **changes)
            check(random_network(seed + 10 * number + offset, config), config, seed + 10 * number + offset)


@pytest.mark.parametrize("streams", [1, 2, 3, 4, 8])
def test_grouped_and_depthwise_convolutions(rng: np.random.Generator, streams: int) -> None:
    source = tensor("input", 12, 9, 7, signed=True)
    one = conv(rng, source, "grouped", channels=8, groups=2, stride=(2, 1), padding=SAME)
    two = conv(rng, one.target, "depthwise", channels=8, groups=8, kernel=(2, 3), dilation=(1, 2), padding=SAME,
               residuals=(Residual(source=one.target, terms=ONE),) if one.target.signed else ())
    three = conv(rng, two.target, "multiplied", channels=16, groups=8, kernel=(1, 3), padding=(0, 2, 0, 0))
    check(QuantizedNetwork(input=source, layers=(one, two, three)), ROOMY.replace(streams=streams), 1)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [
    ((11, 11), (4, 4), (2, 2, 2, 2), (1, 1)),
    ((11, 11), (1, 1), (10, 10, 10, 10), (1, 1)),
    ((1, 7), (1, 3), (0, 3, 0, 2), (1, 1)),
    ((7, 1), (4, 1), (5, 0, 1, 0), (1, 1)),
    ((3, 3), (3, 2), (0, 2, 4, 1), (2, 3)),
    ((5, 5), (1, 1), (8, 8, 8, 8), (4, 4)),
    ((2, 2), (4, 3), (0, 0, 0, 0), (1, 1)),
])
def test_kernels(rng: np.random.Generator, kernel: tuple[int, int], stride: tuple[int, int],
                 padding: tuple[int, int, int, int], dilation: tuple[int, int]) -> None:
    source = tensor("input", 3, 17, 13)
    layer = conv(rng, source, "conv", channels=5, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    behind = conv(rng, layer.target, "behind", channels=3, kernel=(1, 1))
    for lanes in ((4, 4), (2, 8), (1, 1)):
        config = ROOMY.replace(lanes_y=lanes[0], lanes_x=lanes[1], streams=2)
        check(QuantizedNetwork(input=source, layers=(layer, behind)), config, 4)


def residual_block(rng: np.random.Generator, source, name: str, channels: int, stride: int):  # type: ignore[no-untyped-def]
    """Two convolutions and a shortcut without weights: strided, its channels in the middle."""
    one = conv(rng, source, f"{name}.1", channels=channels, stride=(stride, stride), padding=SAME)
    shortcut = Residual(source=source, terms=(Term(False, 5),), stride=(stride, stride),
                        channel_offset=(channels - source.channels) // 2)
    return one, conv(rng, one.target, f"{name}.2", channels=channels, padding=SAME, residuals=(shortcut,))


@pytest.mark.parametrize("streams", [1, 3, 4])
def test_residual_network(rng: np.random.Generator, streams: int) -> None:
    source = tensor("input", 3, 11, 14)
    layers = [conv(rng, source, "stem", channels=4, padding=SAME)]
    for name, channels, stride in (("a", 4, 1), ("b", 8, 2), ("c", 8, 1), ("d", 14, 2)):
        layers += residual_block(rng, layers[-1].target, name, channels, stride)
    last = layers[-1].target
    layers.append(pool(rng, last, "mean", op="avgpool", kernel=last.shape[1:], stride=(1, 1)))
    layers.append(linear(rng, layers[-1].target, "fc", features=10, raw=True))
    network = QuantizedNetwork(input=source, layers=tuple(layers))
    for lanes in ((4, 4), (2, 1), (8, 8)):
        check(network, ROOMY.replace(lanes_y=lanes[0], lanes_x=lanes[1], streams=streams), 5)


def test_dense_network(rng: np.random.Generator) -> None:
    """Each layer reads all before it, the input among them, and the whole is pooled with a stride."""
    source = tensor("input", 3, 9, 10, exponent=-4)
    whole, layers, concats = source, [], []
    for number in range(3):
        layer = conv(rng, whole, f"layer{number}", channels=2 + number, padding=SAME)
        layers.append(dataclasses.replace(layer, target=dataclasses.replace(layer.target, exponent=-4)))
        concats.append(join(f"joined{number}", whole, layers[-1].target))
        whole = concats[-1].target
    layers.append(pool(rng, whole, "pool"))
    network = QuantizedNetwork(input=source, layers=tuple(layers), concats=tuple(concats))
    for streams in (1, 2):
        check(network, ROOMY.replace(streams=streams), 6)


def test_tensor_with_two_strides_and_two_readers(rng: np.random.Generator) -> None:
    """Readers that disagree on the layout, one of which comes after all others."""
    source = tensor("input", 3, 8, 8)
    first = conv(rng, source, "first", channels=4, padding=SAME)
    second = conv(rng, first.target, "second", channels=8, padding=SAME)
    third = pool(rng, first.target, "third")
    fourth = conv(rng, first.target, "fourth", channels=2, stride=(3, 1), residuals=(
        Residual(source=second.target, terms=ONE, stride=(3, 1), channel_offset=-6),))
    fifth = linear(rng, first.target, "fifth", features=5, raw=True)
    check(QuantizedNetwork(input=source, layers=(first, second, third, fourth, fifth)), ROOMY, 2)


@pytest.mark.parametrize("shape", [(24, 1, 1), (3, 4, 5)])
@pytest.mark.parametrize("head", [True, False])
def test_batches(rng: np.random.Generator, head: bool, shape: tuple[int, int, int]) -> None:
    source = tensor("input", *shape)
    layers = [conv(rng, source, "conv", channels=4, kernel=(1, 1))] if head else []
    one = linear(rng, layers[-1].target if head else source, "one", features=20)
    two = linear(rng, one.target, "two", features=6, residuals=(
        Residual(source=one.target, terms=(Term(True, 2),), channel_offset=-3),))
    three = linear(rng, two.target, "three", features=9, raw=True)
    for streams in (1, 4):
        config = ROOMY.replace(lanes_x=2, streams=streams)
        program = check(QuantizedNetwork(input=source, layers=(*layers, one, two, three)), config, 7, images=19)
        # A 1 x 1 convolution of a vector is a fully connected layer.
        assert (program.tail, len(program.layers)) == (int(head and shape[1:] != (1, 1)), 3 + head)


def test_a_vector_that_fits_no_bank_is_not_batched(rng: np.random.Generator) -> None:
    source = tensor("input", 2, 16, 16)
    config = ROOMY.replace(act_depth=256)
    program = check(QuantizedNetwork(input=source, layers=(linear(rng, source, "fc", features=5),)), config, 8)
    assert program.tail == 1 and not program.input.vector


def test_extreme_accumulators(rng: np.random.Generator) -> None:
    """The least accumulator that the proof admits is enough for the worst inputs."""
    source = tensor("input", 200)
    layer = linear(rng, source, "fc", features=8, raw=True, arithmetic=arithmetic_of(ROOMY), bias=0.0)
    network = QuantizedNetwork(input=source, layers=(layer,), acc_bits=32)
    bits = max(16, compile_detailed(network, ROOMY).layers[0].proof.bits)
    check(dataclasses.replace(network, acc_bits=bits), ROOMY.replace(acc_width=bits), 3)
