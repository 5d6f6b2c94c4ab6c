"""Small models with inputs and golden outputs, for boards on simulated lines."""

import numpy as np

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError
from shiftwright.sim import golden
from shiftwright.sim.emulator.trials import Workload
from shiftwright.sw.compiler.compile import compile_
from tests.networks import random_images, random_network

__all__ = ["OTHER", "SMALL", "workload"]

SMALL = AcceleratorConfig(lanes_y=1, lanes_x=1, interleave=1, row_depth=256, weight_depth=2048, act_depth=1024,
                          dict_depth=256, positions=64, map_bits=5, counters=False)
"""Quick to simulate."""
OTHER = SMALL.replace(positions=32)
"""Nearly the same, and yet another."""
LEAST_BYTES, MOST_BYTES = 1024, 3072


def workload(seed: int, config: AcceleratorConfig = SMALL, *, inputs: int = 2) -> Workload:
    """A random model of 1 to 3 KB: the first from `seed` on that fits, and whose outputs depend on the inputs."""
    while True:
        network = random_network(seed, config, layers=4, size=9)
        try:
            image = compile_(network, config)
        except CapacityError:
            image = None
        if image is not None and LEAST_BYTES <= image.words.nbytes <= MOST_BYTES:
            x = random_images(network, inputs, seed)
            expected = np.asarray(golden.run(network, x))
            if inputs == 1 or (expected[0] != expected[1]).any():
                return Workload(image=image, inputs=x, expected=expected)
        seed += 1000
