"""Clock cycles that a layer takes, predicted from its image words.

The model is the datapath's: tables load at one word a cycle; then every micro-operation takes a cycle in every pixel
block; a row is decoded again for every block after the first, which loses the codewords in flight; and a pass over a
row can't be shorter than the drain of the accumulators of the pass before, since the accumulators are double-buffered.
Between two rows the parameters of the next are fetched. The constants below are the lengths of the hardware's pipelines
and state sequences; on random networks the predictions of long layers are within 2 % of simulations.

Left out are words of long codewords that arrive late inside a row, words that were fetched for the row pass before and
are still under way when a row of a few codewords begins again (up to 8 % of such a layer), and parameter fetches that
wait for the bit readers.
"""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ...hw.arch.config import INTERLEAVE, AcceleratorConfig
from ...hw.arch.errors import ImageError
from ...hw.arch.image import DESCRIPTOR_WORDS, KERNEL_ENTRY_WORDS, WATCHDOG_UNIT, Flag
from ..codec.bitstream import decode_rows
from ..codec.huffman import CanonicalCode
from .descriptor import LayerView
from .parameters import parameter_shape
from .placement import RAW_BYTES

if TYPE_CHECKING:
    from ..image import Image

__all__ = ["LayerCycles", "RowWork", "layer_cycles", "predict", "run_cycles", "watchdog"]

SECTION_CYCLES = 6
"""Cycles of a table section besides its words: two to size and check it, four until the last word is there."""
SECTIONS_LOADED = 5
"""Descriptor, row table, column table, code table, dictionary."""
BEGIN_CYCLES = 8
"""Layer boundary, two cycles for each of three stream addresses, and the start strobe."""
FILL_CYCLES = 12
"""From the start strobe to the first micro-operation, less one: five words prefetched, then decoder and expander."""
EMPTY_CYCLES = 19
"""From the issue of the last end of row to the layer's end, besides its drain: 11 cycles from expander to lanes, 2 in
the lanes, 3 to the shift stage of the requantizer, 3 to close the layer."""
ROW_TURN = 19
"""Least cycles from a row's last end of row to the next row's first, besides drain and parameters: 16 to the last pixel
in the requantizer's shift stage, 3 to begin with the parameters and to release the gate."""
PARAMETER_CYCLES = 4
"""Cycles to fetch one parameter word between two rows: the request, and the memory's latency of three."""
RETURN_CYCLES = 2
"""Codewords in flight that the decoder loses when it returns to the beginning of a row."""
RELOAD_CYCLES = 2
"""Cycles that a return to a row whose first codewords reach into a sub-stream's second word waits for its third."""
RUN_AHEAD = 4
"""Places in the decoder's FIFO."""
WORD_BITS = 16
PASS_MINIMUM = 4
"""Least cycles between two ends of row."""
DRAIN_GAP = 1
"""Cycles that an end of row takes besides the drain that it waits for."""
SCALE_TERM_CYCLES = 2
"""Cycles that each scale term after the first adds to the one cycle that requantizing a pixel takes."""
RUN_CYCLES = 9
"""Cycles of a run outside its layers: eight for the header, two at the end, less the first layer's boundary."""
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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RowWork:
    """What the rows of a layer's streams ask of decoder and expander; int64 arrays (rows,) all.

    Parameters
    ----------
    operations : array
        Micro-operations, end of row included.
    returns : array
        Cycles that are lost when the decoder begins the row again.
    """

    operations: np.ndarray
    returns: np.ndarray

    @classmethod
    def of(cls, symbols: np.ndarray, row_lengths: np.ndarray, *, entry_sizes: np.ndarray,
           code_lengths: np.ndarray) -> "RowWork":
        """Measure a layer's codewords.

        Parameters
        ----------
        symbols : uint8 array (codewords,)
            The whole layer, row after row.
        row_lengths : int64 array (rows,)
            Codewords of each row.
        entry_sizes : int64 array (symbols,)
            Micro-operations of each dictionary entry.
        code_lengths : uint8 array (symbols,)
            Bits of each codeword.
        """
        ends = np.cumsum(row_lengths)
        starts = ends - row_lengths
        # Further micro-operations of entries are what the decoder can run ahead by, as far as its FIFO reaches.
        spare = np.cumsum(np.pad(entry_sizes[symbols] - 1, (1, INTERLEAVE)))
        lead = spare[ends - 1] - spare[np.maximum(starts, ends - 1 - RUN_AHEAD)] - RETURN_CYCLES
        bits = np.pad(code_lengths[symbols].astype(np.int64), (0, INTERLEAVE))
        reached = np.empty_like(bits)
        for stream in range(INTERLEAVE):
            reached[stream::INTERLEAVE] = np.cumsum(bits[stream::INTERLEAVE])
        crosses = (reached - bits) % WORD_BITS + bits >= WORD_BITS
        # What the first codeword of a sub-stream delays is its second.
        reload = np.zeros(len(starts), np.int64)
        for stream in range(INTERLEAVE):
            delayed = starts + INTERLEAVE + stream
            late = crosses[starts + stream] & (delayed < ends)
            hidden = lead.clip(0) + spare[np.minimum(delayed, ends)] - spare[starts]
            reload = np.maximum(reload, RELOAD_CYCLES * late - hidden)
        return cls(operations=row_lengths + spare[ends] - spare[starts], returns=(-lead).clip(0) + reload)


