"""Incremental network quantization: powers of two, frozen part by part while the rest is trained."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from .options import QuantizedRecipe, rising_shares
from .recipe import Knob, Progress, register, require

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from .fakequant import FakeQuantized
    from .weights import WeightQuantizer

__all__ = ["INQ"]


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class INQ(QuantizedRecipe):
    """Options of the recipe ``inq``; a layer may have ``bits`` of its own.

    Parameters
    ----------
    bits : int
        Of a weight: it is 0 or one of ``2**(bits - 2)`` magnitudes of either sign, powers of two from the one nearest
        to the layer's greatest weight downwards. From 2 (ternary) to 5; 6 with ``max_shift = 15``.
    portions : sequence of float
        Shares of each layer's weights that have their values after each step, rising to 1. The epochs are dealt out
        to the steps alike; in the last one only biases are trained.
    first : str
        Which weights get their values first: the ``"largest"`` or ``"random"`` ones.

    Notes
    -----
    Zhou, Yao, Guo, Xu and Chen, "Incremental network quantization: towards lossless CNNs with low-precision weights",
    arXiv:1702.03044: the values are equations 1 to 4, the steps section 2.2. The paper stops at the last step, without
    a training of biases.
    """

    name: ClassVar[str] = "inq"
    knob: ClassVar[Knob | None] = Knob("bits", 5, 2)
    of_layers: ClassVar[tuple[str, ...]] = ("bits",)

    bits: int = 5
    portions: tuple[float, ...] = (0.5, 0.75, 0.875, 1.0)
    first: str = "largest"

    def __post_init__(self) -> None:
        object.__setattr__(self, "portions", rising_shares(f"recipe {self.name}", "portions", self.portions))
        super().__post_init__()

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse bits whose powers of two the device's shifts do not reach."""
        require(where, "bits", options["bits"], int, 2, 2 + int(math.log2(self.max_shift + 1)))
        if self.first not in ("largest", "random"):
            raise ModelError(f"{where}: first must be 'largest' or 'random', not {self.first!r}")

    def quantizer(self, layer: str) -> "WeightQuantizer":
        from .weights import PartlyFrozen, TermGrid

        return PartlyFrozen(TermGrid(1, 1 << self.options_of(layer)["bits"] - 2))

    def train(self, network: "FakeQuantized", teacher: "torch.nn.Module", data: "Dataset", *, seed: int,
              progress: Progress | None) -> None:
        """Freeze a part of each layer, train the rest, and so on."""
        import torch

        from .incremental import freeze_largest, train_phases

        layers = network.weighted.values()
        for layer in layers:
            greatest = float(layer.master_weight.abs().max())
            layer.weight_quantizer.k_top = -math.floor(math.log2(4 / 3 * greatest)) if greatest > 0 else 0
        generator = torch.Generator().manual_seed(seed) if self.first == "random" else None

        def grow(share: float) -> None:
            for layer in layers:
                freeze_largest(layer, share, generator)

        phases = [functools.partial(grow, share) for share in self.portions]
        train_phases(network, teacher, data, self, phases, seed=seed, progress=progress)
