"""Requests across a line that loses and damages bytes: sequence numbers, a window, and going back to what was lost."""

import math
from collections.abc import Callable, Iterable

from ...hw.arch.errors import TransportError
from ...hw.arch.link import CRC_BYTES, HEADER_BYTES, REPLY, Answer, Op
from .events import SessionLost, Statistics, Trace
from .flight import Flight, Frame
from .frames import FrameParser, Request, Response
from .quality import Quality
from .timing import RoundTrip
from .transport import BYTE_BITS, Transport

__all__ = ["Channel"]

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
        self._flight = Flight()
        self._probing = False  # after a time-out one frame goes out alone, to ask where the board is
        self._silence, self._retries = 0, RETRIES
        self._session = 0
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
        return len(self._flight)

    def begin(self, session: int, seq: int, seconds: float) -> Response:
        """Ask once for a session; everything under way is forgotten. Raises :exc:`SessionLost` without an answer.

        Parameters
        ----------
        session, seq : int
            Numbers of the session and of its first request.
        seconds : float
            How long to wait.
        """
        self._flight.begin(session, seq)
        self._session, self._probing, self._silence = session, False, 0
        self.round_trip = RoundTrip()
        self._board_damaged = None
        frame = self._flight.add(Frame(Request(op=Op.HELLO)))
        started, received = self.transport.now(), self.statistics.received
        self._send(frame)
        until = frame.leaves + seconds
        heard = self._parser.damaged, self.statistics.answers
        while frame.response is None:
            if heard != (self._parser.damaged, self.statistics.answers):
                heard = self._parser.damaged, self.statistics.answers
                until = min(until, self.transport.now() + AGAIN_SECONDS)
            left = until - self.transport.now()
            if left <= 0:
                self._flight.begin(session, seq)
                raise SessionLost("the board does not answer", silent=True)
            self._receive(left)
        self.statistics.sessions += 1
        usual = self._on_line(len(frame.data) + self.statistics.received - received)
        self._stretch = min(max(1.0, (self.transport.now() - started) / usual), STRETCH_MOST)
        return frame.response

    def post(self, request: Request, *, early: bool = False) -> None:
        """Send a write as soon as the window allows; returns when it is on its way, or waits behind a read."""
        self._flight.add(Frame(request, early=early))
        self._work(lambda: self._flight.waiting is None or self._flight.held(self._answering))

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
        frame = self._flight.add(Frame(request, seconds, answer_bytes))
        for write in early:
            self._flight.add(Frame(write, early=True))
        self._work(lambda: frame.response is not None, retries)
        assert frame.response is not None
        return frame.response

    def flush(self) -> None:
        """Wait until all requests are accepted."""
        self._work(lambda: not self._flight)

    def clear(self) -> None:
        """Forget what came: the speed is another one now."""
        self._parser.clear()

    # What is sent.

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
        while self._flight.sent < (1 if self._probing else self._window()):
            frame = self._flight.waiting
            if frame is None or self._flight.held(self._answering):
                return None
            ahead = self.transport.pending() - QUEUE_SECONDS - self._on_line(len(frame.data)) / 2
            if ahead > 0:
                return ahead
            self._send(frame)
        return None

    def _answering(self, frame: Frame) -> bool:
        """Whether the answer to a frame has begun to come. If that is an error, early frames are merely refused."""
        header = self._parser.begun
        return bool(header) and header[0] == frame.request.op | REPLY and header[1] == frame.request.seq and \
            int.from_bytes(header[2:4], "little") == self._session and header[4] == Answer.OK

    def _send(self, frame: Frame) -> None:
        again = frame.sent > 0
        # A frame that directly follows another one begins with the flag that ends that.
        data = frame.data[1:] if self.transport.pending() > 0 else frame.data
        self.transport.write(data)
        frame.leaves = self.transport.now() + self.transport.pending()
        frame.sent += 1
        self._flight.advance()
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
        frame = self._flight.first
        return max(frame.leaves, self._heard_at) + self.round_trip.timeout(self._own(frame))

    def _own(self, frame: Frame) -> float:
        """Seconds between a frame's leaving and its answer's end that the line and the board need by themselves."""
        request = self._on_line(len(frame.data))
        answer = self._on_line(OVERHEAD_BYTES + frame.answer_bytes)
        return self._stretch * (request + answer + frame.seconds) - request

    def _timed_out(self) -> None:
        self._silence += 1
        frame = self._flight.first
        if self._silence > self._retries:
            raise SessionLost(f"no answer to {frame.request.op.name}, which was sent {frame.sent} times", silent=True)
        self.round_trip.back_off()
        self._heard_at = self.transport.now()
        self._flight.rewind()
        self._probing = True
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
                self.echoed = self.echoed or self._flight.holds(body)
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
        beginning = bool(self._flight) and self._flight.first.request.op == Op.HELLO
        if response.session != self._session:
            if beginning:
                return  # an answer to whoever was here before
            raise SessionLost("the board was reset" if response.session == 0 else
                              "another host has begun a session with the board")
        if response.answer == Answer.WRONG_SESSION:
            return  # to another host: this session is the board's
        if beginning and response.op != Op.HELLO:
            return
        frame = self._flight.find(response.seq)
        if response.op in (Op.NONE, response.op if frame is None else frame.request.op):
            self._count_damaged(response.damaged)
            self._settle(response, None if response.op == Op.NONE else frame)

    def _count_damaged(self, count: int) -> None:
        if self._board_damaged is not None:
            self.statistics.damaged_at_board += count - self._board_damaged & 0xFFFF
        self._board_damaged = count

    def _settle(self, response: Response, frame: Frame | None) -> None:
        """Take what an answer tells: of its request, and of all before it."""
        if frame is not None and response.answer in (Answer.BAD_OP, Answer.BAD_LENGTH):
            if frame.request.op == Op.BAUD:
                frame.response = response
                return self._flight.cancel(response.next)
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
        accepted = self._flight.accept(response.next)
        if accepted is None:
            raise SessionLost("the board's numbers are not those of this session")
        for _ in range(accepted):
            self.quality.count(lost=False)
        if response.answer in (Answer.DAMAGED, Answer.OUT_OF_ORDER) and self._flight.refuse(response):
            self._lose()

    def _lose(self) -> None:
        self.quality.count(lost=True)
        if self.quality.poor:
            raise SessionLost(self.quality.describe(), poor=True)
        frame = self._flight.first
        if frame.sent >= TRIES:
            raise SessionLost(f"{frame.request.op.name} was sent {TRIES} times, and damaged each time")
