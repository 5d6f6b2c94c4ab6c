"""Clock cycles that a layer takes: one function from a layer as it stands in the model memory, and what its codewords
spell, to cycles.

The hardware's pace has few causes, and each is a line of :class:`_Stream` or :func:`_drain`: a stream issues one
micro-operation a cycle; its decoder gives one codeword a cycle, if the one memory has the words; an end of row waits
until its shadows will be free; one drain empties the shadows of all streams in turn, and needs a row's parameters. So
every row pass has a time at which it is issued and one at which it is drained, each from those before. Constants are
lengths of pipelines, counted in the units' sources.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import ImageError
from ...hw.arch.image import WATCHDOG_UNIT, Flag, OpKind
from ..codec.bitstream import WINDOW_WORDS, WORD_BITS, decode_stream
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
BOUNDARY_CYCLES = 4
"""From one layer to the next, and from its tables to its start."""
STREAM_CYCLES = 4
"""In which a stream's lengths become addresses."""
FETCH_CYCLES = 5
"""From a request for words of the model memory until the first can be used."""
SYMBOL_CYCLES = 6
"""From a decoded symbol to its first micro-operation: row buffer and expander."""
FINISH_CYCLES = 14
"""From an end of row to full shadows: window and lanes."""
SPACING = 4
"""Least cycles between two passes of the drain."""
FIFO_WORDS = {1: 4, 2: 4, 4: 16}
"""Words that a decoder fetches ahead, by its contexts."""
READ_WORDS = 16
"""Lanes that a stage of the drain's multiplexer chooses from."""
RELEASE_PIXELS = 8
"""A gate opens when the drain has come to the last so many pixels, where a pixel takes a cycle."""
END_CYCLES = 6
"""From a pass's last pixel, out of the read multiplexer, to the layer's end: requantizer and write-back."""
RUN_CYCLES = 20
"""Cycles of a run outside its layers."""
NEVER = 1 << 40
CONTENDED_MOST = 1 << 19
"""Codewords of a layer up to which its streams' contention for the model memory is followed cycle by cycle."""
SAMPLE = 8
"""Blocks from which on the time of a layer is taken to be linear in its blocks."""
HORIZON, TINY = 1e12, 1e-9
"""A time behind all others; words a cycle that are as good as none."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Map:
    """What all streams of a layer have in common.

    ``blocks`` of the output map, ``pixels`` that the drain takes of each, ``bytes`` of a pixel; cycles from a lane to
    the requantizer (``latency``); whether a scale of one term lets an end of row go before its release (``quick``).
    """

    blocks: int
    pixels: int
    bytes: int
    latency: int
    quick: bool

    @classmethod
    def of(cls, layer: LayerView, images: int) -> "_Map":
        config, fields, flags = layer.config, layer.fields, layer.flags
        raw, pixels = Flag.RAW in flags, config.lanes
        if fields["out_h"] == fields["out_w"] == 1:
            pixels = 1
        elif Flag.BATCH in flags and not (raw and config.shadow_chain):
            pixels = images
        return cls(blocks=-(-fields["out_h"] // config.lanes_y) * -(-fields["out_w"] // config.lanes_x), pixels=pixels,
                   bytes=RAW_BYTES if raw else 1, quick=config.streams == 1 and not raw,
                   latency=0 if config.shadow_chain else 1 if config.lanes <= READ_WORDS else 2)


class _Memory:
    """The model memory's port: what is left of it for requesters of ever lower priority."""

    def __init__(self) -> None:
        self.times = self.free = np.array([0.0, HORIZON])

    def when(self, words: "np.ndarray | float") -> np.ndarray:
        """When so many words are granted, counted from the layer's start."""
        return np.interp(words, self.free, self.times)

    def later(self, at: float, words: int) -> int:
        """When so many words are granted from ``at`` on."""
        return int(self.when(np.interp(at, self.times, self.free) + words))

    def take(self, times: np.ndarray, words: np.ndarray) -> None:
        """Grant ``words`` up to each of ``times``; both rise from 0."""
        times, words = np.append(times, HORIZON), np.append(words, words[-1])
        both = np.union1d(self.times, times)
        left = np.interp(both, self.times, self.free) - np.interp(both, times, words)
        # Rising, however little, so that it can be inverted.
        self.times, self.free = both, np.maximum.accumulate(left.clip(0)) + TINY * both


