"""Candidate alphabets: ways to cut a layer's rows into phrases.

A *phrase* is what one dictionary entry could do: some micro-operations that move the tap pointer and add the terms of
some taps. A phrase that is too rare to earn its place in the dictionary is *spelled* by shorter phrases: a zero run
with a weight by a skip and the weight, a vector by its single weights, a weight of many terms by its first term and the
rest. The shortest ones, the *atoms*, have no spelling.

An alphabet is built by a function in :data:`BUILDERS`; a new kind of alphabet (say, product-quantized vectors) is
one more function there.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ...hw.arch.image import ENTRY_OPS_MAX, MAX_POST, MAX_PRE, MicroOp, OpKind
from ..network import Term

__all__ = ["BUILDERS", "EOR", "LayerTaps", "Phrases"]

EOR = 0
"""The phrase that ends a row."""
RUNS = (0, 1, 3, 7, 15, 31, 62)
"""Longest zero runs that are tried in front of a weight."""
DIMENSIONS = (2, 3, 4)
"""Vector lengths that are tried."""
COUNTED = 1 << 20
"""Keys below this are counted, not sorted."""
CACHED = 1 << 12
"""Phrases that are kept: all alphabets of a layer begin with the same ones."""

Ops = tuple[MicroOp, ...]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LayerTaps:
    """A layer's weights, prepared for the builders.

    Parameters
    ----------
    taps : uint16 array (rows, taps)
        0 for a zero weight, otherwise 1 + index in ``values``.
    values : tuple of tuple of Term
        The different weights that occur and are not zero.
    reach : int
        Most taps that the pointer may move between two operations.
    """

    taps: np.ndarray
    values: tuple[tuple[Term, ...], ...]
    reach: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Phrases:
    """One candidate alphabet of a layer. Phrase 0 is :data:`EOR`; phrases stand in order of ``level``.

    Parameters
    ----------
    name : str
        Name of the alphabet.
    tokens : int64 array
        The layer's rows as phrases, each row closed by :data:`EOR`.
    size : int64 array (phrases,)
        Micro-operations.
    skip : bool array (phrases,)
        The phrase has no term.
    level : int64 array (phrases,)
        0 for an atom; others are spelled by phrases of lower levels.
    allowed : bool array (phrases,)
        The phrase may stand in the dictionary: it is no longer than an entry, and whichever of them follows another,
        the pointer rule holds.
    spelling, spelling_start, spelling_length : int64 arrays
        Phrase p is spelled ``spelling[spelling_start[p]:][:spelling_length[p]]``.
    ops : callable
        Micro-operations of a phrase.
    """

    name: str
    tokens: np.ndarray
    size: np.ndarray
    skip: np.ndarray
    level: np.ndarray
    allowed: np.ndarray
    spelling: np.ndarray
    spelling_start: np.ndarray
    spelling_length: np.ndarray
    ops: Callable[[int], Ops]


def _value_ops(terms: Sequence[Term], pre: int, post: int) -> list[MicroOp]:
    """The terms of one tap; not marked as the last of the entry."""
    end = len(terms) - 1
    return [MicroOp(kind=OpKind.SUB if term.neg else OpKind.ADD, last=False, shift=term.shift,
                    pre=pre if i == 0 else 0, post=post if i == end else 0) for i, term in enumerate(terms)]


def _closed(ops: Sequence[MicroOp]) -> Ops:
    return (*ops[:-1], dataclasses.replace(ops[-1], last=True))


@functools.lru_cache(CACHED)
def _weight(terms: tuple[Term, ...], pre: int, post: int) -> Ops:
    return _closed(_value_ops(terms, pre, post))


@functools.lru_cache(CACHED)
def _skip(taps: int) -> Ops:
    return (MicroOp(kind=OpKind.SKIP, last=True, pre=taps - 1, post=1),)


class _Lexicon:
    """Phrases that all alphabets share: single terms, single weights and skips of up to ``longest`` taps."""

    def __init__(self, layer: LayerTaps, longest: int) -> None:
        self.ops: list[Ops] = [(MicroOp(kind=OpKind.EOR, last=True),)]
        self.spelling: list[list[int]] = [[]]
        powers = [1 << k for k in range(longest.bit_length())]
        skips = {n: self._add(_skip(n)) for n in powers}
        terms: dict[tuple[Term, bool], int] = {}
        for value in layer.values:
            for i, term in enumerate(value):
                final = i == len(value) - 1
                if (term, final) not in terms:
                    terms[term, final] = self._add(_weight((term,), 0, int(final)))
        self.level = [0] * len(self.ops)
        for n in range(1, longest + 1):
            if n not in skips:
                skips[n] = self._add(_skip(n), [skips[p] for p in reversed(powers) if n & p])
        self.level += [1] * (len(self.ops) - len(self.level))
        # A weight of many terms is spelled by its first term and the weight of the others, whether that occurs or not.
        found: dict[tuple[Term, ...], int] = {(term,): phrase for (term, final), phrase in terms.items() if final}
        tails = {value[i:]: None for value in layer.values for i in range(len(value) - 1)}
        for tail in sorted(tails, key=len):
            found[tail] = self._add(_weight(tail, 0, 1), [terms[tail[0], False], found[tail[1:]]])
            self.level.append(len(tail) - 1)
        weights = [skips[1], *(found[value] for value in layer.values)]
        self.skips = np.array([0] + [skips[n] for n in range(1, longest + 1)])
        """Phrase of a skip of n taps (from n = 1)."""
        self.weights = np.array(weights)
        """Phrase of the weight numbered as in :attr:`LayerTaps.taps`; 0 is a skip of one tap."""

    def _add(self, ops: Ops, spelling: Sequence[int] = ()) -> int:
        self.ops.append(ops)
        self.spelling.append(list(spelling))
        return len(self.ops) - 1

    def extend(self, name: str, tokens: np.ndarray, *, spelling: np.ndarray, size: np.ndarray, skip: np.ndarray,
               allowed: np.ndarray, ops: Callable[[int], Ops]) -> Phrases:
        """An alphabet of these phrases and further ones, whose spellings have equal lengths (phrases, length)."""
        base, further = len(self.ops), size.size
        lengths = np.array([len(s) for s in self.spelling] + [spelling.shape[1]] * further)
        sizes = np.concatenate([[len(o) for o in self.ops], size]).astype(np.int64)
        return Phrases(
            name=name,
            tokens=tokens,
            size=sizes,
            skip=np.concatenate([[o[0].kind is OpKind.SKIP for o in self.ops], skip]).astype(bool),
            level=np.concatenate([self.level, np.full(further, 1 + max(self.level))]).astype(np.int64),
            allowed=np.concatenate([np.ones(base, dtype=bool), allowed]) & (sizes <= ENTRY_OPS_MAX),
            spelling=np.concatenate([np.array([p for s in self.spelling for p in s], dtype=np.int64),
                                     spelling.reshape(-1)]),
            spelling_start=np.cumsum(lengths) - lengths,
            spelling_length=lengths,
            ops=lambda phrase: self.ops[phrase] if phrase < base else ops(phrase - base),
        )


def _distinct(keys: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The different keys, all below a limit, rising, and the place of each key among them."""
    if limit > COUNTED:
        found, places = np.unique(keys, return_inverse=True)
        return found, places
    occurs = np.bincount(keys, minlength=limit) > 0
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[keys]


