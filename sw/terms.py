"""Sums of signed powers of two: what weights and scales are made of."""

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Term", "grid_integers", "power_terms", "signed_digits", "term_sum"]


class Term(NamedTuple):
    """A signed power of two, ``(-1)**neg * 2**shift``."""

    neg: bool
    shift: int


def term_sum(terms: Iterable[Term]) -> int:
    """The value of some terms."""
    return sum(-(1 << term.shift) if term.neg else 1 << term.shift for term in terms)


def signed_digits(value: int) -> tuple[Term, ...]:
    """Canonical signed digits of an integer, rising: the fewest terms whose sum it is."""
    terms, shift = [], 0
    while value:
        if value & 1:
            digit = 2 - (value & 3)
            terms.append(Term(digit < 0, shift))
            value -= digit
        value >>= 1
        shift += 1
    return tuple(terms)


def grid_integers(terms: int, span: int) -> dict[int, int]:
    """The integers from 0 that are sums of at most so many signed powers of two, of shifts below `span`, rising, and
    how many each one takes."""
    return {number: len(digits) for number in range(2 << span)
            if len(digits := signed_digits(number)) <= terms and all(digit.shift < span for digit in digits)}


def power_terms(power: int, max_shift: int, neg: bool = False) -> tuple[Term, ...]:
    """``2**power`` as equal terms of a shift that the device has: one when ``max_shift`` is enough."""
    shift = min(power, max_shift)
    return (Term(neg, shift),) * (1 << power - shift)
