"""Codebooks learned by self-organizing maps, each for what the one before leaves over."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from .clustered import MOST_VALUES
from .pq import PQ
from .recipe import register, require

if TYPE_CHECKING:
    from .fakequant import ConvLayer

__all__ = ["SOM"]


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class SOM(PQ):
    """Options of the recipe ``som``; a layer may have those of ``pq`` but ``entries``, and ``stages``, of its own.

    Parameters
    ----------
    stages : sequence of int
        Units of each map, 1 to 256: the first map learns the weights, each further one what the maps before leave over,
        and a weight is the sum of one unit of each.

    Notes
    -----
    Kohonen, "The self-organizing map", Proceedings of the IEEE 78(9), 1990; stages: Juang and Gray, "Multiple stage
    vector quantization for speech coding", ICASSP 1982. Training and snapping are those of ``pq``.
    """

    name: ClassVar[str] = "som"
    of_layers: ClassVar[tuple[str, ...]] = ("prune", "dimension", "stages", "terms", "span")

    stages: tuple[int, ...] = (8, 4)
    learner: str = "som"
    dimension: int = 1

    def __post_init__(self) -> None:
        self.combinations(f"recipe {self.name}", {"stages": self.stages})
        object.__setattr__(self, "stages", tuple(self.stages))
        super().__post_init__()

    def combinations(self, where: str, options: Mapping[str, Any]) -> int:
        """Sums of one unit of each stage."""
        stages = options["stages"]
        if not isinstance(stages, Sequence) or isinstance(stages, str) or not len(stages):
            raise ModelError(f"{where}: stages must be numbers of units, as [8, 4], not {stages!r}")
        for units in stages:
            require(where, "a number of stages", units, int, 1, MOST_VALUES)
        return math.prod(stages)

    def codewords(self, name: str, layer: "ConvLayer") -> tuple[tuple[int, ...], int]:
        """One codebook of vectors for each stage."""
        options = self.options_of(name)
        return tuple(options["stages"]), options["dimension"]
