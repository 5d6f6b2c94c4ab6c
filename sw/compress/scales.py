"""Numbers as short sums of signed powers of two."""

import math
from fractions import Fraction

from ..terms import Term, signed_digits, term_sum

__all__ = ["power_sum", "reciprocal"]


def power_sum(value: Fraction, most_terms: int = 4, precision: int = 16) -> tuple[tuple[Term, ...], int]:
    """A positive number as a short sum of signed powers of two over a power of two.

    Parameters
    ----------
    value : Fraction
        Positive.
    most_terms : int
        Most terms of the sum.
    precision : int
        Bits of the sum.

    Returns
    -------
    terms : tuple of Term
        Rising exponents, the first 0.
    shift : int
        ``sum(terms) / 2**shift`` is the closest to ``value`` with the fewest terms, within 0.4 % with four; negative
        for great values.
    """
    magnitude = math.frexp(value)[1]  # value is from 1/2 to 1 times 2**magnitude
    best: tuple[Fraction, int, tuple[Term, ...], int] | None = None
    for bits in range(precision + 1):
        shift = bits - magnitude
        terms = signed_digits(round(value * Fraction(2) ** shift))
        if not terms or terms[0].shift or len(terms) > most_terms:
            continue
        candidate = (abs(term_sum(terms) / Fraction(2) ** shift - value), len(terms), terms, shift)
        best = candidate if best is None or candidate[:2] < best[:2] else best
    assert best is not None  # one term always fits
    return best[2], best[3]


def reciprocal(divisor: int) -> tuple[tuple[Term, ...], int]:
    """:func:`power_sum` of ``1 / divisor``; the shift is greater than the terms' exponents when there are several."""
    return power_sum(Fraction(1, divisor))
