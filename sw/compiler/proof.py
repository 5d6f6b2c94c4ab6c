"""The overflow proof: bounds of every value that a layer's datapath can take, from its actual weights.

Let ``[low_e, high_e]`` be the range of codebook entry e's contribution over all activations that can occur, 0 (a tap
in the padding) included. Then ``low_e <= 0 <= high_e``, and a row's sum over any prefix of its taps lies between the
sums of all its ``low_e`` and all its ``high_e``. Within a tap a partial sum can exceed the tap's own range (7x = 8x - x
passes through 8x); the largest such excess is added once, since only one tap is in the making at a time.

A residual is one more tap, with its own range of activations. A maximum a is kept by subtracting x, rectifying and
adding x, all x >= 0: it passes through a - x. A leaky ReLU is the maximum of x and 2**leak x, made in the same way.

Requantization is monotonic in ``t = acc + bias`` at every step, because nested floors of ``t`` times a partial scale
are one floor; so the values at both ends of t's range bound all others exactly.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import OverflowProofError
from ..network import Layer, Term
from .parameters import Scales, row_bias
from .placement import RAW_BITS

__all__ = ["Proof", "accumulator_range", "prove"]

BIAS_HEADROOM = 1
"""Bits that the register of accumulator plus bias is wider than the accumulator."""
SCALE_HEADROOM = 2
"""Bits that the registers of the scaled accumulator are wider than the accumulator."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proof:
    """What was proven of one layer.

    Parameters
    ----------
    low, high : int
        Bounds of the accumulator in any output channel at any time.
    bits : int
        Least accumulator width that holds them.
    """

    low: int
    high: int

    @property
    def bits(self) -> int:
        """Least two's complement width that holds ``low`` to ``high``."""
        return _width(self.low, self.high)


def _width(low: int, high: int) -> int:
    return 1 + max((-low - 1).bit_length() if low < 0 else 0, high.bit_length() if high > 0 else 0)


