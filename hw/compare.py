"""Comparison with constants, without a carry chain."""

from amaranth.hdl import Const, Value

__all__ = ["above"]


def above(word: Value, most: int) -> Value:
    """Whether a word exceeds a constant, in gates: a subtraction would take a carry chain."""
    found: Value = Const(0, 1)
    for n in range(len(word)):
        found = found & word[n] if most >> n & 1 else found | word[n]
    return found if most < 1 << len(word) else Const(0, 1)
