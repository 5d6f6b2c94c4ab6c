"""The parameter words of a layer: biases and scales (``docs/image.md`` "Parameters")."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ImageError, ModelError, UnsupportedError
from ...hw.arch.image import COMPACT_BIAS_BITS, SCALE_EXTRA_AT, SCALE_EXTRA_MAX, SCALE_SHIFT_BITS, Flag
from ..network import Layer

__all__ = ["Scales", "pack_parameters", "parameter_shape", "row_bias"]

MAX_STEP = 31
"""Largest right shift before a further scale term (5 bits)."""
MAX_FINAL = (1 << SCALE_SHIFT_BITS) - 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scales:
    """Requantization scales in the order of the hardware's Horner steps, the first term positive.

    Parameters
    ----------
    negated : bool array (channels,)
        The scale's first term was negative: its signs are turned, and so must be the row's weights and its bias.
    negative : bool array (channels, 1 + SCALE_EXTRA_MAX)
        Signs of the terms.
    step : int64 array (channels, 1 + SCALE_EXTRA_MAX)
        Right shift before each term; 0 for the first.
    count : int64 array (channels,)
        Terms, 1 to 4.
    final : int64 array (channels,)
        Final right shift.
    """

    negated: np.ndarray
    negative: np.ndarray
    step: np.ndarray
    count: np.ndarray
    final: np.ndarray

    @classmethod
    def of(cls, layer: Layer) -> "Scales":
        """Check and order a layer's scales; a raw layer has none, written as one term and no shift.

        Raises
        ------
        ModelError
            If a scale breaks a rule of :class:`~shiftwright.sw.network.Layer`; names layer and channel.
        UnsupportedError
            If a maximum pooling has a negative scale, as a maximum is not a minimum, or some channels of an average
        pooling, as its channels share their weights.
        """
        rows = layer.target.channels
        width = 1 + SCALE_EXTRA_MAX
        negative, exponent = np.zeros((rows, width), bool), np.zeros((rows, width), np.int64)
        count, final = np.ones(rows, np.int64), np.zeros(rows, np.int64)
        if layer.raw:
            return cls(negated=np.zeros(rows, bool), negative=negative, step=exponent, count=count, final=final)
        if len(layer.scale) != rows or np.shape(layer.shift) != (rows,):
            raise ModelError(f"layer {layer.name}: scale and shift must have one value for each of the {rows} output "
                             f"channels, not {len(layer.scale)} and {np.shape(layer.shift)}; compress the network "
                             f"again")
        for channel, terms in enumerate(layer.scale):
            where = f"layer {layer.name}, channel {channel}: its scale"
            if not 1 <= len(terms) <= width:
                raise ModelError(f"{where} must have 1 to {width} terms, not {len(terms)}; approximate it with fewer")
            shifts = [term.shift for term in terms]
            if shifts[0] != 0 or any(not 1 <= b - a <= MAX_STEP for a, b in zip(shifts, shifts[1:], strict=False)):
                raise ModelError(f"{where} must have exponents from 0 that rise by 1 to {MAX_STEP}, not {shifts}"
                                 f"; divide the scale by its lowest power of two and lower the shift")
            shift = int(layer.shift[channel])
            if not (shifts[-1] < shift if len(terms) > 1 else shift >= 0) or shift - shifts[-1] > MAX_FINAL:
                raise ModelError(f"{where} has shift {shift}, which must be above its greatest exponent {shifts[-1]} "
                                 f"(not negative for one term) and at most {shifts[-1] + MAX_FINAL}; rescale the layer")
            count[channel], final[channel] = len(terms), shift - shifts[-1]
            for number, term in enumerate(terms):
                negative[channel, number], exponent[channel, number] = term.neg, term.shift
        step = np.diff(exponent, axis=1, prepend=0)
        step[np.arange(width)[None, :] >= count[:, None]] = 0
        negated = negative[:, 0].copy()
        # All channels of a pooling share one row; that of an average may be turned.
        if negated.any() and (layer.op in ("maxpool", "leaky") or layer.op == "avgpool" and not negated.all()):
            raise UnsupportedError(f"layer {layer.name}, channel {int(negated.argmax())}: a pooling's scale must begin "
                                   f"with a positive term, or with a negative one in all channels of an average; "
                                   f"negate the layer that reads it")
        negative ^= negated[:, None] & (np.arange(width)[None, :] < count[:, None])
        return cls(negated=negated, negative=negative, step=step, count=count, final=final)

    @property
    def shared(self) -> bool:
        """Whether all channels agree."""
        return all(bool((part == part[:1]).all()) for part in (self.negative, self.step, self.count, self.final))

    def words(self, channel: int) -> list[int]:
        """The scale words of one channel."""
        extra = int(self.count[channel]) - 1
        terms = [int(step) | int(neg) << 5 for step, neg in
                 zip(self.step[channel, 1:1 + extra], self.negative[channel, 1:1 + extra], strict=True)]
        terms += [0] * (len(terms) % 2)
        return [int(self.final[channel]) | extra << SCALE_EXTRA_AT,
                *(low | high << 8 for low, high in zip(terms[::2], terms[1::2], strict=True))]


def row_bias(layer: Layer, scales: Scales, config: AcceleratorConfig) -> np.ndarray:
    """What the hardware adds to each accumulator, int64 (channels,).

    Raises
    ------
    ModelError
        If there is not one bias for each output channel.
    """
    rows = layer.target.channels
    bias = np.asarray(layer.bias, np.int64)
    if bias.shape != (rows,):
        raise ModelError(f"layer {layer.name}: bias must have one value for each of the {rows} output channels, not "
                         f"shape {bias.shape}; compress the network again")
    if layer.op == "maxpool" and layer.source.signed:
        # The maximum is taken of activations that are read with their top bit inverted.
        return bias - (1 << config.act_bits - 1)
    return np.where(scales.negated, -bias, bias)


def _pack_bias(layer: Layer, bias: np.ndarray) -> tuple[np.ndarray, Flag]:
    """Biases in the smallest of the forms that hold them: words, uint16 (channels, 0 to 2), and what they are."""
    if not bias.any():
        return np.empty((bias.size, 0), np.uint16), Flag(0)
    flags, columns = Flag.BIAS, bias[:, None]
    if bias.min() < -(1 << 15) or bias.max() >= 1 << 15:
        worst = int(np.abs(bias).argmax())
        if bias.min() < -(1 << 31) or bias.max() >= 1 << 31:
            raise CapacityError(f"layer {layer.name}, channel {worst}: a bias must fit 32 bits, not {bias[worst]}; "
                                f"use weights with fewer fractional bits (a lower max_shift)")
        flags |= Flag.WIDE_BIAS
        columns = np.stack((bias, bias >> 16), axis=1)
    return (columns & 0xFFFF).astype(np.uint16), flags


def _is_compact(bias: np.ndarray, scales: Scales) -> bool:
    """Whether bias and scale of each row fit one word, and that is less than each in words of its own."""
    reach = 1 << COMPACT_BIAS_BITS - 1
    return (not scales.shared and bool((scales.count == 1).all()) and bool(bias.any())
            and int(scales.final.max()) < 1 << 16 - COMPACT_BIAS_BITS and -reach <= int(bias.min())
            and int(bias.max()) < reach)


def pack_parameters(layer: Layer, bias: np.ndarray, scales: Scales, channels: Sequence[np.ndarray], order: bool,
                    ) -> tuple[tuple[np.ndarray, ...], Flag]:
    """The parameter words of each stream, and the layer's flags about them.

    Parameters
    ----------
    bias : int64 array (channels,)
        See :func:`row_bias`.
    channels : sequence of int64 arrays
        Output channels of each stream's rows.
    order : bool
        Each row begins with its channel.

    Returns
    -------
    words : tuple of uint16 arrays
    flags : Flag
        ``SHARED_SCALE``, ``ORDER``, ``BIAS``, ``WIDE_BIAS`` and ``COMPACT``.

    Raises
    ------
    CapacityError
        If a bias does not fit 32 bits.
    """
    flags, shared = Flag.ORDER if order else Flag(0), scales.shared
    if _is_compact(bias, scales):
        flags |= Flag.COMPACT
        words = scales.final << COMPACT_BIAS_BITS | bias & (1 << COMPACT_BIAS_BITS) - 1
        each = [[word] for word in words.tolist()]
    else:
        packed, found = _pack_bias(layer, bias)
        flags |= found | (Flag.SHARED_SCALE if shared else Flag(0))
        each = [words + ([] if shared else scales.words(row)) for row, words in enumerate(packed.tolist())]
    streams = []
    for rows in channels:
        stream = scales.words(0) if shared and rows.size else []
        for row in rows.tolist():
            stream += [row] * order + each[row]
        streams.append(np.array(stream, dtype=np.uint16))
    return tuple(streams), flags


def parameter_shape(words: np.ndarray, flags: Flag, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read back how the parameter words of a stream divide into its rows.

    Returns
    -------
    count, shifts, words : int64 arrays (rows,)
        Scale terms of each row, sum of the right shifts between them, and words that stand in each row (a shared scale
        counts for none).

    Raises
    ------
    ImageError
        If the words end before the last row.
    """
    fixed = ((2 if Flag.WIDE_BIAS in flags else 1) if Flag.BIAS in flags else 0) + (Flag.ORDER in flags)
    if Flag.COMPACT in flags:
        if words.size < rows * (fixed + 1):
            raise ImageError(f"the parameters end at word {words.size}, before those of row "
                             f"{words.size // (fixed + 1)}; compile the network again")
        return np.ones(rows, np.int64), np.zeros(rows, np.int64), np.full(rows, fixed + 1, np.int64)
    count, shifts, per_row = np.empty(rows, np.int64), np.empty(rows, np.int64), np.full(rows, fixed, np.int64)
    at, shared = 0, Flag.SHARED_SCALE in flags
    for row in range(min(1, rows) if shared else rows):
        at += 0 if shared else fixed
        if at >= words.size:
            raise ImageError(f"the parameters end at word {words.size}, before the scale of row {row}; "
                             f"compile the network again")
        extra = int(words[at]) >> SCALE_EXTRA_AT & SCALE_EXTRA_MAX
        terms = words[at + 1:at + 1 + (extra + 1) // 2]
        at += 1 + (extra + 1) // 2
        count[row] = 1 + extra
        shifts[row] = int((terms & MAX_STEP).sum()) + int((terms >> 8 & MAX_STEP).sum())
        if not shared:
            per_row[row] += 1 + (extra + 1) // 2
    if shared and rows:
        count[:], shifts[:] = count[0], shifts[0]
    return count, shifts, per_row
