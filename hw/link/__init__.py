"""The board's side of the link that :mod:`shiftwright.hw.arch.link` tells of."""

from .link import Link

__all__ = ["Link"]
