"""Recipe ``keep``: the integers that a quantized file has, without training."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.config import ROUNDINGS
from ...hw.arch.errors import ModelError
from .options import MAX_SHIFT_FIELD
from .recipe import Progress, Recipe, register, require

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from ..frontend.graph import Graph
    from ..network import QuantizedNetwork

__all__ = ["Keep"]


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Keep(Recipe):
    """Options of the recipe ``keep``: weights that are whole multiples of a step, and the quantizers of activations,
    stay as they are in the file.

    Parameters
    ----------
    max_shift : int
        Largest left shift of the device, 0 to 15.
    acc_bits : int
        Accumulator width of the device, 16 to 32.
    rounding : str
        Of the device: ``"half_up"``, ``"half_even"``, or ``"auto"``: the one with which more is exact, ``half_up`` if
        both are alike.

    Notes
    -----
    Quantizers of QONNX (A. Pappalardo et al., "QONNX: Representing arbitrary-precision quantized neural networks",
    arXiv:2206.07527) and QuantizeLinear of ONNX round halves to even integers.
    """

    name: ClassVar[str] = "keep"
    trains: ClassVar[bool] = False

    max_shift: int = 7
    acc_bits: int = 24
    rounding: str = "auto"

    def __post_init__(self) -> None:
        where = f"recipe {self.name}"
        require(where, "max_shift", self.max_shift, int, 0, MAX_SHIFT_FIELD)
        require(where, "acc_bits", self.acc_bits, int, 16, 32)
        if self.rounding not in ("auto", *ROUNDINGS):
            raise ModelError(f"{where}: rounding must be one of auto, {', '.join(ROUNDINGS)}, not {self.rounding!r}")

    @property
    def guard(self) -> int:
        """Products are exact."""
        return self.max_shift

    def run(self, model: "torch.nn.Module", graph: "Graph", train_data: "Dataset", *, seed: int,
            progress: Progress | None) -> "QuantizedNetwork":
        """Take over the file's integers; see :func:`~.api.compress`.

        Raises
        ------
        ModelError
            If weights are no multiples of a step, or what a layer reads is not quantized.
        OverflowProofError
            If an accumulator could leave ``acc_bits``.
        """
        from .kept import keep

        chosen = ROUNDINGS if self.rounding == "auto" else (self.rounding,)
        found = keep(graph, self, chosen[0])
        for rounding in chosen[1:]:
            if found.differences:
                found = min(found, keep(graph, self, rounding), key=lambda kept: len(kept.differences))
        metadata: dict[str, Any] = {"recipe": self.name, "options": self.to_dict(), "seed": seed,
                                    "dataset": train_data.name, "exact": not found.differences}
        if found.differences:
            metadata["differences"] = list(found.differences)
        return dataclasses.replace(found.network, metadata=metadata)
