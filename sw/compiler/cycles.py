"""Clock cycles that a layer takes, predicted from its image words.

The model is the datapath's: tables load at one word a cycle; then every micro-operation takes a cycle in every pixel
block; a row is replayed from the row buffer for every block after the first; and a pass over a row can't be shorter
than the drain of the accumulators of the pass before, since the accumulators are double-buffered. Between two rows the
parameters of the next are fetched. The constants below were fitted to simulations of the hardware.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import ImageError
from ...hw.arch.image import DESCRIPTOR_WORDS, KERNEL_ENTRY_WORDS, WATCHDOG_UNIT, Flag
from ..codec.bitstream import decode_rows
from ..codec.huffman import CanonicalCode
from .descriptor import LayerView
from .parameters import parameter_shape
from .placement import RAW_BYTES

if TYPE_CHECKING:
    from ..image import Image

__all__ = ["LayerCycles", "layer_cycles", "predict", "watchdog"]

REPLAY_BUBBLES = 4
"""Cycles lost at the turn of a row pass when the row is replayed for several blocks."""
PASS_MINIMUM = 4
"""Least cycles between two ends of row."""
DRAIN_GAP = 1
"""Cycles that an end of row takes besides the drain that it waits for."""
SCALE_TERM_CYCLES = 2
"""Cycles that each scale term after the first adds to the one cycle that requantizing a pixel takes."""
ROW_TURN = 19
"""Cycles from a row's last end of row to the release of the next one, besides its drain and parameters."""
PARAMETER_CYCLES = 3
"""Cycles to fetch one parameter word between two rows."""
PIPELINE = 57
"""Cycles of a layer's start and end: latency of the section reads, filling and emptying of the pipeline."""
WATCHDOG_FACTOR = 2
"""How many times its prediction a layer may take before the watchdog ends the run."""
WATCHDOG_SLACK = 2 * WATCHDOG_UNIT


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerCycles:
    """Predicted cycles of one layer.

    Parameters
    ----------
    load : int
        Descriptor, tables and dictionary.
    compute : int
        Passes over rows, all pixel blocks, drain included.
    operations : int
        Micro-operations issued: the cycles of a datapath without bubbles, drain and load.
    """

    load: int
    compute: int
    operations: int

    @property
    def total(self) -> int:
        """All cycles of the layer."""
        return self.load + self.compute


def layer_cycles(config: AcceleratorConfig, *, kernel: tuple[int, int], dict_words: int, out: tuple[int, int],
                 row_operations: np.ndarray, pixel_cycles: np.ndarray | int,
                 row_words: np.ndarray | int) -> LayerCycles:
    """Predict one layer.

    Parameters
    ----------
    kernel : (int, int)
        Height and width.
    dict_words : int
        Words of the dictionary.
    out : (int, int)
        Height and width of the output map.
    row_operations : int64 array (output channels,)
        Micro-operations of each row, end of row included.
    pixel_cycles : int64 array (output channels,) or int
        Cycles to requantize a pixel (:func:`pixel_cycles_of`).
    row_words : int64 array (output channels,) or int
        Parameter words that are fetched for each row.
    """
    operations = np.asarray(row_operations, np.int64)
    blocks = -(-out[0] // config.lanes_y) * -(-out[1] // config.lanes_x)
    load = DESCRIPTOR_WORDS + KERNEL_ENTRY_WORDS * (kernel[0] + kernel[1]) + config.max_code_bits + dict_words
    pixels = 1 if out == (1, 1) else config.lanes
    drain = np.broadcast_to(pixels * np.asarray(pixel_cycles, np.int64), operations.shape)
    issue = operations + (REPLAY_BUBBLES if blocks > 1 else 0)
    words = np.broadcast_to(np.asarray(row_words, np.int64), operations.shape)
    # A row begins under the drain of the row before, and its first end of row waits for that and for its parameters.
    first = issue.copy()
    first[1:] = np.maximum(issue[1:], drain[:-1] + ROW_TURN + PARAMETER_CYCLES * words[1:])
    others = np.maximum(issue, np.maximum(drain + DRAIN_GAP, PASS_MINIMUM))
    compute = int(first.sum() + (blocks - 1) * others.sum() + drain[-1]) + PIPELINE
    return LayerCycles(load=load, compute=compute, operations=blocks * int(operations.sum()))


def pixel_cycles_of(count: np.ndarray, raw: bool) -> np.ndarray:
    """Cycles that requantizing a pixel takes: by the number of scale terms, int64 (channels,), or of raw bytes."""
    return np.full_like(count, RAW_BYTES) if raw else 1 + SCALE_TERM_CYCLES * (count - 1)


def watchdog(cycles: LayerCycles) -> int:
    """The descriptor's watchdog field: generous, and no more than its 16 bits (the greatest field is 268 M cycles)."""
    return min(0xFFFF, (WATCHDOG_FACTOR * cycles.total + WATCHDOG_SLACK) // WATCHDOG_UNIT)


def predict(image: "Image") -> tuple[LayerCycles, ...]:
    """Predict every layer of a compiled image, by decoding its streams.

    Raises
    ------
    ImageError
        If a stream can't be decoded.
    """
    found = []
    for layer in image.layers:
        count, row_words = parameter_shape(layer.parts["parameters"], layer.flags, layer.fields["rows"])
        found.append(layer_cycles(
            image.config, kernel=layer.kernel, dict_words=layer.fields["dict_words"],
            out=(layer.fields["out_h"], layer.fields["out_w"]), row_operations=_row_operations(layer),
            pixel_cycles=pixel_cycles_of(count, Flag.RAW in layer.flags), row_words=row_words))
    return tuple(found)


def _row_operations(layer: LayerView) -> np.ndarray:
    """Micro-operations of each output channel's row, int64 (channels,)."""
    ends = np.flatnonzero(layer.parts["dictionary"] >> 2 & 1)
    lengths = np.diff(ends, prepend=-1)
    code = CanonicalCode.from_counts(layer.parts["code_table"])
    if lengths.size != code.size:
        raise ImageError(f"a dictionary must have an entry for each of its {code.size} codewords, not {lengths.size}; "
                         f"compile the network again")
    shared = Flag.SHARED_ROW in layer.flags
    channels = layer.fields["rows"]
    symbols = decode_rows(layer.parts["stream_a"], layer.parts["stream_b"], code, layer.fields["eor"],
                          1 if shared else channels)
    starts = np.flatnonzero(symbols == layer.fields["eor"])[:-1] + 1
    operations = np.add.reduceat(lengths[symbols], np.concatenate(([0], starts)))
    return np.broadcast_to(operations, channels)
