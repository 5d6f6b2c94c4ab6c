"""Trainings one after another, each with its own method, learning rate and quantizers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .fakequant import FakeQuantized
from .options import QuantizedRecipe
from .recipe import Progress
from .training import GradualPruning, Method, fine_tune

if TYPE_CHECKING:
    from ..data import Dataset

__all__ = ["Phase", "PruningWithMoments", "run_phases", "split_epochs"]


@dataclasses.dataclass(frozen=True)
class Phase:
    """One training.

    Parameters
    ----------
    epochs : int
        Passes over the images; 0 only calibrates.
    method : Method
        What happens meanwhile.
    begin : callable or None
        What is done before it.
    rate : float
        Multiplies the recipe's learning rate.
    """

    epochs: int
    method: Method = dataclasses.field(default_factory=Method)
    begin: Callable[[], None] | None = None
    rate: float = 1.0


def split_epochs(epochs: int, shares: Sequence[float]) -> list[int]:
    """Epochs dealt out by shares of all of them, the first phase taking what is over; a share above 0 has one epoch at
    least, as long as there are as many."""
    later = [max(round(share * epochs), 1) if share > 0 and epochs > len(shares) else round(share * epochs)
             for share in shares]
    while sum(later) > epochs:
        later[later.index(max(later))] -= 1
    return [epochs - sum(later), *later]


def run_phases(network: FakeQuantized, teacher: nn.Module, data: "Dataset", recipe: QuantizedRecipe,
               phases: Sequence[Phase], *, seed: int, progress: Progress | None) -> None:
    """Train a network phase by phase; each has a warm-up and decay of its own. Arguments as :func:`fine_tune`'s;
    progress counts the epochs of all."""
    total, done = sum(phase.epochs for phase in phases), 0

    def show(epoch: int, _: int, loss: float) -> None:
        if progress is not None:
            progress(done + epoch, total, loss)

    for number, phase in enumerate(phases):
        if phase.begin is not None:
            phase.begin()
        part = recipe.replace(epochs=phase.epochs, learning_rate=recipe.learning_rate * phase.rate)
        fine_tune(network, teacher, data, part, phase.method, seed=seed + number, progress=show)
        done += phase.epochs


class PruningWithMoments(GradualPruning):
    """Takes weights out gradually, and keeps Adam's second moments of the others."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        super().__init__(shares)
        self._made: torch.optim.Optimizer | None = None

    def optimizer(self, network: FakeQuantized, learning_rate: float) -> torch.optim.Optimizer:
        self._made = super().optimizer(network, learning_rate)
        return self._made

    def moments(self, network: FakeQuantized) -> dict[str, Tensor] | None:
        """Running means of squared gradients, by module path; None before the first step."""
        if self._made is None:
            return None
        return {name: self._made.state[layer.original("weight")]["exp_avg_sq"].clone()
                for name, layer in network.weighted.items()}
