"""Deep compression: weights below a threshold are taken out, the others share values."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from .clustered import ClusteredRecipe
from .recipe import Knob, register, require

if TYPE_CHECKING:
    from .fakequant import ConvLayer, FakeQuantized
    from .training import Method

__all__ = ["DeepCompression"]

MOST_CENTROIDS = 255
"""With 0, the value of the weights that are out, these are all values that a layer may have."""


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepCompression(ClusteredRecipe):
    """Options of the recipe ``deepcompression``; a layer may have ``quality``, ``bits``, ``terms`` and ``span`` of its
    own.

    Parameters
    ----------
    quality : float
        Weights smaller than so many standard deviations of their layer's weights are taken out; 0 takes out none.
    rounds : int
        Steps in which the threshold rises to that, with training in between.
    conv_bits, fc_bits : int
        ``2**bits`` values, at most 255 besides 0, for convolutions and for linear layers; 1 to 8.
    bits : int or None
        The same for a layer of either kind; None takes ``conv_bits`` or ``fc_bits``.
    start : str
        Where k-means begins: centroids evenly between the least and the greatest weight (``"linear"``), evenly in the
        weights' rank (``"density"``), or at ``"random"`` weights.

    Notes
    -----
    Han, Mao and Dally, "Deep compression", arXiv:1510.00149; thresholds: Han, Pool, Tran and Dally, arXiv:1506.02626.
    Snapping centroids to sums of powers of two, and the training after it, are not in the papers.
    """

    name: ClassVar[str] = "deepcompression"
    knob: ClassVar[Knob | None] = Knob("quality", 0.0, 3.0)
    of_layers: ClassVar[tuple[str, ...]] = ("quality", "bits", "terms", "span")

    quality: float = 1.0
    rounds: int = 4
    conv_bits: int = 8
    fc_bits: int = 5
    bits: int | None = None
    start: str = "linear"

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse thresholds, numbers of values and starts that there are not."""
        super().check(where, options)
        require(where, "quality", options["quality"], float, 0, 100)
        require(where, "rounds", self.rounds, int, 1, 1000)
        require(where, "conv_bits", self.conv_bits, int, 1, 8)
        require(where, "fc_bits", self.fc_bits, int, 1, 8)
        if options["bits"] is not None:
            require(where, "bits", options["bits"], int, 1, 8)
        if self.start not in ("linear", "density", "random"):
            raise ModelError(f"{where}: start must be 'linear', 'density' or 'random', not {self.start!r}")

    def pruning(self, network: "FakeQuantized") -> "Method":
        """Weights below each layer's threshold."""
        from .codebooks import ThresholdPruning

        return ThresholdPruning({name: self.options_of(name)["quality"] for name in network.weighted}, self.rounds)

    def codewords(self, name: str, layer: "ConvLayer") -> tuple[tuple[int, ...], int]:
        """Centroids of single weights."""
        bits = self.options_of(name)["bits"]
        if bits is None:
            bits = self.fc_bits if layer.layer.covers_map else self.conv_bits
        return (min(1 << bits, MOST_CENTROIDS),), 1

    def start_of(self, name: str) -> str:
        return self.start
