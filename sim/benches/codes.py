"""Random canonical prefix codes for benches, written from the definition in ``docs/image.md`` "Code table"."""

import dataclasses
import random
from collections.abc import Sequence

__all__ = ["PrefixCode", "SHAPES", "dealt_words", "random_code", "words_of"]

SHAPES = ("single", "pair", "staircase", "flat", "incomplete", "random", "random", "random")
"""Kinds of codes that :func:`random_code` makes; a bench goes through all of them."""


@dataclasses.dataclass(frozen=True)
class PrefixCode:
    """A canonical code, given by the number of codewords of each length from 1 up."""

    counts: tuple[int, ...]

    @property
    def codewords(self) -> list[str]:
        """Each symbol's codeword as a text of 0 and 1."""
        texts, first = [], 0
        for length, count in enumerate(self.counts, 1):
            texts += [format(first + n, f"0{length}b") for n in range(count)]
            first = (first + count) << 1
        return texts

    @property
    def symbols(self) -> int:
        """Number of codewords."""
        return sum(self.counts)

    @property
    def gap(self) -> str | None:
        """Shortest bits that begin no codeword: the first unused codeword of the longest length; None when complete."""
        used = sum(count << len(self.counts) - length for length, count in enumerate(self.counts, 1))
        return None if used == 1 << len(self.counts) else format(used, f"0{len(self.counts)}b")


def random_code(rng: random.Random, max_bits: int, shape: str) -> PrefixCode:
    """A code of one of the :data:`SHAPES`: all but ``single`` and ``incomplete`` ones use every sequence of bits."""
    counts = [0] * max_bits
    if shape == "single":
        counts[0] = 1
    elif shape == "pair":
        counts[0] = 2
    elif shape in ("staircase", "incomplete"):
        counts = [1] * max_bits
        counts[-1] = 2 if shape == "staircase" else 1
    elif shape == "flat":
        counts[min(8, max_bits) - 1] = 1 << min(8, max_bits)
    else:
        leaves = [1, 1]
        wanted = min(rng.choice((3, 8, 16, 40, 256)), 1 << max_bits)
        greedy = rng.random()
        while len(leaves) < wanted:
            open_leaves = [n for n, depth in enumerate(leaves) if depth < max_bits]
            # Splitting deep leaves again gives long codewords, splitting any gives a bushy tree.
            at = max(open_leaves, key=lambda n: leaves[n]) if rng.random() < greedy * 0.5 else rng.choice(open_leaves)
            depth = leaves.pop(at)
            leaves += [depth + 1, depth + 1]
        for depth in leaves:
            counts[depth - 1] += 1
    return PrefixCode(tuple(counts))


def words_of(codewords: Sequence[str]) -> list[int]:
    """Codewords one after another as 16-bit words, from bit 15 down, padded with zeros."""
    bits = "".join(codewords)
    bits += "0" * (-len(bits) % 16)
    return [int(bits[at:at + 16], 2) for at in range(0, len(bits), 16)]


def dealt_words(codewords: Sequence[str], contexts: int) -> list[int]:
    """Codewords dealt to contexts in turn, as the one sequence of words that the decoder takes.

    First come the first two words of each context. Then, codeword by codeword: one that reaches or passes the end of
    its context's word brings that context's next word. Words that carry no bits are left out at the end.
    """
    words = [words_of(codewords[n::contexts]) for n in range(contexts)]
    order = [(context, number) for context in range(contexts) for number in range(2)]
    position = [0] * contexts
    for n, codeword in enumerate(codewords):
        context = n % contexts
        before = position[context] // 16
        position[context] += len(codeword)
        if position[context] // 16 > before:
            order.append((context, before + 2))
    while order and order[-1][1] >= len(words[order[-1][0]]):
        order.pop()
    return [words[context][number] if number < len(words[context]) else 0 for context, number in order]