def _decoded(memory: _Memory, config: AcceleratorConfig, codewords: np.ndarray, words: int,
             held: np.ndarray) -> tuple[int, np.ndarray]:
    """When a stream has decoded its first codeword, and each row; it takes its words out of ``memory``.

    Parameters
    ----------
    codewords : int64 array (rows,)
        Of each row.
    words : int
        That the stream's codewords fill.
    held : int64 array (rows,)
        Cycles, from the first codeword on, before which the row buffer has no place for a row's end.
    """
    contexts = config.interleave
    ahead, stages = FIFO_WORDS[contexts], 2 if contexts == 1 else 4
    total = np.cumsum(codewords)
    # Each context begins with its window full; then a word is taken for every 16 bits.
    taken = WINDOW_WORDS * contexts + total * (max(0, words - contexts) / total[-1])
    primed = FETCH_CYCLES - 1 + max(memory.when(1) + contexts * (contexts + 1),
                                    memory.when(WINDOW_WORDS * contexts) + 1)
    begin = int(primed) + stages
    least = np.maximum(memory.when(taken) + FETCH_CYCLES - 1 + stages, begin + held)
    ends = np.maximum.accumulate(np.maximum(least - total, begin - 1)) + total
    times: np.ndarray = np.concatenate((np.array([0, memory.when(ahead), primed]), ends - stages))
    fetched = np.concatenate(([0, ahead, ahead + WINDOW_WORDS * contexts], ahead + taken))
    memory.take(np.maximum.accumulate(np.maximum(times, memory.when(fetched))), fetched)
    return begin, ends.astype(np.int64)


class _Stream:
    """One stream's end of row that is issued next. Times are cycles from the layer's start.

    Parameters
    ----------
    common : _Map
    operations, shifts, fetches : sequence of int
        Of each row: micro-operations; shifts between its scale's terms; words of its parameters (cycles besides).
    begin : int
        When the first codeword is decoded.
    decoded : list of int
        When each row is decoded, if the rows before do not hold it up.
    known : int
        When the first row's parameters are there.
    """

    def __init__(self, common: _Map, operations: Sequence[int], shifts: Sequence[int],
                 fetches: Sequence[tuple[int, int]], begin: int, decoded: list[int], known: int) -> None:
        self.common = common
        self.operations, self.shifts, self.fetches = operations, shifts, fetches
        self.decoded, self.known = decoded, known
        self.row = self.block = 0
        self.earliest = begin + operations[0] - 1 + SYMBOL_CYCLES

    @property
    def issue(self) -> int:
        """When the end of row is issued."""
        return max(self.earliest, self.decoded[self.row] + SYMBOL_CYCLES)

    @property
    def done(self) -> bool:
        """Whether all passes are drained."""
        return self.row == len(self.operations)

    @property
    def full(self) -> int:
        """When the drain can take the pass."""
        return max(self.issue + FINISH_CYCLES, self.known)

    @property
    def pace(self) -> int:
        """Cycles a pixel."""
        return 1 + self.shifts[self.row]

    def drained(self, begin: int) -> bool:
        """The drain takes the pass (its last byte from ``begin`` on): go on to the next one; whether of another row."""
        common, pixels, pace, issue = self.common, self.common.pixels, self.pace, self.issue
        if common.quick and pace == 1:
            gate = max(issue + 1, self.known) + pixels
        elif pace == 1:
            gate = begin + 2 + (pixels - 1) // RELEASE_PIXELS * RELEASE_PIXELS
        else:
            gate = begin + pixels * pace + 1
        self.block += 1
        turned = self.block == common.blocks
        if turned:
            self.row, self.block = self.row + 1, 0
            if self.done:
                return False
        self.earliest = max(issue + self.operations[self.row], gate)
        return turned


class _Drain:
    """The one drain: passes of all streams in turn."""

    def __init__(self, common: _Map, streams: Sequence[_Stream]) -> None:
        self.common = common
        self.waiting = dict(enumerate(streams))
        self.free = self.end = self.turn = 0

    def take(self, at: int) -> tuple[int, bool]:
        """Begin the pass whose turn it is; which stream's, and whether that needs another row's parameters."""
        # In turn, from the one behind the last.
        turn = min((n for n, stream in self.waiting.items() if stream.full <= at), key=lambda n: (n <= self.turn, n))
        stream, pixels = self.waiting[turn], self.common.pixels
        span = max(pixels * stream.pace + 1, SPACING)
        begin = at + (self.common.bytes - 1) * span
        self.turn, self.free, self.end = turn, begin + span, begin + pixels * stream.pace
        self.asked = begin + self.common.latency + 1
        turned = stream.drained(begin)
        if stream.done:
            del self.waiting[turn]
        return turn, turned


def _run(streams: list[_Stream], common: _Map, memory: _Memory) -> int:
    """Issue and drain all passes of a layer; returns when the last pixel leaves its lane."""
    drain, reader = _Drain(common, streams), max(stream.known for stream in streams)
    while drain.waiting:
        turn, turned = drain.take(max(drain.free, min(stream.full for stream in drain.waiting.values())))
        if turned:
            stream = streams[turn]
            words, besides = stream.fetches[stream.row]
            reader = stream.known = memory.later(max(reader, drain.asked), words) + besides
    return drain.end


