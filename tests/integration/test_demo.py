"""The main job from end to end: the demo, its steps one by one, and LeNet-5 on the simulated accelerator."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shiftwright.boards.registry import get
from shiftwright.hw.arch.errors import DataError
from shiftwright.sim.runner import build
from shiftwright.sim.simulate import accelerator_model_spec, simulate
from shiftwright.sw.compiler.compile import compile_, compile_detailed
from tests.networks import random_network

BOARD = "ulx3s-85f"
IMAGES = 16
FILES = ("digits.safetensors", "digits.swc", "digits.swi", "accelerator.v", "accelerator.vlt", "accelerator.json")


class Spent:
    """Processor seconds of this process and of the children that it waited for."""

    seconds = 0.0


@contextmanager
def processor_time() -> Iterator[Spent]:
    """Measure processor time, which other programs on the machine change little."""
    def now() -> float:
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    spent, before = Spent(), now()
    yield spent
    spent.seconds = now() - before


def run(*arguments: object, cwd: Path, **variables: str) -> str:
    """Standard output of the command line in a process of its own, which must succeed."""
    done = subprocess.run([sys.executable, "-m", "shiftwright.sw.cli", *map(str, arguments)], cwd=cwd,
                          env=os.environ | variables, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_demo(tmp_path: Path, shiftwright: Callable[..., Any]) -> None:
    """One test, since pytest-xdist would run the demo anew in each worker."""
    with processor_time() as spent:
        out = run("demo", "--json", "-o", "made", "--images", IMAGES, cwd=tmp_path)
    assert spent.seconds < 2 * 90, f"{spent.seconds:.0f} processor seconds are more than 90 s on two cores"
    result, made = json.loads(out), tmp_path / "made"
    assert set(FILES) == {path.name for path in made.iterdir()}
    assert result["images"] == IMAGES
    assert result["comparison"].startswith(f"bit-exact: {IMAGES} of {IMAGES} images, 4 of 4 layers (")
    assert 0.95 <= result["float_accuracy"] <= 1 and 0.95 <= result["integer_accuracy"] <= 1
    assert result["image_bytes"] == (made / "digits.swi").stat().st_size
    assert 1 < result["bits_per_weight"] < 8 and result["compression_ratio"] > 4
    assert result["predicted_cycles"] == pytest.approx(result["simulated_cycles"], rel=0.02)
    for name in ("digits.swc", "digits.swi"):
        found = json.loads(shiftwright("evaluate", made / name, "--data", "digits", "--json").out)
        assert found["accuracy"] == pytest.approx(result["integer_accuracy"], abs=1e-6)
    check_steps(made, tmp_path, shiftwright)
    check_verilog(made, tmp_path)


def check_steps(made: Path, folder: Path, shiftwright: Callable[..., Any]) -> None:
    """The same seed gives the image of the demo, byte for byte, in another process and by other commands."""
    for command in (("train", "digits", "-o", folder / "d.safetensors"),
                    ("compress", folder / "d.safetensors", "--recipe", "bqnet", "-o", folder / "d.swc"),
                    ("compile", folder / "d.swc", "--board", BOARD, "-o", folder / "d.swi")):
        done = shiftwright(*command, "--json", "--seed", 0)
        assert done.code == 0, done.err
    assert (folder / "d.swi").read_bytes() == (made / "digits.swi").read_bytes()


def check_verilog(made: Path, folder: Path) -> None:
    """Generating twice gives the same bytes, and so does the demo: no network takes part in the first two."""
    changes = get(BOARD).config.changes
    assert all(isinstance(value, int) for value in changes.values())
    (folder / "acc.toml").write_text("".join(f"{name} = {value}\n" for name, value in changes.items()))
    for number in ("1", "2"):
        (folder / number).mkdir()
        run("generate", "--config", "../acc.toml", "-o", "rtl", cwd=folder / number, PYTHONHASHSEED=number)
    for name in ("accelerator.v", "accelerator.vlt", "accelerator.json"):
        first, second = ((folder / number / "rtl" / name).read_bytes() for number in ("1", "2"))
        assert first == second == (made / name).read_bytes()


def test_the_simulated_verilog_does_not_depend_on_the_network(seed: int) -> None:
    config = get(BOARD).config.replace(lanes_y=1, lanes_x=2, act_depth=4096)
    images = [compile_(random_network(seed + number, config), config) for number in range(2)]
    assert not np.array_equal(images[0].words, images[1].words)
    assert accelerator_model_spec(images[0]).sources == accelerator_model_spec(images[1]).sources


@pytest.mark.regress
def test_lenet5_on_the_accelerator(seed: int) -> None:
    import torch

    from shiftwright.sim import golden
    from shiftwright.sw import train
    from shiftwright.sw.compress import compress
    from shiftwright.sw.compress.bqnet import BQNet
    from shiftwright.sw.data import load

    try:
        data, test = load("mnist", split="train").take(12_000), load("mnist", split="test")
    except DataError as error:
        pytest.skip(f"needs MNIST: {error}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module, _ = train.train("lenet5", data, test=test.take(1000), epochs=1, seed=seed)
        network = compress(module, BQNet(epochs=1), data, seed=seed)
        # A network that learned something; tests/sw/compress/test_mnist.py holds what longer training reaches.
        assert golden.accuracy(network, test.take(1000)) > 0.9
    finally:
        torch.set_num_threads(threads)
    compilation = compile_detailed(network, get(BOARD).config)
    inputs = network.quantize_input(test.images[:10] / 256.0)
    expected = golden.run(network, inputs, layers=True)
    build(accelerator_model_spec(compilation.image))
    with processor_time() as spent:
        found = simulate(compilation.image, inputs, expected=expected, seed=seed)
    assert (found.images, len(found.layers)) == (10, 6)
    assert found.values == sum(output.size for output in expected.values())
    assert spent.seconds < 60, f"{spent.seconds:.0f} processor seconds for 10 images"
    assert compilation.cycles == pytest.approx(np.mean(found.cycles), rel=0.02)
