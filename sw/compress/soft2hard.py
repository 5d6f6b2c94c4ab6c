"""Soft-to-hard quantization: softly assigned weights that become hard ones, with their entropy as a loss."""

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

__all__ = ["Soft2Hard"]


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Soft2Hard(QuantizedRecipe):
    """Options of the recipe ``soft2hard``; a layer may have ``values``, ``terms`` and ``span`` of its own.

    Parameters
    ----------
    values : int
        Values of a layer's weights, 2 to 64: k-means finds the first ones. Some may end without any weight.
    zero : bool
        The value nearest to 0 is 0, and stays.
    rate : float
        Loss, in nats, of one bit of entropy more for every weight. Greater means smaller.
    softest, hardest : float
        The assignment is a softmax of minus this number times squared distances, in relation to the mean distance
        between neighbouring values when it begins. It grows from ``softest`` to ``hardest`` geometrically.
    tune : float
        Share of the epochs after that, in which assignments stay and values are trained as sums of powers of two.
    tune_rate : float
        Multiplies the learning rate in that phase.
    terms : int
        Powers of two in a value, at most.
    span : int
        Places of a value's terms, 1 to ``max_shift + 1``: the least term is ``2**(1 - span)`` of the greatest.

    Notes
    -----
    Agustsson, Mentzer, Tschannen, Cavigelli, Timofte, Benini and Van Gool, "Soft-to-hard vector quantization for
    end-to-end learning compressible representations", arXiv:1704.00648: the soft assignment is its section 3.1, the
    entropy 3.2, the annealing 3.3; here weights are scalars, and each layer has values and a histogram of its own.
    """

    name: ClassVar[str] = "soft2hard"
    of_layers: ClassVar[tuple[str, ...]] = ("values", "terms", "span")
    knob: ClassVar[Knob | None] = Knob("rate", 0.001, 2.0, "log")

    values: int = 12
    zero: bool = True
    rate: float = 0.05
    softest: float = 2.0
    hardest: float = 60.0
    tune: float = 0.3
    tune_rate: float = 0.25
    terms: int = 2
    span: int = 8
    learning_rate: float = 1e-3

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse values that the device does not have, and an assignment that gets softer."""
        require(where, "values", options["values"], int, 2, 64)
        require(where, "terms", options["terms"], int, 1, 8)
        require(where, "span", options["span"], int, 1, self.max_shift + 1)
        require(where, "zero", self.zero, bool)
        require(where, "rate", self.rate, float, 0, 1e3)
        require(where, "softest", self.softest, float, 1e-3, 1e4)
        require(where, "hardest", self.hardest, float, 1e-3, 1e4)
        require(where, "tune", self.tune, float, 0, 1)
        require(where, "tune_rate", self.tune_rate, float, 0, 1)
        if self.softest > self.hardest:
            raise ModelError(f"{where}: softest must be at most hardest, not {self.softest:g} and {self.hardest:g}")

    def quantizer(self, layer: str) -> "WeightQuantizer":
        from .softened import SoftAssignment

        options = self.options_of(layer)
        quantizer = SoftAssignment(options["values"], zero=self.zero)
        quantizer.span = options["span"]  # so much room is kept for channels' own powers of two
        return quantizer

    def train(self, network: "FakeQuantized", teacher: "torch.nn.Module", data: "Dataset", *, seed: int,
              progress: Progress | None) -> None:
        """Train weights and values together while assignments harden; snap the values and train them on."""
        from .phases import Phase, run_phases, split_epochs
        from .sharing import check_alive, share
        from .softened import Annealing, hardened
        from .weights import TermGrid

        first, last = split_epochs(self.epochs_for(len(data)), (self.tune,))

        def harden() -> None:
            for name, layer in network.weighted.items():
                options = self.options_of(name)
                labels, centers = hardened(layer)
                share(layer, labels, centers, TermGrid(options["terms"], options["span"]))
            check_alive(network)

        annealing = Annealing(self.rate, self.softest, self.hardest, first * -(-len(data) // self.batch))
        run_phases(network, teacher, data, self, (Phase(first, annealing), Phase(last, begin=harden,
                                                                               rate=self.tune_rate)),
                   seed=seed, progress=progress)
        check_alive(network)
