"""The weight streams: canonical codes, contexts, the dictionary, and the operations that they spell."""

import dataclasses

import numpy as np

from ...hw.arch.config import SYMBOLS_MAX, AcceleratorConfig
from ...hw.arch.errors import ImageError
from ...hw.arch.image import ENTRY_OPS_MAX, RECTIFY_SHIFT, OpKind

__all__ = ["Code", "Operations", "read_code", "read_operations"]

WORD_BITS = 16
AGAIN = "compile the network again"


@dataclasses.dataclass(frozen=True, eq=False)
class Operations:
    """The operations of a stream that do something, in order: terms and rectifications, as arrays of equal length.

    Parameters
    ----------
    row : int64 array
        Row of the stream.
    tap : int64 array
        ``position * channels + channel``.
    shift : int64 array
        Left shift of a term.
    kind : int64 array
        :attr:`OpKind.ADD`, :attr:`OpKind.SUB`, or :attr:`OpKind.SKIP` for a rectification.
    codewords, operations : int64 array (rows,)
        Codewords and micro-operations of each row, those that only move the tap pointer and the end of row included.
    """

    row: np.ndarray
    tap: np.ndarray
    shift: np.ndarray
    kind: np.ndarray
    codewords: np.ndarray
    operations: np.ndarray

    @property
    def rows(self) -> int:
        """Number of rows in the stream."""
        return len(self.codewords)

    @property
    def is_term(self) -> np.ndarray:
        """Which operations are terms, bool."""
        return self.kind != OpKind.SKIP


@dataclasses.dataclass(frozen=True, eq=False)
class Code:
    """Code table and dictionary of a layer.

    Parameters
    ----------
    symbol, length : int64 array (2**width,)
        Symbol and length of the codeword that the next ``width`` bits begin with; length 0 where none does.
    kind, shift, pre, post : int64 arrays
        Micro-operations.
    start, size : int64 arrays
        Each entry's first micro-operation and their number.
    eor : int
        Symbol that ends a row.
    """

    symbol: np.ndarray
    length: np.ndarray
    kind: np.ndarray
    shift: np.ndarray
    pre: np.ndarray
    post: np.ndarray
    start: np.ndarray
    size: np.ndarray
    eor: int

    @property
    def width(self) -> int:
        """Bits of the longest codeword there may be."""
        return len(self.symbol).bit_length() - 1


def read_code(where: str, config: AcceleratorConfig, counts: np.ndarray, words: np.ndarray, eor: int) -> Code:
    """Read a code table (number of codewords of length 1, 2, ...) and the words of a dictionary.

    Raises
    ------
    ImageError
        If the code has too many codewords, or the dictionary isn't as many complete entries within the limits.
    """
    symbol, length = _lookup(where, counts)
    entries = int(counts.sum())
    ends = np.flatnonzero(words >> 2 & 1)
    if not 1 <= entries <= SYMBOLS_MAX or len(ends) != entries or ends[-1] != len(words) - 1:
        raise ImageError(f"{where} dictionary: must have 1 to {SYMBOLS_MAX} complete entries, as many as its {entries} "
                         f"codewords, but has {len(ends)} in {len(words)} words; {AGAIN}")
    if len(words) > config.dict_depth:
        raise ImageError(f"{where} dictionary: {len(words)} micro-operations don't fit the accelerator's "
                         f"{config.dict_depth}; {AGAIN}")
    start = np.concatenate([[0], ends[:-1] + 1])
    size = ends + 1 - start
    if size.max() > ENTRY_OPS_MAX:
        raise ImageError(f"{where} dictionary: entry {int(size.argmax())} has {int(size.max())} micro-operations, more "
                         f"than {ENTRY_OPS_MAX}; {AGAIN}")
    kind, shift = words & 3, words >> 3 & 0xF
    for what, chosen, most in (("max_shift", kind <= OpKind.SUB, config.max_shift),
                               ("rectification", kind == OpKind.SKIP, RECTIFY_SHIFT)):
        if shift[chosen].size and shift[chosen].max() > most:
            raise ImageError(f"{where} dictionary: shift {int(shift[chosen].max())} is greater than the accelerator's "
                             f"{what}, {most}; {AGAIN}")
    if eor >= entries or np.flatnonzero(kind == OpKind.EOR).tolist() != [int(ends[eor])] or size[eor] > 1:
        raise ImageError(f"{where} dictionary: symbol {eor} must be the one that ends rows, with its one "
                         f"micro-operation; {AGAIN}")
    return Code(symbol, length, kind, shift, words >> 7 & 0x3F, words >> 13 & 7, start, size, eor)


