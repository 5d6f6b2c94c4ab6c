"""The accuracy and size that a compressed MNIST network must keep, on all 10,000 test images."""

from pathlib import Path

import pytest
import torch

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import DataError
from shiftwright.sim import golden
from shiftwright.sw import train
from shiftwright.sw.compiler.compile import compile_
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.compress.recipe import Recipe, load_recipe
from shiftwright.sw.data import load

EXAMPLES = Path(__file__).parents[3] / "examples"
SEED = 0


@pytest.mark.regress
@pytest.mark.parametrize(("network", "float_epochs", "recipe", "least", "ratio"), [
    ("lenet300", 6, BQNet(epochs=4), 0.98, 10), ("lenet5", 2, BQNet(epochs=1), 0.99, 10),
    ("lenet300", 6, load_recipe(file=EXAMPLES / "bqnet-pruned.toml"), 0.984, 40)], ids=["fc", "conv", "pruned"])
def test_accuracy_and_size(network: str, float_epochs: int, recipe: Recipe, least: float, ratio: float) -> None:
    try:
        data, test = load("mnist", split="train"), load("mnist", split="test")
    except DataError as error:
        pytest.skip(f"needs MNIST: {error}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module, _ = train.train(network, data, test=test, epochs=float_epochs, seed=SEED)
        compressed = compress(module, recipe, data, seed=SEED)
    finally:
        torch.set_num_threads(threads)
    assert len(test) == 10_000
    assert golden.accuracy(compressed, test) >= least, f"seed {SEED}"
    size = len(compile_(compressed, AcceleratorConfig(weight_depth=1 << 17)).to_bytes())
    assert 4 * compressed.parameters / size >= ratio
