"""Symbols to 16-bit words, and the dealing of a layer's codewords to its sub-streams.

Bits fill a word from bit 15 down. The last word is padded with zero bits.
"""

import sys

import numpy as np

from ...hw.arch.config import INTERLEAVE
from ...hw.arch.errors import ImageError, ModelError
from .huffman import CanonicalCode
from .lanes import decode

__all__ = ["deal", "decode", "decode_rows", "encode", "merge"]

QUAD = 4
"""Symbols that are joined to one piece of at most 60 bits, so that every 64-bit word has a piece that starts in it."""
CHUNK = 1 << 16
"""Pieces that are placed at a time: the temporary arrays stay in the cache."""
LENGTH_SHIFT = np.uint64(58)
"""In the table of pairs a codeword pair has its length above this bit and its bits below."""
PAIR_BITS = (np.uint64(1) << LENGTH_SHIFT) - np.uint64(1)


def encode(symbols: np.ndarray, code: CanonicalCode) -> np.ndarray:
    """Encode a sequence of symbols.

    Parameters
    ----------
    symbols : uint8 array (count,)
    code : CanonicalCode

    Returns
    -------
    uint16 array (words,)
        The codewords one after another.

    Raises
    ------
    ModelError
        If a symbol has no codeword, or the array is of another shape or type.
    """
    symbols = np.ascontiguousarray(symbols)
    if symbols.dtype != np.uint8 or symbols.ndim != 1:
        raise ModelError(f"symbols must be a flat array of uint8, not {symbols.dtype} of shape {symbols.shape}")
    if symbols.size == 0:
        return np.zeros(0, dtype=np.uint16)
    if int(symbols.max()) >= code.size:
        raise ModelError(f"symbol {int(symbols.max())} has no codeword in a code of {code.size} symbols")
    quads = symbols.size // QUAD
    pairs = symbols[:quads * QUAD].view(np.uint16).reshape(quads, 2)
    table = _pair_table(code)
    room = (symbols.size * code.max_len + 63) // 64 + 2
    out = np.zeros(room, dtype=np.uint64)
    position = 0
    for start in range(0, quads, CHUNK):
        first, second = table[pairs[start:start + CHUNK, 0]], table[pairs[start:start + CHUNK, 1]]
        extra = second >> LENGTH_SHIFT
        bits = (first & PAIR_BITS) << extra | second & PAIR_BITS
        position = _place(out, position, bits, (first >> LENGTH_SHIFT) + extra)
    rest = symbols[quads * QUAD:]
    if rest.size:
        bits = length = 0
        for symbol in rest:
            bits = bits << int(code.lengths[symbol]) | int(code.codes[symbol])
            length += int(code.lengths[symbol])
        position = _place(out, position, np.array([bits], dtype=np.uint64), np.array([length], dtype=np.uint64))
    words = (position + 15) // 16
    return out.astype(">u8").view(">u2")[:words].astype(np.uint16)


def _pair_table(code: CanonicalCode) -> np.ndarray:
    """Bits and length of two symbols, by their two bytes read as one uint16; uint64 (65536,)."""
    codes, lengths = code.codes.astype(np.uint64), code.lengths.astype(np.uint64)
    bits = codes[:, None] << lengths | codes  # [first symbol, second symbol]
    entries = bits | (lengths[:, None] + lengths) << LENGTH_SHIFT
    table = np.zeros((256, 256), dtype=np.uint64)
    table[:code.size, :code.size] = entries.T if sys.byteorder == "little" else entries
    return table.reshape(-1)


def _place(out: np.ndarray, position: int, bits: np.ndarray, length: np.ndarray) -> int:
    """Put pieces (uint64 bits, uint64 lengths 1 to 60) one after another from a bit position; returns the new one."""
    ends = np.cumsum(length, dtype=np.uint64)
    total = int(ends[-1])
    ends += np.uint64(position & 63)
    starts = ends - length
    word = starts >> np.uint64(6)
    # Left-align each piece in 64 bits, then move it to its place in the word where it starts.
    aligned = bits << (np.uint64(64) - length)
    inside = starts & np.uint64(63)
    heads = np.flatnonzero(word[1:] != word[:-1]) + 1
    firsts = np.concatenate([[0], heads])
    base = position >> 6
    out[base:base + firsts.size] |= np.bitwise_or.reduceat(aligned >> inside, firsts)
    # Only the last piece of a word can reach into the next one; the shift is split as 64 is not a legal shift.
    lasts = np.append(heads - 1, length.size - 1)
    out[base + 1:base + 1 + lasts.size] |= aligned[lasts] << (np.uint64(63) - inside[lasts]) << np.uint64(1)
    return position + total


def deal(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deal a layer's codewords to its two sub-streams: ``(A, B)``, the even and the odd ones."""
    return np.ascontiguousarray(symbols[0::INTERLEAVE]), np.ascontiguousarray(symbols[1::INTERLEAVE])


def merge(even: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """Undo :func:`deal`.

    Raises
    ------
    ImageError
        If the even ones are not as many as the odd ones or one more.
    """
    if not 0 <= even.size - odd.size <= 1:
        raise ImageError(f"sub-stream A must have as many codewords as sub-stream B or one more, not {even.size} "
                         f"against {odd.size}; the image is damaged: compile it again")
    symbols = np.empty(even.size + odd.size, dtype=np.uint8)
    symbols[0::INTERLEAVE], symbols[1::INTERLEAVE] = even, odd
    return symbols


def decode_rows(words_a: np.ndarray, words_b: np.ndarray, code: CanonicalCode, eor: int, rows: int) -> np.ndarray:
    """Decode a layer's two sub-streams up to the end of its last row.

    Parameters
    ----------
    words_a, words_b : uint16 array
        The sub-streams, whose zero padding may read as further codewords.
    code : CanonicalCode
    eor : int
        Symbol that ends a row.
    rows : int
        Rows of the layer, at least 1.

    Returns
    -------
    uint8 array
        The layer's codewords in order, the last one ``eor``.

    Raises
    ------
    ImageError
        If the bits match no codeword, or end before the last row.
    """
    even, odd = decode(words_a, code), decode(words_b, code)
    odd = odd[:even.size]
    symbols = merge(even[:odd.size + 1], odd)
    ends = np.flatnonzero(symbols == eor)
    if ends.size < rows:
        raise ImageError(f"the weight streams end after {ends.size} of {rows} rows; the image is damaged: "
                         "compile it again")
    return symbols[:int(ends[rows - 1]) + 1]
