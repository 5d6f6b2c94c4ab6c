"""How much each layer suffers: one at a time is quantized or pruned, without training, while the others stay fine."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ...hw.arch.errors import ModelError
from ..data import PIXEL_SCALE
from ..network import QuantizedNetwork
from .calibrate import calibrate
from .fakequant import FakeQuantized
from .lower import lower
from .modules import ConvLayer
from .options import QuantizedRecipe
from .weights import NearestValue, TermGrid

if TYPE_CHECKING:
    from ..data import Dataset
    from ..frontend.graph import Graph

__all__ = ["Damage", "scan", "suggest", "suggestion_toml"]

FINE_TERMS, FINE_SPAN = 4, 7
"""Of layers that are left alone: all integers up to 85, 171 values; a dictionary holds 256."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Damage:
    """What one layer's option does to the network.

    Parameters
    ----------
    layer : str
        Its module path.
    option : str
        ``"levels"`` or ``"prune"``, as of the recipe ``bqnet``.
    value : float
        Of the option.
    weights : int
        Of the layer.
    bits : float
        A weight's, as the entropy of the layer's values tells.
    drop : float
        Accuracy lost against the network of which all layers are left alone.
    divergence : float
        Mean Kullback-Leibler divergence from that network's predictions, in nats: tells more than a few images'
        accuracy.
    """

    layer: str
    option: str
    value: float
    weights: int
    bits: float
    drop: float
    divergence: float


class _Grid(NearestValue):
    """The nearest sum of few powers of two, in the scale with the least squared error."""

    def __init__(self, grid: TermGrid) -> None:
        super().__init__()
        self.grid, self.values, self.span = grid, grid.numbers, grid.span

    def fit(self, weight: Tensor) -> None:
        self.k_top = self.grid.scale(weight * self.mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fine(QuantizedRecipe):
    """Arithmetic and activations only."""

    name: ClassVar[str] = "sensitivity"

    def quantizer(self, layer: str) -> "_Grid":
        return _Grid(TermGrid(FINE_TERMS, FINE_SPAN))


def scan(graph: "Graph", data: "Dataset", measure: Callable[[QuantizedNetwork], Tensor], *,
         levels: Sequence[int] = (1, 2, 3, 4), prune: Sequence[float] = (0.5, 0.7, 0.8, 0.9, 0.95), seed: int = 0,
         calibration_images: int = 500, progress: Callable[[int, int], None] | None = None
         ) -> tuple[float, list[Damage]]:
    """Measure what each option does to each layer alone.

    Parameters
    ----------
    graph : Graph
        The float network.
    data : Dataset
        Images for scales and measurements, with labels; not the test split.
    measure : callable
        Real-valued outputs (N, classes) of an integer network for the images of `data`.
    levels : sequence of int
        Magnitudes of a weight, powers of two, 0 besides.
    prune : sequence of float
        Shares of the layer's weights that become 0.
    seed : int
        Chooses the images that scales are chosen on.
    calibration_images : int
        So many.
    progress : callable, optional
        Called after each measurement with its number and all there will be.

    Returns
    -------
    accuracy : float
        With all layers fine.
    damages : list of Damage
        The worst divergence first.

    Raises
    ------
    ModelError
        If an option's value is out of range.
    """
    recipe = _Fine(layers={})
    _check(recipe, levels, prune)
    network = FakeQuantized(graph, recipe)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data), generator=generator)[:calibration_images]
    sample = torch.tensor(data.images[chosen.numpy()]).float() / PIXEL_SCALE
    labels = torch.tensor(data.labels)
    total = 1 + len(network.weighted) * (len(levels) + len(prune))

    def outputs(done: int) -> Tensor:
        with torch.no_grad():
            calibrate(network, sample, recipe)
        made = measure(lower(network, graph, recipe, {})).double()
        if progress is not None:
            progress(done, total)
        return made

    fine = outputs(1)
    reference, accuracy = fine.log_softmax(1), float((fine.argmax(1) == labels).double().mean())
    damages: list[Damage] = []
    for name, layer in network.weighted.items():
        settings = [("levels", float(value)) for value in levels] + [("prune", value) for value in prune]
        for option, value in settings:
            _quantize(layer, option, value)
            made = outputs(2 + len(damages))
            divergence = (reference.exp() * (reference - made.log_softmax(1))).sum(1).mean()
            damages.append(Damage(
                layer=name, option=option, value=value, weights=layer.master_weight.numel(), bits=_entropy(layer),
                drop=accuracy - float((made.argmax(1) == labels).double().mean()), divergence=float(divergence)))
            layer.use(_Grid(TermGrid(FINE_TERMS, FINE_SPAN)))
    return accuracy, sorted(damages, key=lambda damage: -damage.divergence)


def _check(recipe: QuantizedRecipe, levels: Sequence[int], prune: Sequence[float]) -> None:
    for value in levels:
        if not 1 <= value <= recipe.max_shift + 1:
            raise ModelError(f"levels must be from 1 to {recipe.max_shift + 1}, not {value}")
    for share in prune:
        if not 0 < share < 1:
            raise ModelError(f"a share to prune must be above 0 and below 1, not {share}")


@torch.no_grad()
def _quantize(layer: ConvLayer, option: str, value: float) -> None:
    """Give a layer an option's value."""
    if option == "levels":
        layer.use(_Grid(TermGrid(1, int(value))))
    else:
        layer.weight_quantizer.prune(layer.master_weight, value)
        layer.refit()


def _entropy(layer: ConvLayer) -> float:
    counts = torch.unique(layer.numbers(), return_counts=True)[1].double()
    shares = counts / counts.sum()
    return abs(float((shares * shares.log2()).sum()))


def suggest(damages: Sequence[Damage], divergence: float) -> dict[str, dict[str, Any]]:
    """Options for each layer: of each kind the strongest that does no more than `divergence` by itself, or the mildest.

    Returns
    -------
    dict
        By module path; a layer that does not bear any pruning gets none.
    """
    found: dict[str, dict[str, Any]] = {}
    for layer in dict.fromkeys(damage.layer for damage in damages):
        values = {option: sorted(damage.value for damage in damages if (damage.layer, damage.option) == (layer, option))
                  for option in ("levels", "prune")}
        borne = {option: sorted(damage.value for damage in damages if (damage.layer, damage.option) == (layer, option)
                                and damage.divergence <= divergence) for option in values}
        found[layer] = {}
        if values["levels"]:
            found[layer]["levels"] = int((borne["levels"] or values["levels"][-1:])[0])
        if borne["prune"]:
            found[layer]["prune"] = borne["prune"][-1]
    return found


def suggestion_toml(options: Mapping[str, Mapping[str, Any]], head: str) -> str:
    """A recipe file of suggested options."""
    lines = [*(f"# {line}" for line in head.splitlines()), "[recipe]", 'name = "bqnet"']
    for layer, values in options.items():
        path = layer if layer.replace("_", "").replace("-", "").isalnum() else f'"{layer}"'
        lines += ["", f"[recipe.layers.{path}]", *(f"{name} = {value}" for name, value in values.items())]
    return "\n".join(lines) + "\n"