class _Decoder:
    """A decoder as the cycles go by: for streams that together want more words than there are."""

    def __init__(self, config: AcceleratorConfig, codewords: np.ndarray, lengths: np.ndarray) -> None:
        self.contexts, self.depth = config.interleave, config.row_depth
        self.fifo, self.stages = FIFO_WORDS[self.contexts], 2 if self.contexts == 1 else 4
        self.ends = np.cumsum(codewords).tolist()
        # A word is taken where a context's bits pass the end of one.
        bits = np.concatenate((lengths, np.zeros(-lengths.size % self.contexts, np.int64))).reshape(-1, self.contexts)
        words = np.cumsum(bits, axis=0) // WORD_BITS
        self.takes = np.diff(words, axis=0, prepend=0).ravel().tolist()
        self.priming = self.contexts * (self.contexts + 1)
        self.fetched = self.there = self.taken = self.done = self.row = 0
        self.running = True

    def step(self, at: int, stream: _Stream) -> None:
        """One cycle."""
        if self.there == self.taken:
            return
        if self.priming:
            self.taken += self.priming % (self.contexts + 1) < 2
            self.priming -= 1
            return
        # What has been read of the present row, at most.
        row = stream.row
        before = self.ends[row - 1] if row else 0
        left = max(0, stream.earliest - SYMBOL_CYCLES - at)
        if self.done - max(before, self.ends[row] - left) >= self.depth:
            return
        if not self.done:
            stream.earliest = at + self.stages + stream.operations[0] - 1 + SYMBOL_CYCLES
        self.taken += self.takes[self.done]
        self.done += 1
        if self.done == self.ends[self.row]:
            stream.decoded[self.row] = at + self.stages
            self.row += 1
            self.running = self.row < len(self.ends)


def _run_contended(streams: list[_Stream], common: _Map, decoders: list[_Decoder]) -> int:
    """As :func:`_run`, cycle by cycle: decoders before parameters, the first ones before the last."""
    drain = _Drain(common, streams)
    arriving: list[_Decoder | None] = [None] * (FETCH_CYCLES - 1)
    wanted: list[_Stream] = list(streams)
    reader = left = at = 0
    for stream in streams:
        stream.known = NEVER
    fetching: _Stream | None = None
    while drain.waiting:
        at += 1
        granted = next((d for d in decoders if d.running and d.fetched - d.taken < d.fifo), None)
        if granted:
            granted.fetched += 1
        elif left and fetching:
            left -= 1
        arriving.append(granted)
        arrived = arriving.pop(0)
        if arrived:
            arrived.there += 1
        if fetching and not left:
            reader = at + fetching.fetches[fetching.row][1]
            fetching.known, fetching = reader, None
        if fetching is None and wanted and at >= reader:
            fetching = min(wanted, key=streams.index)
            wanted.remove(fetching)
            left = fetching.fetches[fetching.row][0]
        for decoder, stream in zip(decoders, streams, strict=True):
            if decoder.running:
                decoder.step(at, stream)
        if at >= drain.free and any(stream.full <= at for stream in drain.waiting.values()):
            turn, turned = drain.take(at)
            if turned:
                streams[turn].known = NEVER
                wanted.append(streams[turn])
    return drain.end


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
    common = _Map.of(layer, images)
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


def _compute(layer: LayerView, work: LayerWork, common: _Map) -> int:
    """From the layer's start to its last write."""
    config, flags = layer.config, layer.flags
    memory = _Memory()
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
        begin, decoded = _decoded(memory, config, codewords, codes.size, held)
        found.append((operations.tolist(), (0 if Flag.RAW in flags else 1) * shifts, fixed, count // 2, begin,
                      decoded if decoded.size == rows else np.full(rows, decoded[0])))
    known, streams = 1, []
    for rows_operations, shifts, fixed, further, begin, decoded in found:
        shared = Flag.SHARED_SCALE in flags
        fetches = [(w, 2 + 3 * (w > 0) + 3 * (f > 0)) for w, f in zip(fixed.tolist(), ((not shared) * further).tolist(),
                                                                   strict=True)]
        if shared:
            # Before the first row's.
            fetches[0] = (fetches[0][0] + 1 + int(further[0]),
                          fetches[0][1] + FETCH_CYCLES - 1 + 3 * int(further[0] > 0))
        known = memory.later(known, fetches[0][0]) + fetches[0][1]
        streams.append(_Stream(common, rows_operations, shifts.tolist(), fetches, begin, decoded.tolist(), known))
    size = sum(int(part.sum()) for part in work.codewords)
    if common.blocks > 1 or config.streams == 1 or Flag.SHARED_ROW in flags or size > CONTENDED_MOST:
        return _run(streams, common, memory) + common.latency + END_CYCLES
    decoders = []
    lengths = CanonicalCode.from_counts(layer.parts["code_table"]).lengths.astype(np.int64)
    for stream, codewords, symbols in zip(streams, work.codewords, work.symbols, strict=False):
        decoders.append(_Decoder(config, codewords, lengths[symbols]))
        stream.decoded = [NEVER] * codewords.size
    return _run_contended(streams, common, decoders) + common.latency + END_CYCLES


def _load(layer: LayerView) -> int:
    """From the end of the layer before to the layer's start."""
    config, parts = layer.config, layer.parts
    words = sum(len(parts[name]) for name in ("descriptor", "lengths", "positions", "code_table", "dictionary"))
    sections = 4 if len(parts["dictionary"]) else 3
    return (FLUSH_CYCLES * config.counters + BOUNDARY_CYCLES + words + SECTION_CYCLES * sections
            + STREAM_CYCLES * config.streams)


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
