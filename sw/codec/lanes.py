"""Huffman decoding in parallel lanes.

The stream is cut into chunks of equal numbers of bits, and one lane a chunk decodes all of them in lockstep, each step
an array operation over the lanes. A step looks ``index_bits`` bits up in a table that tells how many whole codewords
they begin with.

A lane does not know where the first codeword of its chunk begins. It guesses, by decoding the bits before the chunk
first: a Huffman decoder that starts at a wrong bit soon falls into step. The guess is then checked: lane i is right if
it begins where lane i - 1 ends and lane i - 1 is right. Lanes that were wrong decode again. A code that does
not fall into step is caught after a few rounds: then the lanes decode their chunk from every possible first bit,
positions only, and the true ones are found by following these maps from lane to lane. So the result is exact for every
code and every input.
"""

import dataclasses

import numpy as np

from ...hw.arch.errors import ImageError, ModelError
from .huffman import LENGTH_LIMIT, CanonicalCode

__all__ = ["decode"]

INDEX_BITS = 13
SLOTS_MAX = 8
LANES_MAX = 16384
CHUNK_BITS = 1024
"""Least bits of a lane's chunk, where the stream has more than one."""
WARM_UP_BITS = 256
ROUNDS = 4
"""Rounds of decoding wrong lanes again before all possible first bits are followed."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Tables:
    """Look-up tables. A state of a lane's step is an index of ``index_bits`` bits, plus 2**index_bits when only one
    codeword may be taken (near the chunk's end); the last state is that of a lane that has ended."""

    index_bits: int
    slots: int
    advance: np.ndarray
    """int64 (states,): bits that the step consumes."""
    symbols: np.ndarray
    """uint8 (states, slots)."""
    mask: np.ndarray
    """bool (states, slots): slots that hold a symbol."""
    invalid: np.ndarray
    """bool (states,): the bits begin with no codeword (some bits are consumed, without a symbol)."""

    @property
    def ended(self) -> int:
        return 2 << self.index_bits


def _tables(code: CanonicalCode) -> _Tables:
    index_bits = max(INDEX_BITS, code.max_len)
    size = 1 << index_bits
    shortest = int(code.lengths[0])
    slots = min(SLOTS_MAX, 1 << max(index_bits // shortest - 1, 0).bit_length())
    # A code that is not complete leaves the indices after its last codeword without one: length 0.
    spans = 1 << (index_bits - code.lengths.astype(np.int64))
    first_symbol, first_length = np.zeros(size, dtype=np.uint8), np.zeros(size, dtype=np.int64)
    first_symbol[:spans.sum()] = np.repeat(np.arange(code.size, dtype=np.uint8), spans)
    first_length[:spans.sum()] = np.repeat(code.lengths.astype(np.int64), spans)

    states = 2 * size + 1
    advance = np.zeros(states, dtype=np.int64)
    symbols, mask = np.zeros((states, slots), dtype=np.uint8), np.zeros((states, slots), dtype=bool)
    index, consumed = np.arange(size), np.zeros(size, dtype=np.int64)
    going = np.ones(size, dtype=bool)
    for slot in range(slots):
        rest = (index << consumed) & (size - 1)
        length = first_length[rest]
        going &= (length > 0) & (consumed + length <= index_bits)
        symbols[:size, slot], mask[:size, slot] = first_symbol[rest], going
        consumed = np.where(going, consumed + length, consumed)
    advance[:size], advance[size:2 * size] = consumed, first_length
    symbols[size:2 * size, 0], mask[size:2 * size, 0] = first_symbol, first_length > 0
    invalid = np.concatenate([first_length == 0, first_length == 0, [False]])
    advance[invalid] = np.gcd.reduce(code.lengths)  # keeps every lane at a multiple of it
    return _Tables(index_bits, slots, advance, symbols, mask, invalid)


class _Lanes:
    """Lanes over one stream."""

    def __init__(self, words: np.ndarray, tables: _Tables) -> None:
        self.tables = tables
        padded = np.concatenate([words, np.zeros(3, dtype=np.uint16)]).astype(np.uint32)
        self.windows = padded[:-1] << np.uint32(16) | padded[1:]

    def run(self, starts: np.ndarray, ends: np.ndarray, record: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Decode each lane from its start to the first codeword that begins at or after its end.

        Returns the positions reached, int64 (lanes,), and with ``record`` the states of all steps, int32
        (steps, lanes).
        """
        tables, windows = self.tables, self.windows
        size, index_bits = 1 << tables.index_bits, tables.index_bits
        position = starts.copy()
        top = np.int64(32 - index_bits)
        history: list[np.ndarray] = []
        # No lane comes to its end within these steps, so they need no check.
        free = max(int((ends - starts).min()), 0) // index_bits if starts.size else 0
        word, shift = np.empty_like(position), np.empty_like(position)
        peek, step = np.empty(position.size, dtype=np.uint32), np.empty_like(position)
        for _ in range(free):
            np.right_shift(position, 4, out=word)
            np.take(windows, word, out=peek, mode="clip")
            np.bitwise_and(position, 15, out=shift)
            np.subtract(top, shift, out=shift)
            state = np.right_shift(peek, shift, dtype=np.int64)
            state &= size - 1
            if record:
                history.append(state.astype(np.int32))
            np.take(tables.advance, state, out=step, mode="clip")
            position += step
        active = np.flatnonzero(position < ends)
        while active.size:
            at, end = position[active], ends[active]
            state = windows[at >> 4].astype(np.int64) >> (top - (at & 15)) & size - 1
            state[at + index_bits > end] += size
            if record:
                row = np.full(position.size, tables.ended, dtype=np.int32)
                row[active] = state
                history.append(row)
            at += tables.advance[state]
            position[active] = at
            active = active[at < end]
        if not record:
            return position, None
        return position, np.array(history, dtype=np.int32).reshape(len(history), position.size)


def decode(words: np.ndarray, code: CanonicalCode, count: int | None = None) -> np.ndarray:
    """Decode a stream.

    Parameters
    ----------
    words : uint16 array (words,)
        The stream; bits fill a word from bit 15 down.
    code : CanonicalCode
    count : int, optional
        Number of symbols. Without it, as many as the words hold; the zero bits that pad the last word may then
        give up to 15 symbols that were never encoded.

    Returns
    -------
    uint8 array (symbols,)

    Raises
    ------
    ImageError
        If the bits match no codeword (the message names their position), or end before ``count`` symbols.
    """
    words = np.ascontiguousarray(words)
    if words.dtype != np.uint16 or words.ndim != 1:
        raise ModelError(f"a stream must be a flat array of uint16, not {words.dtype} of shape {words.shape}")
    if count is not None and count < 0:
        raise ModelError(f"the number of symbols to decode must not be negative, not {count!r}")
    total = 16 * words.size
    if total == 0 or count == 0:
        return _cut(np.zeros(0, dtype=np.uint8), total, count)
    tables = _tables(code)
    lanes = _Lanes(words, tables)

    # Chunks are whole multiples of the lengths' common divisor: a code of equal lengths is in step from the start.
    unit = int(np.gcd.reduce(code.lengths))
    chunk = -(-max(CHUNK_BITS, -(-total // LANES_MAX)) // unit) * unit
    bounds = np.arange(0, total, chunk, dtype=np.int64)
    ends = np.append(bounds[1:], total)
    starts = _starts(lanes, bounds, unit)
    reached, history = lanes.run(starts, ends, record=True)
    assert history is not None
    for _ in range(ROUNDS):
        wrong = np.flatnonzero(starts[1:] != reached[:-1]) + 1
        if not wrong.size:
            break
        starts[wrong] = reached[wrong - 1]
        history = _again(lanes, starts, ends, wrong, reached, history)
    else:
        exact = _follow(lanes, bounds, ends, unit)
        wrong = np.flatnonzero(starts != exact)
        starts = exact
        if wrong.size:
            history = _again(lanes, starts, ends, wrong, reached, history)

    states = history.T[tables.ended != history.T]
    symbols = tables.symbols[states][tables.mask[states]]
    if int(reached[-1]) > total and not tables.invalid[states[-1]]:
        symbols = symbols[:-1]  # the last codeword is cut off by the end of the stream
    bad = np.flatnonzero(tables.invalid[states])
    if bad.size:
        before = states[:int(bad[0])]
        if count is None or int(tables.mask[before].sum()) < count:
            raise ImageError(f"the bits at bit position {int(tables.advance[before].sum())} match no codeword; "
                             "the image is damaged: compile it again")
    return _cut(symbols, total, count)


def _cut(symbols: np.ndarray, total: int, count: int | None) -> np.ndarray:
    if count is not None and symbols.size < count:
        raise ImageError(f"the stream ends at bit position {total} after {symbols.size} of {count} codewords; "
                         "the image is damaged: compile it again")
    return symbols if count is None else symbols[:count].copy()


def _starts(lanes: _Lanes, bounds: np.ndarray, unit: int) -> np.ndarray:
    """Guess where the first codeword of each chunk begins."""
    if bounds.size == 1:
        return bounds.copy()
    warm_up = -(-WARM_UP_BITS // unit) * unit
    reached, _ = lanes.run(bounds[1:] - warm_up, bounds[1:], record=False)
    return np.concatenate([bounds[:1], reached])


def _again(lanes: _Lanes, starts: np.ndarray, ends: np.ndarray, which: np.ndarray, reached: np.ndarray,
           history: np.ndarray) -> np.ndarray:
    """Decode some lanes again: updates ``reached`` and returns the new history."""
    reached[which], part = lanes.run(starts[which], ends[which], record=True)
    assert part is not None
    if part.shape[0] > history.shape[0]:
        more = np.full((part.shape[0] - history.shape[0], history.shape[1]), lanes.tables.ended, dtype=np.int32)
        history = np.concatenate([history, more])
    history[:, which] = lanes.tables.ended
    history[:part.shape[0], which] = part
    return history


def _follow(lanes: _Lanes, bounds: np.ndarray, ends: np.ndarray, unit: int) -> np.ndarray:
    """The exact first codeword of each chunk, from what each chunk makes of all possible first bits."""
    offsets = np.arange(0, LENGTH_LIMIT, unit, dtype=np.int64)
    maps = np.empty((offsets.size, bounds.size), dtype=np.int64)
    for row, offset in enumerate(offsets):
        begin = bounds + offset
        maps[row], _ = lanes.run(begin, np.maximum(ends, begin), record=False)
    exact = np.zeros(bounds.size, dtype=np.int64)
    table, last = maps.tolist(), 0
    for lane in range(1, bounds.size):
        last = table[(last - int(bounds[lane - 1])) // unit][lane - 1]
        exact[lane] = last
    return exact
