"""Predicted clock cycles against simulated ones, on random networks and on one of depthwise convolutions."""

import math

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.image import Flag
from shiftwright.sim import golden
from shiftwright.sim.regression import RegressionCase, regression
from shiftwright.sim.simulate import simulate
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compiler.cycles import predict
from shiftwright.sw.network import QuantizedNetwork
from tests.networks import conv, linear, pool, random_images, random_network, tensor

NETWORKS = 12
LONG = 500
"""Cycles from which a layer is held to TOLERANCE, if its row passes are long as well: where they are short,
a few cycles are a few per cent."""
LONG_PASS = 16
"""Micro-operations of a row pass, on average."""
TOLERANCE = 0.02
SHORT_TOLERANCE = 0.1
LONG_NETWORK = 2000
"""Cycles from which a network is held to TOLERANCE."""
START = 8
"""Cycles a layer for each stream after the first: several decoders that begin at once contend for the model memory, and
are followed codeword by codeword only in maps of one block."""
CONFIGS: dict[str, dict[str, int]] = {
    "1x1x2": {"lanes_y": 1, "lanes_x": 1, "streams": 2, "interleave": 2},
    "2x2x1": {"lanes_y": 2, "lanes_x": 2},
    "2x2x4": {"lanes_y": 2, "lanes_x": 2, "streams": 4},
    "4x4x1": {"interleave": 1},
    "4x4x2": {"streams": 2},
    "8x8x1": {"lanes_y": 8, "lanes_x": 8},
}


def header(config: AcceleratorConfig) -> int:
    """Cycles of the header, which the simulation counts into the first layer."""
    return 9 + 4 * config.streams


def mobile(seed: int) -> QuantizedNetwork:
    """Depthwise and pointwise convolutions in turn."""
    rng = np.random.default_rng(seed)
    source = tensor("input", 3, 12, 12)
    layers = [conv(rng, source, "first", channels=16, padding=(1, 1, 1, 1), terms=1)]
    for number, (channels, stride) in enumerate(((24, 1), (32, 2), (32, 1))):
        last = layers[-1].target
        layers.append(conv(rng, last, f"depthwise{number}", channels=last.channels, groups=last.channels, terms=1,
                           stride=(stride, stride), padding=(1, 1, 1, 1), scale_terms=1))
        layers.append(conv(rng, layers[-1].target, f"pointwise{number}", channels=channels, kernel=(1, 1), terms=1,
                           scale_terms=1))
    last = layers[-1].target
    layers.append(pool(rng, last, "pool", op="avgpool", kernel=last.shape[1:], stride=(1, 1)))
    layers.append(linear(rng, layers[-1].target, "fc", features=10, terms=1, raw=True))
    return QuantizedNetwork(input=source, layers=tuple(layers))


@pytest.mark.regress
@pytest.mark.parametrize("name", CONFIGS)
def test_cycles_are_predicted(name: str, seed: int) -> None:
    config = AcceleratorConfig(act_depth=16384 if name == "1x1x2" else 4096, **CONFIGS[name])
    first = seed + 30_000 + 100 * list(CONFIGS).index(name)
    networks = {f"network {number}": random_network(number, config, size=20)
                for number in range(first, first + NETWORKS)}
    networks["mobile"] = mobile(seed)
    result = regression(config, [RegressionCase(name=name, network=network, inputs=random_images(network, 1))
                                 for name, network in networks.items()], seed=seed)
    wrong, held, slack = [], 0, START * (config.streams - 1)
    for (name, network), simulated in zip(networks.items(), result.layer_cycles, strict=True):
        compiled = compile_detailed(network, config)
        for layer, cycles in zip(compiled.layers, (simulated[0] - header(config), *simulated[1:]), strict=True):
            error = layer.cycles.total / cycles - 1
            passes = layer.target.channels * math.prod(
                -(-size // lanes) for size, lanes in zip(layer.target.shape[1:], (config.lanes_y, config.lanes_x),
                                                         strict=True))
            long = cycles >= LONG and layer.cycles.operations >= LONG_PASS * passes
            held += long
            if abs(error) > (TOLERANCE if long else SHORT_TOLERANCE) + slack / cycles:
                wrong.append(f"{name}, {layer.name}: predicted {layer.cycles.total}, simulated {cycles} ({error:+.2%})")
        error = compiled.cycles / sum(simulated) - 1
        tolerance = TOLERANCE if sum(simulated) >= LONG_NETWORK else SHORT_TOLERANCE
        if abs(error) > tolerance + slack * len(simulated) / sum(simulated):
            wrong.append(f"{name}: predicted {compiled.cycles}, simulated {sum(simulated)} ({error:+.2%})")
    assert held > NETWORKS // 2
    assert not wrong, "\n".join(wrong)


@pytest.mark.regress
@pytest.mark.parametrize("images", [1, 5, 16])
def test_cycles_of_a_batch_are_predicted(images: int, rng: np.random.Generator) -> None:
    source = tensor("input", 300)
    first = linear(rng, source, "first", features=60, zeros=0.7, terms=1)
    second = linear(rng, first.target, "second", features=40, zeros=0.95, terms=1)
    last = linear(rng, second.target, "last", features=20, raw=True)
    network = QuantizedNetwork(input=source, layers=(first, second, last))
    config = AcceleratorConfig(act_depth=4096, interleave=1)
    image, x = compile_detailed(network, config).image, random_images(network, images)
    assert all(Flag.BATCH in layer.flags for layer in image.layers)
    result = simulate(image, x, expected=golden.run(network, x, layers=True), batch=images)
    cycles = np.array(result.layer_cycles[0]) - [header(config), 0, 0]
    np.testing.assert_allclose([layer.total for layer in predict(image, images)], cycles, rtol=TOLERANCE)
