"""Output channels, biases and scales of a stream's rows; and the requantization that they describe."""

import dataclasses

import numpy as np

from ...hw.arch.errors import ImageError
from ...hw.arch.image import COMPACT_BIAS_BITS, SCALE_EXTRA_AT, SCALE_EXTRA_MAX, SCALE_SHIFT_BITS, Flag

__all__ = ["RowParameters", "Scale", "read_parameters"]

SHIFT_MASK = (1 << SCALE_SHIFT_BITS) - 1
SIGN_AT = 5
"""Bit of a further scale term that makes it negative."""
AGAIN = "compile the network again"


@dataclasses.dataclass(frozen=True)
class Scale:
    """A scale in Horner form; its first term is positive.

    Parameters
    ----------
    further : tuple of (int, bool)
        Right shift before each further term, and its sign.
    shift : int
        Final right shift.
    """

    further: tuple[tuple[int, bool], ...]
    shift: int

    def apply(self, total: np.ndarray, *, half_even: bool = False) -> np.ndarray:
        """Scaled and rounded values (before the clamp) of ``acc + bias``, int64."""
        value, lost = total, np.zeros(total.shape, bool)
        for shift, negative in self.further:
            lost |= value & (1 << shift) - 1 != 0
            value = (value >> shift) + (-total if negative else total)
        if not half_even or not self.shift:
            return (value + (1 << self.shift >> 1)) >> self.shift
        floor, rest = np.divmod(value, 1 << self.shift)
        # Twice the fraction against 1; at a tie, the odd ones go up.
        above = 2 * rest + lost - (1 << self.shift)
        return floor + ((above > 0) | (above == 0) & (floor & 1 == 1))


@dataclasses.dataclass(frozen=True, eq=False)
class RowParameters:
    """Output channels and biases of a stream's rows, int64 (rows,), and each row's scale."""

    channel: np.ndarray
    bias: np.ndarray
    scales: tuple[Scale, ...]


class _Words:
    """The words of a stream's parameters, taken one by one."""

    def __init__(self, where: str, words: np.ndarray, rows: int) -> None:
        self.where, self.rows, self.position = where, rows, 0
        self.words: list[int] = words.tolist()

    def take(self) -> int:
        if self.position >= len(self.words):
            raise ImageError(f"{self.where} parameters: {len(self.words)} words are too few for {self.rows} output "
                             f"channels; {AGAIN}")
        self.position += 1
        return self.words[self.position - 1]

    def scale(self) -> Scale:
        first = self.take()
        extra = first >> SCALE_EXTRA_AT & SCALE_EXTRA_MAX
        fields: list[int] = []
        for _ in range(-(-extra // 2)):
            word = self.take()
            fields += [word & 0xFF, word >> 8]
        if first & ~(SHIFT_MASK | SCALE_EXTRA_MAX << SCALE_EXTRA_AT) or any(field >> 6 for field in fields):
            raise ImageError(f"{self.where} parameters: the scale that ends at word {self.position} has undefined "
                             f"bits, 0x{first:04x}; {AGAIN}")
        return Scale(tuple((field & SHIFT_MASK, bool(field >> SIGN_AT & 1)) for field in fields[:extra]),
                     first & SHIFT_MASK)

    def compact(self) -> tuple[int, Scale]:
        word = self.take()
        shift, bias = divmod(word, 1 << COMPACT_BIAS_BITS)
        return bias - (bias >> COMPACT_BIAS_BITS - 1 << COMPACT_BIAS_BITS), Scale((), shift)

    def bias(self, wide: bool) -> int:
        low = self.take()
        if not wide:
            return low - (low >> 15 << 16)
        high = self.take()
        return (high << 16 | low) - (high >> 15 << 32)


def read_parameters(where: str, words: np.ndarray, flags: Flag, channels: range) -> RowParameters:
    """Read the parameters of a stream's rows.

    Parameters
    ----------
    where : str
        The stream, for messages.
    words : int64 array
        The words of the stream's parameters.
    flags : Flag
        ``SHARED_SCALE``, ``ORDER``, ``BIAS``, ``WIDE_BIAS`` and ``COMPACT`` decide the layout. A raw layer has scale
        words too, which do nothing.
    channels : range
        The rows' output channels without ``ORDER``.

    Raises
    ------
    ImageError
        If the words are too few or too many, or have undefined bits, or the flags don't go together.
    """
    compact = Flag.COMPACT in flags
    if compact and flags & (Flag.SHARED_SCALE | Flag.BIAS | Flag.WIDE_BIAS):
        raise ImageError(f"{where}: COMPACT parameters hold each row's bias and scale, so SHARED_SCALE, BIAS and "
                         f"WIDE_BIAS must not be set; {AGAIN}")
    reader = _Words(where, words, len(channels))
    shared = reader.scale() if Flag.SHARED_SCALE in flags and channels else None
    order, biases, scales = [], [], []
    for channel in channels:
        order.append(reader.take() if Flag.ORDER in flags else channel)
        if compact:
            bias, scale = reader.compact()
            biases.append(bias)
            scales.append(scale)
            continue
        biases.append(reader.bias(Flag.WIDE_BIAS in flags) if Flag.BIAS in flags else 0)
        scales.append(shared if shared is not None else reader.scale())
    if reader.position != len(words):
        raise ImageError(f"{where} parameters: {len(words)} words, but {len(channels)} output channels use "
                         f"{reader.position}; {AGAIN}")
    return RowParameters(np.array(order, np.int64), np.array(biases, np.int64), tuple(scales))
