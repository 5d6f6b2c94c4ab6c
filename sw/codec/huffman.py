"""Length-limited canonical Huffman codes.

A code is described completely by the number of codewords of each length (``docs/image.md``, "Code table"): symbols are
numbered in order of codeword length, and the first codeword of a length follows from the counts of the shorter ones.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...hw.arch.errors import ImageError, ModelError

__all__ = ["CanonicalCode", "code_bits", "code_lengths"]

LENGTH_LIMIT = 15
"""Longest codeword of any configuration, in bits (``AcceleratorConfig.max_code_bits``)."""
MAX_SYMBOLS = 256


def code_lengths(freqs: npt.ArrayLike, max_len: int) -> np.ndarray:
    """Codeword lengths that minimize the total number of bits, none longer than ``max_len``.

    Package-merge (L. Larmore and D. Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", Journal
    of the ACM 37(3), 1990). Only the kind of each list element (symbol or package) is kept; as the symbols chosen from
    a list are always the rarest ones, their number tells which they are.

    Parameters
    ----------
    freqs : array of int (symbols,)
        How often each symbol occurs, not negative.
    max_len : int
        Longest codeword in bits, at least 1.

    Returns
    -------
    uint8 array (symbols,)
        Length of each codeword; 0 for a symbol that does not occur. A single used symbol has length 1. Of symbols that
        occur equally often, the first has the shortest codeword.

    Raises
    ------
    ModelError
        If more symbols are used than there are codewords of ``max_len`` bits, or an argument is out of range.
    """
    counts = np.asarray(freqs, dtype=np.int64)
    if counts.ndim != 1 or (counts < 0).any():
        raise ModelError("symbol frequencies must be a flat array of integers that are not negative")
    if max_len < 1:
        raise ModelError(f"the longest codeword must have at least 1 bit, not {max_len!r}")
    lengths = np.zeros(counts.size, dtype=np.uint8)
    used = np.flatnonzero(counts)
    if used.size > 1 << min(max_len, 62):
        raise ModelError(f"{used.size} symbols need codewords longer than {max_len} bits, which give only "
                         f"{1 << max_len}; use fewer symbols or raise max_code_bits")
    if used.size <= 1:
        lengths[used] = 1
        return lengths
    used = used[::-1]
    used = used[np.argsort(counts[used], kind="stable")]
    leaves = counts[used]
    kinds = [np.ones(leaves.size, dtype=bool)]
    merged = leaves
    for _ in range(max_len - 1):
        packages = merged[0:merged.size - 1:2] + merged[1::2]
        both = np.concatenate([leaves, packages])
        order = np.argsort(both, kind="stable")
        previous, merged = merged, both[order]
        kinds.append(order < leaves.size)
        if np.array_equal(previous, merged):  # so are all later lists
            kinds.extend([kinds[-1]] * (max_len - len(kinds)))
            break
    take = 2 * leaves.size - 2
    for kind in reversed(kinds):
        chosen = int(np.count_nonzero(kind[:take]))
        lengths[used[:chosen]] += 1
        take = 2 * (take - chosen)
    return lengths


def code_bits(counts: np.ndarray, max_len: int) -> int:
    """Bits of all codewords in the code that :func:`code_lengths` gives, in a fraction of its time.

    Two queues (J. van Leeuwen, "On the construction of Huffman trees", ICALP 1976): the nodes come in order of weight.
    A leaf goes before a node of its weight, which gives the lowest of the best trees: only where that is too high,
    lengths are limited.

    Parameters
    ----------
    counts : int64 array (symbols,)
        How often each symbol occurs, above 0.
    max_len : int
        Longest codeword in bits.
    """
    leaves: list[int] = sorted(counts.tolist())
    merges, above = len(leaves) - 1, sum(leaves) + 1
    if merges < 1:
        return sum(leaves)
    leaves.append(above)
    nodes, heights = [above] * (merges + 1), [0] * merges
    leaf = node = total = 0
    for made in range(merges):
        weight = height = 0
        for _ in range(2):
            if leaves[leaf] <= nodes[node]:
                weight += leaves[leaf]
                leaf += 1
            else:
                weight += nodes[node]
                height = max(height, heights[node])
                node += 1
        nodes[made], heights[made] = weight, height + 1
        total += weight
    if heights[-1] > max_len:
        return int((counts * code_lengths(counts, max_len).astype(np.int64)).sum())
    return total


@dataclasses.dataclass(frozen=True, eq=False)
class CanonicalCode:
    """A canonical prefix code over the symbols 0, 1, ... in order of codeword length.

    Parameters
    ----------
    lengths : uint8 array (symbols,)
        Codeword length of each symbol in bits: 1 to 15, never falling. At most 256 symbols, at least one.

    Attributes
    ----------
    codes : uint16 array (symbols,)
        Codewords, right-aligned.

    Raises
    ------
    ModelError
        If the lengths are not those of a canonical prefix code.
    """

    lengths: np.ndarray
    codes: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        lengths = np.asarray(self.lengths)
        if lengths.ndim != 1 or not 1 <= lengths.size <= MAX_SYMBOLS:
            raise ModelError(f"a code must have 1 to {MAX_SYMBOLS} symbols, not shape {lengths.shape}")
        if lengths.min() < 1 or lengths.max() > LENGTH_LIMIT:
            raise ModelError(f"codeword lengths must be from 1 to {LENGTH_LIMIT}, not "
                             f"{int(lengths.min())} to {int(lengths.max())}")
        wide = lengths.astype(np.int64)
        if (np.diff(wide) < 0).any():
            raise ModelError("the symbols of a canonical code must be in order of codeword length")
        # Left-aligned, each codeword is the sum of the code space of those before it: the canonical rule.
        space = np.int64(1) << (LENGTH_LIMIT - wide)
        start = np.cumsum(space) - space
        if int(start[-1] + space[-1]) > 1 << LENGTH_LIMIT:
            raise ModelError(f"{lengths.size} codewords of these lengths overlap (their Kraft sum is above 1)")
        object.__setattr__(self, "lengths", lengths.astype(np.uint8))
        object.__setattr__(self, "codes", (start >> (LENGTH_LIMIT - wide)).astype(np.uint16))

    @classmethod
    def from_counts(cls, counts: Sequence[int] | np.ndarray) -> "CanonicalCode":
        """The code of an image's code table.

        Parameters
        ----------
        counts : sequence of int
            Number of codewords of length 1, 2, ... bits.

        Raises
        ------
        ImageError
            If the counts are not those of a prefix code of 1 to 256 symbols.
        """
        table = [int(count) for count in counts]
        if any(count < 0 for count in table) or not 1 <= sum(table) <= MAX_SYMBOLS:
            raise ImageError(f"a code table must name 1 to {MAX_SYMBOLS} codewords, not {sum(table)}; "
                             "the image is damaged: compile it again")
        try:
            return cls(np.repeat(np.arange(1, len(table) + 1), table))
        except ModelError as error:
            raise ImageError(f"the code table {table} is not that of a prefix code: {error}; "
                             "the image is damaged: compile it again") from None

    @property
    def size(self) -> int:
        """Number of symbols."""
        return int(self.lengths.size)

    @property
    def max_len(self) -> int:
        """Longest codeword in bits."""
        return int(self.lengths[-1])

    @property
    def complete(self) -> bool:
        """Whether every sequence of bits is a sequence of codewords (the Kraft sum is 1)."""
        return int((np.int64(1) << (LENGTH_LIMIT - self.lengths.astype(np.int64))).sum()) == 1 << LENGTH_LIMIT

    def counts(self, max_len: int) -> np.ndarray:
        """Number of codewords of length 1 to ``max_len``, uint16 (max_len,): the image's code table.

        Raises
        ------
        ModelError
            If a codeword is longer than ``max_len``.
        """
        if self.max_len > max_len:
            raise ModelError(f"the longest codeword has {self.max_len} bits, but the code table ends at {max_len}")
        return np.bincount(self.lengths, minlength=max_len + 1)[1:].astype(np.uint16)
