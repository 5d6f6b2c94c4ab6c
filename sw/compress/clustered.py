"""What recipes have in common that prune, learn a codebook for each layer, and train it, free and then snapped."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from ..terms import grid_integers
from .options import QuantizedRecipe, rising_shares
from .recipe import Progress, require

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from .fakequant import ConvLayer, FakeQuantized
    from .training import Method
    from .weights import TermGrid, WeightQuantizer

__all__ = ["ClusteredRecipe", "grid_values"]

MOST_VALUES = 256
"""Of a layer's weights."""
PARTS = 3


def grid_values(terms: int, span: int) -> int:
    """How many integers are sums of at most so many signed powers of two, of so many places."""
    return 2 * len(grid_integers(terms, span)) - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusteredRecipe(QuantizedRecipe):
    """Options of codebooks and of the three parts of their training.

    Parameters
    ----------
    terms : int
        Powers of two in a value, at most.
    span : int
        Places of a value's terms, 1 to ``max_shift + 1``: the least term is ``2**(1 - span)`` of the greatest.
    learner : str
        What finds the codewords: ``"kmeans"``, or ``"som"``, a one-dimensional self-organizing map.
    passes : int
        Most passes of the learner over a layer's vectors.
    radius : float
        Of a map's first neighbourhood, as a share of its units; it shrinks to nothing.
    portions : sequence of float
        Shares of the epochs after which pruning, training of free codewords, and training of snapped codewords end.
    tune_rate : float
        Learning rate of the training of codewords, as a share of ``learning_rate``.
    """

    of_layers: ClassVar[tuple[str, ...]] = ("terms", "span")

    terms: int = 2
    span: int = 6
    learner: str = "kmeans"
    passes: int = 40
    radius: float = 0.25
    portions: tuple[float, ...] = (0.6, 0.8, 1.0)
    tune_rate: float = 0.5

    def __post_init__(self) -> None:
        where = f"recipe {self.name}"
        portions = rising_shares(where, "portions", self.portions)
        if len(portions) != PARTS:
            raise ModelError(f"{where}: portions must be {PARTS} shares, as [0.6, 0.8, 1.0], not {self.portions!r}")
        object.__setattr__(self, "portions", portions)
        super().__post_init__()

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse values that the device does not have, and learners that there are not."""
        require(where, "terms", options["terms"], int, 1, 8)
        require(where, "span", options["span"], int, 1, self.max_shift + 1)
        require(where, "passes", self.passes, int, 1, 10_000)
        require(where, "radius", self.radius, float, 0, 1)
        require(where, "tune_rate", self.tune_rate, float, 0, 100)
        if self.learner not in ("kmeans", "som"):
            raise ModelError(f"{where}: learner must be 'kmeans' or 'som', not {self.learner!r}")

    def check_values(self, where: str, options: Mapping[str, Any], values: int) -> None:
        """Refuse a grid of more values than a dictionary has, where as many as that could be used."""
        terms, span = options["terms"], options["span"]
        count = grid_values(terms, span)
        if min(values, count) > MOST_VALUES:
            raise ModelError(f"{where}: {terms} terms of {span} places have {count} values, and a layer's weights at "
                             f"most {MOST_VALUES}; lower terms or span")

    def grid(self, layer: str) -> "TermGrid":
        """What a layer's values may be."""
        from .weights import TermGrid

        options = self.options_of(layer)
        return TermGrid(options["terms"], options["span"])

    def quantizer(self, layer: str) -> "WeightQuantizer":
        from .weights import FreeWeights

        return FreeWeights(self.options_of(layer)["span"])

    def pruning(self, network: "FakeQuantized") -> "Method":
        """What takes weights out, in the first part of the training."""
        raise NotImplementedError

    def codewords(self, name: str, layer: "ConvLayer") -> tuple[tuple[int, ...], int]:
        """How many codewords each stage of a layer has, and the weights in one."""
        raise NotImplementedError

    def start_of(self, name: str) -> str:
        """Where k-means of single weights begins."""
        return "linear"

    def train(self, network: "FakeQuantized", teacher: "torch.nn.Module", data: "Dataset", *, seed: int,
              progress: Progress | None) -> None:
        """Prune; learn codebooks and train them; snap them and train on."""
        from .codebooks import Codebook
        from .phases import Phase, run_phases

        total = self.epochs_for(len(data))
        ends = [0, *(round(share * total) for share in self.portions)]
        pruned, free, snapped = (after - before for before, after in zip(ends, ends[1:], strict=False))

        def learn() -> None:
            for number, (name, layer) in enumerate(network.weighted.items()):
                layer.use(self._codebook(name, layer, seed + number))

        def snap() -> None:
            for name, layer in network.weighted.items():
                quantizer = layer.weight_quantizer
                assert isinstance(quantizer, Codebook)
                quantizer.snap(self.grid(name))

        phases = [Phase(pruned, self.pruning(network)), Phase(free, begin=learn, rate=self.tune_rate),
                  Phase(snapped, begin=snap, rate=self.tune_rate)]
        run_phases(network, teacher, data, self, phases, seed=seed, progress=progress)

    def _codebook(self, name: str, layer: "ConvLayer", seed: int) -> "WeightQuantizer":
        """Learn a layer's codewords from its weights that are left."""
        import torch

        from .clustering import learn
        from .codebooks import Codebook, to_vectors

        weight = layer.weight.detach()
        mask = layer.weight_quantizer.mask.expand_as(weight).contiguous()
        counts, dimension = self.codewords(name, layer)
        vectors, live = to_vectors(weight * mask, dimension), to_vectors(mask, dimension)
        which = live.any(1)
        found, codewords = learn(vectors[which], live[which], counts, learner=self.learner, start=self.start_of(name),
                                 passes=self.passes, radius=self.radius, seed=seed)
        labels = torch.zeros(len(found), len(vectors), dtype=torch.int64)
        labels[:, which] = found
        return Codebook(codewords, labels, mask)

    def report(self, network: "FakeQuantized") -> dict[str, Any]:
        """The size as the literature counts it, beside that of the image."""
        from .codesizes import published_size

        return {"published_form": published_size(network)}
