"""Biases and scales of a layer, from the words of its parameters; and the requantization that they describe."""

import dataclasses

import numpy as np

from ...hw.arch.errors import ImageError
from ...hw.arch.image import Flag

__all__ = ["RowParameters", "Scale", "read_parameters"]

AGAIN = "compile the network again"


@dataclasses.dataclass(frozen=True)
class Scale:
    """A scale in Horner form.

    Parameters
    ----------
    negative : bool
        Sign of the first term.
    further : tuple of (int, bool)
        Right shift before each further term, and its sign.
    shift : int
        Final right shift.
    """

    negative: bool
    further: tuple[tuple[int, bool], ...]
    shift: int

    def apply(self, total: np.ndarray) -> np.ndarray:
        """Scaled and rounded values (before the clamp) of ``acc + bias``, int64."""
        value = -total if self.negative else total
        for shift, negative in self.further:
            value = (value >> shift) + (-total if negative else total)
        half = 1 << self.shift >> 1
        return (value + half) >> self.shift


@dataclasses.dataclass(frozen=True, eq=False)
class RowParameters:
    """Biases, int64 (rows,), and each row's scale."""

    bias: np.ndarray
    scales: tuple[Scale, ...]


def read_parameters(where: str, words: np.ndarray, flags: Flag, rows: int) -> RowParameters:
    """Read the parameters of all rows.

    Parameters
    ----------
    where : str
        The layer, for messages.
    words : int64 array
        The words of the parameters.
    flags : Flag
        ``SHARED_SCALE``, ``BIAS`` and ``WIDE_BIAS`` decide the layout. A raw layer has scale words too, which do
        nothing.
    rows : int
        Output channels.

    Raises
    ------
    ImageError
        If the words are too few or too many.
    """
    values = words.tolist()
    position = 0

    def take() -> int:
        nonlocal position
        if position >= len(values):
            raise ImageError(f"{where} parameters: {len(values)} words are too few for {rows} output channels; {AGAIN}")
        position += 1
        return int(values[position - 1])

    def take_scale() -> Scale:
        first = take()
        extra = first >> 6 & 3
        fields = []
        for _ in range(-(-extra // 2)):
            word = take()
            fields += [word & 0xFF, word >> 8]
        return Scale(bool(first >> 8 & 1), tuple((field & 0x1F, bool(field >> 5 & 1)) for field in fields[:extra]),
                     first & 0x3F)

    def take_bias() -> int:
        if Flag.BIAS not in flags:
            return 0
        low = take()
        if Flag.WIDE_BIAS not in flags:
            return low - (low >> 15 << 16)
        high = take()
        return (high << 16 | low) - (high >> 15 << 32)

    shared = take_scale() if Flag.SHARED_SCALE in flags else None
    biases, scales = [], []
    for _ in range(rows):
        biases.append(take_bias())
        scales.append(shared if shared is not None else take_scale())
    if position != len(values):
        raise ImageError(f"{where} parameters: {len(values)} words, but {rows} output channels use {position}; {AGAIN}")
    return RowParameters(np.array(biases, np.int64), tuple(scales))
