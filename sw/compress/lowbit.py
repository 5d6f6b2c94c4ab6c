"""Few-bit weights and activations, and no full-precision copy of the weights while they are trained."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .options import QuantizedRecipe
from .recipe import Knob, Progress, register, require

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from .fakequant import FakeQuantized
    from .weights import WeightQuantizer

__all__ = ["LowBit"]


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class LowBit(QuantizedRecipe):
    """Options of the recipe ``lowbit``; a layer may have ``bits`` and ``terms`` of its own.

    Parameters
    ----------
    act_bits : int
        Bits of an activation, 2 to 8.
    bits : int
        Of a weight, 2 (ternary) to 8: ``2**bits - 1`` evenly spaced values; at most ``max_shift + 1``.
    terms : int
        Powers of two in a value, at most; values with more are left out.
    gain : float
        A weight moves to the neighbouring value with the probability tanh(gain x residue / distance); the residue
        collects the optimizer's steps.
    keep : float
        Share of a residue that is left after each step, 0 to 1.
    width : float
        Of the rectangle, in steps between activations, that stands for the gradient of each of these steps, 0.1 to 8;
        with 1 the rectangles touch, and the gradient passes where no activation is clamped.

    Notes
    -----
    Deng, Jiao, Pei, Wu and Li, "GXNOR-Net: training deep neural networks with ternary weights and activations without
    full-precision memory under a unified discretization framework", arXiv:1705.09283: moves between levels are its
    discrete state transition, rectangles its derivative approximation. There a residue counts for one step only, which
    is ``keep = 0``.
    """

    name: ClassVar[str] = "lowbit"
    knob: ClassVar[Knob | None] = Knob("bits", 8, 2)
    of_layers: ClassVar[tuple[str, ...]] = ("bits", "terms")

    act_bits: int = 4
    bits: int = 3
    terms: int = 2
    gain: float = 3.0
    keep: float = 0.9
    width: float = 1.0

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse values that the device does not have."""
        require(where, "bits", options["bits"], int, 2, min(8, self.max_shift + 1))
        require(where, "terms", options["terms"], int, 1, 8)
        require(where, "gain", self.gain, float, 0, 1e6)
        require(where, "keep", self.keep, float, 0, 1)
        require(where, "width", self.width, float, 0.1, 8)

    def quantizer(self, layer: str) -> "WeightQuantizer":
        from .discrete import DiscreteWeights

        options = self.options_of(layer)
        return DiscreteWeights(options["bits"], options["terms"])

    def train(self, network: "FakeQuantized", teacher: "torch.nn.Module", data: "Dataset", *, seed: int,
              progress: Progress | None) -> None:
        """Round the weights, then let them move from value to value."""
        from .discrete import DiscreteSteps
        from .training import fine_tune

        for layer in network.chain:
            layer.output.width = float(self.width)
        method = DiscreteSteps(gain=self.gain, keep=self.keep, seed=seed)
        fine_tune(network, teacher, data, self, method, seed=seed, progress=progress)
