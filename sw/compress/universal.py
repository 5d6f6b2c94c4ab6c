"""Universal quantization: dithered lattices and universal source codes, which need no statistics of the weights."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .assigned import AssignedRecipe
from .recipe import register, require

if TYPE_CHECKING:
    from ..data import Dataset
    from .fakequant import FakeQuantized
    from .phases import PruningWithMoments

__all__ = ["Universal"]

STEPS = 0.02, 8.0


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Universal(AssignedRecipe):
    """Options of the recipe ``universal``; a layer may have ``prune``, ``terms`` and ``span`` of its own.

    Parameters
    ----------
    dimension : int
        Weights in a vector of the lattice, 1 to 4: the integer lattice times the step, one dither for all of a vector.
        Vectors that are quantized alike share their values.
    step : float
        Of the lattice, in relation to the root mean square of all weights that stay. The same in all layers.
    dither : float
        Width of the uniform dither in steps, 0 (none) to 1. It comes from the seed.
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
        Bits a weight, codewords and dictionaries, for which ``step`` is found.
    target_size : int or None
        Bytes of the whole image, likewise.

    Notes
    -----
    Choi, El-Khamy and Lee, "Universal deep neural network compression", arXiv:1802.02271, after Ziv, "On universal
    quantization", 1985. The dither is not subtracted on the device: it randomizes the rounding, and the training of
    values makes up for what it adds.
    """

    name: ClassVar[str] = "universal"

    dimension: int = 1
    step: float = 0.5
    dither: float = 1.0

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse lattices that there are not."""
        super().check(where, options)
        require(where, "dimension", self.dimension, int, 1, 4)
        require(where, "step", self.step, float, 1e-3, 100)
        require(where, "dither", self.dither, float, 0, 1)

    def assign(self, network: "FakeQuantized", data: "Dataset", pruning: "PruningWithMoments", *, seed: int) -> None:
        from .lattice import quantize
        from .sharing import FloatCopy, share

        copy = FloatCopy(network)
        grids = {name: self.grid(name) for name in copy.weights}

        def apply(step: float) -> None:
            found = quantize(copy, step=step, dimension=self.dimension, dither=self.dither, seed=seed)
            for name, (labels, centers) in found.items():
                share(network.weighted[name], labels, centers, grids[name])

        def size(step: float) -> float:
            apply(step)
            return self.size_of(network, data)

        apply(self.step if self.target is None else self.turned(size, *STEPS))

    def report(self, network: "FakeQuantized") -> dict[str, Any]:
        """Bytes of the universal codes of all weights and biases."""
        from .archive import CODERS, pack
        from .lower import lower

        lowered = lower(network, network.graph, self, {})
        return {"archive_bytes": {coder: len(pack(lowered, coder)) for coder in CODERS}}
