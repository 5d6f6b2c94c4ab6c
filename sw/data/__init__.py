"""Data sets: one :func:`load` for all of them."""

from .dataset import DATASETS, PIXEL_SCALE, Dataset, load, locate

__all__ = ["DATASETS", "PIXEL_SCALE", "Dataset", "load", "locate"]
