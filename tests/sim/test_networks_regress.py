"""Predicted clock cycles against simulated ones, on random networks."""

import math

import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sim.regression import RegressionCase, regression
from shiftwright.sw.compiler.compile import compile_detailed
from tests.networks import random_images, random_network

NETWORKS = 30
LONG = 500
"""Cycles from which a layer is held to TOLERANCE, if its row passes are long as well: where they are short,
a few cycles are a few per cent."""
LONG_PASS = 16
"""Micro-operations of a row pass, on average."""
TOLERANCE = 0.02
SHORT_TOLERANCE = 0.1
NETWORK_TOLERANCE = 0.03
HEADER = 7
"""Cycles of the header, which the simulation counts into the first layer."""


@pytest.mark.regress
@pytest.mark.parametrize("lanes", [(1, 1), (2, 2), (3, 5), (4, 4)], ids=lambda lanes: f"{lanes[0]}x{lanes[1]}")
def test_cycles_are_predicted(lanes: tuple[int, int], seed: int) -> None:
    config = AcceleratorConfig(lanes_y=lanes[0], lanes_x=lanes[1], act_depth=4096)
    first = seed + 30_000 + 100 * (8 * lanes[0] + lanes[1])
    networks = {f"network {number}": random_network(number, config, size=20)
                for number in range(first, first + NETWORKS)}
    result = regression(config, [RegressionCase(name=name, network=network, inputs=random_images(network, 1))
                                 for name, network in networks.items()], seed=seed)
    wrong, held = [], 0
    for (name, network), simulated in zip(networks.items(), result.layer_cycles, strict=True):
        compiled = compile_detailed(network, config)
        for layer, cycles in zip(compiled.layers, (simulated[0] - HEADER, *simulated[1:]), strict=True):
            error = layer.cycles.total / cycles - 1
            passes = layer.target.channels * math.prod(
                -(-size // lane) for size, lane in zip(layer.target.shape[1:], lanes, strict=True))
            long = cycles > LONG and layer.cycles.operations >= LONG_PASS * passes
            held += long
            if abs(error) > (TOLERANCE if long else SHORT_TOLERANCE):
                wrong.append(f"{name}, {layer.name}: predicted {layer.cycles.total}, simulated {cycles} ({error:+.2%})")
        if abs(compiled.cycles / sum(simulated) - 1) > NETWORK_TOLERANCE:
            wrong.append(f"{name}: predicted {compiled.cycles}, simulated {sum(simulated)}")
    assert held > NETWORKS // 3
    assert not wrong, "\n".join(wrong)
