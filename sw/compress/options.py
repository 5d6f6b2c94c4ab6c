"""What all recipes that train a quantized network have in common."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from ..network import QuantizedNetwork
from .recipe import Progress, Recipe, nearest, require

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from ..frontend.graph import Graph
    from .fakequant import FakeQuantized
    from .weights import WeightQuantizer

__all__ = ["QuantizedRecipe", "rising_shares"]

MAX_SHIFT_FIELD = 15
CHOSEN_STEPS = 3000
CHOSEN_EPOCHS = (4, 40)
CALIBRATIONS = ("mse", "minmax", "percentile")
NOISE_IMAGES = 32
"""On which the layers' signal-to-noise ratios are measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizedRecipe(Recipe):
    """Options of the arithmetic, of activations and of training.

    A recipe adds options of its own, says which of them a single layer may have (:attr:`of_layers`), checks them
    (:meth:`check`), makes the layers' quantizers (:meth:`quantizer`) and trains (:meth:`train`).

    Parameters
    ----------
    layers : mapping
        Options of single layers, by module path; the path of a block is that of all layers in it.
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
        How activation scales are chosen: ``"mse"`` (least squared error), ``"minmax"`` (least scale that clips none of
        the samples' values) or ``"percentile"`` (least scale that holds that share of them).
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
    """

    of_layers: ClassVar[tuple[str, ...]] = ()

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
        where = f"recipe {self.name}"
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
        if self.calibration not in CALIBRATIONS:
            raise ModelError(f"{where}: calibration must be one of {', '.join(CALIBRATIONS)}, not "
                             f"{self.calibration!r}")
        if not isinstance(self.layers, Mapping):
            raise ModelError(f"{where}: layers must be a table, not {self.layers!r}")
        common = {name: getattr(self, name) for name in self.of_layers}
        self.check(where, common)
        for layer, options in self.layers.items():
            if not isinstance(options, Mapping):
                raise ModelError(f"{where}: layers.{layer} must be a table, not {options!r}")
            for option in options:
                if option not in self.of_layers:
                    raise ModelError(f"{where}: layers.{layer} has no option {option!r}"
                                     f"{nearest(option, self.of_layers)}; it has {', '.join(self.of_layers) or 'none'}")
            self.check(f"{where}: layers.{layer}", {**common, **options})

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse bad values of the recipe's own options; `options` are :attr:`of_layers`, the recipe's or a layer's."""

    def quantizer(self, layer: str) -> "WeightQuantizer":
        """What a layer's weights start with, by module path."""
        raise NotImplementedError

    def prepared(self, model: "torch.nn.Module", graph: "Graph", data: "Dataset", *, seed: int,
                 progress: Progress | None) -> "Graph":
        """What is quantized: `graph`, which is that of `model`, or one of the same layers with other weights."""
        return graph

    def train(self, network: "FakeQuantized", teacher: "torch.nn.Module", data: "Dataset", *, seed: int,
              progress: Progress | None) -> None:
        """Calibrate and train a network, in place."""
        raise NotImplementedError

    def report(self, network: "FakeQuantized") -> dict[str, Any]:
        """What the metadata of a trained network tell besides."""
        return {}

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

    def options_of(self, layer: str) -> dict[str, Any]:
        """Options that a layer may have of its own, by module path; of the paths that lead to it, the longest wins."""
        options = {name: getattr(self, name) for name in self.of_layers}
        for path in sorted(self.layers, key=len):
            if _leads_to(path, layer):
                options |= self.layers[path]
        return options

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
        import torch

        from ..data import PIXEL_SCALE
        from .fakequant import FakeQuantized
        from .lower import lower
        from .noise import signal_to_noise

        weighted = [layer.name for layer in graph.layers if layer.weight is not None and not layer.affine]
        for path in self.layers:
            if not any(_leads_to(path, name) for name in weighted):
                raise ModelError(f"recipe {self.name}: layers names {path!r}, which is no layer with weights"
                                 f"{nearest(path, weighted)}; the network has {', '.join(weighted)}")
        for name in weighted:
            self.check(f"recipe {self.name}: layer {name}", self.options_of(name))
        graph = self.prepared(model, graph, train_data, seed=seed, progress=progress)
        network = FakeQuantized(graph, self)
        self.train(network, model, train_data, seed=seed, progress=progress)
        _refuse_dead_layers(network, self.name)
        sample = torch.tensor(train_data.images[:NOISE_IMAGES]).float() / PIXEL_SCALE
        metadata = {"recipe": self.name, "options": self.to_dict(), "seed": seed, "dataset": train_data.name,
                    "signal_to_noise": signal_to_noise(network, self, sample), **self.report(network)}
        return lower(network, graph, self, metadata)


def _refuse_dead_layers(network: "FakeQuantized", recipe: str) -> None:
    """Refuse a network of which a layer has no weight left, though it had some."""
    for name, layer in network.weighted.items():
        before = layer.layer.weight
        if before is not None and before.any() and not bool(layer.numbers().any()):
            raise ModelError(f"layer {name}: recipe {recipe} made all {before.size} weights 0; prune less, or give the "
                             f"layer options of its own")


def _leads_to(path: str, layer: str) -> bool:
    """Whether a module path is a layer's, or that of a block around it."""
    return layer == path or layer.startswith(f"{path}.")


def rising_shares(where: str, name: str, value: object) -> tuple[float, ...]:
    """An option that is a list of shares, each greater than the one before, up to 1."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value):
        shares = tuple(value)
        for share in shares:
            require(where, f"a share of {name}", share, float, 0, 1)
        if all(low < high for low, high in zip((0, *shares), shares, strict=False)) and shares[-1] == 1:
            return shares
    raise ModelError(f"{where}: {name} must be shares that rise from above 0 to 1, as [0.5, 1.0], not {value!r}")
