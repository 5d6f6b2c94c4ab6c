"""The size of codebooks, codewords and positions as the literature counts it: Huffman codes, no headers, no device."""

from typing import Any

import numpy as np

from ..codec.huffman import code_bits
from .codebooks import Codebook, to_vectors
from .fakequant import FakeQuantized

__all__ = ["differences", "huffman_bits", "published_size"]

FLOAT_BITS = 32
LONGEST_CODE = 32
CONV_GAP_BITS, LINEAR_GAP_BITS = 8, 5
"""Bits of the difference of two positions before it is coded (arXiv:1510.00149, section 2)."""


def huffman_bits(symbols: np.ndarray) -> int:
    """Bits of integers in their Huffman code."""
    counts = np.unique(symbols, return_counts=True)[1]
    return code_bits(counts, LONGEST_CODE)


def differences(positions: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Rising positions as differences from 1 to ``2**bits``; wider gaps take fillers of ``2**bits``.

    Parameters
    ----------
    positions : int array
        The first one's difference is to -1.
    bits : int

    Returns
    -------
    differences : int64 array
    real : bool array
        False for fillers.
    """
    most = 1 << bits
    gaps = np.diff(positions, prepend=-1)
    fillers = (gaps - 1) // most
    found = np.full(int((fillers + 1).sum()), most, dtype=np.int64)
    real = np.zeros(found.size, dtype=bool)
    real[np.cumsum(fillers + 1) - 1] = True
    found[real] = gaps - fillers * most
    return found, real


def published_size(network: FakeQuantized) -> dict[str, Any]:
    """What codebooks (32 bits a coordinate), codewords, positions of the weights that are not taken out, and biases
    (32 bits) take in all layers together.

    Codewords of vectors that are taken out as a whole are not stored. Positions are differences, row after row; where
    a codeword is a single weight, a filler has a codeword of its own, which is 0. Tables of the codes do not count.

    Returns
    -------
    dict
        ``bytes``, ``ratio`` to the parameters' float32 bytes, and bits by part.
    """
    bits = {"codebook_bits": 0, "codeword_bits": 0, "position_bits": 0, "bias_bits": 0}
    parameters = 0
    for layer in network.weighted.values():
        quantizer = layer.weight_quantizer
        assert isinstance(quantizer, Codebook)
        dimension = quantizer.start.shape[1]
        mask = to_vectors(quantizer.mask, dimension)
        live = mask.any(1)
        biases = len(layer.bias) if bool(layer.bias.any()) else 0
        parameters += quantizer.mask.numel() + biases
        bits["bias_bits"] += FLOAT_BITS * biases
        bits["codebook_bits"] += FLOAT_BITS * quantizer.start.numel()
        extra = 0
        if not bool(quantizer.mask.all()):
            gap_bits = LINEAR_GAP_BITS if layer.layer.covers_map else CONV_GAP_BITS
            weights = to_vectors(quantizer.mask, 1)[:, 0].nonzero()[:, 0].numpy()
            found, real = differences(weights, gap_bits)
            bits["position_bits"] += huffman_bits(found)
            extra = int((~real).sum()) if dimension == 1 else 0
        for number, stage in enumerate(quantizer.labels):
            symbols = stage[live].numpy()
            if number == 0:
                symbols = np.concatenate([symbols, np.full(extra, -1)])
            bits["codeword_bits"] += huffman_bits(symbols)
    size = -(-sum(bits.values()) // 8)
    return {"bytes": size, "ratio": round(4 * parameters / size, 4), **bits}
