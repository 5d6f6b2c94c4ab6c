"""The small tables of a layer: kernel rows and columns, code lengths, dictionary (``docs/image.md``)."""

from collections.abc import Sequence

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.image import KERNEL_ENTRY_WORDS, MicroOp
from ..network import Layer
from .placement import TensorPlacement

__all__ = ["axis_table", "code_table", "dictionary_words", "kernel_tables"]


def axis_table(*, kernel: int, dilation: int, padding: int, phases: int, size: int, out: int, lanes: int, plane: int,
               step: int) -> np.ndarray:
    """The table of one axis, uint16 (kernel, 3): offset, residue and first, last.

    Parameters
    ----------
    kernel, dilation, padding : int
        Of the layer; the padding before the first row or column.
    phases : int
        Polyphase planes of the input tensor along the axis, equal to the stride.
    size, out : int
        Input and output length.
    lanes : int
        Lanes along the axis.
    plane, step : int
        Address steps of the input tensor to the next plane and to the next block.
    """
    d = np.arange(kernel) * dilation - padding
    block, residue = np.divmod(d // phases, lanes)
    offset = d % phases * plane + block * step
    first = np.maximum(0, -(d // phases))  # ceil(-d / phases): the least o with o * phases + d >= 0
    last = np.minimum(out - 1, (size - 1 - d) // phases)
    outside = last < first
    first[outside], last[outside] = 1, 0
    table = np.empty((kernel, KERNEL_ENTRY_WORDS), dtype=np.int64)
    table[:, 0], table[:, 1], table[:, 2] = offset & 0xFFFF, residue << 12 | first, last
    return table.astype(np.uint16)


def kernel_tables(layer: Layer, source: TensorPlacement, config: AcceleratorConfig) -> tuple[np.ndarray, np.ndarray]:
    """Row table and column table of a layer that reads `source`, uint16 (kernel, 3) each."""
    steps = source.steps(config)
    _, out_h, out_w = layer.target.shape
    rows = axis_table(kernel=layer.kernel[0], dilation=layer.dilation[0], padding=layer.padding[0],
                      phases=source.phases_y, size=source.height, out=out_h, lanes=config.lanes_y,
                      plane=steps.plane_y, step=steps.row)
    columns = axis_table(kernel=layer.kernel[1], dilation=layer.dilation[1], padding=layer.padding[1],
                         phases=source.phases_x, size=source.width, out=out_w, lanes=config.lanes_x,
                         plane=steps.plane_x, step=steps.col)
    return rows, columns


def code_table(lengths: np.ndarray, max_code_bits: int) -> np.ndarray:
    """Number of codewords of length 1, 2, ..., uint16 (max_code_bits,)."""
    return np.bincount(np.asarray(lengths, np.int64), minlength=max_code_bits + 1)[1:].astype(np.uint16)


def dictionary_words(entries: Sequence[Sequence[MicroOp]]) -> np.ndarray:
    """The micro-operations of all entries in symbol order, uint16."""
    return np.array([op.pack() for entry in entries for op in entry], dtype=np.uint16)
