"""Quantization-aware training: full-precision master weights behind the quantized forward pass."""

import contextlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from ...hw.arch.errors import ModelError
from ..data import PIXEL_SCALE
from .calibrate import calibrate
from .coarse import supported
from .fakequant import FakeQuantized
from .moments import coarse_twin
from .options import QuantizedRecipe
from .recipe import Progress
from .session import current

if TYPE_CHECKING:
    from ..data import Dataset

__all__ = ["LEAST_SCHEDULE", "PRUNE_STEPS", "GradualPruning", "GrowingShare", "Method", "Settled", "augmented",
           "fine_tune", "grown", "loss_of"]

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
LEAST_SCHEDULE = 11
"""Steps of the shortest schedule: its warm-up needs more than one."""
SMALL_STEP = 100_000_000
"""Multiplications of a training step's forward pass below which a second thread costs more than it saves."""
REFINE = 0.5
"""Share of the epochs before which scales are chosen anew."""
PRUNE_STEPS = 50
"""Steps between two choices of the weights to take out."""


def grown(step: int, last: int) -> float:
    """Share at a step of the weights that will be out at the last one (arXiv:1710.01878)."""
    return 1 - (1 - step / last) ** 3 if step < last else 1.0


class Method:
    """What a recipe does besides, while a network is trained. Here: Adam, and nothing else.

    Attributes
    ----------
    scaled : bool
        Scales of weights and activations have been chosen before, and stay.
    """

    scaled = False

    def begin(self, network: FakeQuantized, steps: int) -> None:
        """Before the first choice of scales; ``steps`` will follow."""

    def before_epoch(self, network: FakeQuantized) -> None:
        """Before each epoch but the first."""

    def before_step(self, network: FakeQuantized, step: int) -> None:
        """Before a step's forward pass; steps count from 0."""

    def before_scales(self, network: FakeQuantized, step: int) -> None:
        """Before scales are chosen anew."""

    def optimizer(self, network: FakeQuantized, learning_rate: float) -> torch.optim.Optimizer:
        """What makes the steps."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate)

    def loss(self, network: FakeQuantized) -> Tensor | None:
        """What is added to the loss."""
        return None

    def after_backward(self, network: FakeQuantized, step: int) -> None:
        """When gradients are there."""

    def after_step(self, network: FakeQuantized, step: int) -> None:
        """When parameters have moved."""

    def finish(self, network: FakeQuantized) -> None:
        """When all epochs are over."""


class Settled(Method):
    """For weights that have their scales, and activations, too."""

    scaled = True


class GrowingShare(Method):
    """Chooses anew, in the first half, which weights are out: ``1 - (1 - step / last)**3`` of those that will be in the
    end (arXiv:1710.01878)."""

    last = 0

    def begin(self, network: FakeQuantized, steps: int) -> None:
        self.last = steps
        self.choose(network, self.grown(0))

    def before_step(self, network: FakeQuantized, step: int) -> None:
        if step % PRUNE_STEPS == 0 and step < self.last:
            self.choose(network, self.grown(step))

    def before_scales(self, network: FakeQuantized, step: int) -> None:
        self.choose(network, self.grown(step))

    def grown(self, step: int) -> float:
        """Share at a step of what will be out in the end."""
        return grown(step, self.last)

    def choose(self, network: FakeQuantized, grown: float) -> None:
        """Choose the weights that are out, so many of those in the end."""
        raise NotImplementedError


class GradualPruning(GrowingShare):
    """Takes the smallest weights of each layer out in the first half.

    Parameters
    ----------
    shares : mapping of str to float
        Of each layer's weights, by module path, in the end.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.shares = shares

    def choose(self, network: FakeQuantized, grown: float) -> None:
        for name, layer in network.weighted.items():
            if share := self.shares.get(name, 0.0):
                layer.weight_quantizer.prune(layer.master_weight, grown * share)


def fine_tune(network: FakeQuantized, teacher: nn.Module, data: "Dataset", recipe: QuantizedRecipe,
              method: Method, *, seed: int, progress: Progress | None) -> None:
    """Calibrate a quantized network and train it with Adam; it is changed in place.

    Weight and activation scales are chosen anew at each epoch of the first half, then stay. With ``epochs = 0`` it is
    only calibrated. Where it computes, and whether it goes on from a checkpoint, the :mod:`~.session` says.

    Parameters
    ----------
    network : FakeQuantized
        The network.
    teacher : torch.nn.Module
        The float network.
    data : Dataset
        Training images.
    recipe : QuantizedRecipe
        The options; a phase of several has its own ``epochs`` and ``learning_rate``.
    method : Method
        What the recipe does meanwhile.
    seed : int
        Decides the order of the images and their shifts.
    progress : callable or None
        Called after each epoch.

    Raises
    ------
    ModelError
        If the loss is no number any more.
    """
    device, training = current().device, teacher.training
    network.to(device)
    teacher.to(device).eval()
    try:
        with _making_tensors_on(device, device):
            _train(network, teacher, data, recipe, method, seed, progress)
    finally:
        network.to("cpu").coarse = False
        teacher.to("cpu").train(training)


