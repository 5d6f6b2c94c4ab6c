"""Boolean functions as Liberty writes them: ``!A``, ``A'``, ``A*B``, ``A B``, ``A&B``, ``A+B``, ``A|B``, ``A^B``."""

import itertools
import re
from collections.abc import Mapping, Sequence

__all__ = ["truth_table"]

_TOKEN = re.compile(r"[A-Za-z_][\w\[\]]*|[01!'*&+|^()]")


def truth_table(function: str, inputs: Sequence[str]) -> tuple[bool, ...]:
    """The function's value for each combination of its inputs, the last of which changes fastest.

    Raises
    ------
    ValueError
        If the function is malformed, or names something else than its inputs.
    """
    return tuple(_Evaluation(function, dict(zip(inputs, values, strict=True))).value
                 for values in itertools.product((False, True), repeat=len(inputs)))


class _Evaluation:
    """Recursive descent; from the loosest operator to the tightest: or, and, exclusive or, not."""

    def __init__(self, function: str, values: Mapping[str, bool]) -> None:
        self._tokens = [*_TOKEN.findall(function), ""]
        self._function, self._values, self._at = function, values, 0
        self.value = self._or()
        if self._tokens[self._at]:
            raise ValueError(f"the function {function!r} must end before {self._tokens[self._at]!r}")

    def _take(self, *wanted: str) -> bool:
        found = self._tokens[self._at] in wanted
        self._at += found
        return found

    def _or(self) -> bool:
        value = self._and()
        while self._take("+", "|"):
            value |= self._and()
        return value

    def _and(self) -> bool:
        value = self._xor()
        # Two operands side by side are an and.
        while self._take("*", "&") or self._tokens[self._at] not in ("", ")", "+", "|"):
            value &= self._xor()
        return value

    def _xor(self) -> bool:
        value = self._not()
        while self._take("^"):
            value ^= self._not()
        return value

    def _not(self) -> bool:
        if self._take("!"):
            return not self._not()
        token = self._tokens[self._at]
        self._at += 1
        if token == "(":
            value = self._or()
            if not self._take(")"):
                raise ValueError(f"the function {self._function!r} must close its parentheses")
        elif token in ("0", "1"):
            value = token == "1"
        elif token in self._values:
            value = self._values[token]
        else:
            raise ValueError(f"the function {self._function!r} must name its inputs, not {token!r}")
        while self._take("'"):
            value = not value
        return value
