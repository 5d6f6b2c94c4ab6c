"""Pruning: which weights are taken out, when, and that they stay out."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compress import compress, training
from shiftwright.sw.compress.bqnet import BQNet, LevelSet
from shiftwright.sw.compress.calibrate import calibrate
from shiftwright.sw.compress.fakequant import ConvLayer, FakeQuantized
from shiftwright.sw.compress.lower import lower
from shiftwright.sw.compress.weights import PowerOfTwo
from shiftwright.sw.data import Dataset
from shiftwright.sw.frontend.capture import capture

SEED = 7


def model() -> nn.Module:
    """20 x 18, 10 x 500 weights, and a batch norm that does nothing much."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return nn.Sequential(nn.Conv2d(2, 20, 3), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                             nn.Linear(500, 10)).eval()


def images(count: int) -> Dataset:
    """Noise with labels."""
    rng = np.random.default_rng(SEED)
    return Dataset(rng.integers(0, 256, (count, 2, 12, 12), np.uint8), rng.integers(0, 10, count), "noise", "train",
                   tuple("0123456789"))


def nonzeros(recipe: BQNet) -> list[int]:
    """Weights that are not 0, of each convolution, after compression."""
    network = compress(model(), recipe, images(96), seed=SEED)
    return [int(np.count_nonzero(layer.values)) for layer in network.layers if layer.op == "conv"]


@pytest.mark.parametrize("zero", [True, False])
def test_the_smallest_weights_are_taken_out(zero: bool) -> None:
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(SEED))
    quantizer = PowerOfTwo(LevelSet(2, zero, -4, 8))
    quantizer.prune(weight, 0.7)
    quantizer.fit(weight)
    boundary = weight.abs().flatten().sort().values[21]
    assert torch.equal(quantizer.mask, weight.abs() >= boundary) and int(quantizer.mask.sum()) == 9
    value = quantizer.numbers(weight) * quantizer.unit
    assert torch.equal(value, quantizer.quantize(weight) + 0.0)
    assert not value[~quantizer.mask].any()
    assert zero or bool(value[quantizer.mask].all())
    quantizer.prune(weight, 0.0)
    assert bool(quantizer.mask.all())


def test_the_scale_is_that_of_the_weights_that_stay() -> None:
    weight = torch.tensor([[1.0, -1.0], [0.01, 0.01]]).repeat(1, 50)
    quantizer = PowerOfTwo(LevelSet(1, False, -4, 8))
    quantizer.fit(weight)
    assert quantizer.k_top == 1
    quantizer.prune(weight, 0.5)
    quantizer.fit(weight)
    assert quantizer.k_top == 0


def test_no_gradient_reaches_a_weight_that_is_taken_out() -> None:
    weight = torch.tensor([0.5, 0.1, -0.7, 0.2], requires_grad=True)
    quantizer = PowerOfTwo(LevelSet(2, True, -4, 8))
    quantizer.prune(weight.detach(), 0.5)
    quantizer(weight).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("epochs", [0, 1, 2, 3, 5])
def test_the_share_is_reached(epochs: int) -> None:
    recipe = BQNet(epochs=epochs, levels=3, zero=False, prune=0.75, layers={"5": {"prune": 0.9}})
    assert nonzeros(recipe) == [90, 500], f"seed {SEED}"


def test_options_that_fit_alone_but_not_together() -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv2d(2, 20, 3)), nn.Flatten(), nn.Linear(2000, 10)).eval()
    recipe = BQNet(epochs=0, layers={"0": {"k_min": 12, "levels": 3}, "0.0": {"k_max": 13}})
    with pytest.raises(ModelError, match="recipe bqnet: layer 0.0: k from 12 to 13 has no room for 3 levels"):
        compress(network, recipe, images(8), seed=SEED)


def test_without_pruning_all_weights_stay() -> None:
    assert nonzeros(BQNet(epochs=1, zero=False)) == [360, 5000]
    assert nonzeros(BQNet(epochs=1, zero=False, layers={"0": {"prune": 0.5}})) == [180, 5000]


def test_the_share_grows_over_the_first_half(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    prune = PowerOfTwo.prune

    def spy(quantizer: PowerOfTwo, weight: Tensor, share: float) -> None:
        shares.append(share)
        prune(quantizer, weight, share)

    monkeypatch.setattr(PowerOfTwo, "prune", spy)
    monkeypatch.setattr(training, "PRUNE_STEPS", 2)
    compress(model(), BQNet(epochs=4, batch=16, layers={"5": {"prune": 0.8}}), images(96), seed=SEED)
    # 6 steps an epoch: the share is chosen at step 0, every second of 12 steps, and at the beginning of epochs 2 and 3.
    expected = [0.8 * (1 - (1 - step / 12) ** 3) for step in (0, 0, 2, 4, 6, 6, 8, 10, 12)]
    assert shares == pytest.approx(expected)


@pytest.mark.parametrize("guard_bits", [None, 1])
def test_training_still_equals_the_integers(guard_bits: int | None) -> None:
    recipe = BQNet(levels=6, zero=False, prune=0.6, guard_bits=guard_bits)
    graph = capture(model(), (2, 12, 12))
    fake = FakeQuantized(graph, recipe)
    for layer in fake.chain:
        if isinstance(layer, ConvLayer):
            layer.weight_quantizer.prune(layer.master_weight, 0.6)
            layer.refit()
    sample = torch.tensor(images(30).images) / 256
    calibrate(fake, sample, recipe)
    network = lower(fake, graph, recipe, {})
    expected = golden.run(network, network.quantize_input(sample.numpy()))
    with torch.no_grad():
        real = fake(sample).numpy().reshape(expected.shape)
    assert np.array_equal(real * 2.0**-network.output.exponent, expected)
    assert len(np.unique(expected)) > 5


def test_flip(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    loss = training.loss_of

    def spy(logits: Tensor, teacher: nn.Module, x: Tensor, *others: Any) -> Tensor:
        seen.append(x)
        return loss(logits, teacher, x, *others)

    monkeypatch.setattr(training, "loss_of", spy)
    data = images(64)
    compress(model(), BQNet(epochs=1, flip=True, shift=0), data, seed=SEED)
    originals = {(image / 256).astype(np.float32).tobytes() for image in data.images}
    mirrored = {(image[:, :, ::-1] / 256).astype(np.float32).tobytes() for image in data.images}
    found = [image.numpy().tobytes() for x in seen for image in x]
    assert len(found) == 64 and all(image in originals | mirrored for image in found)
    assert 15 < sum(image in mirrored for image in found) < 49, f"seed {SEED}"
