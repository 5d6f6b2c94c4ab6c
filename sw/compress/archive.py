"""A compressed network's weights in a universal source code: small on disk, not for the device.

Universal coders know nothing of the weights' distribution and need no code table: bzip2's block sorting and LZMA's
dictionary learn it from the string itself.
"""

import bz2
import json
import lzma
from collections.abc import Callable, Mapping

import numpy as np

from ...hw.arch.errors import ModelError
from ..network import QuantizedNetwork

__all__ = ["CODERS", "pack", "unpack"]

Coder = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
CODERS: Mapping[str, Coder] = {
    "bz2": (lambda data: bz2.compress(data, 9), bz2.decompress),
    "lzma": (lambda data: lzma.compress(data, lzma.FORMAT_RAW, filters=FILTERS),
             lambda data: lzma.decompress(data, lzma.FORMAT_RAW, filters=FILTERS)),
}
"""Compression and decompression by name."""
LONG = 255
"""A step of so many zeros that no weight follows."""


def pack(network: QuantizedNetwork, coder: str) -> bytes:
    """All weights and biases of a network.

    Four parts, each of all layers together, coded apart, with four bytes before it that are its length: names, shapes
    and values as JSON; the zeros before each weight that is not 0; which value that one has; biases.
    """
    heads, gaps, symbols, biases = [], [], [], []
    for layer in network.layers:
        if layer.indices is None:
            continue
        biases.append(layer.bias.astype("<i4").tobytes())
        values, ranks = np.unique(layer.values.reshape(-1), return_inverse=True)
        zero = int(np.searchsorted(values, 0))
        if zero == len(values) or values[zero] != 0:
            values, ranks = np.insert(values, zero, 0), ranks + (ranks >= zero)
        heads.append([layer.name, list(layer.indices.shape), [int(value) for value in values]])
        (places,) = np.nonzero(ranks != zero)
        distances = np.diff(places, prepend=-1) - 1
        steps = np.zeros(int((distances // LONG).sum()) + len(places), np.uint8)
        ends = np.cumsum(distances // LONG + 1) - 1
        steps[:] = LONG
        steps[ends] = distances % LONG
        gaps.append(steps.tobytes())
        symbols.append(ranks[places].astype(np.uint8).tobytes())
    head = json.dumps([*heads, [len(part) for part in gaps]], separators=(",", ":")).encode()
    parts = [CODERS[coder][0](part) for part in (head, b"".join(gaps), b"".join(symbols), b"".join(biases))]
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def unpack(data: bytes, coder: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weights and biases by layer, int64: the integers of :attr:`~..network.Layer.values` and ``bias``.

    Raises
    ------
    ModelError
        If the bytes are not what :func:`pack` makes.
    """
    try:
        parts, at = [], 0
        for _ in range(4):
            size = int.from_bytes(data[at:at + 4], "little")
            parts.append(CODERS[coder][1](data[at + 4:at + 4 + size]))
            at += 4 + size
        *heads, lengths = json.loads(parts[0])
        gaps, symbols = (np.frombuffer(part, np.uint8) for part in parts[1:3])
        biases = np.frombuffer(parts[3], "<i4").astype(np.int64)
        found = {}
        for (name, shape, values), length in zip(heads, lengths, strict=True):
            steps, gaps = gaps[:length].astype(np.int64), gaps[length:]
            ends = steps != LONG
            places = np.cumsum(steps + ends)[ends] - 1
            weights = np.zeros(int(np.prod(shape)), np.int64)
            weights[places] = np.array(values)[symbols[:len(places)]]
            symbols = symbols[len(places):]
            found[name] = weights.reshape(shape), biases[:shape[0]]
            biases = biases[shape[0]:]
    except (OSError, EOFError, ValueError, IndexError, TypeError, KeyError, lzma.LZMAError) as error:
        raise ModelError(f"archive: can't be unpacked by {coder} ({error}); it is damaged, or made by another "
                         f"coder") from None
    return found
