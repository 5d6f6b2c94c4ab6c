"""Requests across a line that loses and damages bytes: sequence numbers, a window, and going back to what was lost."""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterable

from ...hw.arch.errors import ShiftwrightError, TransportError
from ...hw.arch.link import CRC_BYTES, HEADER_BYTES, REPLY, Answer, Op
from .frames import FrameParser, Request, Response, encode
from .quality import Quality
from .timing import RoundTrip
from .transport import BYTE_BITS, Transport

__all__ = ["Channel", "SessionLost", "Statistics", "Trace"]

Trace = Callable[[str, float, Request | Response | bytes, str], None]
"""Told of each frame: ``">"`` or ``"<"``, the transport's time, the frame (bytes when it is none), a remark."""

SEQUENCE = 256
RETRIES = 6
"""How often in a row a request is sent again without any answer."""
AGAIN_SECONDS = 0.1
"""After a damaged answer to the first request of a session."""
STRETCH_MOST = 100.0
TRIES = 40
"""How often a request is sent at all."""
WINDOW_LEAST, WINDOW_MARGIN = 6, 2
"""Whole frames that cover 16 ms at 1,000,000 baud, the latency of USB adapters; and some more than were measured."""
QUEUE_SECONDS = 0.01
"""What may wait in the transport beside the frame that is being sent: the host may look away so long."""
OVERHEAD_BYTES = HEADER_BYTES + CRC_BYTES + 2
_WRITES = (Op.WRITE_WORDS, Op.WRITE_BYTES)


class SessionLost(ShiftwrightError):
    """The board no longer knows this host, or no longer answers: begin a new session, and what was under way again.

    Parameters
    ----------
    message : str
    silent : bool
        No answers come.
    poor : bool
        Answers come, but too many frames are lost.
    """

    exit_code = TransportError.exit_code

    def __init__(self, message: str, *, silent: bool = False, poor: bool = False) -> None:
        super().__init__(message)
        self.silent, self.poor = silent, poor


@dataclasses.dataclass
class Statistics:
    """What went over the line, from the first request on.

    Parameters
    ----------
    frames, retries : int
        Frames sent, and those among them that were sent before.
    answers : int
        Undamaged frames that came.
    damaged : int
        Damaged frames that came.
    damaged_at_board : int
        Damaged frames that the board has told of.
    sent, received : int
        Bytes.
    sessions : int
        Sessions begun; more than one means that the board was reset or silent, or had another host.
    """

    frames: int = 0
    retries: int = 0
    answers: int = 0
    damaged: int = 0
    damaged_at_board: int = 0
    sent: int = 0
    received: int = 0
    sessions: int = 0


@dataclasses.dataclass
class _Frame:
    """A request that the board has not yet been seen to accept."""

    request: Request
    seconds: float
    answer_bytes: int
    early: bool
    data: bytes
    leaves: float = 0.0
    sent: int = 0
    response: Response | None = None

    @property
    def bears(self) -> bool:
        """Whether its own answer is waited for."""
        return self.request.op not in _WRITES


