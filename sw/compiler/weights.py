"""The taps of a layer's rows as codebook indices, in the order of its positions."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ModelError
from ..codec.alphabet import REPLAYED_TOLERANCE, TOLERANCE, EncodedLayer, TapRows, encode_layers, shared_row
from ..network import Layer, Term
from .tables import residual_offsets

__all__ = ["LayerWeights", "encode_weights", "row_taps"]

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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerWeights:
    """What is encoded of a layer.

    Parameters
    ----------
    layer : Layer
    taps : TapRows or None
        The weights of a convolution.
    pixels : int
        Kernel pixels that have a position.
    replayed : bool
        Each row is decoded once and replayed from the row buffer.
    negative : bool
        The row of a pooling is subtracted.
    """

    layer: Layer
    taps: TapRows | None
    pixels: int
    replayed: bool
    negative: bool

    @classmethod
    def of(cls, layer: Layer, pixels: np.ndarray, channels: int, negative: np.ndarray,
           config: AcceleratorConfig) -> "LayerWeights":
        """Arguments as those of :func:`row_taps`."""
        conv = layer.op == "conv"
        return cls(layer=layer, taps=TapRows(*row_taps(layer, pixels, channels, negative), channels) if conv else None,
                   pixels=pixels.size, negative=not conv and bool(negative.all()),
                   replayed=not conv or layer.target.height > config.lanes_y or layer.target.width > config.lanes_x)


def encode_weights(group: Sequence[LayerWeights], config: AcceleratorConfig) -> tuple[EncodedLayer, ...]:
    """Encode layers for `config` with one dictionary and code; a pooling is alone.

    Raises
    ------
    CapacityError
        If no alphabet fits, or a row that is replayed does not fit the row buffer.
    """
    taps = [each.taps for each in group if each.taps is not None]
    try:
        if taps:
            encoded = encode_layers(taps, max_code_bits=config.max_code_bits, dict_depth=config.dict_depth,
                                    tolerance=REPLAYED_TOLERANCE if all(each.replayed for each in group) else TOLERANCE)
        else:
            encoded = (shared_row(group[0].pixels, config.truncate, maximum=group[0].layer.op == "maxpool",
                                  leak=group[0].layer.leak, negative=group[0].negative,
                                  max_code_bits=config.max_code_bits),)
    except ModelError as error:
        raise type(error)(f"layer {group[0].layer.name}: {error}") from None
    for each, made in zip(group, encoded, strict=True):
        longest = int(made.row_lengths.max())
        if each.replayed and longest > config.row_depth:
            wanted = 1 << (longest - 1).bit_length()
            raise CapacityError(f"layer {each.layer.name}: a row that is replayed must fit the row buffer (row_depth) "
                                f"of {config.row_depth} codewords, but has {longest}; raise row_depth to {wanted}, or "
                                f"use more zeros", row_depth=wanted)
    return encoded
