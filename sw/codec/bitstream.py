"""Symbols to 16-bit words: one sequence of bits, and the word order of a stream's contexts (``docs/image.md``).

Bits fill a word from bit 15 down. The last word is padded with zero bits.
"""

import sys

import numpy as np

from ...hw.arch.errors import ImageError, ModelError
from .huffman import CanonicalCode
from .lanes import decode

__all__ = ["decode", "decode_stream", "encode", "encode_stream"]

QUAD = 4
"""Symbols that are joined to one piece of at most 60 bits, so that every 64-bit word has a piece that starts in it."""
CHUNK = 1 << 16
"""Pieces that are placed at a time: the temporary arrays stay in the cache."""
LENGTH_SHIFT = np.uint64(58)
"""In the table of pairs a codeword pair has its length above this bit and its bits below."""
PAIR_BITS = (np.uint64(1) << LENGTH_SHIFT) - np.uint64(1)
WORD_BITS = 16
WINDOW_WORDS = 2
"""Words of each context that the decoder holds."""


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


def encode_stream(symbols: np.ndarray, code: CanonicalCode, contexts: int) -> np.ndarray:
    """Encode a stream's codewords, dealt to `contexts` contexts, as the one sequence of words that the decoder takes.

    Parameters
    ----------
    symbols : uint8 array (codewords,)
    code : CanonicalCode
    contexts : int
        ``AcceleratorConfig.interleave``.

    Returns
    -------
    uint16 array (words,)
    """
    if contexts == 1:
        return encode(symbols, code)
    lengths = code.lengths[symbols].astype(np.int64)
    ends = np.empty_like(lengths)
    for context in range(contexts):
        ends[context::contexts] = np.cumsum(lengths[context::contexts])
    crossed = np.flatnonzero(ends // WORD_BITS != (ends - lengths) // WORD_BITS)
    initial = np.arange(WINDOW_WORDS * contexts)
    owner = np.concatenate((initial // WINDOW_WORDS, crossed % contexts))
    number = np.concatenate((initial % WINDOW_WORDS, ends[crossed] // WORD_BITS + WINDOW_WORDS - 1))
    parts = [encode(symbols[n::contexts], code) for n in range(contexts)]
    sizes = np.array([part.size for part in parts])
    starts = np.cumsum(sizes) - sizes
    held = number < sizes[owner]
    last = int(np.flatnonzero(held)[-1]) + 1 if held.any() else 0
    words = np.zeros(last, dtype=np.uint16)
    held = held[:last]
    words[held] = np.concatenate(parts)[(starts[owner] + number)[:last][held]]
    return words


def decode_stream(words: np.ndarray, code: CanonicalCode, contexts: int, eor: int, rows: int) -> np.ndarray:
    """Decode a stream up to the end of its last row.

    With several contexts the place of a word depends on all codewords before it, so they are decoded one by one.

    Parameters
    ----------
    words : uint16 array
        The stream, whose zero padding may read as further codewords.
    code : CanonicalCode
    contexts : int
        ``AcceleratorConfig.interleave``.
    eor : int
        Symbol that ends a row.
    rows : int
        Rows of the stream.

    Returns
    -------
    uint8 array
        The stream's codewords in order, the last one ``eor``.

    Raises
    ------
    ImageError
        If the bits match no codeword, or end before the last row.
    """
    if not rows:
        return np.zeros(0, dtype=np.uint8)
    if contexts == 1:
        symbols = decode(words, code)
        ends = np.flatnonzero(symbols == eor)
        if ends.size < rows:
            raise _short(ends.size, rows)
        return symbols[:int(ends[rows - 1]) + 1]
    return _decode_contexts(words, code, contexts, eor, rows)


def _short(found: int, rows: int) -> ImageError:
    return ImageError(f"the codewords end after {found} of {rows} rows; the image is damaged: compile it again")


def _decode_contexts(words: np.ndarray, code: CanonicalCode, contexts: int, eor: int, rows: int) -> np.ndarray:
    longest = code.max_len
    spans = 1 << (longest - code.lengths.astype(np.int64))
    lengths = np.repeat(code.lengths.astype(np.int64), spans).tolist()
    names = np.repeat(np.arange(code.size), spans).tolist()
    lengths += [0] * ((1 << longest) - len(lengths))
    stream = [*words.tolist(), *[0] * (WINDOW_WORDS * contexts + 1)]
    windows = [stream[2 * n] << WORD_BITS | stream[2 * n + 1] for n in range(contexts)]
    # A window is shifted left by its context's bit offset, and refilled when that passes a word.
    room = [WORD_BITS] * contexts
    at, end = WINDOW_WORDS * contexts, len(stream)
    top, mask = 2 * WORD_BITS - longest, (1 << 2 * WORD_BITS) - 1
    found = bytearray()
    left, context = rows, 0
    while True:
        window = windows[context]
        index = window >> top
        length = lengths[index]
        if not length:
            raise ImageError(f"the bits of codeword {len(found)} match no codeword; the image is damaged: "
                             "compile it again")
        symbol = names[index]
        found.append(symbol)
        if symbol == eor:
            left -= 1
            if not left:
                return np.frombuffer(found, dtype=np.uint8)
        window = window << length & mask
        remaining = room[context] - length
        if remaining <= 0:
            if at == end:
                raise _short(rows - left, rows)
            window |= stream[at] << -remaining
            at += 1
            remaining += WORD_BITS
        room[context], windows[context] = remaining, window
        context += 1
        if context == contexts:
            context = 0
