"""Product quantization of what pruning leaves: vectors of weights share codewords."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from .bqnet import PRUNE_LIMIT
from .clustered import MOST_VALUES, ClusteredRecipe
from .recipe import Knob, register, require

if TYPE_CHECKING:
    from .fakequant import ConvLayer, FakeQuantized
    from .training import Method

__all__ = ["PQ"]

MOST_DIMENSIONS = 8


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class PQ(ClusteredRecipe):
    """Options of the recipe ``pq``; a layer may have ``prune``, ``dimension``, ``entries``, ``terms`` and ``span`` of
    its own.

    Parameters
    ----------
    prune : float
        Share of each layer's weights, the smallest, that is 0 for good. It grows over the first half of the first part
        of the training.
    dimension : int
        Weights in a vector, 1 to 8: consecutive taps, input channels first.
    entries : int
        Codewords of a layer, 1 to 256.

    Notes
    -----
    Gong, Liu, Yang and Bourdev, "Compressing deep convolutional networks using vector quantization", arXiv:1412.6115;
    training of the codewords: Stock, Joulin, Gribonval, Graham and Jegou, arXiv:1907.05686; masked k-means after
    pruning: Li et al., arXiv:2412.10261, section 4. Snapping to sums of powers of two is ours.
    """

    name: ClassVar[str] = "pq"
    knob: ClassVar[Knob | None] = Knob("prune", 0.0, 0.98, "rest")
    of_layers: ClassVar[tuple[str, ...]] = ("prune", "dimension", "entries", "terms", "span")

    prune: float = 0.5
    dimension: int = 4
    entries: int = 256

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse vectors, codebooks and grids that are too large."""
        super().check(where, options)
        dimension = options["dimension"]
        require(where, "prune", options["prune"], float, 0, PRUNE_LIMIT)
        require(where, "dimension", dimension, int, 1, MOST_DIMENSIONS)
        self.check_values(where, options, 1 + dimension * self.combinations(where, options))

    def combinations(self, where: str, options: Mapping[str, Any]) -> int:
        """Most different vectors of a layer, once their number was checked."""
        require(where, "entries", options["entries"], int, 1, MOST_VALUES)
        return int(options["entries"])

    def pruning(self, network: "FakeQuantized") -> "Method":
        """A growing share of each layer's weights."""
        from .training import GradualPruning

        shares = {name: self.options_of(name)["prune"] for name in network.weighted}
        for name, layer in network.weighted.items():
            if round(shares[name] * (count := layer.master_weight.numel())) == count:
                raise ModelError(f"layer {name}: prune = {shares[name]} takes all {count} weights out; lower its prune")
        return GradualPruning(shares)

    def codewords(self, name: str, layer: "ConvLayer") -> tuple[tuple[int, ...], int]:
        """One codebook of vectors."""
        options = self.options_of(name)
        return (options["entries"],), options["dimension"]
