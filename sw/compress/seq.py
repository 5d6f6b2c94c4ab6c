"""Uniform weights with boundaries by least squares, after linear layers were split into two thinner ones."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..network import QuantizedNetwork
from .options import QuantizedRecipe
from .recipe import Knob, Progress, register, require

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from ..frontend.graph import Graph
    from .fakequant import FakeQuantized
    from .weights import WeightQuantizer

__all__ = ["SEQ"]


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class SEQ(QuantizedRecipe):
    """Options of the recipe ``seq``; a layer may have all of them of its own.

    Parameters
    ----------
    bits : int
        Of a weight, 2 to 8: ``2**bits - 1`` evenly spaced values.
    energy : float
        Share of a linear layer's energy, the sum of its squared singular values, that is kept when it is split into
        two; 0 splits none. Only layers that have fewer weights then are split.
    terms : int
        Powers of two in a value, at most; 8 bits have up to 4.
    span : int
        Places of a value's terms, 1 to ``max_shift + 1``: the least term is ``2**(1 - span)`` of the greatest.

    Notes
    -----
    Low-rank products in place of a network's matrices are in Denton, Zaremba, Bruna, LeCun and Fergus, "Exploiting
    linear structure within convolutional networks for efficient evaluation", arXiv:1404.0736; uniform weights with the
    least squared error in Anwar, Hwang and Sung, "Fixed point optimization of deep convolutional neural networks for
    object recognition" (ICASSP 2015). Snapping to sums of powers of two is ours.
    """

    name: ClassVar[str] = "seq"
    knob: ClassVar[Knob | None] = Knob("bits", 8, 2)
    of_layers: ClassVar[tuple[str, ...]] = ("bits", "energy", "terms", "span")

    bits: int = 4
    energy: float = 0.9
    terms: int = 2
    span: int = 6

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse values that the device does not have."""
        require(where, "bits", options["bits"], int, 2, 8)
        require(where, "energy", options["energy"], float, 0, 1)
        require(where, "terms", options["terms"], int, 1, 8)
        require(where, "span", options["span"], int, 1, self.max_shift + 1)

    def quantizer(self, layer: str) -> "WeightQuantizer":
        from .uniform import Uniform
        from .weights import TermGrid

        options = self.options_of(layer)
        return Uniform(options["bits"], TermGrid(options["terms"], options["span"]))

    def run(self, model: "torch.nn.Module", graph: "Graph", train_data: "Dataset", *, seed: int,
            progress: Progress | None) -> QuantizedNetwork:
        """Split linear layers, then as every recipe that trains."""
        from .lowrank import split_linear

        graph = split_linear(graph, lambda layer: float(self.options_of(layer)["energy"]))
        return super().run(model, graph, train_data, seed=seed, progress=progress)

    def train(self, network: "FakeQuantized", teacher: "torch.nn.Module", data: "Dataset", *, seed: int,
              progress: Progress | None) -> None:
        """Train through the straight-through estimator; find boundaries anew in each epoch."""
        from .training import fine_tune
        from .uniform import FindBoundaries

        method = FindBoundaries(-(-len(data) // self.batch))
        fine_tune(network, teacher, data, self, method, seed=seed, progress=progress)
