"""Clock cycles that a layer takes: one function from a layer as it stands in the model memory, and what its codewords
spell, to cycles.

Tables load at one word a cycle. Then each stream issues one micro-operation a cycle, a row's as often as the map has
blocks. A pass can't be shorter than the drain of the sums before it, since accumulators are double-buffered; all
streams share one drain and one memory port, so the layer is no shorter than all that these have to do. The slowest
stream is the layer's time, besides the lengths of pipelines and state sequences: the constants below.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...hw.arch.errors import ImageError
from ...hw.arch.image import WATCHDOG_UNIT, Flag, OpKind
from ..codec.bitstream import decode_stream
from ..codec.huffman import CanonicalCode
from .descriptor import LayerView
from .parameters import parameter_shape
from .placement import RAW_BYTES

if TYPE_CHECKING:
    from ..image import Image

__all__ = ["LayerCycles", "LayerWork", "layer_cycles", "predict", "run_cycles", "watchdog"]

LOAD_CYCLES = 24
"""Cycles of loading a layer's tables besides a cycle for each word: addresses, checks and the memory's latency."""
LENGTHS_CYCLES = 2
"""Cycles that the sequencer adds for each stream: its two addresses."""
FILL_CYCLES = 20
"""From the start of the streams to the first micro-operation: words prefetched, decoder, row buffer and expander."""
EMPTY_CYCLES = 24
"""From the issue of the last end of row to the layer's end, besides its drain."""
PASS_MINIMUM = 4
"""Least cycles between two ends of row of a stream."""
DRAIN_GAP = 0
"""Cycles that a pass which waits for the drain takes besides it."""
SCALE_TERM_CYCLES = 2
"""Cycles that each scale term after the first adds to the one cycle that requantizing a pixel takes."""
RUN_CYCLES = 16
"""Cycles of a run outside its layers."""
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
    codewords : int
        Codewords of all streams; each is decoded once.
    operations : int
        Micro-operations issued by all streams, in all passes.
    terms : int
        Those of them with a term.
    """

    load: int
    compute: int
    codewords: int
    operations: int
    terms: int

    @property
    def total(self) -> int:
        """All cycles of the layer."""
        return self.load + self.compute


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerWork:
    """What the rows of each stream ask of it: tuples of int64 arrays (rows in the stream's codewords,).

    Parameters
    ----------
    codewords : tuple of arrays
        Codewords, end of row included.
    operations : tuple of arrays
        Micro-operations.
    terms : tuple of arrays
        Micro-operations with a term.
    """

    codewords: tuple[np.ndarray, ...]
    operations: tuple[np.ndarray, ...]
    terms: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, symbols: Sequence[np.ndarray], dictionary: np.ndarray, eor: int) -> "LayerWork":
        """Measure the codewords of each stream.

        Parameters
        ----------
        symbols : sequence of uint8 arrays
            Codewords of each stream, each row closed by `eor`.
        dictionary : uint16 array
            Words of the dictionary.
        """
        last = np.flatnonzero(dictionary >> 2 & 1)
        sizes = np.diff(last, prepend=-1)
        terms = np.diff(np.cumsum((dictionary & 3) <= OpKind.SUB)[last], prepend=0)
        found: list[tuple[np.ndarray, ...]] = []
        for stream in symbols:
            ends = np.flatnonzero(stream == eor)
            found.append((np.diff(ends, prepend=-1), *(np.diff(np.cumsum(part[stream])[ends], prepend=0)
                                                       for part in (sizes, terms))))
        codewords, operations, with_term = zip(*found, strict=True)
        return cls(codewords=codewords, operations=operations, terms=with_term)


def layer_cycles(layer: LayerView, work: LayerWork, images: int = 1) -> LayerCycles:
    """Predict one layer.

    Parameters
    ----------
    layer : LayerView
        Its descriptor, tables and parameters, for the configuration that it was made for.
    work : LayerWork
        Of its codewords.
    images : int
        Images of the run, for a layer in batch lanes.

    Raises
    ------
    ImageError
        If the parameters are malformed.
    """
    config, fields, flags = layer.config, layer.fields, layer.flags
    out_h, out_w = fields["out_h"], fields["out_w"]
    blocks = -(-out_h // config.lanes_y) * -(-out_w // config.lanes_x)
    pixels = images if Flag.BATCH in flags else 1 if (out_h, out_w) == (1, 1) else config.lanes
    slowest = drained = final = operations = terms = 0
    for stream, words in enumerate(layer.parameters):
        rows = layer.rows(stream)
        if not rows:
            continue
        count, _ = parameter_shape(words, flags, rows)
        drain = pixels * (np.full(rows, RAW_BYTES) if Flag.RAW in flags else 1 + SCALE_TERM_CYCLES * (count - 1))
        issued = np.broadcast_to(work.operations[stream], rows)
        # The first pass of a row waits for the last drain of the row before.
        before = np.concatenate(([0], drain[:-1]))
        first, others = (np.maximum(np.maximum(issued, wait + DRAIN_GAP), PASS_MINIMUM) for wait in (before, drain))
        slowest = max(slowest, int(first.sum() + (blocks - 1) * others.sum()))
        drained += blocks * int(drain.sum())
        final = max(final, int(drain[-1]))
        operations += blocks * int(issued.sum())
        terms += blocks * int(np.broadcast_to(work.terms[stream], rows).sum())
    fetched = len(layer.parts["parameters"]) + len(layer.parts["codewords"])
    load = sum(len(layer.parts[name]) for name in ("descriptor", "lengths", "positions", "code_table", "dictionary"))
    return LayerCycles(
        load=load + LOAD_CYCLES + LENGTHS_CYCLES * config.streams,
        compute=FILL_CYCLES + max(slowest + final, drained + final, fetched) + EMPTY_CYCLES,
        codewords=sum(int(part.sum()) for part in work.codewords), operations=operations, terms=terms)


def run_cycles(layers: Iterable[LayerCycles]) -> int:
    """Cycles of a whole inference of one image, from its start to its end."""
    return RUN_CYCLES + sum(layer.total for layer in layers)


def watchdog(cycles: LayerCycles) -> int:
    """The descriptor's watchdog field: generous, and no more than its 16 bits (the greatest field is 268 M cycles)."""
    return min(0xFFFF, (WATCHDOG_FACTOR * cycles.total + WATCHDOG_SLACK) // WATCHDOG_UNIT)


def predict(image: "Image", images: int = 1) -> tuple[LayerCycles, ...]:
    """Predict every layer of a compiled image, by decoding its streams.

    Parameters
    ----------
    images : int
        Images of the run, for layers in batch lanes.

    Raises
    ------
    ImageError
        If a stream can't be decoded.
    """
    return tuple(layer_cycles(layer, _work(layer), images) for layer in image.layers)


def _work(layer: LayerView) -> LayerWork:
    """Read what the rows ask back from the dictionary and the streams."""
    dictionary, eor = layer.parts["dictionary"], layer.fields["eor"]
    code = CanonicalCode.from_counts(layer.parts["code_table"])
    entries = int(np.count_nonzero(dictionary >> 2 & 1))
    if entries != code.size:
        raise ImageError(f"a dictionary must have an entry for each of its {code.size} codewords, not {entries}; "
                         f"compile the network again")
    shared = Flag.SHARED_ROW in layer.flags
    symbols = [decode_stream(words, code, layer.config.interleave, eor,
                             min(layer.rows(stream), 1) if shared else layer.rows(stream))
               for stream, words in enumerate(layer.codewords)]
    return LayerWork.of(symbols, dictionary, eor)