def zero_runs(layer: LayerTaps, longest: int) -> Phrases:
    """Each weight with the run of zeros before it, as in JPEG; longer runs begin with skips of ``longest + 1`` taps.

    With ``longest = 0`` every tap is a phrase of its own.
    """
    rows = layer.taps.shape[0]
    lexicon = _Lexicon(layer, longest + 1)
    row, column = np.nonzero(layer.taps)
    weight = layer.taps[row, column].astype(np.int64)
    first = np.ones(row.size, dtype=bool)
    first[1:] = row[1:] != row[:-1]
    zeros = np.where(first, column, np.diff(column, prepend=0) - 1)
    skips, run = np.divmod(zeros, longest + 1)

    radix = len(layer.values) + 1
    pairs, pair = _distinct(run * radix + weight, (longest + 1) * radix)
    pair_run, pair_weight = np.divmod(pairs, radix)
    joint = np.flatnonzero(pair_run)
    phrase_of = lexicon.weights[pair_weight]
    phrase_of[joint] = len(lexicon.ops) + np.arange(joint.size)

    # Items are the weights and the ends of rows; an item's tokens are its skips and then itself.
    item = np.arange(row.size) + row
    ends = np.cumsum(np.bincount(row, minlength=rows)) + np.arange(rows)
    before = np.zeros(row.size + rows, dtype=np.int64)
    before[item] = skips
    last = np.cumsum(before + 1) - 1
    tokens = np.full(int(last[-1]) + 1, lexicon.skips[longest + 1])
    tokens[last[item]], tokens[last[ends]] = phrase_of[pair], EOR

    run_of, value_of = pair_run[joint], pair_weight[joint] - 1
    return lexicon.extend(
        "plain" if longest == 0 else f"runs{longest}", tokens,
        spelling=np.stack([lexicon.skips[run_of], lexicon.weights[value_of + 1]], axis=1),
        size=np.array([len(layer.values[v]) for v in value_of], dtype=np.int64),
        skip=np.zeros(joint.size, dtype=bool),
        allowed=np.ones(joint.size, dtype=bool),
        ops=lambda i: _weight(layer.values[value_of[i]], int(run_of[i]), 1),
    )


