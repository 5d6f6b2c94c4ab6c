"""BQ-Net: weights that are one signed power of two each, trained through the straight-through estimator."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from .options import QuantizedRecipe
from .recipe import Knob, Progress, register, require

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from .fakequant import FakeQuantized
    from .weights import WeightQuantizer

__all__ = ["BQNet", "LevelSet"]

K_LIMIT = 31
PRUNE_LIMIT = 0.999


@dataclasses.dataclass(frozen=True)
class LevelSet:
    """The values that a layer's weights may take: ``+-2**-k`` for consecutive k, and perhaps 0.

    Parameters
    ----------
    levels : int
        Number of magnitudes. The largest one, a power of two, is the layer's scale.
    zero : bool
        Whether 0 is a value.
    k_min, k_max : int
        Range of k; the scale is chosen so that all levels lie in it.
    prune : float
        Share of the weights, the smallest, that is 0 whatever the values.
    """

    levels: int
    zero: bool
    k_min: int
    k_max: int
    prune: float = 0.0


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class BQNet(QuantizedRecipe):
    """Options of the recipe ``bqnet``; a layer may have all of them of its own.

    Parameters
    ----------
    levels : int
        Magnitudes of a weight, 1 to 16 (and at most ``max_shift + 1``).
    zero : bool
        Whether a weight may be 0.
    k_min, k_max : int
        A weight is ``+-2**-k`` with k from ``k_min`` to ``k_max`` (before a batch norm's power of two).
    prune : float
        Share of each layer's weights, the smallest, that is 0 for good. It grows over the first half of the epochs; in
        the second half the others are trained on.

    Notes
    -----
    Distillation follows Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network" (2015), section 2; the
    straight-through estimator Bengio, Leonard and Courville, arXiv:1308.3432; the growth of the pruned share Zhu and
    Gupta, arXiv:1710.01878, section 3.
    """

    name: ClassVar[str] = "bqnet"
    knob: ClassVar[Knob | None] = Knob("prune", 0.0, 0.98, "rest")
    of_layers: ClassVar[tuple[str, ...]] = ("levels", "zero", "k_min", "k_max", "prune")

    levels: int = 2
    zero: bool = True
    k_min: int = -8
    k_max: int = 16
    prune: float = 0.0

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse level sets that the device does not have, or that have no room."""
        levels = LevelSet(**options)
        require(where, "zero", levels.zero, bool)
        require(where, "levels", levels.levels, int, 1, self.max_shift + 1)
        require(where, "k_min", levels.k_min, int, -K_LIMIT, K_LIMIT)
        require(where, "k_max", levels.k_max, int, -K_LIMIT, K_LIMIT)
        require(where, "prune", levels.prune, float, 0, PRUNE_LIMIT)
        if levels.k_max - levels.k_min + 1 < levels.levels:
            raise ModelError(f"{where}: k from {levels.k_min} to {levels.k_max} has no room for {levels.levels} "
                             f"levels; lower k_min or raise k_max")

    def level_set(self, layer: str) -> LevelSet:
        """The level set of a layer, by module path."""
        return LevelSet(**self.options_of(layer))

    def quantizer(self, layer: str) -> "WeightQuantizer":
        from .weights import PowerOfTwo

        return PowerOfTwo(self.level_set(layer))

    def train(self, network: "FakeQuantized", teacher: "torch.nn.Module", data: "Dataset", *, seed: int,
              progress: Progress | None) -> None:
        """Prune gradually; choose scales anew while that goes on; train through the straight-through estimator."""
        from .training import GradualPruning, fine_tune

        shares = {name: self.options_of(name)["prune"] for name in network.weighted}
        fine_tune(network, teacher, data, self, GradualPruning(shares), seed=seed, progress=progress)
