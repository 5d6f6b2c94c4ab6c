"""Compression: recipes that turn a float network into integer layers of power-of-two terms."""

from .api import compress

__all__ = ["compress"]
