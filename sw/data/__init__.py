"""Data sets: one :func:`load` for all of them."""

from .dataset import DATASETS, Dataset, load, locate

__all__ = ["DATASETS", "Dataset", "load", "locate"]
