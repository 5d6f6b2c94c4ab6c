"""Clock cycles that a layer takes: one function from a layer as it stands in the model memory, and what its codewords
spell, to cycles.

Tables load at a word a cycle. Then row passes follow one another as :mod:`.pace` says, up to the last write.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...hw.arch.errors import ImageError
from ...hw.arch.image import WATCHDOG_UNIT, Flag, OpKind
from ...hw.arch.timing import memory_latency
from ..codec.bitstream import decode_stream
from ..codec.huffman import CanonicalCode
from .descriptor import LayerView
from .pace import (
    NEVER,
    DecoderPace,
    LayerShape,
    MemoryShare,
    StreamPace,
    decoded_rows,
    run,
    run_contended,
)
from .parameters import parameter_shape

if TYPE_CHECKING:
    from ..image import Image

__all__ = ["LayerCycles", "LayerWork", "batch_cycles", "batch_runs", "layer_cycles", "predict", "run_cycles",
           "watchdog"]

SECTION_CYCLES = 2
"""Of a section of a layer's tables, besides a cycle a word and the memory's latency."""
FLUSH_CYCLES = 14
"""In which a layer's counters are written: 11 to 18, as the counters' round happens to stand."""
BOUNDARY_CYCLES = 4
"""From one layer to the next, and from its tables to its start."""
STREAM_CYCLES = 4
"""In which a stream's lengths become addresses."""
END_CYCLES = 6
"""From a pass's last pixel, out of the read multiplexer, to the layer's end: requantizer and write-back."""
RUN_CYCLES = 20
"""Cycles of a run outside its layers."""
CONTENDED_MOST = 1 << 19
"""Codewords of a layer up to which its streams' contention for the model memory is followed cycle by cycle."""
SAMPLE = 8
"""Blocks from which on the time of a layer is taken to be linear in its blocks."""
WATCHDOG_FACTOR = 2
"""How many times its prediction a layer may take before the watchdog ends the run."""
WATCHDOG_SLACK = 2 * WATCHDOG_UNIT


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerCycles:
    """Predicted cycles of one layer.

    Parameters
    ----------
    load : int
        Descriptor, tables and dictionary, from the end of the layer before.
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
    symbols : tuple of uint8 arrays
        The codewords' symbols.
    """

    codewords: tuple[np.ndarray, ...]
    operations: tuple[np.ndarray, ...]
    terms: tuple[np.ndarray, ...]
    symbols: tuple[np.ndarray, ...]

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
        return cls(codewords=codewords, operations=operations, terms=with_term, symbols=tuple(symbols))


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
    common = LayerShape.of(layer, images)
    blocks = common.blocks
    if blocks > 2 * SAMPLE:
        # Each further block adds the same.
        few, more = (_compute(layer, work, dataclasses.replace(common, blocks=n * SAMPLE)) for n in (1, 2))
        compute = more + (blocks - 2 * SAMPLE) * (more - few) // SAMPLE
    else:
        compute = _compute(layer, work, common)
    operations, terms = (sum(int(np.broadcast_to(part, layer.rows(stream)).sum()) for stream, part in enumerate(parts))
                         for parts in (work.operations, work.terms))
    return LayerCycles(load=_load(layer), compute=compute, operations=blocks * operations, terms=blocks * terms,
                       codewords=sum(int(part.sum()) for part in work.codewords))


