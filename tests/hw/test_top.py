"""The accelerator behind its serial line."""

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ConfigError
from shiftwright.hw.arch.link import FIRST_BAUD, IDENTITY
from shiftwright.hw.link.identity import identity
from shiftwright.hw.top import AcceleratorOverUart, divisor_of, first_divisor
from shiftwright.sim import golden
from shiftwright.sim.runner import bench
from shiftwright.sw.compiler.compile import compile_detailed
from tests.networks import random_images, random_network

CONFIG = AcceleratorConfig(lanes_y=1, lanes_x=2, weight_depth=2048, act_depth=256)


@pytest.mark.slow
def test_an_image_over_the_line(seed: int) -> None:
    network = random_network(7, CONFIG, size=7)
    inputs = random_images(network, 2)
    compilation = compile_detailed(network, CONFIG)
    outputs = golden.run(compilation.network, inputs)
    data = {"image": np.frombuffer(compilation.image.to_bytes(), np.uint8), "inputs": inputs.astype(np.int64),
            "outputs": outputs.astype(np.int64), "divisor": 64}
    top = AcceleratorOverUart(CONFIG, clock_hz=12_000_000, board="toy", divisor=64)
    assert bench(top, "shiftwright.sim.benches.top", data=data, seed=seed).tests == ("an_image_runs",)


@pytest.mark.parametrize(("clock_hz", "divisor"), [(12_000_000, 1667), (25_000_000, 3472), (48_000_000, 6667)])
def test_the_first_speed_follows_from_the_clock(clock_hz: int, divisor: int) -> None:
    assert divisor_of(clock_hz, FIRST_BAUD) == first_divisor(clock_hz) == divisor


def test_identity() -> None:
    told = identity(CONFIG, clock_hz=12_000_000, divisor=1667, board="toy")
    values, at = {}, 0
    for name, size in IDENTITY.items():
        values[name] = told[at:at + size]
        at += size
    assert at == len(told)
    assert values["board"].rstrip(b"\0") == b"toy"
    assert {name: int.from_bytes(values[name], "little") for name in ("lanes_x", "clock_hz", "divisor", "act_depth")} \
        == {"lanes_x": 2, "clock_hz": 12_000_000, "divisor": 1667, "act_depth": 256}


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be 64 or more, not 56 \(with a clock of 0.4 MHz\); take a faster"):
        first_divisor(400_000)
    with pytest.raises(ConfigError, match="the first speed's divisor must be 64 or more, not 63"):
        first_divisor(12_000_000, 63)
    for board in ("seventeen letters", "br\u00e9d"):
        with pytest.raises(ConfigError, match="at most 16 ASCII characters"):
            identity(CONFIG, clock_hz=12_000_000, divisor=1667, board=board)
