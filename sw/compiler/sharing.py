"""Which neighbouring layers share a dictionary and a code.

A code of its own fits a layer's weights best, but has to be stored: code table and dictionary of a small layer are some
hundred bytes. So neighbours are joined as long as that makes the image smaller, those first that gain the most.
"""

import dataclasses
from collections.abc import Callable, Sequence

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError
from ..codec.alphabet import EncodedLayer
from .weights import LayerWeights, encode_weights

__all__ = ["share_codes"]

Encoder = Callable[[Sequence[LayerWeights], AcceleratorConfig], tuple[EncodedLayer, ...]]

WORTH = 1 / 64
"""Of the codewords of two groups of layers, what their tables must have for a try to be worth the time."""
SLOWER = 1 / 64
"""Micro-operations that joined layers may have more than each with a code of its own."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Group:
    """Neighbouring layers with one code."""

    layers: tuple[LayerWeights, ...]
    encoded: tuple[EncodedLayer, ...]

    @property
    def table_bits(self) -> int:
        return self.encoded[0].table_bits

    @property
    def codeword_bits(self) -> int:
        return sum(each.codeword_bits for each in self.encoded)

    @property
    def operations(self) -> int:
        return sum(int(each.cycles_per_row.sum()) for each in self.encoded)


def share_codes(layers: Sequence[LayerWeights], tail: int, config: AcceleratorConfig,
                encode: Encoder = encode_weights) -> tuple[list[EncodedLayer], list[bool]]:
    """Encode the layers of an image.

    Parameters
    ----------
    layers : sequence of LayerWeights
        In execution order.
    tail : int
        First layer of the tail, which has a code of its own, as a run may begin there.
    encode : callable
        :func:`~.weights.encode_weights`, or what remembers its results.

    Returns
    -------
    encoded : list of EncodedLayer
    same : list of bool
        The layer's code is that of the layer before.

    Raises
    ------
    CapacityError
        If no alphabet fits a layer, or a row that is replayed does not fit the row buffer.
    """
    groups = [_Group((layer,), encode([layer], config)) for layer in layers]
    joined = [_joined(before, after, config, encode) if number + 1 != tail else None
              for number, (before, after) in enumerate(zip(groups, groups[1:], strict=False))]
    while any(joined):
        gains = [_gain(groups[n], groups[n + 1], group) if group else 0 for n, group in enumerate(joined)]
        best = max(range(len(gains)), key=gains.__getitem__)
        made = joined[best]
        assert made is not None
        groups[best:best + 2] = [made]
        del joined[best]
        for place in (best - 1, best):
            if 0 <= place < len(joined) and joined[place]:
                joined[place] = _joined(groups[place], groups[place + 1], config, encode)
    return ([encoded for group in groups for encoded in group.encoded],
            [number > 0 for group in groups for number in range(len(group.encoded))])


def _gain(before: _Group, after: _Group, joined: _Group) -> int:
    """Bits that two groups save together."""
    return sum((group.table_bits + group.codeword_bits) * sign
               for group, sign in ((before, 1), (after, 1), (joined, -1)))


def _joined(before: _Group, after: _Group, config: AcceleratorConfig, encode: Encoder) -> _Group | None:
    """Two groups with one code, if that saves bits."""
    layers = (*before.layers, *after.layers)
    if any(layer.taps is None for layer in layers):
        return None
    if min(before.table_bits, after.table_bits) < WORTH * (before.codeword_bits + after.codeword_bits):
        return None
    try:
        made = _Group(layers, encode(layers, config))
    except CapacityError:
        return None
    slow = made.operations > (1 + SLOWER) * (before.operations + after.operations)
    return made if not slow and _gain(before, after, made) > 0 else None