def _compute(layer: LayerView, work: LayerWork, common: LayerShape) -> int:
    """From the layer's start to its last write."""
    config, flags = layer.config, layer.flags
    memory, latency = MemoryShare(), memory_latency(config)
    found = []
    for number, (words, codes) in enumerate(zip(layer.parameters, layer.codewords, strict=True)):
        rows = layer.rows(number)
        if not rows:
            break
        count, shifts, fixed = parameter_shape(words, flags, rows)
        operations, codewords = np.broadcast_to(work.operations[number], rows), work.codewords[number]
        # What holds a row's end up in the row buffer: the last pass of the row before, or symbols not yet read.
        issues = np.cumsum(common.blocks * np.maximum(operations, common.pixels * common.bytes))
        total = np.cumsum(codewords)
        held = (np.interp(total - config.row_depth, total, issues[:total.size]) * (total > config.row_depth)
                if common.blocks == 1 else np.concatenate(([0, 0], issues))[:total.size])
        begin, decoded = decoded_rows(memory, config, codewords, codes.size, held)
        found.append((operations.tolist(), (0 if Flag.RAW in flags else 1) * shifts, fixed, count // 2, begin,
                      decoded if decoded.size == rows else np.full(rows, decoded[0])))
    known, streams = 1, []
    for rows_operations, shifts, fixed, further, begin, decoded in found:
        shared = Flag.SHARED_SCALE in flags
        scales = ((not shared) * further).tolist()
        fetches = [(w, 2 + latency * (w > 0) + latency * (f > 0)) for w, f in zip(fixed.tolist(), scales, strict=True)]
        if shared:
            # Before the first row's.
            fetches[0] = (fetches[0][0] + 1 + int(further[0]),
                          fetches[0][1] + latency + 1 + latency * int(further[0] > 0))
        known = memory.later(known, fetches[0][0]) + fetches[0][1]
        streams.append(StreamPace(common, rows_operations, shifts.tolist(), fetches, begin, decoded.tolist(), known))
    size = sum(int(part.sum()) for part in work.codewords)
    if common.blocks > 1 or config.streams == 1 or Flag.SHARED_ROW in flags or size > CONTENDED_MOST:
        return run(streams, common, memory) + common.latency + END_CYCLES
    decoders = []
    lengths = CanonicalCode.from_counts(layer.code_table).lengths.astype(np.int64)
    for stream, codewords, symbols in zip(streams, work.codewords, work.symbols, strict=False):
        decoders.append(DecoderPace(config, codewords, lengths[symbols]))
        stream.decoded = [NEVER] * codewords.size
    return run_contended(streams, common, decoders) + common.latency + END_CYCLES


def _load(layer: LayerView) -> int:
    """From the end of the layer before to the layer's start."""
    config, parts = layer.config, layer.parts
    sizes = (len(parts["descriptor"]) + len(parts["lengths"]), *(
        len(parts[name]) for name in ("positions", "code_table", "dictionary")))
    return (FLUSH_CYCLES * config.counters + BOUNDARY_CYCLES + sum(sizes) + SECTION_CYCLES * len(sizes)
            + memory_latency(config) * sum(map(bool, sizes)) + STREAM_CYCLES * config.streams)


def batch_runs(layer: LayerView, images: int) -> int:
    """How often a layer runs for a batch: a layer of the tail once, one before it once an image."""
    return 1 if Flag.BATCH in layer.flags else images


def batch_cycles(image: "Image", images: int) -> int:
    """Cycles of a batch of several images: a run of the head for each, and one of the tail."""
    tail = [Flag.BATCH in layer.flags for layer in image.layers]
    total = sum(predicted.total * batch_runs(layer, images)
                for layer, predicted in zip(image.layers, predict(image, images), strict=True))
    return RUN_CYCLES * (images * (not all(tail)) + any(tail)) + total


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
    dictionary, eor = layer.dictionary, layer.fields["eor"]
    code = CanonicalCode.from_counts(layer.code_table)
    entries = int(np.count_nonzero(dictionary >> 2 & 1))
    if entries != code.size:
        raise ImageError(f"a dictionary must have an entry for each of its {code.size} codewords, not {entries}; "
                         f"compile the network again")
    shared = Flag.SHARED_ROW in layer.flags
    symbols = [decode_stream(words, code, layer.config.interleave, eor,
                             min(layer.rows(stream), 1) if shared else layer.rows(stream))
               for stream, words in enumerate(layer.codewords)]
    return LayerWork.of(symbols, dictionary, eor)
