"""The scan of layers: what is measured, its order, and the recipe file that comes of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw import train
from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.compress.sensitivity import Damage, scan, suggest, suggestion_toml
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.network import QuantizedNetwork
from tests.sw.compress.recipes import SEED, digits, digits_network

pytestmark = pytest.mark.usefixtures("one_thread")


def outputs(network: QuantizedNetwork) -> torch.Tensor:
    made = golden.run(network, network.quantize_input(digits(200).images / 256.0))
    return torch.from_numpy(made.reshape(len(made), -1)) * 2.0**network.output.exponent


def test_one_layer_at_a_time() -> None:
    networks: list[QuantizedNetwork] = []

    def measure(network: QuantizedNetwork) -> torch.Tensor:
        networks.append(network)
        return outputs(network)

    steps: list[tuple[int, int]] = []
    accuracy, damages = scan(capture(digits_network(), (1, 8, 8)), digits(200), measure, levels=(1, 3), prune=(0.9,),
                             seed=SEED, progress=lambda *step: steps.append(step))
    assert accuracy >= 0.97 and steps == [(number, 10) for number in range(1, 11)]
    assert [damage.divergence for damage in damages] == sorted((d.divergence for d in damages), reverse=True)
    assert {(damage.layer, damage.option, damage.value) for damage in damages} == {
        (layer, *option) for layer in ("conv1", "conv2", "fc") for option in (("levels", 1), ("levels", 3),
                                                                              ("prune", 0.9))}
    found = {(damage.layer, damage.option, damage.value): damage for damage in damages}
    assert found["fc", "levels", 1].divergence > found["fc", "levels", 3].divergence > 0
    assert found["fc", "levels", 1].bits < np.log2(3) and found["fc", "prune", 0.9].bits < 2
    fine, *others = networks
    values = [{layer.name: layer.values for layer in network.layers if layer.op == "conv"} for network in networks]
    for changed, network in zip(("conv1",) * 3 + ("conv2",) * 3 + ("fc",) * 3, values[1:], strict=True):
        for name, integers in network.items():
            same = np.array_equal(integers, values[0][name])
            assert same == (name != changed), name
    assert len(fine.layers) == len(others[0].layers)
    ternary = values[7]["fc"]
    assert len(np.unique(np.abs(ternary[ternary != 0]))) == 1
    assert np.mean(values[9]["fc"] == 0) >= 0.9


@pytest.mark.parametrize(("options", "message"), [
    ({"levels": (0,)}, "levels must be from 1 to 8, not 0"), ({"levels": (9,)}, "levels must be from 1 to 8, not 9"),
    ({"prune": (1.0,)}, "a share to prune must be above 0 and below 1, not 1.0")])
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        scan(capture(digits_network(), (1, 8, 8)), digits(20), outputs, **options)


def damage(layer: str, option: str, value: float, divergence: float) -> Damage:
    return Damage(layer=layer, option=option, value=value, weights=10, bits=1.0, drop=0.0, divergence=divergence)


def test_suggestions_make_a_recipe(tmp_path: Path) -> None:
    damages = [damage("a.1", "levels", 1, 0.5), damage("a.1", "levels", 2, 0.01), damage("a.1", "levels", 4, 0.001),
               damage("a.1", "prune", 0.5, 0.01), damage("a.1", "prune", 0.9, 0.04), damage("a.1", "prune", 0.95, 0.2),
               damage("fc", "levels", 1, 3.0), damage("fc", "levels", 4, 2.0), damage("fc", "prune", 0.5, 2.0)]
    options = suggest(damages, 0.05)
    assert options == {"a.1": {"levels": 2, "prune": 0.9}, "fc": {"levels": 4}}
    path = tmp_path / "s.toml"
    path.write_text(suggestion_toml(options, "Some\nlines"))
    assert path.read_text().startswith("# Some\n# lines\n[recipe]\n")
    assert load_recipe(file=path) == BQNet(layers=options)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "digits.safetensors"
    train.save_checkpoint(path, train.Checkpoint(digits_network(), "digits", "digits", 0.9, 10, SEED, 3890))
    return path


def test_command(source: Path, tmp_path: Path, shiftwright: Callable[..., Any]) -> None:
    command = ("sensitivity", source, "--levels", "1,2", "--prune", "0.5", "--images", 100, "-o", tmp_path / "s.toml")
    result = shiftwright(*command, "--json")
    assert result.code == 0, result.err
    shown = json.loads(result.out)
    assert len(shown["damages"]) == 9 and shown["images"] == 100 and shown["split"] == "train"
    assert set(shown["damages"][0]) == {"layer", "option", "value", "weights", "bits", "drop", "divergence"}
    assert isinstance(load_recipe(file=tmp_path / "s.toml"), BQNet)
    assert json.loads(shiftwright(*command, "--json").out) == shown
    table = shiftwright(*command)
    assert table.code == 0 and "levels = 1" in table.out and "divergence" in table.out


@pytest.mark.parametrize(("arguments", "message"), [
    (["--levels", "one"], "'one' must be numbers with commas between them"),
    (["--levels", "0"], "levels must be from 1 to 8, not 0"),
    (["--levels", "", "--prune", ""], "nothing to measure: give --levels or --prune a number"),
    (["--images", "3"], "3"),
])
def test_command_refuses(source: Path, shiftwright: Callable[..., Any], arguments: list[str], message: str) -> None:
    result = shiftwright("sensitivity", source, *arguments)
    assert result.code == 2 and message in result.err and "Traceback" not in result.err
