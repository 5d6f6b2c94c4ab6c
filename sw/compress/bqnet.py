"""BQ-Net: weights that are one signed power of two each, trained through the straight-through estimator."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from ..network import QuantizedNetwork
from .recipe import Progress, Recipe, register, require

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from ..frontend.graph import Graph

__all__ = ["BQNet", "LevelSet"]

MAX_SHIFT_FIELD = 15
K_LIMIT = 31
PRUNE_LIMIT = 0.999
CHOSEN_STEPS = 3000
CHOSEN_EPOCHS = (4, 40)


@dataclasses.dataclass(frozen=True)
class LevelSet:
    """The values that a layer's weights may take: ``+-2**-k`` for consecutive k, and perhaps 0.

    Parameters
    ----------
    levels : int
        Number of magnitudes. The largest one, a power of two, is the layer's scale.
    zero : bool
        Whether 0 is a value.
    k_min, k_max : int
        Range of k; the scale is chosen so that all levels lie in it.
    prune : float
        Share of the weights, the smallest, that is 0 whatever the values.
    """

    levels: int
    zero: bool
    k_min: int
    k_max: int
    prune: float = 0.0


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class BQNet(Recipe):
    """Options of the recipe ``bqnet``.

    Parameters
    ----------
    levels : int
        Magnitudes of a weight, 1 to 16 (and at most ``max_shift + 1``).
    zero : bool
        Whether a weight may be 0.
    k_min, k_max : int
        A weight is ``+-2**-k`` with k from ``k_min`` to ``k_max`` (before a batch norm's power of two).
    prune : float
        Share of each layer's weights, the smallest, that is 0 for good. It grows over the first half of the epochs; in
        the second half the others are trained on.
    layers : mapping
        ``levels``, ``zero``, ``k_min``, ``k_max``, ``prune`` of single layers, by module path; the path of a block is
        that of all layers in it.
    act_bits : int
        Bits of an activation, 2 to 8.
    max_shift : int
        Largest left shift of the device, 0 to 15.
    guard_bits : int or None
        Fractional bits of a product that the device keeps; None keeps all, 0 is ``sign(w) (x >> k)``, truncated.
        The training's forward pass truncates likewise.
    acc_bits : int
        Accumulator width of the device, 16 to 32.
    raw_output : bool
        The last layer returns its accumulators (when it is a convolution or linear layer without clamp).
    calibration : str
        How activation scales are chosen: ``"mse"`` (least squared error) or ``"percentile"`` (least scale that holds
        that share of the values).
    percentile : float
        For ``"percentile"``, 50 to 100.
    calibration_images : int
        Images that the scales are chosen on.
    epochs : int or None
        Passes over the training images; 0 quantizes after training, without any. None chooses, so that small data sets
        get more: about 3,000 steps, in 4 to 40 epochs.
    batch : int
        Images a training step.
    learning_rate : float
        Adam's, at its peak; it falls to zero along a cosine.
    distill : float
        Share of the loss that compares with the float network's logits, 0 to 1; the rest compares with the labels.
    temperature : float
        Divides the logits in that comparison.
    shift : int
        Largest random shift of a training image, in pixels.
    flip : bool
        Half of the training images, chosen at random, are mirrored left to right.

    Notes
    -----
    Distillation follows Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network" (2015), section 2; the
    straight-through estimator Bengio, Leonard and Courville, arXiv:1308.3432; the growth of the pruned share Zhu and
    Gupta, arXiv:1710.01878, section 3.
    """

    name: ClassVar[str] = "bqnet"

    levels: int = 2
    zero: bool = True
    k_min: int = -8
    k_max: int = 16
    prune: float = 0.0
    layers: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    act_bits: int = 8
    max_shift: int = 7
    guard_bits: int | None = None
    acc_bits: int = 24
    raw_output: bool = True
    calibration: str = "mse"
    percentile: float = 99.9
    calibration_images: int = 1000
    epochs: int | None = None
    batch: int = 128
    learning_rate: float = 2e-3
    distill: float = 0.5
    temperature: float = 2.0
    shift: int = 1
    flip: bool = False

    def __post_init__(self) -> None:
        where = "recipe bqnet"
        require(where, "max_shift", self.max_shift, int, 0, MAX_SHIFT_FIELD)
        if self.guard_bits is not None:
            require(where, "guard_bits", self.guard_bits, int, 0, self.max_shift)
        if self.epochs is not None:
            require(where, "epochs", self.epochs, int, 0, 100_000)
        for name, kind, low, high in (
                ("act_bits", int, 2, 8), ("acc_bits", int, 16, 32), ("calibration_images", int, 1, 1_000_000),
                ("batch", int, 1, 1_000_000), ("learning_rate", float, 0, 1e3),
                ("percentile", float, 50, 100), ("distill", float, 0, 1), ("temperature", float, 1e-3, 1e3),
                ("shift", int, 0, 1000), ("raw_output", bool, None, None), ("flip", bool, None, None)):
            require(where, name, getattr(self, name), kind, low, high)
        if self.calibration not in ("mse", "percentile"):
            raise ModelError(f"{where}: calibration must be 'mse' or 'percentile', not {self.calibration!r}")
        if not isinstance(self.layers, Mapping):
            raise ModelError(f"{where}: layers must be a table, not {self.layers!r}")
        self._check_levels(where, self._level_set({}))
        for layer, options in self.layers.items():
            if not isinstance(options, Mapping):
                raise ModelError(f"{where}: layers.{layer} must be a table, not {options!r}")
            for option in options:
                if option not in (known := [field.name for field in dataclasses.fields(LevelSet)]):
                    raise ModelError(f"{where}: layers.{layer} has no option {option!r}; it has {', '.join(known)}")
            self._check_levels(f"{where}: layers.{layer}", self._level_set(options))

    def _level_set(self, options: Mapping[str, Any]) -> LevelSet:
        return LevelSet(**{field.name: options.get(field.name, getattr(self, field.name))
                           for field in dataclasses.fields(LevelSet)})

    def _check_levels(self, where: str, levels: LevelSet) -> None:
        require(where, "zero", levels.zero, bool)
        require(where, "levels", levels.levels, int, 1, self.max_shift + 1)
        require(where, "k_min", levels.k_min, int, -K_LIMIT, K_LIMIT)
        require(where, "k_max", levels.k_max, int, -K_LIMIT, K_LIMIT)
        require(where, "prune", levels.prune, float, 0, PRUNE_LIMIT)
        if levels.k_max - levels.k_min + 1 < levels.levels:
            raise ModelError(f"{where}: k from {levels.k_min} to {levels.k_max} has no room for {levels.levels} "
                             f"levels; lower k_min or raise k_max")

    @property
    def guard(self) -> int:
        """``guard_bits`` as a number: ``max_shift`` when the arithmetic is exact."""
        return self.max_shift if self.guard_bits is None else self.guard_bits

    def epochs_for(self, images: int) -> int:
        """``epochs``, or the number chosen for a data set of so many images."""
        if self.epochs is not None:
            return self.epochs
        least, most = CHOSEN_EPOCHS
        return min(max(round(CHOSEN_STEPS * self.batch / images), least), most)

    def level_set(self, layer: str) -> LevelSet:
        """The level set of a layer, by module path; of the paths that lead to it, the longest wins."""
        options: dict[str, Any] = {}
        for path in sorted(self.layers, key=len):
            if _leads_to(path, layer):
                options |= self.layers[path]
        return self._level_set(options)

    def run(self, model: "torch.nn.Module", graph: "Graph", train_data: "Dataset", *, seed: int,
            progress: Progress | None) -> QuantizedNetwork:
        """Quantize, calibrate, train and lower; see :func:`~.api.compress`.

        Raises
        ------
        ModelError
            If ``layers`` names a layer that the network does not have.
        OverflowProofError
            If an accumulator could leave ``acc_bits``.
        """
        from .fakequant import FakeQuantized
        from .lower import lower
        from .training import fine_tune

        weighted = [layer.name for layer in graph.layers if layer.weight is not None and not layer.affine]
        for path in self.layers:
            if not any(_leads_to(path, name) for name in weighted):
                raise ModelError(f"recipe bqnet: layers names {path!r}, which is no layer with weights; the network "
                                 f"has {', '.join(weighted)}")
        for name in weighted:
            self._check_levels(f"recipe bqnet: layer {name}", self.level_set(name))
        network = FakeQuantized(graph, self)
        fine_tune(network, model, train_data, self, seed=seed, progress=progress)
        metadata = {"recipe": self.name, "options": self.to_dict(), "seed": seed, "dataset": train_data.name}
        return lower(network, graph, self, metadata)


def _leads_to(path: str, layer: str) -> bool:
    """Whether a module path is a layer's, or that of a block around it."""
    return layer == path or layer.startswith(f"{path}.")
