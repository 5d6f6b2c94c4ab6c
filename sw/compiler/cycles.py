"""Clock cycles that a layer takes: one function from a layer as it stands in the model memory, and what its codewords
spell, to cycles.

The hardware's pace has few causes, and each is a line of :class:`_Stream` or :func:`_drain`: a stream issues one
micro-operation a cycle; its decoder gives one codeword a cycle, if the one memory has the words; an end of row waits
until its shadows will be free; one drain empties the shadows of all streams in turn, and needs a row's parameters. So
every row pass has a time at which it is issued and one at which it is drained, each from those before. Constants are
lengths of pipelines, counted in the units' sources.
"""

import bisect
import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...hw.arch.config import AcceleratorConfig
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

SECTION_CYCLES = 5
"""Of a section of a layer's tables, besides a cycle a word: check, memory latency."""
FLUSH_CYCLES = 14
"""In which a layer's counters are written: 11 to 18, as the counters' round happens to stand."""
BOUNDARY_CYCLES = 2
"""From one layer to the next, and from its tables to its start."""
FETCH_CYCLES = 5
"""From a request for words of the model memory until the first can be used."""
SYMBOL_CYCLES = 6
"""From a decoded symbol to its first micro-operation: row buffer and expander."""
FINISH_CYCLES = 14
"""From an end of row to full shadows: window and lanes."""
SPACING = 4
"""Least cycles between two passes of the drain."""
RELEASE_PIXELS = 8
"""A gate opens when the drain has come to the last so many pixels, where a pixel takes a cycle."""
END_CYCLES = 6
"""From a pass's last pixel, out of the read multiplexer, to the layer's end: requantizer and write-back."""
RUN_CYCLES = 20
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Map:
    """What all streams of a layer have in common.

    ``blocks`` of the output map, ``pixels`` that the drain takes of each; ``bytes`` of a pixel; cycles from a lane to
    the drain (``latency``); whether a scale of one term needs no waiting for the drain (``quick``).
    """

    blocks: int
    pixels: int
    bytes: int
    latency: int
    quick: bool


class _Stream:
    """One stream: the end of row that it issues next. Times count from the layer's start.

    Parameters
    ----------
    operations, shifts, fetches : sequence of int
        Of each row: micro-operations; shifts between its scale's terms; cycles of fetching its parameters.
    arrivals : sequence of int
        When each row's last codeword is decoded, if nothing holds it up.
    """

    def __init__(self, common: _Map, operations: Sequence[int], shifts: Sequence[int], fetches: Sequence[int],
                 arrivals: Sequence[int], begin: int) -> None:
        self.common = common
        self.operations, self.shifts, self.fetches = operations, shifts, fetches
        self.decode = [0, *(after - before for before, after in zip(arrivals, arrivals[1:], strict=False))]
        self.arrival = arrivals[0]
        self.row, self.block, self.known = 0, 0, 0
        self.issue = max(begin + SYMBOL_CYCLES + operations[0] - 1, self.arrival + SYMBOL_CYCLES)

    @property
    def done(self) -> bool:
        """Whether all passes are drained."""
        return self.row == len(self.operations)

    @property
    def full(self) -> int:
        """When the drain may take the pass."""
        return max(self.issue + FINISH_CYCLES, self.known)

    @property
    def pace(self) -> int:
        """Cycles a pixel."""
        return 1 + self.shifts[self.row]

    def drained(self, begin: int) -> None:
        """The drain takes the present pass, its last byte from ``begin`` on: go on to the next."""
        common, pixels = self.common, self.common.pixels
        quick = common.quick and self.pace == 1
        if quick:
            gate = max(self.issue + 1, self.known) + pixels
        elif self.pace == 1:
            gate = begin + 2 + (pixels - 1) // RELEASE_PIXELS * RELEASE_PIXELS
        else:
            gate = begin + pixels * self.pace + 1
        self.block += 1
        if self.block == common.blocks:
            # Behind a row's last pass the decoder, which may be a row ahead, can end that row.
            held = self.issue - SYMBOL_CYCLES + 1 if common.blocks > 1 else 0
            self.row, self.block = self.row + 1, 0
            if self.row < len(self.operations):
                self.arrival = max(self.arrival + self.decode[self.row], held)
                gate = max(gate, self.arrival + SYMBOL_CYCLES)
        if self.row < len(self.operations):
            self.issue = max(self.issue + self.operations[self.row], gate)


