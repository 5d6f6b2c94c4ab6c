"""How row passes follow one another on the accelerator: streams, model memory and the one drain.

A stream issues one micro-operation a cycle; its decoder gives one codeword a cycle, if the memory has the words; an end
of row waits until its shadows will be free; the drain empties the shadows of all streams in turn, and needs a row's
parameters. So every row pass has a time at which it is issued and one at which it is drained, each from those before.
Constants are lengths of pipelines, counted in the units' sources. All times are cycles from the layer's start.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.image import RAW_BYTES, Flag
from ...hw.arch.timing import PASS_SPACING, RELEASE_BITS, memory_latency, prefetch_words, read_latency
from ..codec.bitstream import WINDOW_WORDS, WORD_BITS
from .descriptor import LayerView

__all__ = ["NEVER", "DecoderPace", "LayerShape", "MemoryShare", "StreamPace", "decoded_rows", "run",
           "run_contended"]

SYMBOL_CYCLES = 6
"""From a decoded symbol to its first micro-operation: row buffer and expander."""
FINISH_CYCLES = 14
"""From an end of row to full shadows: window and lanes."""
NEVER = 1 << 40
"""A time behind all others."""
HORIZON, TINY = 1e12, 1e-9
"""The same for times with fractions; words a cycle that are as good as none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerShape:
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
    def of(cls, layer: LayerView, images: int) -> "LayerShape":
        config, fields, flags = layer.config, layer.fields, layer.flags
        raw, pixels = Flag.RAW in flags, config.lanes
        if fields["out_h"] == fields["out_w"] == 1:
            pixels = 1
        elif Flag.BATCH in flags and not (raw and config.shadow_chain):
            pixels = images
        return cls(blocks=-(-fields["out_h"] // config.lanes_y) * -(-fields["out_w"] // config.lanes_x), pixels=pixels,
                   bytes=RAW_BYTES if raw else 1, quick=config.streams == 1 and not raw,
                   latency=read_latency(config))


class MemoryShare:
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


def decoded_rows(memory: MemoryShare, config: AcceleratorConfig, codewords: np.ndarray, words: int,
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
    ahead, stages = prefetch_words(config), 2 if contexts == 1 else 4
    total = np.cumsum(codewords)
    # Each context begins with its window full; then a word is taken for every 16 bits.
    taken = WINDOW_WORDS * contexts + total * (max(0, words - contexts) / total[-1])
    primed = memory_latency(config) + 1 + max(memory.when(1) + contexts * (contexts + 1),
                                    memory.when(WINDOW_WORDS * contexts) + 1)
    begin = int(primed) + stages
    least = np.maximum(memory.when(taken) + memory_latency(config) + 1 + stages, begin + held)
    ends = np.maximum.accumulate(np.maximum(least - total, begin - 1)) + total
    times: np.ndarray = np.concatenate((np.array([0, memory.when(ahead), primed]), ends - stages))
    fetched = np.concatenate(([0, ahead, ahead + WINDOW_WORDS * contexts], ahead + taken))
    memory.take(np.maximum.accumulate(np.maximum(times, memory.when(fetched))), fetched)
    return begin, ends.astype(np.int64)


class StreamPace:
    """One stream's end of row that is issued next. Times are cycles from the layer's start.

    Parameters
    ----------
    common : LayerShape
    operations, shifts, fetches : sequence of int
        Of each row: micro-operations; shifts between its scale's terms; words of its parameters (cycles besides).
    begin : int
        When the first codeword is decoded.
    decoded : list of int
        When each row is decoded, if the rows before do not hold it up.
    known : int
        When the first row's parameters are there.
    """

    def __init__(self, common: LayerShape, operations: Sequence[int], shifts: Sequence[int],
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
            gate = begin + 2 + (pixels - 1 >> RELEASE_BITS << RELEASE_BITS)
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

    def __init__(self, common: LayerShape, streams: Sequence[StreamPace]) -> None:
        self.common = common
        self.waiting = dict(enumerate(streams))
        self.free = self.end = self.turn = 0

    def take(self, at: int) -> tuple[int, bool]:
        """Begin the pass whose turn it is; which stream's, and whether that needs another row's parameters."""
        # In turn, from the one behind the last.
        turn = min((n for n, stream in self.waiting.items() if stream.full <= at), key=lambda n: (n <= self.turn, n))
        stream, pixels = self.waiting[turn], self.common.pixels
        span = max(pixels * stream.pace + 1, PASS_SPACING)
        begin = at + (self.common.bytes - 1) * span
        self.turn, self.free, self.end = turn, begin + span, begin + pixels * stream.pace
        self.asked = begin + self.common.latency + 1
        turned = stream.drained(begin)
        if stream.done:
            del self.waiting[turn]
        return turn, turned


def run(streams: list[StreamPace], common: LayerShape, memory: MemoryShare) -> int:
    """Issue and drain all passes of a layer; returns when the last pixel leaves its lane."""
    drain, reader = _Drain(common, streams), max(stream.known for stream in streams)
    while drain.waiting:
        turn, turned = drain.take(max(drain.free, min(stream.full for stream in drain.waiting.values())))
        if turned:
            stream = streams[turn]
            words, besides = stream.fetches[stream.row]
            reader = stream.known = memory.later(max(reader, drain.asked), words) + besides
    return drain.end


class DecoderPace:
    """A decoder as the cycles go by: for streams that together want more words than there are."""

    def __init__(self, config: AcceleratorConfig, codewords: np.ndarray, lengths: np.ndarray) -> None:
        self.contexts, self.depth = config.interleave, config.row_depth
        self.latency = memory_latency(config)
        self.fifo, self.stages = prefetch_words(config), 2 if self.contexts == 1 else 4
        self.ends = np.cumsum(codewords).tolist()
        # A word is taken where a context's bits pass the end of one.
        bits = np.concatenate((lengths, np.zeros(-lengths.size % self.contexts, np.int64))).reshape(-1, self.contexts)
        words = np.cumsum(bits, axis=0) // WORD_BITS
        self.takes = np.diff(words, axis=0, prepend=0).ravel().tolist()
        self.priming = self.contexts * (self.contexts + 1)
        self.fetched = self.there = self.taken = self.done = self.row = 0
        self.running = True

    def step(self, at: int, stream: StreamPace) -> None:
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


def run_contended(streams: list[StreamPace], common: LayerShape, decoders: list[DecoderPace]) -> int:
    """As :func:`run`, cycle by cycle: decoders before parameters, the first ones before the last."""
    drain = _Drain(common, streams)
    arriving: list[DecoderPace | None] = [None] * (decoders[0].latency + 1)
    wanted: list[StreamPace] = list(streams)
    reader = left = at = 0
    for stream in streams:
        stream.known = NEVER
    fetching: StreamPace | None = None
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