def _making_tensors_on(place: torch.device, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """New tensors are made in that place; nothing to do when all is on the CPU."""
    return contextlib.nullcontext() if device.type == "cpu" else place


def _train(network: FakeQuantized, teacher: nn.Module, data: "Dataset", recipe: QuantizedRecipe, method: Method,
           seed: int, progress: Progress | None) -> None:
    session = current()
    host = torch.device("cpu")  # where images and chances are made, the same ones for every device
    generator = torch.Generator().manual_seed(seed)
    with _making_tensors_on(host, session.device):
        images, labels = torch.tensor(data.images), torch.tensor(data.labels)
        chosen = torch.randperm(len(images), generator=generator)[:recipe.calibration_images]
    sample = (images[chosen].float() / PIXEL_SCALE).to(session.device)
    epochs = recipe.epochs_for(len(images))
    steps = -(-len(labels) // recipe.batch)
    settled, step = int(REFINE * epochs), 0
    method.begin(network, settled * steps)
    if not method.scaled:
        _refine(network, sample, recipe)
    if epochs == 0:
        return
    optimizer = method.optimizer(network, recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=max(epochs * steps, LEAST_SCHEDULE), pct_start=WARM_UP)
    plan = f"{type(method).__name__} {epochs} {recipe.batch} {recipe.learning_rate}"
    state = {"network": network, "method": method, "optimizer": optimizer, "schedule": schedule, "generator": generator}
    done = session.begin(plan, state)
    step = done * steps
    threads = torch.get_num_threads()
    small = recipe.batch * _multiplications(network) < SMALL_STEP
    if small:
        torch.set_num_threads(1)
    elif supported() and session.device.type == "cpu":
        network.coarse = True
        teacher = coarse_twin(teacher, sample)
    try:
        for epoch in range(done + 1, epochs + 1):
            if epoch > 1:
                method.before_epoch(network)
            if 1 < epoch <= 1 + settled:
                method.before_scales(network, step)
                if not method.scaled:
                    _refine(network, sample, recipe)
            total = 0.0
            with _making_tensors_on(host, session.device):
                order = torch.randperm(len(labels), generator=generator)
            for index in order.split(recipe.batch):
                method.before_step(network, step)
                with _making_tensors_on(host, session.device):
                    x = augmented(images[index].float() / PIXEL_SCALE, recipe, generator)
                if not small:
                    x = x.contiguous(memory_format=torch.channels_last)
                x = x.to(session.device)
                with parametrize.cached():
                    logits = network(x).float()
                loss = loss_of(logits, teacher, x, labels[index].to(session.device), recipe,
                               network.graph.output_sizes)
                total += loss.item() * len(index)
                if (extra := method.loss(network)) is not None:
                    loss = loss + extra
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                method.after_backward(network, step)
                optimizer.step()
                method.after_step(network, step)
                schedule.step()
                step += 1
            if not total < float("inf"):
                raise ModelError(f"recipe {recipe.name}: the training diverged in epoch {epoch}; lower learning_rate "
                                 f"(now {recipe.learning_rate})")
            session.save(plan, epoch, state)
            if progress is not None:
                progress(epoch, epochs, total / len(labels))
    finally:
        torch.set_num_threads(threads)


def augmented(x: Tensor, recipe: QuantizedRecipe, generator: torch.Generator) -> Tensor:
    """Images shifted and mirrored by chance."""
    from ..train import shift_randomly

    if recipe.shift:
        x = shift_randomly(x, recipe.shift, generator)
    if recipe.flip:
        x = torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x.flip(3), x)
    return x


def _multiplications(network: FakeQuantized) -> int:
    """Of one image."""
    return sum(math.prod(layer.layer.out_shape[1:]) * layer.layer.weight.size for layer in network.weighted.values()
               if layer.layer.weight is not None)


def loss_of(logits: Tensor, teacher: nn.Module, x: Tensor, labels: Tensor, recipe: QuantizedRecipe,
            sizes: list[int]) -> Tensor:
    """What training makes smaller, of logits that images `x` led to; of outputs with so many values each."""
    loss = (1 - recipe.distill) * functional.cross_entropy(logits, labels)
    if recipe.distill:
        with torch.no_grad():
            wanted = teacher(x).flatten(1).float()
        # Times the temperature's square, so that its gradients weigh the same whatever the temperature.
        loss = loss + recipe.distill * recipe.temperature**2 * _divergence(
            logits / recipe.temperature, wanted / recipe.temperature, sizes)
    return loss


def _divergence(logits: Tensor, wanted: Tensor, sizes: list[int]) -> Tensor:
    """Kullback-Leibler divergence from the wanted classes, mean over images, of all outputs of so many values each."""
    return torch.stack([
        functional.kl_div(found.log_softmax(1), target.softmax(1), reduction="batchmean")
        for found, target in zip(logits.split(sizes, 1), wanted.split(sizes, 1), strict=True)]).sum()


def _refine(network: FakeQuantized, sample: Tensor, recipe: QuantizedRecipe) -> None:
    for layer in network.weighted.values():
        layer.refit()
    calibrate(network, sample, recipe)
