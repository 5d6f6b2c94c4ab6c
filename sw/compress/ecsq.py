"""Hessian-weighted and entropy-constrained scalar quantization, all layers together."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from .assigned import AssignedRecipe
from .recipe import register, require

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Dataset
    from .constrained import Assignment, Points
    from .fakequant import FakeQuantized
    from .phases import PruningWithMoments
    from .sharing import FloatCopy

__all__ = ["ECSQ"]

MOST_VALUES = 255
SLOPES, STEPS = (1e-6, 1.0), (1e-3, 4.0)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class ECSQ(AssignedRecipe):
    """Options of the recipe ``ecsq``; a layer may have ``prune``, ``terms`` and ``span`` of its own.

    Parameters
    ----------
    method : str
        ``"entropy"`` makes errors plus codeword lengths small, ``"kmeans"`` errors alone, for a number of values;
        ``"uniform"`` rounds to bins of one width, and takes their weighted means as values.
    values : int
        Values to begin with, 2 to 255: ``"kmeans"`` keeps so many.
    slope : float
        For ``"entropy"``: what a bit is worth, in relation to the mean of importance times squared weight. Greater
        means smaller.
    step : float
        For ``"uniform"``: width of the bins, in relation to the root mean square of the weights that stay.
    joint : bool
        Whether all layers have the same values, as long as these are not trained.
    importance : str
        Of a weight's squared error: ``"samples"`` (second derivatives from ``samples`` images), ``"moments"`` (the
        square root of Adam's second moments), or ``"none"`` (all alike).
    samples : int
        Images for second derivatives.
    prune : float
        Share of each layer's weights, the smallest, that is 0 for good. It grows over the first half of the epochs of
        the first phase, which trains float weights.
    tune : float
        Share of the epochs in which values are trained, still float: a value's gradient is the sum of its weights'.
    snapped : float
        Share of the epochs in which values are trained on as sums of powers of two.
    tune_rate : float
        Multiplies the learning rate in these two phases.
    terms : int
        Powers of two in a value, at most.
    span : int
        Places of a value's terms, 1 to ``max_shift + 1``: the least term is ``2**(1 - span)`` of the greatest.
    target_bits : float or None
        Bits a weight, codewords and dictionaries, for which ``slope``, ``step`` or ``values`` is found.
    target_size : int or None
        Bytes of the whole image, likewise.

    Notes
    -----
    Choi, El-Khamy and Lee, "Towards the limit of network quantization", arXiv:1612.01543: importance is its section 3,
    ``"kmeans"`` 3.3, ``"moments"`` 3.5, ``"uniform"`` 4.2 and ``"entropy"`` 4.3. There, all layers also share one
    Huffman code; here each has a code and a dictionary of its own, and its values are trained apart from the others'.
    """

    name: ClassVar[str] = "ecsq"

    method: str = "entropy"
    values: int = 64
    slope: float = 0.01
    step: float = 0.5
    joint: bool = True
    importance: str = "samples"
    samples: int = 1000

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse methods that there are not."""
        super().check(where, options)
        require(where, "values", self.values, int, 2, MOST_VALUES)
        require(where, "slope", self.slope, float, 0, 1e3)
        require(where, "step", self.step, float, 1e-3, 100)
        require(where, "joint", self.joint, bool)
        require(where, "samples", self.samples, int, 1, 1_000_000)
        if self.method not in ("entropy", "kmeans", "uniform"):
            raise ModelError(f"{where}: method must be 'entropy', 'kmeans' or 'uniform', not {self.method!r}")
        if self.importance not in ("samples", "moments", "none"):
            raise ModelError(f"{where}: importance must be 'samples', 'moments' or 'none', not {self.importance!r}")

    def assign(self, network: "FakeQuantized", data: "Dataset", pruning: "PruningWithMoments", *, seed: int) -> None:
        from .constrained import MOST_BINS
        from .sharing import FloatCopy, share

        copy = FloatCopy(network)
        importance = self._importance(network, copy, data, pruning, seed)
        groups = [list(copy.weights)] if self.joint else [[name] for name in copy.weights]
        points = [copy.points(names, importance) for names in groups]
        grids = {name: self.grid(name) for name in copy.weights}

        def apply(recipe: ECSQ) -> None:
            for names, group in zip(groups, points, strict=True):
                found = recipe._quantized(group, seed)
                labels = copy.spread(names, found.labels, int(found.centers.abs().argmin()))
                for name in names:
                    share(network.weighted[name], labels[name], found.centers, grids[name])

        if self.target is None:
            return apply(self)

        def size(recipe: ECSQ) -> float:
            apply(recipe)
            return self.size_of(network, data)

        if self.method == "kmeans":
            values = self.turned(lambda fewer: size(self.replace(values=round(MOST_VALUES / fewer))), 1.0,
                                 MOST_VALUES / 2)
            return apply(self.replace(values=round(MOST_VALUES / values)))
        knob, (low, high) = ("slope", SLOPES) if self.method == "entropy" else ("step", STEPS)
        if self.method == "uniform":  # no finer than there are places for bins
            low = max(low, *(float(group.weight.abs().max()) / (MOST_BINS * group.size) for group in points))
        found = self.turned(lambda value: size(self.replace(**{knob: value})), low, max(low, high))
        return apply(self.replace(**{knob: found}))

    def _quantized(self, points: "Points", seed: int) -> "Assignment":
        """The values of some weights."""
        from .constrained import entropy_constrained, kmeans, uniform

        if self.method == "kmeans":
            return kmeans(points, self.values, seed)
        if self.method == "uniform":
            return uniform(points, self.step * points.size, f"recipe {self.name}")
        return entropy_constrained(points, self.values, self.slope)

    def _importance(self, network: "FakeQuantized", copy: "FloatCopy", data: "Dataset", pruning: "PruningWithMoments",
                    seed: int) -> "dict[str, Tensor]":
        """Of each weight, by layer."""
        import torch

        from ..data import PIXEL_SCALE
        from .importance import diagonal, evened

        if self.importance == "none":
            return _related({name: torch.ones_like(weight) for name, weight in copy.weights.items()}, copy)
        if self.importance == "moments":
            moments = pruning.moments(network)
            if moments is None:
                raise ModelError(f"recipe {self.name}: importance = 'moments' needs epochs before the values are "
                                 f"chosen; raise epochs, lower tune and snapped, or take 'samples'")
            return _related({name: evened(moment.sqrt()) for name, moment in moments.items()}, copy)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(data), generator=generator)[:self.samples].numpy()
        found = diagonal(network, torch.tensor(data.images[chosen]).float() / PIXEL_SCALE, generator)
        return _related({name: evened(importance) for name, importance in found.items()}, copy)


def _related(importance: "dict[str, Tensor]", copy: "FloatCopy") -> "dict[str, Tensor]":
    """In relation to the mean of importance times squared weight, over the weights that stay."""
    total = sum(float((importance[name] * copy.weights[name].square())[kept].sum()) for name, kept in copy.kept.items())
    mean = total / sum(int(kept.sum()) for kept in copy.kept.values())
    return {name: each / mean if mean > 0 else each for name, each in importance.items()}