def _lookup(where: str, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _decode(where: str, words: list[int], code: Code, contexts: int, rows: int) -> np.ndarray:
    """Symbols of ``rows`` rows, as the decoder consumes the words: each context holds two, and takes the next word of
    the one sequence when it moves on to its second."""
    symbol, length, width, eor = code.symbol.tolist(), code.length.tolist(), code.width, code.eor
    mask, held_bits, available = (1 << width) - 1, 2 * WORD_BITS, len(words)
    # Each context: its two words, the offset of its next bit, and the number of its first and second word.
    window = [0] * contexts
    offset = [0] * contexts
    first, second = list(range(0, 2 * contexts, 2)), list(range(1, 2 * contexts, 2))
    fetched = 2 * contexts
    padded = words + [0] * fetched
    for context in range(contexts):
        window[context] = padded[2 * context] << WORD_BITS | padded[2 * context + 1]
    symbols: list[int] = []
    used = -1
    row = context = 0
    while row < rows:
        bits = window[context] >> held_bits - offset[context] - width & mask
        step = length[bits]
        end = offset[context] + step
        needed = second[context] if end > WORD_BITS else first[context]
        if not step or needed >= available:
            why = "it ends" if needed >= available else "bits match no codeword"
            raise ImageError(f"{where}: {why} after {len(symbols)} codewords, in row {row} of {rows}; {AGAIN}")
        used = max(used, needed)
        symbols.append(symbol[bits])
        row += symbols[-1] == eor
        if end >= WORD_BITS:
            end -= WORD_BITS
            following = words[fetched] if fetched < available else 0
            window[context] = (window[context] & 0xFFFF) << WORD_BITS | following
            first[context], second[context] = second[context], fetched
            fetched += 1
        offset[context] = end
        context = context + 1 if context + 1 < contexts else 0
    rest = any(window[c] & (1 << held_bits - offset[c]) - 1 for c in range(contexts))
    if rest or available > used + 1:
        raise ImageError(f"{where}: after its {len(symbols)} codewords, which need {used + 1} of {available} words, "
                         f"more than the zero bits that fill a context's word follow; {AGAIN}")
    return np.array(symbols, np.int64)


def read_operations(where: str, config: AcceleratorConfig, code: Code, words: np.ndarray, *, rows: int, channels: int,
                    positions: int, most: int) -> Operations:
    """Decode a stream's codewords and expand them.

    Parameters
    ----------
    where : str
        The stream, for messages.
    config : AcceleratorConfig
        Number of contexts.
    code : Code
        Code table and dictionary.
    words : int64 array
        The stream's codewords.
    rows, channels, positions : int
        Rows in the stream, taps a kernel position, kernel positions.
    most : int
        Micro-operations that the watchdog leaves time for, at one a cycle.

    Raises
    ------
    ImageError
        If bits match no codeword, the stream is too short or too long, the tap pointer moves too far, a term lies
        outside the kernel, or the watchdog would end the layer.
    """
    symbols = _decode(where, words.tolist(), code, config.interleave, rows)
    sizes = code.size[symbols]
    ends = np.flatnonzero(symbols == code.eor) + 1
    before = np.concatenate([[0], np.cumsum(sizes)])
    if before[-1] > most:
        raise ImageError(f"{where}: its rows have {int(before[-1])} micro-operations, but the watchdog ends the layer "
                         f"after {most}; {AGAIN}")
    # Number of each micro-operation in the dictionary: entry start plus position in the entry.
    ops = np.arange(before[-1]) - np.repeat(before[:-1] - code.start[symbols], sizes)
    operations = np.diff(before[ends], prepend=0)
    row = np.repeat(np.arange(rows), operations)
    kind, shift = code.kind[ops], code.shift[ops]
    # The move before each operation: its own pre, and the post of the operation before it in the row.
    posted = np.concatenate([[0], code.post[ops[:-1]]])[:len(ops)]
    firsts = np.concatenate([[0], before[ends]])[:rows]
    posted[firsts] = 0
    move = code.pre[ops] + posted
    if channels > 1:
        moves = np.where(kind == OpKind.EOR, 0, move)
        if moves.size and moves.max() > channels:
            raise ImageError(f"{where} row {int(row[moves.argmax()])}: the tap pointer moves {int(moves.max())} taps "
                             f"between two micro-operations, more than the {channels} of a position; {AGAIN}")
    walked = np.cumsum(move)
    tap = walked - np.repeat((walked - move)[firsts], operations)
    outside = (kind <= OpKind.SUB) & (tap >= positions * channels)
    if outside.any():
        worst = int(np.flatnonzero(outside)[0])
        raise ImageError(f"{where} row {int(row[worst])}: a term at tap {int(tap[worst])} lies outside the kernel's "
                         f"{positions * channels} taps; {AGAIN}")
    kept = (kind <= OpKind.SUB) | ((kind == OpKind.SKIP) & (shift == RECTIFY_SHIFT))
    return Operations(row[kept], tap[kept], shift[kept], kind[kept], np.diff(ends, prepend=0), operations)
