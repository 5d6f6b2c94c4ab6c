"""What a run of an image makes the streams do."""

import dataclasses
import math

from ...hw.arch.image import Flag
from .file import Program
from .program import LayerProgram, StreamProgram

__all__ = ["StreamStatistics", "statistics"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamStatistics:
    """What one stream does in one run of one layer.

    Parameters
    ----------
    rows : int
        Output channels.
    codewords : int
        Codewords decoded: each once, however often its row is replayed.
    operations : int
        Micro-operations issued, those without a term and the ends of row included.
    terms : int
        Micro-operations issued with a term; summed over streams, what :attr:`Counter.TERMS` counts.
    products : int
        What these terms add to accumulators of output pixels, lanes outside the map not counted; in a layer of the
        tail, for each image.
    passes : int
        Rows times blocks of pixels.
    """

    rows: int
    codewords: int
    operations: int
    terms: int
    products: int
    passes: int


def statistics(program: Program) -> tuple[tuple[StreamStatistics, ...], ...]:
    """Of each layer, of each stream; a layer of the tail serves all images of its run at once."""
    return tuple(tuple(_measure(layer, stream) for stream in layer.streams) for layer in program.layers)


def _measure(layer: LayerProgram, stream: StreamProgram) -> StreamStatistics:
    rows, spelled = len(stream.base), stream.operations
    # Rows that are shared are spelled once.
    repeats = rows // max(1, spelled.rows)
    operations, terms = int(spelled.operations.sum()) * repeats, int(spelled.is_term.sum()) * repeats
    pixels = 1 if Flag.BATCH in layer.flags else math.prod(layer.out)
    return StreamStatistics(rows=rows, codewords=int(spelled.codewords.sum()), operations=operations * layer.blocks,
                            terms=terms * layer.blocks, products=terms * pixels, passes=rows * layer.blocks)