def accumulator_range(layer: Layer, x_ranges: Sequence[tuple[int, int]],
                      truncate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bounds of each output channel's accumulator.

    Parameters
    ----------
    x_ranges : sequence of (int, int)
        Least and greatest activation of each of the layer's sources. For max pooling as it is read, never negative.
    truncate : int
        Low bits that each product loses.

    Returns
    -------
    low, high : int64 arrays (channels,)
        Of the finished sum.
    prefix_low, prefix_high : int64 arrays (channels,)
        Of every prefix of the terms, in any order of the terms of one tap.
    """
    rows = layer.target.channels
    if layer.op == "maxpool":
        low, high = np.full(rows, x_ranges[0][0]), np.full(rows, x_ranges[0][1])
        return low, high, -high, high
    if layer.op == "leaky":  # x, less x * 2**leak, at least 0, plus x * 2**leak
        least, most = min(x_ranges[0][0], 0), max(x_ranges[0][1], 0)
        reach = max(most, -least) << layer.leak
        low, high = np.full(rows, least), np.full(rows, most << layer.leak)
        return low, high, np.full(rows, -reach), np.full(rows, reach)
    codebook = layer.codebook if layer.op == "conv" else ((Term(False, truncate),),)
    entries = [(terms, x_ranges[0]) for terms in codebook]
    entries += [(residual.terms, x_range) for residual, x_range in zip(layer.residuals, x_ranges[1:], strict=True)]
    ranges = np.zeros((4, len(entries)), np.int64)
    for number, (terms, x_range) in enumerate(entries):
        x = np.unique(np.append(np.arange(x_range[0], x_range[1] + 1), 0))
        products = np.zeros((len(terms) or 1, x.size), np.int64)
        for place, term in enumerate(terms):
            product = x << term.shift >> truncate
            products[place] = -product if term.neg else product
        total = products.sum(axis=0)
        ranges[:, number] = (total.min(), total.max(), np.minimum(products, 0).sum(axis=0).min(),
                             np.maximum(products, 0).sum(axis=0).max())
    counts = _histogram(layer, len(codebook))
    low, high = counts @ ranges[0], counts @ ranges[1]
    used = counts > 0
    below = np.where(used, (ranges[2] - ranges[0])[None, :], 0).min(axis=1)
    above = np.where(used, (ranges[3] - ranges[1])[None, :], 0).max(axis=1)
    return low, high, low + below, high + above


def _histogram(layer: Layer, entries: int) -> np.ndarray:
    """How often each codebook entry, then each residual, occurs in each output channel, int64 (channels, entries)."""
    rows = layer.target.channels
    if layer.op != "conv":
        return np.full((rows, 1), layer.kernel[0] * layer.kernel[1], np.int64)
    assert layer.indices is not None
    counts = np.zeros((rows, entries + len(layer.residuals)), np.int64)
    counts[:, :entries] = [np.bincount(row, minlength=entries) for row in layer.indices.reshape(rows, -1)]
    for number, residual in enumerate(layer.residuals):
        counts[np.array(residual.channels(rows)), entries + number] = 1
    return counts


def prove(layer: Layer, x_ranges: Sequence[tuple[int, int]], scales: Scales, config: AcceleratorConfig) -> Proof:
    """Prove that no value in `layer` leaves its register on `config`.

    Parameters
    ----------
    x_ranges : sequence of (int, int)
        Least and greatest activation of each of the layer's sources.

    Raises
    ------
    OverflowProofError
        If the proof fails; names layer, channel, value, width, and what to do.
    """
    if layer.op == "maxpool":
        offset = 1 << config.act_bits - 1 if layer.source.signed else 0
        # The padding reads 0.
        x_ranges = [(0 if any(layer.padding) else low + offset, high + offset) for low, high in x_ranges]
    low, high, prefix_low, prefix_high = accumulator_range(layer, x_ranges, config.truncate)
    turned = scales.negated
    low, high = np.where(turned, -high, low), np.where(turned, -low, high)
    prefix_low, prefix_high = np.where(turned, -prefix_high, prefix_low), np.where(turned, -prefix_low, prefix_high)
    _require(layer, "the accumulator", prefix_low, prefix_high, config.acc_width,
             f"raise acc_width (now {config.acc_width}) to %d, or use fewer activation bits or a lower max_shift")
    bias = row_bias(layer, scales, config)
    ends = np.stack((low + bias, high + bias))
    width = min(config.acc_width + BIAS_HEADROOM, RAW_BITS if layer.raw else 64)
    _require(layer, "accumulator plus bias", ends[0], ends[1], width,
             f"it needs %d bits; raise acc_width (now {config.acc_width}), or lower the bias or max_shift")
    if not layer.raw:
        _prove_scaling(layer, ends, scales, config.acc_width)
    return Proof(low=int(prefix_low.min()), high=int(prefix_high.max()))


def _prove_scaling(layer: Layer, t: np.ndarray, scales: Scales, acc_width: int) -> None:
    """Bound every Horner step; `t` holds both ends of accumulator plus bias, (2, channels).

    Rounding needs no room of its own: the hardware adds its half after the final shift, at half the unit.
    """
    sign = np.where(scales.negative, -1, 1)
    r = t * sign[:, 0]
    for number in range(sign.shape[1]):
        if number:
            r = np.where(number < scales.count, (r >> scales.step[:, number]) + t * sign[:, number], r)
        _require(layer, f"the accumulator scaled by {number + 1} terms", r.min(axis=0), r.max(axis=0),
                 acc_width + SCALE_HEADROOM,
                 f"it needs %d bits; raise acc_width (now {acc_width}), or lower the bias or max_shift")


def _require(layer: Layer, what: str, low: np.ndarray, high: np.ndarray, width: int, advice: str) -> None:
    limit = 1 << width - 1
    if int(low.min()) >= -limit and int(high.max()) < limit:
        return
    reach = np.maximum(-low - 1, high)
    channel = int(reach.argmax())
    bound = int(high[channel]) if reach[channel] == high[channel] else int(low[channel])
    needed = _width(int(low.min()), int(high.max()))
    raise OverflowProofError(f"layer {layer.name}, channel {channel}: {what} could reach {bound}, outside the {width} "
                             f"bits of its register ({-limit} to {limit - 1}); {advice % needed}")
