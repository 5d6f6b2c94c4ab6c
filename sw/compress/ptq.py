"""Compression after training, without any more: columns quantized one by one, errors made up for, bits counted."""

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

__all__ = ["PTQ"]



@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class PTQ(QuantizedRecipe):
    """Options of the recipe ``ptq``; a layer may have ``terms``, ``span`` and ``slope`` of its own.

    Parameters
    ----------
    slope : float
        What a bit is worth: nats of loss that one more bit for every weight must save. Greater means smaller and less
        accurate; zeros come by themselves.
    target_bits : float or None
        Bits a weight, codewords and dictionaries, for which slopes are scaled.
    target_size : int or None
        Bytes of the whole image, for which slopes are scaled.
    terms : int
        Most powers of two of a weight, 1 to 4.
    span : int
        Places of a weight's terms, 1 to ``max_shift + 1``.
    term_bits : float
        Bits that each term of a weight counts as besides its codeword: saves cycles.
    sweeps : int
        Times that a layer's weights are chosen, each with the codeword lengths of the last, 1 to 20.
    damping : float
        Share of their mean that is added to the second moments' diagonal.
    ordered : bool
        Taps with the greatest moments are quantized first.
    correction : float
        Share of the error of the layers before that a layer's weights are made to correct, 0 to 1.

    Notes
    -----
    The sweep follows Frantar and Alistarh, arXiv:2208.11580 and arXiv:2210.17323; see :mod:`~.sweep` for its form here.
    """

    name: ClassVar[str] = "ptq"
    trains: ClassVar[bool] = False
    knob: ClassVar[Knob | None] = Knob("slope", 1e-4, 1.0, "log")
    of_layers: ClassVar[tuple[str, ...]] = ("terms", "span", "slope")

    slope: float = 0.02
    target_bits: float | None = None
    target_size: int | None = None
    terms: int = 2
    span: int = 8
    term_bits: float = 0.0
    sweeps: int = 3
    damping: float = 0.01
    ordered: bool = True
    correction: float = 1.0

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse grids that the device does not have, two targets, and training."""
        require(where, "terms", options["terms"], int, 1, 4)
        require(where, "span", options["span"], int, 1, self.max_shift + 1)
        require(where, "slope", options["slope"], float, 0, 1e6)
        for name, kind, low, high in (("term_bits", float, 0, 100), ("sweeps", int, 1, 20), ("damping", float, 0, 10),
                                      ("ordered", bool, None, None), ("correction", float, 0, 1)):
            require(where, name, getattr(self, name), kind, low, high)
        if self.target_bits is not None:
            require(where, "target_bits", self.target_bits, float, 0.01, 32)
        if self.target_size is not None:
            require(where, "target_size", self.target_size, int, 1, 1 << 40)
        if self.target_bits is not None and self.target_size is not None:
            raise ModelError(f"{where}: target_bits and target_size are two targets; leave one of them out")
        if self.epochs:
            raise ModelError(f"{where}: epochs must be 0 or left out, not {self.epochs}: this recipe does not train")

    @property
    def target(self) -> float | None:
        """Bits a weight or bytes, if there is one."""
        return self.target_size or self.target_bits

    @property
    def target_text(self) -> str:
        """The target as it was given."""
        return f"target_size = {self.target_size}" if self.target_size else f"target_bits = {self.target_bits}"

    def quantizer(self, layer: str) -> "WeightQuantizer":
        from .weights import FreeWeights

        return FreeWeights(self.options_of(layer)["span"])

    def train(self, network: "FakeQuantized", teacher: "torch.nn.Module", data: "Dataset", *, seed: int,
              progress: Progress | None) -> None:
        """Measure on sample images, quantize layer after layer, and find the slope for a target."""
        from .posttraining import PostTraining

        PostTraining(network, self, data, seed=seed, progress=progress).run()