def _drain(streams: list[_Stream], common: _Map, known: int) -> int:
    """Issue and drain all passes; returns the end of the last. From ``known`` on parameters can be fetched."""
    free = end = turn = 0
    while True:
        waiting = [stream for stream in streams if not stream.done]
        if not waiting:
            return end
        at = max(free, min(stream.full for stream in waiting))
        # In turn, from the one behind the last.
        turn = min((number for number, stream in enumerate(streams) if not stream.done and stream.full <= at),
                   key=lambda number: (number <= turn, number))
        stream = streams[turn]
        span = max(common.pixels * stream.pace + 1, SPACING)
        begin = at + (common.bytes - 1) * span
        free = begin + span
        end = begin + common.pixels * stream.pace
        row = stream.row
        stream.drained(begin)
        if stream.row != row and not stream.done:
            known = stream.known = max(known, begin + common.latency + 1) + stream.fetches[stream.row]


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
    config, flags = layer.config, layer.flags
    common = _common(layer, images)
    # The decoder is primed with two words of each context; those of other streams are fetched before.
    primed = FETCH_CYCLES + config.interleave * (config.interleave + 1) + (4 if config.interleave > 1 else 2)
    fetched = 16 if config.interleave == 4 else 4
    streams = []
    known = 1
    shared = Flag.SHARED_SCALE in flags
    demand = sum(words.size / max(1, int(part.sum())) for words, part in zip(layer.codewords, work.codewords, strict=True))
    operations = terms = 0
    for number, words in enumerate(layer.parameters):
        rows = layer.rows(number)
        if not rows:
            continue
        count, shifts, per_row = parameter_shape(words, flags, rows)
        further = count // 2
        fetches = _fetch(per_row, 0 * further) if shared else _fetch(per_row - further, further)
        begin = primed + fetched * number
        arrivals = begin + (np.cumsum(work.codewords[number]) * max(1.0, demand)).astype(np.int64) - 1
        issued = np.broadcast_to(work.operations[number], rows)
        stream = _Stream(common, issued.tolist(), (0 * shifts if Flag.RAW in flags else shifts).tolist(), fetches.tolist(),
                         np.broadcast_to(arrivals, rows).tolist() if arrivals.size == rows else np.full(rows, arrivals[0]).tolist(), begin)
        known += int(fetches[0]) + (int(_fetch(np.array([1]), further[:1])[0]) if shared else 0)
        stream.known = known
        streams.append(stream)
        operations += common.blocks * int(issued.sum())
        terms += common.blocks * int(np.broadcast_to(work.terms[number], rows).sum())
    end = _drain(streams, common, known)
    return LayerCycles(load=_load(layer), compute=end + common.latency + END_CYCLES,
                       codewords=sum(int(part.sum()) for part in work.codewords), operations=operations, terms=terms)


def _fetch(words, further):
    return np.where(words > 0, words + 5, 2) + np.where(further > 0, further + 3, 0)


def _common(layer: LayerView, images: int) -> _Map:
    config, flags, fields = layer.config, layer.flags, layer.fields
    out_h, out_w = fields["out_h"], fields["out_w"]
    raw = Flag.RAW in flags
    pixels = config.lanes
    if (out_h, out_w) == (1, 1):
        pixels = 1
    elif Flag.BATCH in flags and not (raw and config.shadow_chain):
        pixels = images
    latency = 0 if config.shadow_chain else 1 if config.lanes <= 16 else 2
    return _Map(blocks=-(-out_h // config.lanes_y) * -(-out_w // config.lanes_x), pixels=pixels,
                bytes=RAW_BYTES if raw else 1, latency=latency, quick=config.streams == 1 and not raw)


def _load(layer: LayerView) -> int:
    config = layer.config
    sections = sum(len(layer.parts[name]) for name in ("descriptor", "lengths", "positions", "code_table", "dictionary"))
    dictionary = SECTION_CYCLES if len(layer.parts["dictionary"]) else 2
    return (BOUNDARY_CYCLES + FLUSH_CYCLES * config.counters + sections + 3 * SECTION_CYCLES + dictionary + 4 * config.streams + 2)


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
