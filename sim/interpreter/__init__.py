"""The image interpreter: a second, independent reader of images, written from ``docs/image.md`` alone.

It shares no code with the packer: parsing, decoding and the activation memory are its own.
"""

from .file import Placement, Program, read_image
from .machine import Interpretation, accuracy, predict, run, run_batch
from .statistics import StreamStatistics, statistics

__all__ = ["Interpretation", "Placement", "Program", "StreamStatistics", "accuracy", "predict", "read_image", "run",
           "run_batch", "statistics"]