def layer_cycles(config: AcceleratorConfig, *, kernel: tuple[int, int], dict_words: int, out: tuple[int, int],
                 work: RowWork, shared_row: bool, pixel_cycles: np.ndarray,
                 row_words: np.ndarray) -> LayerCycles:
    """Predict one layer.

    Parameters
    ----------
    kernel : (int, int)
        Height and width.
    dict_words : int
        Words of the dictionary.
    out : (int, int)
        Height and width of the output map.
    work : RowWork
        Of the streams' rows.
    shared_row : bool
        Whether all output channels replay the one row of the streams.
    pixel_cycles : int64 array (output channels,)
        Cycles to requantize a pixel (:func:`pixel_cycles_of`).
    row_words : int64 array (output channels,)
        Parameter words that are fetched for each row.
    """
    blocks = -(-out[0] // config.lanes_y) * -(-out[1] // config.lanes_x)
    words = DESCRIPTOR_WORDS + KERNEL_ENTRY_WORDS * (kernel[0] + kernel[1]) + config.max_code_bits + dict_words
    operations, returns = (np.broadcast_to(part, pixel_cycles.shape) for part in (work.operations, work.returns))
    drain = pixel_cycles * (1 if out == (1, 1) else config.lanes)
    # A row begins under the drain of the row before, and its first end of row waits for that and for its parameters.
    begin = operations + returns * shared_row
    begin[0] = operations[0]
    first = begin.copy()
    first[1:] = np.maximum(begin[1:], drain[:-1] + ROW_TURN + PARAMETER_CYCLES * row_words[1:])
    # Every further pass begins with a return of the decoder, of which the first one hides under that wait.
    unhindered = np.maximum(operations, np.maximum(drain + DRAIN_GAP, PASS_MINIMUM))
    late = (operations + returns - unhindered).clip(0)
    passes = first + (blocks - 1) * unhindered + ((blocks - 1) * late - np.minimum(first - begin, late)).clip(0)
    return LayerCycles(load=SECTIONS_LOADED * SECTION_CYCLES + words + BEGIN_CYCLES,
                       compute=FILL_CYCLES + int(passes.sum() + drain[-1]) + EMPTY_CYCLES,
                       operations=blocks * int(operations.sum()))


def pixel_cycles_of(count: np.ndarray, raw: bool) -> np.ndarray:
    """Cycles that requantizing a pixel takes: by the number of scale terms, int64 (channels,), or of raw bytes."""
    return np.full_like(count, RAW_BYTES) if raw else 1 + SCALE_TERM_CYCLES * (count - 1)


def run_cycles(layers: Iterable[LayerCycles]) -> int:
    """Cycles of a whole inference, from its start to its end."""
    return RUN_CYCLES + sum(layer.total for layer in layers)


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
            out=(layer.fields["out_h"], layer.fields["out_w"]), work=_row_work(layer),
            shared_row=Flag.SHARED_ROW in layer.flags,
            pixel_cycles=pixel_cycles_of(count, Flag.RAW in layer.flags), row_words=row_words))
    return tuple(found)


def _row_work(layer: LayerView) -> RowWork:
    """Read what the rows ask back from the dictionary and the streams."""
    entry_sizes = np.diff(np.flatnonzero(layer.parts["dictionary"] >> 2 & 1), prepend=-1)
    code = CanonicalCode.from_counts(layer.parts["code_table"])
    if entry_sizes.size != code.size:
        raise ImageError(f"a dictionary must have an entry for each of its {code.size} codewords, not "
                         f"{entry_sizes.size}; compile the network again")
    symbols = decode_rows(layer.parts["stream_a"], layer.parts["stream_b"], code, layer.fields["eor"],
                          1 if Flag.SHARED_ROW in layer.flags else layer.fields["rows"])
    row_lengths = np.diff(np.flatnonzero(symbols == layer.fields["eor"]), prepend=-1)
    return RowWork.of(symbols, row_lengths, entry_sizes=entry_sizes, code_lengths=code.lengths)
