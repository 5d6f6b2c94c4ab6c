"""Recipes that prune, give each weight a value of few for good, and train the values."""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import CapacityError, ModelError
from .options import QuantizedRecipe
from .recipe import Knob, Progress, require

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from .fakequant import FakeQuantized
    from .phases import PruningWithMoments
    from .weights import TermGrid, WeightQuantizer

__all__ = ["AssignedRecipe"]

PRUNE_LIMIT = 0.9999
SAMPLES = 100
"""Images that activations are calibrated on when a size is measured: it hardly depends on them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AssignedRecipe(QuantizedRecipe, abc.ABC):
    """Options of pruning, of values and of a target. Subclasses say which value a weight gets (:meth:`assign`).

    Parameters
    ----------
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
        Bits a weight, codewords and dictionaries, for which the recipe's knob is turned.
    target_size : int or None
        Bytes of the whole image, for which the recipe's knob is turned.
    """

    of_layers: ClassVar[tuple[str, ...]] = ("prune", "terms", "span")
    knob: ClassVar[Knob | None] = Knob("prune", 0.0, 0.98, "rest")

    prune: float = 0.0
    tune: float = 0.2
    snapped: float = 0.2
    tune_rate: float = 0.25
    terms: int = 2
    span: int = 8
    target_bits: float | None = None
    target_size: int | None = None

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse values that the device does not have, and targets of nothing."""
        require(where, "prune", options["prune"], float, 0, PRUNE_LIMIT)
        require(where, "terms", options["terms"], int, 1, 8)
        require(where, "span", options["span"], int, 1, self.max_shift + 1)
        for name in ("tune", "snapped", "tune_rate"):
            require(where, name, getattr(self, name), float, 0, 1)
        if self.tune + self.snapped > 1:
            raise ModelError(f"{where}: tune and snapped must be shares of all epochs, together at most 1, not "
                             f"{self.tune:g} and {self.snapped:g}")
        if self.target_bits is not None:
            require(where, "target_bits", self.target_bits, float, 1e-3, 64)
        if self.target_size is not None:
            require(where, "target_size", self.target_size, int, 1, 1 << 40)
        if self.target_bits is not None and self.target_size is not None:
            raise ModelError(f"{where}: target_bits and target_size must not both be given; leave one of the two out")

    def grid(self, layer: str) -> "TermGrid":
        """What a layer's values may be, by module path."""
        from .weights import TermGrid

        options = self.options_of(layer)
        return TermGrid(options["terms"], options["span"])

    def quantizer(self, layer: str) -> "WeightQuantizer":
        from .weights import FreeWeights

        return FreeWeights(self.options_of(layer)["span"])

    @abc.abstractmethod
    def assign(self, network: "FakeQuantized", data: "Dataset", pruning: "PruningWithMoments", *, seed: int) -> None:
        """Give each weight that stays a value: all layers get :class:`~.weights.SharedWeights`."""

    def train(self, network: "FakeQuantized", teacher: "torch.nn.Module", data: "Dataset", *, seed: int,
              progress: Progress | None) -> None:
        """Prune, assign, train the values, snap them, train them on."""
        from .phases import Phase, PruningWithMoments, run_phases, split_epochs
        from .sharing import check_alive, reshare

        pruning = PruningWithMoments({name: self.options_of(name)["prune"] for name in network.weighted})
        first, tune, snapped = split_epochs(self.epochs_for(len(data)), (self.tune, self.snapped))

        def assign() -> None:
            self.assign(network, data, pruning, seed=seed)
            check_alive(network)
            reshare(network, dict.fromkeys(network.weighted))

        def snap() -> None:
            reshare(network, {name: self.grid(name) for name in network.weighted})

        run_phases(network, teacher, data, self, (
            Phase(first, pruning), Phase(tune, begin=assign, rate=self.tune_rate),
            Phase(snapped, begin=snap, rate=self.tune_rate)), seed=seed, progress=progress)
        check_alive(network)

    @property
    def target(self) -> float | None:
        """Bits a weight or bytes, if there is one."""
        return self.target_size if self.target_bits is None else self.target_bits

    def turned(self, size: Callable[[float], float], low: float, high: float) -> float:
        """The knob, from `low` to `high`, with which the network has the target's size."""
        from .rate import turn_until

        assert self.target is not None
        return turn_until(size, self.target, low, high, where=f"recipe {self.name}",
                          what="{} bytes" if self.target_bits is None else "{} bits a weight")

    def size_of(self, network: "FakeQuantized", data: "Dataset") -> float:
        """Bytes of the image, or bits a weight, whichever there is a target for, as the weights now are; infinite where
        a dictionary can't hold the values."""
        import torch

        from ..data import PIXEL_SCALE
        from .calibrate import calibrate
        from .measure import compiled
        from .rate import network_bits

        calibrate(network, torch.tensor(data.images[:SAMPLES]).float() / PIXEL_SCALE, self)
        try:
            if self.target_bits is not None:
                return network_bits(network) / sum(layer.weight.numel() for layer in network.weighted.values())
            return float(compiled(network, self).size)
        except CapacityError:  # more values than a dictionary holds
            return math.inf
