"""The image interpreter: a second, independent reader of images, written from ``docs/image.md`` alone.

It shares no code with the packer: parsing, decoding and the activation memory are its own.
"""

from .machine import Interpretation, accuracy, predict, run
from .memory import Program, read_image

__all__ = ["Interpretation", "Program", "accuracy", "predict", "read_image", "run"]
