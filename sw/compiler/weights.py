"""The taps of a layer's rows as codebook indices, in the order of its positions."""

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ModelError
from ..codec.alphabet import REPLAYED_TOLERANCE, TOLERANCE, EncodedLayer, encode_layer, shared_row
from ..network import Layer, Term
from .tables import residual_offsets

__all__ = ["encode_weights", "row_taps"]

Codebook = tuple[tuple[Term, ...], ...]


def row_taps(layer: Layer, pixels: np.ndarray, channels: int, negative: np.ndarray) -> tuple[np.ndarray, Codebook]:
    """All taps of each output channel of a convolution.

    Parameters
    ----------
    pixels : int64 array
        Kernel pixels that have a position.
    channels : int
        Taps of a position. A batch layer has one position, the whole vector.
    negative : bool array (rows,)
        Rows whose weights are negated.

    Returns
    -------
    indices : uint16 array (rows, positions * channels)
        Into the codebook; tap = position * channels + channel.
    codebook : tuple of tuple of Term
        The layer's, then the weight 0, one entry for each residual, and the negatives of all.
    """
    assert layer.indices is not None
    rows = layer.indices.shape[0]
    zero = len(layer.codebook)
    codebook: list[tuple[Term, ...]] = [*layer.codebook, ()]
    kernel = layer.indices.transpose(0, 2, 3, 1).reshape(rows, -1, layer.indices.shape[1])
    parts = [kernel[:, pixels].reshape(rows, -1).astype(np.uint16) if pixels.size else
             np.full((rows, channels), zero, np.uint16)]
    group_rows = rows // layer.groups
    for residual in layer.residuals:
        taps = np.full((rows, channels * len(residual_offsets(layer, residual, channels))), zero, np.uint16)
        joined = np.array(residual.channels(rows))
        taps[joined, joined - residual.channel_offset if layer.groups == 1 else joined % group_rows] = len(codebook)
        codebook.append(residual.terms)
        parts.append(taps)
    indices = np.concatenate(parts, axis=1)
    indices[negative] += len(codebook)
    return indices, (*codebook, *(tuple(Term(not term.neg, term.shift) for term in terms) for terms in codebook))


def encode_weights(layer: Layer, pixels: np.ndarray, channels: int, negative: np.ndarray,
                   config: AcceleratorConfig) -> EncodedLayer:
    """Encode a layer for `config`; parameters as for :func:`row_taps`.

    Raises
    ------
    CapacityError
        If no alphabet fits, or a row that is replayed does not fit the row buffer.
    """
    replayed = layer.op != "conv" or layer.target.height > config.lanes_y or layer.target.width > config.lanes_x
    try:
        if layer.op == "conv":
            indices, codebook = row_taps(layer, pixels, channels, negative)
            encoded = encode_layer(indices, codebook, channels=channels, max_code_bits=config.max_code_bits,
                                   dict_depth=config.dict_depth,
                                   tolerance=REPLAYED_TOLERANCE if replayed else TOLERANCE)
        else:
            encoded = shared_row(pixels.size, config.truncate, maximum=layer.op == "maxpool",
                                 negative=bool(negative.any()), max_code_bits=config.max_code_bits)
    except ModelError as error:
        raise type(error)(f"layer {layer.name}: {error}") from None
    longest = int(encoded.row_lengths.max())
    if replayed and longest > config.row_depth:
        wanted = 1 << (longest - 1).bit_length()
        raise CapacityError(f"layer {layer.name}: a row that is replayed must fit the row buffer (row_depth) of "
                            f"{config.row_depth} codewords, but has {longest}; raise row_depth to {wanted}, or use "
                            f"more zeros", row_depth=wanted)
    return encoded
