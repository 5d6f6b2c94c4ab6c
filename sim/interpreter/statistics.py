"""What a run of an image makes the streams do."""

import dataclasses

from .file import Program

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
    passes : int
        Rows times blocks of pixels.
    """

    rows: int
    codewords: int
    operations: int
    terms: int
    passes: int


def statistics(program: Program) -> tuple[tuple[StreamStatistics, ...], ...]:
    """Of each layer, of each stream; a layer of the tail serves all images of its run at once."""
    return tuple(
        tuple(
            StreamStatistics(
                rows=len(stream.base), codewords=int(stream.operations.codewords.sum()),
                operations=int(stream.operations.operations.sum()) * repeats,
                terms=int(stream.operations.is_term.sum()) * repeats, passes=len(stream.base) * layer.blocks)
            for stream in layer.streams
            for repeats in [layer.blocks * len(stream.base) // max(1, stream.operations.rows)])
        for layer in program.layers)
