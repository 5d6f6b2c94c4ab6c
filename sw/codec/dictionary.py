"""Which phrases of a candidate alphabet stand in the dictionary.

All phrases that occur are in at first. Then, in rounds, those leave that cost more than they save: a phrase costs its
micro-operations in the dictionary and its codewords; without it, its codewords give way to those of its spelling. What
a codeword costs is estimated by the entropy meanwhile; the rounds' dictionaries are compared by their Huffman codes.
"""

import numpy as np

from .huffman import code_bits
from .phrases import EOR, Phrases

__all__ = ["choose_phrases", "spell"]

ROUNDS = 40
PATIENCE = 4
"""Rounds without a gain after which the search ends."""


def choose_phrases(phrases: Phrases, *, max_code_bits: int, max_entries: int, max_operations: int,
                   ) -> tuple[np.ndarray, int] | None:
    """Choose the dictionary of one alphabet.

    Parameters
    ----------
    phrases : Phrases
    max_code_bits : int
        Longest codeword.
    max_entries : int
        Most dictionary entries, end of row included.
    max_operations : int
        Most micro-operations of all entries together.

    Returns
    -------
    (bool array (phrases,), int) or None
        Which phrases need no spelling (a superset of those in the dictionary), and the bits of dictionary
        and codewords; ``None`` when no dictionary of this alphabet fits.
    """
    counts = np.bincount(phrases.tokens, minlength=phrases.size.size)
    # A vector or pair that occurs once never earns its entry.
    kept = phrases.allowed & ((phrases.level < phrases.level[-1]) | (counts > 1))
    best: tuple[np.ndarray, int] | None = None
    waited = 0
    for _ in range(ROUNDS):
        _push(phrases, counts, kept)
        used = counts > 0
        entries = int(np.count_nonzero(used))
        operations = int(phrases.size[used].sum())
        fits = entries <= max_entries and operations <= max_operations
        if fits:
            bits = 16 * operations + code_bits(counts[used], max_code_bits)
            if best is None or bits < best[1]:
                best, waited = (kept.copy(), bits), 0
            else:
                waited += 1
        candidates = np.flatnonzero(used & (phrases.level > 0))
        if waited >= PATIENCE or not candidates.size:
            break
        gain = _gain(phrases, counts, kept, candidates)
        if operations > max_operations:
            gain = gain / phrases.size[candidates]
        order = np.argsort(gain, kind="stable")
        # Those that lose, all but a few at a time; and enough of the others to come to fit, or to see whether it pays.
        leave = int(np.count_nonzero(gain < 0)) * 3 // 4
        if not fits:
            freed = np.cumsum(phrases.size[candidates[order]])
            needed = max(entries - max_entries, int(np.searchsorted(freed, operations - max_operations)))
            leave = max(leave, min(needed, 3 * candidates.size // 4))
        leave = max(leave, 1 + candidates.size // 16)
        kept[candidates[order[:leave]]] = False
    return best


def _parts(phrases: Phrases, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spellings of some phrases, one after another, and their lengths."""
    lengths = phrases.spelling_length[which]
    ends = np.cumsum(lengths)
    within = np.arange(int(ends[-1]) if ends.size else 0) - np.repeat(ends - lengths, lengths)
    return phrases.spelling[np.repeat(phrases.spelling_start[which], lengths) + within], lengths


def _push(phrases: Phrases, counts: np.ndarray, kept: np.ndarray) -> None:
    """Replace the occurrences of phrases that are not kept by those of their spellings, in place."""
    pending = ~kept & (counts > 0)
    for level in range(int(phrases.level[-1]), 0, -1):
        which = np.flatnonzero(pending & (phrases.level == level))
        if which.size:
            parts, lengths = _parts(phrases, which)
            counts += np.bincount(parts, np.repeat(counts[which], lengths), counts.size).astype(np.int64)
            counts[which] = 0
            pending[parts] = ~kept[parts]


def _gain(phrases: Phrases, counts: np.ndarray, kept: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Bits that each candidate saves by standing in the dictionary (estimated)."""
    total = float(counts.sum())
    top = int(phrases.level[-1])
    lower = int(np.searchsorted(phrases.level, top))
    own = np.maximum(np.log2(total / np.maximum(counts, 1)), 0.5)
    # A part that is now unused would need an entry of its own.
    bits = own + np.where(counts > 0, 0, 16 * phrases.size)
    spelled = np.zeros(counts.size)
    for level in range(1, top + 1):
        which = candidates[candidates >= lower] if level == top else np.flatnonzero(phrases.level[:lower] == level)
        if which.size:
            parts, lengths = _parts(phrases, which)
            spelled[which] = np.add.reduceat(bits[parts], np.cumsum(lengths) - lengths)
            bits[which] = np.where(kept[which], bits[which], spelled[which])
    return np.asarray((counts * (spelled - own) - 16 * phrases.size)[candidates])


def spell(phrases: Phrases, kept: np.ndarray) -> np.ndarray:
    """The layer's tokens with every phrase that is not kept spelled, and no skips at the end of a row; int64."""
    tokens = phrases.tokens
    for level in range(int(phrases.level[-1]), 0, -1):
        replaced = ~kept[tokens] & (phrases.level[tokens] == level)
        if not replaced.any():
            continue
        parts, lengths = _parts(phrases, tokens[replaced])
        repeats = np.ones(tokens.size, dtype=np.int64)
        repeats[replaced] = lengths
        replaced = np.repeat(replaced, repeats)
        tokens = np.repeat(tokens, repeats)
        tokens[replaced] = parts
    # A vector's zeros at the end of its row were spelled, too: find the next token that is no skip.
    skip = phrases.skip[tokens]
    following = np.where(skip, tokens.size, np.arange(tokens.size))
    following = np.minimum.accumulate(following[::-1])[::-1]
    return np.asarray(tokens[~(skip & (tokens[following] == EOR))])
