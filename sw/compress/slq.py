"""Single-level quantization: clusters of weights, frozen a few at a time while the rest is trained."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from .options import QuantizedRecipe, rising_shares
from .recipe import Knob, Progress, register, require

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from .fakequant import FakeQuantized
    from .weights import TermGrid, WeightQuantizer

__all__ = ["SLQ"]

MOST_CLUSTERS = 256


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class SLQ(QuantizedRecipe):
    """Options of the recipe ``slq``; a layer may have ``clusters``, ``terms``, ``span`` and ``zero`` of its own.

    Parameters
    ----------
    clusters : int
        Values of a layer's weights, 2 to 256: k-means clusters them. 17 are the paper's 5 bits, 3 are ternary.
    portions : sequence of float
        Shares of each layer's clusters that have their values after each step, rising to 1; the rest of the weights is
        trained, then clustered anew. The default freezes 5, 9, 13, 15 and 17 of 17.
    first : str
        Which clusters get their values first: those with the greatest ``"loss"`` (sum of squared errors) or the
        greatest ``"centroid"`` (in magnitude).
    zero : bool
        The cluster nearest to 0 is 0, and the last one.
    terms : int
        Powers of two in a value, at most.
    span : int
        Places of a value's terms, 1 to ``max_shift + 1``: the least term is ``2**(1 - span)`` of the greatest.
    tune : float
        Share of the epochs, at the end, in which each layer's values are trained and the assignment stays.

    Notes
    -----
    Xu, Wang, Zhou, Lin and Xiong, "Deep neural network compression with single and multiple level quantization",
    arXiv:1803.03289. Snapping centroids to sums of powers of two, and ``tune``, are not in the paper.
    """

    name: ClassVar[str] = "slq"
    knob: ClassVar[Knob | None] = Knob("clusters", 65, 3, "log")
    of_layers: ClassVar[tuple[str, ...]] = ("clusters", "zero", "terms", "span")

    clusters: int = 17
    portions: tuple[float, ...] = (0.3, 0.53, 0.77, 0.88, 1.0)
    first: str = "loss"
    zero: bool = True
    terms: int = 2
    span: int = 6
    tune: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "portions", rising_shares(f"recipe {self.name}", "portions", self.portions))
        super().__post_init__()

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse values that the device does not have."""
        require(where, "clusters", options["clusters"], int, 2, MOST_CLUSTERS)
        require(where, "zero", options["zero"], bool)
        require(where, "terms", options["terms"], int, 1, 8)
        require(where, "span", options["span"], int, 1, self.max_shift + 1)
        require(where, "tune", self.tune, float, 0, 1)
        if self.first not in ("loss", "centroid"):
            raise ModelError(f"{where}: first must be 'loss' or 'centroid', not {self.first!r}")

    def grid(self, layer: str) -> "TermGrid":
        """What a layer's values may be."""
        from .weights import TermGrid

        options = self.options_of(layer)
        return TermGrid(options["terms"], options["span"])

    def quantizer(self, layer: str) -> "WeightQuantizer":
        from .weights import PartlyFrozen

        return PartlyFrozen(self.grid(layer))

    def levels(self, network: "FakeQuantized") -> Sequence[Sequence[str]]:
        """Layers by the order in which they are quantized: here, all at once."""
        return [list(network.weighted)]

    def train(self, network: "FakeQuantized", teacher: "torch.nn.Module", data: "Dataset", *, seed: int,
              progress: Progress | None) -> None:
        """Level by level and step by step, freeze clusters and train the rest; train the values at the end."""
        from .incremental import epochs_of, freeze_clusters, share_values, train_phases

        weighted = network.weighted
        for name, layer in weighted.items():
            layer.weight_quantizer.k_top = self.grid(name).scale(layer.master_weight)

        def grow(names: Sequence[str], before: float, share: float) -> None:
            for name in names:
                options = self.options_of(name)
                clusters = options["clusters"]
                freeze_clusters(weighted[name], clusters, round(before * clusters), round(share * clusters),
                                first=self.first, zero=options["zero"])

        phases: list[Callable[[], None]] = [
            functools.partial(grow, names, before, share)
            for names in self.levels(network) for before, share in zip((0.0, *self.portions), self.portions,
                                                                       strict=False)]
        total = self.epochs_for(len(data))
        tuned = round(self.tune * total)
        epochs = epochs_of(total - tuned, len(phases))
        if tuned:
            phases.append(lambda: share_values(weighted, {name: self.grid(name) for name in weighted}))
            epochs.append(tuned)
        train_phases(network, teacher, data, self, phases, epochs=epochs, seed=seed, progress=progress)
