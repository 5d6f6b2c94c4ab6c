"""Weights as codewords of a codebook: what is trained are the codewords."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...hw.arch.errors import ModelError
from .fakequant import ConvLayer, FakeQuantized
from .quantizers import straight_through
from .training import Method
from .weights import FREE_SPAN, TermGrid, WeightQuantizer

__all__ = ["Codebook", "ThresholdPruning", "from_vectors", "to_vectors"]


def to_vectors(weight: Tensor, dimension: int) -> Tensor:
    """A layer's taps in the device's order, kernel row, kernel column, input channel, `dimension` at a time.

    Parameters
    ----------
    weight : tensor (channels out, channels in, kernel rows, kernel columns)
        The last vector of each output channel is filled with zeros.

    Returns
    -------
    tensor (vectors, dimension)
    """
    rows = weight.permute(0, 2, 3, 1).flatten(1)
    return torch.nn.functional.pad(rows, (0, -rows.shape[1] % dimension)).reshape(-1, dimension)


def from_vectors(vectors: Tensor, shape: Sequence[int]) -> Tensor:
    """The weight, of that shape, whose vectors these are."""
    rows, channels, height, width = shape
    taps = vectors.reshape(rows, -1)[:, :channels * height * width]
    return taps.reshape(rows, height, width, channels).permute(0, 3, 1, 2)


class Codebook(WeightQuantizer):
    """Fixed assignment of vectors of weights to codewords, or to sums of one codeword of each stage. The codewords are
    what is trained: the gradient of each coordinate is the sum over all weights that have it (Han, Mao and Dally,
    arXiv:1510.00149, section 3.3). Weights that are taken out stay 0.

    Parameters
    ----------
    codewords : sequence of float tensor (codewords, d)
        Of each stage.
    labels : int64 tensor (stages, vectors)
        Codewords of each vector.
    mask : bool tensor
        Of the weights that are not taken out, in the weights' shape.

    Attributes
    ----------
    grid : TermGrid or None
        What weights may be; None leaves them free. :meth:`snap` sets it.
    members : int64 tensor (entries, stages)
        Which codewords, numbered through all stages, an entry is the sum of: the combinations that occur.
    indices : int64 tensor (vectors)
        Entry of each vector.
    uses : float tensor (entries, d)
        Weights that have each coordinate.
    """

    start: Tensor
    labels: Tensor
    members: Tensor
    indices: Tensor
    uses: Tensor

    def __init__(self, codewords: Sequence[Tensor], labels: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.grid: TermGrid | None = None
        self.span = FREE_SPAN
        self.mask = mask
        sizes = torch.tensor([len(stage) for stage in codewords])
        numbers = labels + (torch.cumsum(sizes, 0) - sizes)[:, None]
        members, indices = torch.unique(numbers.T, dim=0, return_inverse=True)
        dimension = codewords[0].shape[1]
        uses = torch.zeros(len(members), dimension).index_add_(0, indices, to_vectors(mask, dimension).float())
        for name, value in (("start", torch.cat(list(codewords))), ("labels", labels), ("members", members),
                            ("indices", indices), ("uses", uses)):
            self.register_buffer(name, value)

    @property
    def quantized(self) -> bool:  # type: ignore[override]
        return self.grid is not None

    def snap(self, grid: TermGrid) -> None:
        """From now on weights are values of a grid."""
        self.grid, self.span = grid, grid.span

    def fit(self, weight: Tensor) -> None:
        """Choose the scale for the present codewords, whose coordinates count as often as they are used."""
        entries = weight[self.members].sum(1) * (self.uses > 0)
        if self.grid is None:
            largest = float(entries.abs().max())
            self.k_top = -math.floor(math.log2(largest)) if largest > 0 else 0
        else:
            self.k_top = self.grid.scale(entries, self.uses)

    def forward(self, codewords: Tensor) -> Tensor:
        """Each vector its codewords' sum, with the gradient straight through the snap."""
        entries = codewords[self.members].sum(1)
        if self.grid is not None:
            snapped = self.grid.nearest(entries.detach() / self.unit) * self.unit
            entries = straight_through(entries, snapped)
        return from_vectors(entries[self.indices], self.mask.shape) * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The codewords to start with."""
        return self.start.clone()


class ThresholdPruning(Method):
    """Takes out the weights below a threshold, which rises in equal steps over the first half (Han, Pool, Tran and
    Dally, arXiv:1506.02626, section 3).

    Parameters
    ----------
    qualities : mapping of str to float
        Each layer's threshold, in standard deviations of its weights as they are at the beginning.
    rounds : int
        Steps in which it is reached.

    Raises
    ------
    ModelError
        If a layer has no weights left.
    """

    def __init__(self, qualities: Mapping[str, float], rounds: int) -> None:
        self.qualities, self.rounds = qualities, rounds
        self.thresholds: dict[str, float] = {}
        self.last = self.done = 0

    def begin(self, network: FakeQuantized, steps: int) -> None:
        self.last, self.done = steps, 0
        self.thresholds = {name: quality * float(network.weighted[name].master_weight.std(correction=0))
                           for name, quality in self.qualities.items()}
        for name, layer in network.weighted.items():  # all that would fail later
            self._kept(name, layer, 1.0)
        self.before_step(network, 0)

    def before_step(self, network: FakeQuantized, step: int) -> None:
        number = min(step * self.rounds // self.last + 1, self.rounds) if self.last else self.rounds
        if number > self.done:
            self.done = number
            for name, layer in network.weighted.items():
                layer.weight_quantizer.mask = self._kept(name, layer, number / self.rounds)

    def before_scales(self, network: FakeQuantized, step: int) -> None:
        self.before_step(network, step)

    def _kept(self, name: str, layer: ConvLayer, share: float) -> Tensor:
        weight, threshold = layer.master_weight, share * self.thresholds[name]
        mask = (weight.abs() >= threshold) & layer.weight_quantizer.mask
        if not bool(mask.any()):
            raise ModelError(f"layer {name}: quality = {self.qualities[name]} takes all {mask.numel()} weights out, as "
                             f"none reaches {threshold:.4g}; lower its quality")
        return mask