class Channel:
    """One session after another over a transport.

    Writes are sent without waiting for their answers, as many at once as cover the round trip. Other requests are
    waited for. Nothing here is repeated that the board may have done already: when that can't be told,
    :exc:`SessionLost` is raised, and the caller decides.

    Parameters
    ----------
    transport : Transport
    trace : callable, optional

    Attributes
    ----------
    echoed : bool
        What was sent has come back.
    """

    def __init__(self, transport: Transport, trace: Trace | None = None) -> None:
        self.transport = transport
        self.statistics = Statistics()
        self.quality = Quality()
        self.round_trip = RoundTrip()
        self._trace = trace
        self._parser = FrameParser()
        self._frames: deque[_Frame] = deque()
        self._cursor = 0      # of the frames, the first that is (again) to be sent
        self._probing = False  # after a time-out one frame goes out alone, to ask where the board is
        self._round: tuple[int, bool] | None = None  # going back: the last refusal, whether one frame was under way
        self._silence, self._retries = 0, RETRIES
        self._session = self._next = 0
        self._board_damaged: int | None = None
        self._heard_at = 0.0
        self._stretch = 1.0  # how much slower the line is than its speed says: a simulated board's is
        self.echoed = False

    @property
    def payload(self) -> int:
        """Bytes of payload that a write should have at most now."""
        return self.quality.payload

    @property
    def in_flight(self) -> int:
        """Requests that are not known to be accepted."""
        return len(self._frames)

    def begin(self, session: int, seq: int, seconds: float) -> Response:
        """Ask once for a session; everything under way is forgotten. Raises :exc:`SessionLost` without an answer.

        Parameters
        ----------
        session, seq : int
            Numbers of the session and of its first request.
        seconds : float
            How long to wait.
        """
        self._frames.clear()
        self._cursor, self._probing, self._round, self._silence = 0, False, None, 0
        self._session, self._next = session, seq
        self.round_trip = RoundTrip()
        self._board_damaged = None
        frame = self._add(Request(op=Op.HELLO), seconds=0.0, answer_bytes=0, early=False)
        started, received = self.transport.now(), self.statistics.received
        self._send(frame)
        self._cursor = 1
        until = frame.leaves + seconds
        heard = self._parser.damaged, self.statistics.answers
        while frame.response is None:
            if heard != (self._parser.damaged, self.statistics.answers):
                heard = self._parser.damaged, self.statistics.answers
                until = min(until, self.transport.now() + AGAIN_SECONDS)
            left = until - self.transport.now()
            if left <= 0:
                self._frames.clear()
                self._cursor = 0
                raise SessionLost("the board does not answer", silent=True)
            self._receive(left)
        self.statistics.sessions += 1
        usual = self._on_line(len(frame.data) + self.statistics.received - received)
        self._stretch = min(max(1.0, (self.transport.now() - started) / usual), STRETCH_MOST)
        return frame.response

    def post(self, request: Request, *, early: bool = False) -> None:
        """Send a write as soon as the window allows; returns when it is on its way, or waits behind a read."""
        self._add(request, seconds=0.0, answer_bytes=0, early=early)
        self._work(lambda: self._cursor >= len(self._frames) or self._held(self._frames[self._cursor]))

    def call(self, request: Request, *, seconds: float = 0.0, answer_bytes: int = 0,
             early: Iterable[Request] = (), retries: int = RETRIES) -> Response:
        """Send a request and wait for its answer, and so for all writes before it.

        Parameters
        ----------
        request : Request
        seconds : float
            What the board needs for it, by expectation.
        answer_bytes : int
            Payload of its answer.
        early : iterable of Request
            Writes that may be done before the answer has come: they are sent as soon as it begins to come.
        retries : int
            How often in a row it is sent again without any answer.
        """
        frame = self._add(request, seconds=seconds, answer_bytes=answer_bytes, early=False)
        for write in early:
            self._add(write, seconds=0.0, answer_bytes=0, early=True)
        self._work(lambda: frame.response is not None, retries)
        assert frame.response is not None
        return frame.response

    def flush(self) -> None:
        """Wait until all requests are accepted."""
        self._work(lambda: not self._frames)

    def clear(self) -> None:
        """Forget what came: the speed is another one now."""
        self._parser.clear()

    # What is sent.

    def _add(self, request: Request, *, seconds: float, answer_bytes: int, early: bool) -> _Frame:
        request = dataclasses.replace(request, seq=self._next, session=self._session)
        self._next = (self._next + 1) % SEQUENCE
        frame = _Frame(request, seconds, answer_bytes, early, encode(request.pack()))
        self._frames.append(frame)
        return frame

    def _work(self, done: Callable[[], bool], retries: int = RETRIES) -> None:
        self._silence, self._retries = 0, retries
        while True:
            wait = self._fill()
            if done():
                return
            now = self.transport.now()
            deadline = self._deadline()
            if wait is None and now >= deadline:
                self._timed_out()
                continue
            self._receive(deadline - now if wait is None else wait)

    def _fill(self) -> float | None:
        """Send what may be sent. Returns the seconds after which more may be, or ``None`` when answers decide."""
        while self._cursor < min(len(self._frames), 1 if self._probing else self._window()):
            frame = self._frames[self._cursor]
            if self._held(frame):
                return None
            ahead = self.transport.pending() - QUEUE_SECONDS - self._on_line(len(frame.data)) / 2
            if ahead > 0:
                return ahead
            self._send(frame)
            self._cursor += 1
        return None

    def _held(self, frame: _Frame) -> bool:
        """Whether a frame waits for the answer to one before it."""
        for other in self._frames:
            if other is frame:
                return False
            if other.bears:
                return not (frame.early and self._answering(other))
        return False

    def _answering(self, frame: _Frame) -> bool:
        """Whether the answer to a frame has begun to come. If that is an error, early frames are merely refused."""
        header = self._parser.begun
        return bool(header) and header[0] == frame.request.op | REPLY and header[1] == frame.request.seq and \
            int.from_bytes(header[2:4], "little") == self._session and header[4] == Answer.OK

    def _send(self, frame: _Frame) -> None:
        again = frame.sent > 0
        # A frame that directly follows another one begins with the flag that ends that.
        data = frame.data[1:] if self.transport.pending() > 0 else frame.data
        self.transport.write(data)
        frame.leaves = self.transport.now() + self.transport.pending()
        frame.sent += 1
        self.statistics.frames += 1
        self.statistics.retries += again
        self.statistics.sent += len(data)
        if self._trace:
            self._trace(">", self.transport.now(), frame.request, "again" if again else "")

    def _on_line(self, count: int) -> float:
        return count * BYTE_BITS / self.transport.baud

    def _window(self) -> int:
        seconds = (self.round_trip.least or 0.0) + self._on_line(OVERHEAD_BYTES)
        frames = math.ceil(seconds / self._on_line(OVERHEAD_BYTES + self.quality.payload))
        return min(max(frames + WINDOW_MARGIN, WINDOW_LEAST), self.quality.window)

    def _deadline(self) -> float:
        """When the answer to the oldest frame is late."""
        frame = self._frames[0]
        return max(frame.leaves, self._heard_at) + self.round_trip.timeout(self._own(frame))

    def _own(self, frame: _Frame) -> float:
        """Seconds between a frame's leaving and its answer's end that the line and the board need by themselves."""
        request = self._on_line(len(frame.data))
        answer = self._on_line(OVERHEAD_BYTES + frame.answer_bytes)
        return self._stretch * (request + answer + frame.seconds) - request

    def _timed_out(self) -> None:
        self._silence += 1
        frame = self._frames[0]
        if self._silence > self._retries:
            raise SessionLost(f"no answer to {frame.request.op.name}, which was sent {frame.sent} times", silent=True)
        self.round_trip.back_off()
        self._heard_at = self.transport.now()
        self._cursor, self._probing, self._round = 0, True, None
        self._lose()

    # What comes.

    def _receive(self, seconds: float) -> None:
        data = self.transport.read(max(seconds, 0.0))
        self.statistics.received += len(data)
        damaged = self._parser.damaged
        for body in self._parser.feed(data):
            try:
                response = Response.unpack(body)
            except ValueError:
                self.echoed = self.echoed or any(body == frame.request.pack() for frame in self._frames)
                self._note("<", body, "not an answer")
                continue
            self._note("<", response, "")
            self.statistics.answers += 1
            self._take(response)
        if self._parser.damaged != damaged:
            self.statistics.damaged += self._parser.damaged - damaged
            self._note("<", data[:16], "damaged")

    def _note(self, direction: str, frame: Request | Response | bytes, remark: str) -> None:
        if self._trace:
            self._trace(direction, self.transport.now(), frame, remark)

    def _take(self, response: Response) -> None:
        beginning = bool(self._frames) and self._frames[0].request.op == Op.HELLO
        if response.session != self._session:
            if beginning:
                return  # an answer to whoever was here before
            raise SessionLost("the board was reset" if response.session == 0 else
                              "another host has begun a session with the board")
        if response.answer == Answer.WRONG_SESSION:
            return  # to another host: this session is the board's
        if beginning and response.op != Op.HELLO:
            return
        frame = next((frame for frame in self._frames if frame.request.seq == response.seq and frame.sent), None)
        if response.op in (Op.NONE, response.op if frame is None else frame.request.op):
            self._count_damaged(response.damaged)
            self._settle(response, None if response.op == Op.NONE else frame)

    def _count_damaged(self, count: int) -> None:
        if self._board_damaged is not None:
            self.statistics.damaged_at_board += count - self._board_damaged & 0xFFFF
        self._board_damaged = count

    def _settle(self, response: Response, frame: _Frame | None) -> None:
        """Take what an answer tells: of its request, and of all before it."""
        if frame is not None and response.answer in (Answer.BAD_OP, Answer.BAD_LENGTH):
            if frame.request.op == Op.BAUD:
                frame.response, self._next = response, response.next
                self._frames.clear()
                self._cursor = 0
                return
            raise TransportError(f"{self.transport.name}: the board refuses {frame.request.op.name} of "
                                 f"{frame.request.count} at {frame.request.address:#08x}: {response.answer.name}; "
                                 f"this is a defect: report it with the output of --trace")
        self._silence = 0
        self._heard_at = self.transport.now()
        if frame is not None:
            seconds = self._heard_at - frame.leaves
            if frame.sent > 1:
                if seconds > self._on_line(OVERHEAD_BYTES + len(response.payload)) / 2 + frame.seconds:
                    self.round_trip.plausible()
            elif not frame.seconds:
                self.round_trip.add(seconds - self._own(frame))
        if frame is not None and frame.bears and response.answer != Answer.OUT_OF_ORDER:
            frame.response = response
        self._probing = False
        self._accept(response.next)
        if self._frames and response.answer in (Answer.DAMAGED, Answer.OUT_OF_ORDER):
            self._refused(response)

    def _accept(self, following: int) -> None:
        """Drop the frames before the board's next one; a read that it went past without an answer is asked anew."""
        if not self._frames:
            return
        count = (following - self._frames[0].request.seq) % SEQUENCE
        if count > len(self._frames):
            raise SessionLost("the board's numbers are not those of this session")
        missed = None
        while self._frames and (count > 0 or self._frames[0].response is not None):
            frame = self._frames[0]
            if frame.bears and frame.response is None:
                if count == 1:
                    break  # accepted: its answer is under way, or asked for again as it is
                missed = frame
            self._frames.popleft()
            self._cursor = max(0, self._cursor - 1)
            self._round = None
            self.quality.count(lost=False)
            count -= 1
        if missed is not None:
            # With its own number the board would refuse it: early writes came after it. Those it does not depend on.
            missed.request = dataclasses.replace(missed.request, seq=self._next)
            missed.data, missed.sent = encode(missed.request.pack()), 0
            self._next = (self._next + 1) % SEQUENCE
            self._frames.append(missed)

    def _refused(self, response: Response) -> None:
        """Go back to the board's next frame, once for all refusals that one lost frame causes.

        Refusals of one round come in the order of the frames. One that is not beyond the last began another round: the
        frame was lost again.
        """
        target = 0 if self._frames[0].request.seq == response.next else 1
        if self._cursor <= target:
            return
        offset = 0 if response.op == Op.NONE else (response.seq - response.next) % SEQUENCE
        if self._round is not None:
            last, alone = self._round
            if response.answer == Answer.DAMAGED and not alone:
                return  # the refusals of the frames after it will tell
            if offset > last:
                self._round = offset, alone
                return
        self._round = offset, self._cursor == target + 1
        self._cursor = target
        self._lose()

    def _lose(self) -> None:
        self.quality.count(lost=True)
        if self.quality.poor:
            raise SessionLost(self.quality.describe(), poor=True)
        if self._frames[0].sent >= TRIES:
            raise SessionLost(f"{self._frames[0].request.op.name} was sent {TRIES} times, and damaged each time")
