"""Requests that the board has not been seen to accept: which of them to send next, and which again (go-back-N)."""

import dataclasses
from collections import deque
from collections.abc import Callable

from ...hw.arch.link import Answer, Op
from .frames import Request, Response, encode

__all__ = ["Flight", "Frame"]

SEQUENCE = 256
_WRITES = (Op.WRITE_WORDS, Op.WRITE_BYTES)


@dataclasses.dataclass
class Frame:
    """A request on its way.

    Parameters
    ----------
    request : Request
    seconds : float
        What the board needs for it, by expectation.
    answer_bytes : int
        Payload of its answer.
    early : bool
        A write that may be done before the answer to a read in front of it has come.
    data : bytes
        The request on the line.
    leaves : float
        When its last bit left, the last time.
    sent : int
        How often it was sent.
    response : Response or None
        The answer, of requests that are no writes.
    """

    request: Request
    seconds: float = 0.0
    answer_bytes: int = 0
    early: bool = False
    data: bytes = b""
    leaves: float = 0.0
    sent: int = 0
    response: Response | None = None

    @property
    def bears(self) -> bool:
        """Whether its own answer is waited for."""
        return self.request.op not in _WRITES


class Flight:
    """The frames of a session, in the order of their numbers."""

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._session = self._next = 0
        self._cursor = 0  # of the frames, the first that is to be sent, or sent again
        self._round: tuple[int, bool] | None = None  # going back: the last refusal, whether one frame was under way

    def begin(self, session: int, seq: int) -> None:
        """Forget everything; the next frame is of that session and has that number."""
        self._frames.clear()
        self._cursor, self._round = 0, None
        self._session, self._next = session, seq

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def first(self) -> Frame:
        """The oldest frame."""
        return self._frames[0]

    @property
    def sent(self) -> int:
        """Frames that need not be sent now."""
        return self._cursor

    @property
    def waiting(self) -> Frame | None:
        """The frame to send next."""
        return self._frames[self._cursor] if self._cursor < len(self._frames) else None

    def advance(self) -> None:
        """The waiting frame was sent."""
        self._cursor += 1

    def rewind(self) -> None:
        """All frames are to be sent again."""
        self._cursor, self._round = 0, None

    def add(self, frame: Frame) -> Frame:
        """Give a frame session and number, and put it last."""
        frame.request = dataclasses.replace(frame.request, seq=self._next, session=self._session)
        frame.data, frame.sent = encode(frame.request.pack()), 0
        self._next = (self._next + 1) % SEQUENCE
        self._frames.append(frame)
        return frame

    def find(self, seq: int) -> Frame | None:
        """The frame of that number, if it was sent."""
        return next((frame for frame in self._frames if frame.request.seq == seq and frame.sent), None)

    def holds(self, body: bytes) -> bool:
        """Whether `body` is one of the requests."""
        return any(body == frame.request.pack() for frame in self._frames)

    def held(self, answering: Callable[[Frame], bool]) -> bool:
        """Whether the waiting frame must wait for the answer to one before it; `answering` tells if that has begun."""
        waiting = self.waiting
        for other in self._frames:
            if other is waiting:
                return False
            if other.bears:
                return not (waiting is not None and waiting.early and answering(other))
        return False

    def cancel(self, seq: int) -> None:
        """Take back everything: the board has refused the oldest frame for good, and expects `seq` still."""
        self._frames.clear()
        self._cursor, self._round, self._next = 0, None, seq

    def accept(self, following: int) -> int | None:
        """Drop the frames before `following`, which the board accepts next. Gives their number.

        A read that the board went past, and whose answer has not come, is put last, with another number: by its own it
        would be refused. Only early writes were behind it, on which it does not depend.

        Returns
        -------
        int or None
            ``None`` when the board can't expect that number.
        """
        if not self._frames:
            return 0
        count = (following - self._frames[0].request.seq) % SEQUENCE
        if count > len(self._frames):
            return None
        dropped, missed = 0, None
        while self._frames and (count > 0 or self._frames[0].response is not None):
            frame = self._frames[0]
            if frame.bears and frame.response is None:
                if count == 1:
                    break  # its answer is under way, or asked for again as it is
                missed = frame
            self._frames.popleft()
            self._cursor, self._round = max(0, self._cursor - 1), None
            dropped, count = dropped + 1, count - 1
        if missed is not None:
            self.add(missed)
        return dropped

    def refuse(self, response: Response) -> bool:
        """Go back to the board's next frame, once for all refusals that one lost frame causes; whether it was done.

        Refusals of one round come in the order of the frames. One that is not beyond the last began another round: the
        frame was lost again.
        """
        if not self._frames:
            return False
        target = 0 if self._frames[0].request.seq == response.next else 1
        if self._cursor <= target:
            return False
        offset = 0 if response.op == Op.NONE else (response.seq - response.next) % SEQUENCE
        if self._round is not None:
            last, alone = self._round
            if response.answer == Answer.DAMAGED and not alone:
                return False  # the refusals of the frames after it will tell
            if offset > last:
                self._round = offset, alone
                return False
        self._round = offset, self._cursor == target + 1
        self._cursor = target
        return True
