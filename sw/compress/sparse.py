"""Float networks that lose weights before they are quantized, while batch norms and weight decay are still there.

A network whose batch norms are folded bears only small learning rates. Before that it bears large ones, under which the
weights that stay learn to do without the others (Renda, Frankle and Carbin, arXiv:2003.02389: the learning rate goes
back to where it was early in training). The share that is out grows as in Zhu and Gupta, arXiv:1710.01878.
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...hw.arch.errors import ModelError
from ..data import PIXEL_SCALE
from .coarse import supported
from .recipe import Progress
from .session import current
from .training import LEAST_SCHEDULE, PRUNE_STEPS, augmented, grown, loss_of

if TYPE_CHECKING:
    from ..data import Dataset
    from .best import Best

__all__ = ["make_sparse"]

MOMENTUM, DECAY = 0.9, 1e-4
WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""
GROWTH = 0.6
"""Share of the steps in which weights are chosen to be out."""


def make_sparse(model: nn.Module, sizes: list[int], data: "Dataset", recipe: "Best", *, seed: int,
                progress: Progress | None) -> nn.Module:
    """Train a copy of a float network of which ``recipe.keep`` of the weights stay; others are 0.

    Parameters
    ----------
    model : torch.nn.Module
        The network, which is the teacher, too.
    sizes : list of int
        Values of each of its outputs.
    data : Dataset
        Training images.
    recipe : Best
        Its ``sparse_epochs``, ``sparse_rate`` and ``keep``, and what all trainings have in common.
    seed : int
        Decides the order of the images and their shifts.
    progress : callable or None
        Called after each epoch.

    Raises
    ------
    ModelError
        If the loss is no number any more.
    """
    session, epochs = current(), recipe.sparse_epochs
    network, training = copy.deepcopy(model).to(session.device).train(), model.training
    teacher = model.to(session.device).eval()
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() < 2]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": DECAY}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=recipe.sparse_rate, momentum=MOMENTUM, nesterov=True)
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.tensor(data.images), torch.tensor(data.labels)
    steps = epochs * -(-len(labels) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.sparse_rate, total_steps=max(steps, LEAST_SCHEDULE), pct_start=WARM_UP, div_factor=10)
    state = {"network": network, "optimizer": optimizer, "schedule": schedule, "generator": generator}
    plan = f"sparse {epochs} {recipe.batch} {recipe.sparse_rate} {recipe.keep}"
    done = session.begin(plan, state)
    step, last = done * steps // epochs, max(1, int(GROWTH * steps))
    masks = [weight != 0 for weight in weights]
    try:
        for epoch in range(done + 1, epochs + 1):
            total = 0.0
            for index in torch.randperm(len(labels), generator=generator).split(recipe.batch):
                if step % PRUNE_STEPS == 0 and step <= last or step == last:
                    masks = _largest(weights, 1 - (1 - recipe.keep) * grown(step, last))
                _clear(weights, masks)
                x = augmented(images[index].float() / PIXEL_SCALE, recipe, generator)
                x = x.contiguous(memory_format=torch.channels_last).to(session.device)
                with torch.autocast("cpu", torch.bfloat16, enabled=session.device.type == "cpu" and supported()):
                    logits = network(x).flatten(1).float()
                    loss = loss_of(logits, teacher, x, labels[index].to(session.device), recipe, sizes)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(index)
                step += 1
            _clear(weights, masks)
            finite = all(bool(value.isfinite().all()) for value in network.state_dict().values())
            if not (finite and total < float("inf")):
                raise ModelError(f"recipe {recipe.name}: the training diverged in epoch {epoch}; lower sparse_rate "
                                 f"(now {recipe.sparse_rate})")
            session.save(plan, epoch, state)
            if progress is not None:
                progress(epoch, epochs, total / len(labels))
    finally:
        model.to("cpu").train(training)
    return network.to("cpu").eval()


@torch.no_grad()
def _largest(weights: Sequence[Tensor], share: float) -> list[Tensor]:
    """Where that share of all weights is whose magnitudes are the largest, each over the root of its tensor's root mean
    square: tensors of small weights keep more than by magnitude alone, and fewer than if all were of one size."""
    sizes = [weight.abs() / weight.square().mean().sqrt().clamp_min(1e-12).sqrt() for weight in weights]
    every = torch.cat([size.flatten() for size in sizes])
    out = len(every) - round(share * len(every))
    if not out:
        return [torch.ones_like(weight, dtype=torch.bool) for weight in weights]
    limit = every.kthvalue(out).values
    return [size > limit for size in sizes]


@torch.no_grad()
def _clear(weights: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    for weight, mask in zip(weights, masks, strict=True):
        weight.mul_(mask)