def vectors(layer: LayerTaps, dimension: int) -> Phrases:
    """``dimension`` taps at a time; the last vector of a row is filled with zero weights."""
    rows, width = layer.taps.shape
    lexicon = _Lexicon(layer, 1)
    count = -(-width // dimension)
    padded = np.zeros((rows, count * dimension), dtype=np.int64)
    padded[:, :width] = layer.taps
    radix = len(layer.values) + 1
    keys = np.zeros((rows, count), dtype=np.int64)
    for i in range(dimension):
        keys = keys * radix + padded[:, i::dimension]
    # The vectors after a row's last weight are left out.
    length = np.where(keys.any(axis=1), count - np.argmax(keys[:, ::-1] != 0, axis=1), 0)
    unique, inverse = _distinct(keys[np.arange(count) < length[:, None]], radix**dimension)
    ends = np.cumsum(length + 1) - 1
    tokens = np.full(int(ends[-1]) + 1, EOR, dtype=np.int64)
    inside = np.ones(tokens.size, dtype=bool)
    inside[ends] = False
    tokens[inside] = len(lexicon.ops) + inverse

    members = np.stack([unique // radix**i % radix for i in reversed(range(dimension))], axis=1)
    used = members != 0
    empty = ~used.any(axis=1)
    # Most taps before a phrase's first and after its last operation, so that any phrase may follow any other.
    most_pre = min(dimension - 1, layer.reach // 2)
    most_post = min(dimension, layer.reach - most_pre)
    lead = np.where(empty, max(dimension - most_post, 0), np.argmax(used, axis=1))
    trail = np.where(empty, dimension - lead, np.argmax(used[:, ::-1], axis=1) + 1)
    terms = np.array([0] + [len(value) for value in layer.values])

    def ops(i: int) -> Ops:
        if empty[i]:
            return (MicroOp(kind=OpKind.SKIP, last=True, pre=int(lead[i]), post=int(trail[i])),)
        made: list[MicroOp] = []
        at = 0
        for tap in np.flatnonzero(used[i]):
            made += _value_ops(layer.values[members[i, tap] - 1], int(tap) - at, 0)
            at = int(tap)
        return _closed([*made[:-1], dataclasses.replace(made[-1], post=dimension - at)])

    return lexicon.extend(
        f"vectors{dimension}", tokens, spelling=lexicon.weights[members],
        size=np.maximum(terms[members].sum(axis=1), 1), skip=empty,
        allowed=(lead <= most_pre) & (trail <= most_post), ops=ops)


def _zero_run_alphabets(layer: LayerTaps) -> Iterator[Phrases]:
    most = min(MAX_PRE - 1, layer.reach - 1)
    for longest in sorted({run for run in RUNS if run <= most} | {most}):
        yield zero_runs(layer, longest)


def _vector_alphabets(layer: LayerTaps) -> Iterator[Phrases]:
    for dimension in DIMENSIONS:
        if dimension <= min(layer.taps.shape[1], layer.reach, MAX_POST):
            yield vectors(layer, dimension)


BUILDERS: list[Callable[[LayerTaps], Iterator[Phrases]]] = [_zero_run_alphabets, _vector_alphabets]
"""What makes the candidate alphabets of a layer."""
