"""Multi-level quantization: few values a weight, layer after layer, while the layers after it make up for the loss."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from .options import rising_shares
from .recipe import register
from .slq import SLQ

if TYPE_CHECKING:
    from .fakequant import FakeQuantized

__all__ = ["MLQ"]


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class MLQ(SLQ):
    """Options of the recipe ``mlq``; the others are those of ``slq`` with defaults for ternary weights.

    Parameters
    ----------
    clusters : int
        Values of a layer's weights, 2 to 256; 3 are ternary.
    portions : sequence of float
        Shares of a layer's clusters that have their values after each step, rising to 1.
    tune : float
        Share of the epochs, at the end, in which each layer's values are trained and the assignment stays.
    layer_portions : sequence of float
        Shares of the layers that are quantized after each level, rising to 1; the other layers are trained.
    order : str
        Which layers come first: the ``"first"`` or the ``"last"`` of the network, or the ``"largest"``.

    Notes
    -----
    Xu, Wang, Zhou, Lin and Xiong, arXiv:1803.03289: the levels are its incremental layer compensation.
    """

    name: ClassVar[str] = "mlq"

    clusters: int = 3
    portions: tuple[float, ...] = (1.0,)
    tune: float = 0.25
    layer_portions: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    order: str = "first"

    def __post_init__(self) -> None:
        shares = rising_shares(f"recipe {self.name}", "layer_portions", self.layer_portions)
        object.__setattr__(self, "layer_portions", shares)
        super().__post_init__()

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse orders that there are not."""
        super().check(where, options)
        if self.order not in ("first", "last", "largest"):
            raise ModelError(f"{where}: order must be 'first', 'last' or 'largest', not {self.order!r}")

    def levels(self, network: "FakeQuantized") -> Sequence[Sequence[str]]:
        """Layers by the order in which they are quantized; each level has at least one."""
        names = list(network.weighted)
        if self.order == "last":
            names.reverse()
        elif self.order == "largest":
            names.sort(key=lambda name: -network.weighted[name].master_weight.numel())
        ends = sorted({math.ceil(share * len(names)) for share in self.layer_portions})
        return [names[start:end] for start, end in zip([0, *ends], ends, strict=False)]
