"""The weight streams: canonical codes, the dictionary, and the terms that they spell."""

import dataclasses

import numpy as np

from ...hw.arch.config import DICT_HEADS, AcceleratorConfig
from ...hw.arch.errors import ImageError
from ...hw.arch.image import OpKind

__all__ = ["Terms", "read_terms"]

WORD_BITS = 16
AGAIN = "compile the network again"


@dataclasses.dataclass(frozen=True, eq=False)
class Terms:
    """All terms of a layer in stream order: arrays of equal length.

    Parameters
    ----------
    row : int64 array
        Row in the streams (output channel; 0 in all when the row is shared).
    tap : int64 array
        Kernel row, kernel column, input channel: ``(ky * kernel width + kx) * channels + ci``.
    shift : int64 array
        Left shift.
    negative : bool array
        Subtracted.
    rows : int
        Number of rows in the streams.
    codewords : int
        Codewords, those without a term included.
    operations : int
        Micro-operations, those without a term included.
    """

    row: np.ndarray
    tap: np.ndarray
    shift: np.ndarray
    negative: np.ndarray
    rows: int
    codewords: int
    operations: int


def _lookup(where: str, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symbol and length for every value of the next ``len(counts)`` bits; length 0 where no codeword matches."""
    width = len(counts)
    symbol, length = np.zeros(1 << width, np.int64), np.zeros(1 << width, np.int64)
    code = number = 0
    for bits, count in enumerate(counts.tolist(), start=1):
        code <<= 1
        if code + count > 1 << bits:
            raise ImageError(f"{where} code table: {count} codewords of {bits} bits, but only {(1 << bits) - code} are "
                             f"left; {AGAIN}")
        for _ in range(count):
            start, stop = code << width - bits, code + 1 << width - bits
            symbol[start:stop], length[start:stop] = number, bits
            code, number = code + 1, number + 1
    return symbol, length


def _decode(words: np.ndarray, symbol: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """All codewords of a sub-stream, those in the padding at its end included.

    Returns
    -------
    symbols, ends : int64 arrays
        Each codeword's symbol and the bit after it.
    stuck : bool
        Decoding ended at bits that match no codeword; otherwise at the end.
    """
    width = int(symbol.size).bit_length() - 1
    bits = np.unpackbits(words.astype(">u2").view(np.uint8))
    padded = np.concatenate([bits, np.zeros(width, np.uint8)]).astype(np.int32)
    ahead = np.zeros(bits.size, np.int32)
    for offset in range(width):
        ahead = ahead << 1 | padded[offset:offset + bits.size]
    steps = length[ahead].tolist()
    starts, position = [], 0
    while position < len(steps) and steps[position]:
        starts.append(position)
        position += steps[position]
    if position > len(steps):
        starts.pop()
    begun = np.array(starts, np.int64)
    codes = ahead[begun]
    return symbol[codes], begun + length[codes], position < len(steps)


def _interleave(where: str, streams: tuple[np.ndarray, ...], symbol: np.ndarray, length: np.ndarray, eor: int,
                rows: int) -> np.ndarray:
    """The symbols of ``rows`` rows, dealt to the sub-streams in turn."""
    decoded = [_decode(words, symbol, length) for words in streams]
    total = min(2 * len(decoded[0][0]), 2 * len(decoded[1][0]) + 1)
    symbols = np.empty(total, np.int64)
    for number in (0, 1):
        part = symbols[number::2]
        part[:] = decoded[number][0][:len(part)]
    ends_of_row = np.flatnonzero(symbols == eor)
    if len(ends_of_row) < rows:
        number = total % 2
        why = "bits match no codeword" if decoded[number][2] else "it ends"
        raise ImageError(f"{where} sub-stream {'AB'[number]}: {why} after {len(decoded[number][0])} codewords, in row "
                         f"{len(ends_of_row)} of {rows}; {AGAIN}")
    count = int(ends_of_row[rows - 1]) + 1
    for number, (words, (_, ends, _)) in enumerate(zip(streams, decoded, strict=True)):
        used = (count + 1 - number) // 2
        end = int(ends[used - 1]) if used else 0
        if WORD_BITS * len(words) - end >= WORD_BITS or np.unpackbits(words.astype(">u2").view(np.uint8))[end:].any():
            raise ImageError(f"{where} sub-stream {'AB'[number]}: its codewords end at bit {end}, but more than the "
                             f"zero bits that fill a word follow; {AGAIN}")
    return symbols[:count]


@dataclasses.dataclass(frozen=True, eq=False)
class _Dictionary:
    """Micro-operations, and each entry's first one and length."""

    kind: np.ndarray
    shift: np.ndarray
    pre: np.ndarray
    post: np.ndarray
    start: np.ndarray
    length: np.ndarray


def _read_dictionary(where: str, words: np.ndarray, entries: int, eor: int, config: AcceleratorConfig) -> _Dictionary:
    ends = np.flatnonzero(words >> 2 & 1)
    if not 1 <= entries <= DICT_HEADS or len(ends) != entries or ends[-1] != len(words) - 1:
        raise ImageError(f"{where} dictionary: must have 1 to {DICT_HEADS} complete entries, as many as its {entries} "
                         f"codewords, but has {len(ends)} in {len(words)} words; {AGAIN}")
    if len(words) - entries > config.dict_depth - DICT_HEADS:
        raise ImageError(f"{where} dictionary: {len(words) - entries} further micro-operations don't fit the term "
                         f"RAM's {config.dict_depth - DICT_HEADS}; {AGAIN}")
    kind, shift = words & 3, words >> 3 & 0xF
    if shift[kind <= OpKind.SUB].size and shift[kind <= OpKind.SUB].max() > config.max_shift:
        raise ImageError(f"{where} dictionary: shift {int(shift[kind <= OpKind.SUB].max())} is greater than the "
                         f"accelerator's max_shift, {config.max_shift}; {AGAIN}")
    if eor >= entries or np.flatnonzero(kind == OpKind.EOR).tolist() != [int(ends[eor])]:
        raise ImageError(f"{where} dictionary: symbol {eor} must be the one that ends rows, with its last "
                         f"micro-operation; {AGAIN}")
    start = np.concatenate([[0], ends[:-1] + 1])
    return _Dictionary(kind, shift, words >> 7 & 0x3F, words >> 13 & 7, start, ends + 1 - start)


def read_terms(where: str, config: AcceleratorConfig, *, counts: np.ndarray, dictionary: np.ndarray, eor: int,
               streams: tuple[np.ndarray, ...], rows: int, channels: int, kernel: tuple[int, int],
               most: int) -> Terms:
    """Decode both sub-streams of a layer and expand them to terms.

    Parameters
    ----------
    where : str
        The layer, for messages.
    config : AcceleratorConfig
        Limits of the decoder.
    counts, dictionary : int64 array
        Code table and dictionary.
    eor : int
        Symbol that ends a row.
    streams : two int64 arrays
        Words of sub-streams A and B.
    rows, channels : int
        Rows in the streams, taps a kernel position.
    kernel : (int, int)
        Height and width.
    most : int
        Micro-operations that the watchdog leaves time for, at one a cycle.

    Raises
    ------
    ImageError
        If a table is malformed, bits match no codeword, a stream is too short or too long, a tap lies outside the
        kernel, or the watchdog would end the layer.
    """
    symbol, length = _lookup(where, counts)
    table = _read_dictionary(where, dictionary, int(counts.sum()), eor, config)
    symbols = _interleave(where, streams, symbol, length, eor, rows)
    sizes = table.length[symbols]
    operations = int(sizes.sum())
    if operations > most:
        raise ImageError(f"{where}: its rows have {operations} micro-operations, but its watchdog ends it after "
                         f"{most}; {AGAIN}")
    # Number of each micro-operation of the layer, in order: entry start plus position in the entry.
    before = np.concatenate([[0], np.cumsum(sizes)])
    ops = np.arange(before[-1]) - np.repeat(before[:-1] - table.start[symbols], sizes)
    kind, shift = table.kind[ops], table.shift[ops]
    row = np.cumsum(kind == OpKind.EOR) - (kind == OpKind.EOR)
    begins_row = np.concatenate([[True], row[1:] != row[:-1]])
    # The move before each operation: its own pre, and the post of the operation before it in the row.
    posted = np.concatenate([[0], table.post[ops[:-1]]])
    move = table.pre[ops] + np.where(begins_row, 0, posted)
    limit = channels if channels > 1 else kernel[1]
    moves = np.where(kind == OpKind.EOR, 0, move)
    if moves.size and moves.max() > limit:
        raise ImageError(f"{where} row {int(row[moves.argmax()])}: the tap pointer moves {int(moves.max())} taps "
                         f"between two micro-operations, more than {limit}; {AGAIN}")
    walked = np.cumsum(move)
    first = np.flatnonzero(begins_row)
    tap = walked - np.repeat((walked - move)[first], np.diff(np.append(first, len(ops))))
    is_term = kind <= OpKind.SUB
    taps = kernel[0] * kernel[1] * channels
    if is_term.any() and tap[is_term].max() >= taps:
        worst = int(np.flatnonzero(is_term & (tap >= taps))[0])
        raise ImageError(f"{where} row {int(row[worst])}: a term at tap {int(tap[worst])} lies outside the kernel's "
                         f"{taps} taps; {AGAIN}")
    return Terms(row[is_term], tap[is_term], shift[is_term], kind[is_term] == OpKind.SUB, rows, len(symbols), len(ops))
