"""Incremental quantization: some weights get their values for good, the others are trained around them, and so on."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...hw.arch.errors import ModelError
from .fakequant import ConvLayer, FakeQuantized
from .options import QuantizedRecipe
from .recipe import Progress
from .training import Method, fine_tune
from .weights import PartlyFrozen, SharedWeights, TermGrid

if TYPE_CHECKING:
    from ..data import Dataset

__all__ = ["cluster_weights", "epochs_of", "freeze", "freeze_clusters", "freeze_largest", "share_values",
           "train_phases"]

KMEANS_PASSES = 100


def epochs_of(epochs: int, phases: int) -> list[int]:
    """Epochs dealt out to phases: alike, and the earlier ones, in which more weights are free, get what is over."""
    return [epochs // phases + (number < epochs % phases) for number in range(phases)]


def train_phases(network: FakeQuantized, teacher: nn.Module, data: "Dataset", recipe: QuantizedRecipe,
                 phases: Sequence[Callable[[], None]], *, seed: int, progress: Progress | None,
                 epochs: Sequence[int] | None = None, method: type[Method] = Method) -> None:
    """Do something to a network, train it, do the next thing, and so on.

    Parameters
    ----------
    network, teacher, data, recipe, seed, progress
        As of :func:`~.training.fine_tune`. Each phase has a training of its own, with its own warm-up and decay.
    phases : sequence of callable
        What is done before each training.
    epochs : sequence of int, optional
        Of each phase; by default the recipe's, dealt out by :func:`epochs_of`.
    method : type of Method
        What happens within each phase.
    """
    given = epochs_of(recipe.epochs_for(len(data)), len(phases)) if epochs is None else list(epochs)
    total, done = sum(given), 0

    def show(epoch: int, _: int, loss: float) -> None:
        if progress is not None:
            progress(done + epoch, total, loss)

    for number, (act, count) in enumerate(zip(phases, given, strict=True)):
        act()
        if count or number == len(phases) - 1:  # scales are chosen at the end in any case
            fine_tune(network, teacher, data, recipe.replace(epochs=count), method(), seed=seed + number, progress=show)
        done += count


@torch.no_grad()
def freeze(layer: ConvLayer, targets: Tensor, which: Tensor) -> None:
    """Give some of a layer's weights the values of its grid that are nearest to `targets`.

    Raises
    ------
    ModelError
        If all weights of the layer have got the value 0, though they were not 0.
    """
    quantizer = layer.weight_quantizer
    assert isinstance(quantizer, PartlyFrozen)
    quantizer.freeze(targets, which)
    if quantizer.quantized and not quantizer.values.any() and bool(layer.master_weight.any()):
        raise ModelError(f"layer {layer.layer.name}: all {quantizer.values.numel()} weights became 0; give it more "
                         f"values, or a greater span")
    layer.master_weight.copy_(quantizer(layer.master_weight))


@torch.no_grad()
def freeze_largest(layer: ConvLayer, share: float, generator: torch.Generator | None = None) -> None:
    """Freeze so many more weights that `share` of the layer's is frozen: the largest, or random ones with a generator
    (Zhou et al., arXiv:1702.03044, section 2.2)."""
    quantizer, weight = layer.weight_quantizer, layer.master_weight
    assert isinstance(quantizer, PartlyFrozen)
    frozen = quantizer.frozen.expand_as(weight)
    rank = weight.abs() if generator is None else torch.rand(weight.shape, generator=generator)
    rank = torch.where(frozen, torch.inf, rank).flatten()
    which = torch.zeros(weight.numel(), dtype=torch.bool)
    which[rank.topk(round(share * weight.numel()), sorted=False).indices] = True
    freeze(layer, weight, which.reshape(weight.shape))


def cluster_weights(values: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """K-means of single weights, from centroids spread evenly between the least and the greatest.

    Parameters
    ----------
    values : float tensor (N)
        The weights.
    clusters : int
        Their clusters; fewer when there are fewer different weights.

    Returns
    -------
    labels : int64 tensor (N)
    centroids : float tensor (clusters)
    """
    from sklearn.cluster import KMeans

    points = values.double().numpy()[:, None]
    count = min(clusters, len(torch.unique(values)))
    start = torch.linspace(float(values.min()), float(values.max()), count, dtype=torch.float64).numpy()[:, None]
    if count == 1:
        return torch.zeros(len(values), dtype=torch.int64), values[:1]
    found = KMeans(count, init=start, n_init=1, max_iter=KMEANS_PASSES).fit(points)
    return torch.tensor(found.labels_).long(), torch.tensor(found.cluster_centers_[:, 0]).float()


@torch.no_grad()
def freeze_clusters(layer: ConvLayer, clusters: int, frozen: int, wanted: int, *, first: str, zero: bool) -> None:
    """Cluster the weights that are free, and freeze whole clusters at their centroids.

    Parameters
    ----------
    layer : ConvLayer
        Its quantizer is a :class:`PartlyFrozen`.
    clusters : int
        Of all its weights.
    frozen, wanted : int
        Of which are frozen, and shall be.
    first : str
        Which go first: ``"loss"``, those with the greatest squared error between weights and centroid (Xu et al.,
        arXiv:1803.03289), or ``"centroid"``, those with the greatest centroid.
    zero : bool
        The cluster nearest to 0 becomes 0, and is the last one.
    """
    quantizer, weight = layer.weight_quantizer, layer.master_weight
    assert isinstance(quantizer, PartlyFrozen)
    free = ~quantizer.frozen.expand_as(weight)
    if wanted <= frozen or not bool(free.any()):
        return
    labels, centroids = cluster_weights(weight[free], clusters - frozen)
    if first == "loss":
        error = (weight[free] - centroids[labels]).square()
        rank = torch.zeros(len(centroids)).index_add_(0, labels, error)
    else:
        rank = centroids.abs().clone()
    if zero and len(centroids) > 1:
        least = int(centroids.abs().argmin())
        rank[least], centroids[least] = -1.0, 0.0
    chosen = torch.zeros(len(centroids), dtype=torch.bool)
    chosen[rank.argsort(descending=True, stable=True)[:wanted - frozen]] = True
    if wanted == clusters:
        chosen[:] = True
    targets, which = weight.clone(), torch.zeros_like(free)
    targets[free], which[free] = centroids[labels], chosen[labels]
    freeze(layer, targets, which)


@torch.no_grad()
def share_values(layers: Mapping[str, ConvLayer], grids: Mapping[str, TermGrid]) -> None:
    """Train the values of frozen layers from now on: weights that have one value keep having one, except for 0."""
    for name, layer in layers.items():
        used, indices = torch.unique(layer.weight_quantizer.numbers(layer.master_weight), return_inverse=True)
        zero = int((used == 0).nonzero()[0, 0]) if bool((used == 0).any()) else None
        layer.use(SharedWeights(indices, grids[name], zero=zero))
