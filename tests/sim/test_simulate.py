"""Whole accelerators against the golden model, and what a difference looks like."""

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from shiftwright.hw.arch.bus import Counter
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import DataError, MismatchError, ModelError
from shiftwright.sim import golden
from shiftwright.sim.interpreter import read_image, statistics
from shiftwright.sim.simulate import simulate
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.image import Image

NETWORK = 3
CONFIG = AcceleratorConfig(lanes_y=2, lanes_x=2, weight_depth=2048, act_depth=512)


@pytest.fixture(scope="module")
def case() -> tuple[Image, np.ndarray, dict[str, np.ndarray]]:
    networks = _networks()
    network = networks.random_network(NETWORK, CONFIG, size=7)
    inputs = networks.random_images(network, 2)
    compilation = compile_detailed(network, CONFIG)
    return compilation.image, inputs, golden.run(compilation.network, inputs, layers=True)


def _networks() -> ModuleType:
    import importlib.util
    import sys

    name = "networks_of_tests"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "networks.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(params=["verilator", pytest.param("icarus", marks=pytest.mark.regress)])
def simulator(request: pytest.FixtureRequest) -> str:
    if request.param == "icarus" and shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed")
    return request.param


@pytest.mark.slow
def test_every_layer_is_equal(case: tuple[Image, np.ndarray, dict[str, np.ndarray]], simulator: str) -> None:
    image, inputs, expected = case
    paused = simulate(image, inputs, expected=expected, simulator=simulator)
    assert paused.layers == tuple(expected)
    assert paused.values == sum(output.size for output in expected.values())
    # The bridge counts the cycles between the stops, the device's own register those of an uninterrupted run.
    straight = simulate(image, inputs, expected=expected, simulator=simulator, per_layer=False)
    assert straight.layers == tuple(expected)[-1:]
    assert straight.values == expected[straight.layers[0]].size
    # The writing of the counters waits up to seven cycles after a layer, depending on when it comes.
    assert all(abs(a - b) < 8 * len(expected) for a, b in zip(straight.cycles, paused.cycles, strict=True))
    terms = [sum(stream.terms for stream in layer) for layer in statistics(read_image(image.to_bytes()))]
    assert [row.tolist() for row in paused.counters[:, :, Counter.TERMS]] == [terms] * len(inputs)
    busy = paused.counters[:, :, Counter.BUSY] - paused.layer_cycles
    assert abs(busy).max() < 64
    assert (paused.counters[:, :, Counter.STARVED] + paused.counters[:, :, Counter.STALLED]
            + terms <= paused.counters[:, :, Counter.BUSY]).all()
    # The run ends a few cycles after its last layer.
    assert all(0 <= total - sum(row) < 8 for total, row in zip(paused.cycles, paused.layer_cycles, strict=True))


@pytest.mark.slow
def test_the_first_difference_is_named(case: tuple[Image, np.ndarray, dict[str, np.ndarray]], simulator: str) -> None:
    image, inputs, expected = case
    names = list(expected)
    wrong = {name: output.copy() for name, output in expected.items()}
    index = tuple(size - 1 for size in wrong[names[1]].shape[1:])
    wrong[names[1]][(1, *index)] += 1
    wrong[names[2]] += 1
    right = expected[names[1]][(1, *index)]
    place = f"layer {names[2]}, channel 0, row 0, column 0: the RTL gives"
    with pytest.raises(MismatchError, match=f"image 0, {place}"):
        simulate(image, inputs, expected=wrong, simulator=simulator)
    wrong[names[2]] -= 1
    place = f"layer {names[1]}, channel {index[0]}, row {index[1]}, column {index[2]}"
    with pytest.raises(MismatchError, match=rf"image 1, {place}: the RTL gives {right}, the reference {right + 1} \("):
        simulate(image, inputs, expected=wrong, simulator=simulator)


def test_what_does_not_fit_is_refused(case: tuple[Image, np.ndarray, dict[str, np.ndarray]]) -> None:
    image, inputs, expected = case
    with pytest.raises(DataError, match=r"inputs must have shape \(N, .*\) with N > 0, not"):
        simulate(image, inputs[:0], expected=expected)
    with pytest.raises(DataError, match="inputs must have shape"):
        simulate(image, inputs[0], expected=expected)
    fewer = dict(list(expected.items())[:-1])
    with pytest.raises(ModelError, match="is the compressed network the one that the image was compiled from"):
        simulate(image, inputs, expected=fewer)
    cut = {name: output[:, :, :, :1] if output.shape[3] > 1 else output[:, :1] for name, output in expected.items()}
    with pytest.raises(ModelError, match="the reference has shape"):
        simulate(image, inputs, expected=cut)
