"""Quantization-aware training: full-precision master weights behind the quantized forward pass."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from ...hw.arch.errors import ModelError
from .bqnet import BQNet
from .calibrate import calibrate
from .fakequant import ConvLayer, FakeQuantized
from .recipe import Progress

if TYPE_CHECKING:
    from ..data import Dataset

__all__ = ["fine_tune"]

PIXEL_SCALE = 256.0
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
LEAST_SCHEDULE = 11
"""Steps of the shortest schedule: its warm-up needs more than one."""
SMALL_STEP = 100_000_000
"""Multiplications of a training step's forward pass below which a second thread costs more than it saves."""
REFINE = 0.5
"""Share of the epochs before which scales and the weights to take out are chosen anew."""
PRUNE_STEPS = 50
"""Steps between two choices of the weights to take out."""


def fine_tune(network: FakeQuantized, teacher: nn.Module, data: "Dataset", recipe: BQNet, *, seed: int,
              progress: Progress | None) -> None:
    """Calibrate a quantized network and train it with Adam; it is changed in place.

    Weight and activation scales are chosen anew at each epoch of the first half, then stay, as do the weights that are
    taken out. With ``epochs = 0`` it is only pruned and calibrated.

    Parameters
    ----------
    network : FakeQuantized
        The network.
    teacher : torch.nn.Module
        The float network.
    data : Dataset
        Training images.
    recipe : BQNet
        The options.
    seed : int
        Decides the order of the images and their shifts.
    progress : callable or None
        Called after each epoch.

    Raises
    ------
    ModelError
        If the loss is no number any more.
    """
    from ..train import shift_randomly

    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.tensor(data.images), torch.tensor(data.labels)
    sample = images[torch.randperm(len(images), generator=generator)[:recipe.calibration_images]].float() / PIXEL_SCALE
    epochs = recipe.epochs_for(len(images))
    steps = -(-len(labels) // recipe.batch)
    settled, step = int(REFINE * epochs), 0
    _prune(network, 0, settled * steps)
    _refine(network, sample, recipe)
    if epochs == 0:
        return
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=max(epochs * steps, LEAST_SCHEDULE), pct_start=WARM_UP)
    training, threads = teacher.training, torch.get_num_threads()
    teacher.eval()
    if recipe.batch * _multiplications(network) < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        for epoch in range(1, epochs + 1):
            if 1 < epoch <= 1 + settled:
                _prune(network, step, settled * steps)
                _refine(network, sample, recipe)
            total = 0.0
            for index in torch.randperm(len(labels), generator=generator).split(recipe.batch):
                if step % PRUNE_STEPS == 0 and step < settled * steps:
                    _prune(network, step, settled * steps)
                x = images[index].float() / PIXEL_SCALE
                if recipe.shift:
                    x = shift_randomly(x, recipe.shift, generator)
                if recipe.flip:
                    x = torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x.flip(3), x)
                loss = _loss(network, teacher, x, labels[index], recipe)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                step += 1
                total += loss.item() * len(index)
            if not total < float("inf"):
                raise ModelError(f"recipe {recipe.name}: the training diverged in epoch {epoch}; lower learning_rate "
                                 f"(now {recipe.learning_rate})")
            if progress is not None:
                progress(epoch, epochs, total / len(labels))
    finally:
        torch.set_num_threads(threads)
        teacher.train(training)


def _multiplications(network: FakeQuantized) -> int:
    """Of one image."""
    return sum(math.prod(layer.layer.out_shape[1:]) * layer.master_weight.numel() for layer in network.chain
               if isinstance(layer, ConvLayer))


def _loss(network: FakeQuantized, teacher: nn.Module, x: Tensor, labels: Tensor, recipe: BQNet) -> Tensor:
    with parametrize.cached():
        logits = network(x)
    loss = (1 - recipe.distill) * functional.cross_entropy(logits, labels)
    if recipe.distill:
        with torch.no_grad():
            target = functional.softmax(teacher(x).flatten(1) / recipe.temperature, dim=1)
        # Times the temperature's square, so that its gradients weigh the same whatever the temperature.
        loss = loss + recipe.distill * recipe.temperature**2 * functional.kl_div(
            functional.log_softmax(logits / recipe.temperature, dim=1), target, reduction="batchmean")
    return loss


def _prune(network: FakeQuantized, step: int, last: int) -> None:
    """Take weights out: of the recipe's share 1 - (1 - step / last)**3, all of it from the last step on."""
    grown = 1 - (1 - step / last) ** 3 if step < last else 1.0
    for layer in network.chain:
        if isinstance(layer, ConvLayer) and (share := layer.weight_quantizer.level_set.prune):
            layer.weight_quantizer.prune(layer.master_weight, grown * share)


def _refine(network: FakeQuantized, sample: Tensor, recipe: BQNet) -> None:
    for layer in network.chain:
        if isinstance(layer, ConvLayer):
            layer.refit()
    calibrate(network, sample, recipe)
