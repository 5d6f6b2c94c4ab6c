"""Loading a model: what the board already has is kept, the rest is written, all of it is verified."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from ...hw.arch.errors import TransportError
from .events import SessionLost
from .memory import MODEL, crc_of, verify, write_words
from .session import Session
from .transport import BYTE_BITS

__all__ = ["CHUNK_WORDS", "LoadResult", "Progress", "load_words"]

CHUNK_WORDS = 2048
"""Words that are checked, and sent again, together."""
ROUNDS = 4
"""How often chunks that were written and accepted are written again because they don't read back right."""
WORD_BYTES = 2

Progress = Callable[[int, int], None]
"""Told of bytes that are in place, and of all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What a load did.

    Parameters
    ----------
    bytes, sent, skipped : int
        Bytes of the model; those among them that were written (some perhaps twice), and that were there already.
    baud : int
        The speed at the end.
    seconds : float
        From the first byte to the verified end, in the transport's time.
    retries, damaged : int
        Frames that were sent again; damaged ones, in either direction.
    sessions : int
        Sessions that it took.
    """

    bytes: int
    sent: int
    skipped: int
    baud: int
    seconds: float
    retries: int
    damaged: int
    sessions: int

    @property
    def efficiency(self) -> float:
        """The share of the line's time in which the model's own bytes went over it."""
        return self.sent * BYTE_BITS / (self.baud * self.seconds) if self.seconds else 0.0


def load_words(session: Session, words: np.ndarray, *, force: bool = False,
               progress: Progress | None = None, check: Callable[[], None] | None = None) -> LoadResult:
    """Make the model memory begin with `words` (uint16).

    Parameters
    ----------
    session : Session
        Open or not.
    words : uint16 array
    force : bool
        Write all of them, whatever the board has.
    progress : callable, optional
    check : callable, optional
        Called after the board is found and before anything is written; raises what it does not like.

    Raises
    ------
    TransportError
        If the board is lost for good, or its memory does not keep what is written.
    """
    transport = session.transport
    statistics = session.channel.statistics
    before, started = dataclasses.replace(statistics), transport.now()
    session.open()
    if check is not None:
        check()
    chunks = [slice(at, min(at + CHUNK_WORDS, len(words))) for at in range(0, len(words), CHUNK_WORDS)]
    report = progress or (lambda done, total: None)
    total = WORD_BYTES * len(words)
    sent = rounds = 0
    skipped: int | None = None
    while True:
        try:
            wrong = chunks if force and not sent else _wrong(session, words, chunks, thorough=sent > 0)
            done = total - sum(_size(chunk) for chunk in wrong)
            skipped = done if skipped is None else skipped
            report(done, total)
            for chunk in wrong:
                sent, done = sent + _size(chunk), done + _size(chunk)
                write_words(session.channel, MODEL + chunk.start, words[chunk])
                report(done, total)
            if not wrong or _right(session, words, slice(0, len(words))):
                break
        except SessionLost as lost:
            session.recover(lost)
            continue
        rounds += 1
        if rounds == ROUNDS:
            raise TransportError(f"{transport.name}: the model memory does not keep what is written: CRC-32 wrong "
                                 f"after {rounds} rounds in which the board accepted every frame; is another host "
                                 f"writing to this board? Otherwise its memory or its power supply is defective")
    session.progressed()
    return LoadResult(
        bytes=total, sent=sent, skipped=skipped, baud=transport.baud, seconds=transport.now() - started,
        retries=statistics.retries - before.retries,
        damaged=(statistics.damaged + statistics.damaged_at_board - before.damaged - before.damaged_at_board),
        sessions=statistics.sessions - before.sessions)


def _wrong(session: Session, words: np.ndarray, chunks: list[slice], *, thorough: bool) -> list[slice]:
    """The chunks that the board has not; all of them, unless the last or the first is right or `thorough` is set."""
    right = functools.cache(lambda number: _right(session, words, chunks[number]))
    if not thorough and not right(len(chunks) - 1) and not right(0):
        return chunks
    return [chunk for number, chunk in enumerate(chunks) if not right(number)]


def _size(chunk: slice) -> int:
    return WORD_BYTES * int(chunk.stop - chunk.start)


def _right(session: Session, words: np.ndarray, chunk: slice) -> bool:
    assert session.identity is not None
    return verify(session.channel, MODEL + chunk.start, chunk.stop - chunk.start,
                  session.identity.clock_hz) == crc_of(words[chunk])
