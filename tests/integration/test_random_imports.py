"""Random PyTorch networks, all the way: import, compress, compile, and two readers of the image; some on the RTL.

What is refused must be refused in words that a document or an error of ours has: :data:`REFUSALS`.
"""

import dataclasses
import re

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.config import ROUNDINGS, AcceleratorConfig
from shiftwright.hw.arch.errors import ShiftwrightError
from shiftwright.sim import golden
from shiftwright.sim.simulate import simulate
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.recipe import Recipe, load_recipe
from shiftwright.sw.data import Dataset
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.network import QuantizedNetwork
from tests.graphs import execute
from tests.integration.test_compiled_networks import ROOMY, check, random_config
from tests.torch_networks import RandomNetwork, random_module

pytestmark = [pytest.mark.usefixtures("one_thread"),
              pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")]

REFUSALS = (
    r"^ops\.\d+ \(AvgPool2d\): count_include_pad=False with padding is not supported; set count_include_pad",
    r"^ops\.\d+ \(AvgPool2d\): ceil_mode=True with a map of .* makes windows of different sizes; set ceil",
    r"^layer ops\.\d+\S*: none of its weights is worth its bits at slope = .*; lower slope, or ask",
)
"""Messages for networks that the generator makes and the product does not take."""
RTL = (
    {"lanes_y": 4, "lanes_x": 4}, {"lanes_y": 2, "lanes_x": 4, "streams": 2, "interleave": 2},
    {"lanes_y": 1, "lanes_x": 2, "streams": 3, "interleave": 1, "rounding": "half_even"},
)
MOST_REFUSED = 0.35
"""Share of the networks, so that the rest shows something."""


def random_recipe(rng: np.random.Generator) -> Recipe:
    settings = [f"act_bits={rng.integers(2, 9)}", "calibration_images=12",
                f"calibration={rng.choice(['mse', 'minmax', 'percentile'])}"]
    if rng.random() < 0.3:
        return load_recipe("ptq", settings=[*settings, "slope=0.000001", f"terms={rng.integers(1, 4)}"])
    return load_recipe("bqnet", settings=[*settings, "epochs=0", f"levels={rng.integers(1, 5)}"])


def images(module: RandomNetwork, rng: np.random.Generator) -> Dataset:
    return Dataset(rng.integers(0, 256, (12, *module.shape), dtype=np.uint8), np.zeros(12, np.int64), "random", "train",
                   ("0", "1"))


def imported(seed: int) -> tuple[QuantizedNetwork, np.ndarray] | None:
    """A random network, checked against PyTorch and compressed, and some images; None when it is refused."""
    rng, module = np.random.default_rng(seed), random_module(seed)
    data = images(module, rng)
    recipe = random_recipe(rng)
    try:
        graph = capture(module, module.shape)
    except ShiftwrightError as error:
        assert any(re.search(pattern, str(error)) for pattern in REFUSALS), f"network {seed}: {error}"
        return None
    x = torch.tensor(data.images).double() / 256
    with torch.no_grad():
        expected = module.double()(x).numpy()
        found = execute(graph, x).numpy().reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(expected).max()),
                               err_msg=f"network {seed}")
    try:
        network = compress(module.float(), recipe, data, seed=seed)
    except ShiftwrightError as error:
        assert any(re.search(pattern, str(error)) for pattern in REFUSALS), f"network {seed}: {error}"
        return None
    return network, network.quantize_input(data.images[:2] / 256)


def run(seeds: range) -> int:
    """Check the networks of some seeds; how many were taken."""
    taken = 0
    for seed in seeds:
        made = imported(seed)
        if made is not None:
            rounding = ROUNDINGS[seed % 2]
            check(dataclasses.replace(made[0], rounding=rounding),
                  random_config(seed, act_depth=16384, rounding=rounding), seed, images=2)
            taken += 1
    return taken


def test_some_networks(seed: int) -> None:
    seeds = range(1000 * seed, 1000 * seed + 12)
    assert run(seeds) >= (1 - MOST_REFUSED) * len(seeds)


@pytest.mark.regress
@pytest.mark.parametrize("part", range(5))
def test_many_networks(part: int, seed: int) -> None:
    seeds = range(1000 * seed + 100 + 120 * part, 1000 * seed + 220 + 120 * part)
    assert run(seeds) >= 100, "at least 500 of all"


@pytest.mark.regress
@pytest.mark.parametrize("shape", RTL, ids=lambda shape: "x".join(str(shape.get(n, 1)) for n in ("lanes_y", "lanes_x",
                                                                                              "streams")))
def test_networks_on_the_rtl(shape: dict[str, object], seed: int) -> None:
    """Every layer's bits, of 20 networks on each of three accelerators."""
    config: AcceleratorConfig = ROOMY.replace(**{**shape, "act_depth": 4096})
    number, done = 1000 * seed + 900 + 1000 * RTL.index(shape), 0
    while done < 20:
        number += 1
        made = imported(number)
        if made is None:
            continue
        network, x = dataclasses.replace(made[0], rounding=config.rounding), made[1]
        compilation = compile_detailed(network, config)
        result = simulate(compilation.image, x[:1], expected=golden.run(compilation.network, x[:1], layers=True))
        assert len(result.layers) == len(compilation.layers), f"network {number}"
        done += 1
