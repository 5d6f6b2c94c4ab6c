"""Sessions with a board: begun, moved to another speed, and begun again when the board is lost."""

import dataclasses
import random
from collections.abc import Callable

from ...hw.arch.bus import Region, Register, bus_address
from ...hw.arch.errors import DeviceError, TransportError
from ...hw.arch.link import FIRST_BAUD, SLOWEST, Answer, Op
from .channel import Channel
from .events import SessionLost, Statistics, Trace
from .frames import Request
from .identity import EXPLICIT_CYCLES, Identity
from .transport import Transport

__all__ = ["REGISTERS", "Notice", "Session"]

Notice = Callable[[str], None]
"""Told, once each, what a person should know: a slower line, a board that was reset."""

REGISTERS = bus_address(Region.REGISTERS)
HELLO_SECONDS = (0.5, 1.0, 1.0, 1.0, 2.0, 2.0)
"""How long the attempts to begin a session wait."""
HELLO_TRIES = 24
"""Attempts while at least noise comes back; those beyond the first wait as long as the very first."""
STALE_READS = 100
SETTLE_SECONDS = 0.002
LOSSES, RIVALS, SILENCES = 8, 3, 3
"""Sessions lost within one piece of work: in all, to other hosts, and by silence, that are borne."""
SPEED_TRIES = 2


class Session:
    """The one that is under way, and how to come to the next.

    Parameters
    ----------
    transport : Transport
    baud : int or None
        Speed; ``None`` takes the fastest usual one that the board's clock divides to.
    trace, notice : callable, optional
    entropy : random.Random, optional
        Where session numbers come from; by default the system. Two hosts must not draw the same.

    Attributes
    ----------
    identity : Identity or None
        What the board told at the beginning of the session.
    run_seconds : float
        The longest run so far, in the transport's time.
    """

    def __init__(self, transport: Transport, *, baud: int | None = None, trace: Trace | None = None,
                 notice: Notice | None = None, entropy: random.Random | None = None) -> None:
        if baud is not None and baud * SLOWEST < FIRST_BAUD:
            raise DeviceError(f"the speed must be at least {FIRST_BAUD // SLOWEST} baud, not {baud}: a slower byte "
                             f"would be a break; leave --baud out, or give a higher one")
        self.transport = transport
        self.channel = Channel(transport, trace)
        self.identity: Identity | None = None
        self.run_seconds = 0.0
        self._wanted = baud
        self._notice = notice or (lambda message: None)
        self._said: set[str] = set()
        self._random = entropy or random.SystemRandom()
        self._losses = self._rivals = self._silences = 0

    def say(self, message: str) -> None:
        """Tell the user something, once."""
        if message not in self._said:
            self._said.add(message)
            self._notice(f"{self.transport.name}: {message}")

    def open(self) -> Identity:
        """Begin the first session, if there is none yet.

        Raises
        ------
        TransportError
            If the board does not answer.
        DeviceError
            If it is of another version.
        """
        if self.identity is None:
            self.identity = self._hello(silent=False)
            while True:
                try:
                    self._speed_up()
                    break
                except SessionLost as lost:
                    self._again(lost)
        return self.identity

    def recover(self, lost: SessionLost) -> None:
        """Begin a new session; everything that was under way must be done again.

        Raises
        ------
        TransportError
            If the board does not answer, or sessions are lost again and again.
        """
        while True:
            try:
                self._again(lost)
                self._speed_up()
                return
            except SessionLost as another:
                lost = another

    def progressed(self) -> None:
        """A piece of work is done: what was lost before no longer counts."""
        self._losses = self._rivals = self._silences = 0

    def _again(self, lost: SessionLost) -> None:
        self._losses += 1
        self._silences += lost.silent
        self._rivals += not (lost.silent or lost.poor)
        if self._rivals > RIVALS:
            raise TransportError(f"{self.transport.name}: {lost}, for the {self._rivals}th time; is another program "
                                 f"using this board, or its reset button held? End the other one, then try again")
        if self._losses > LOSSES:
            raise TransportError(f"{self.transport.name}: {lost}; given up after {self._losses} attempts; try another "
                                 f"cable or adapter, or a lower speed, for instance --baud {FIRST_BAUD}")
        if lost.poor or self._silences > 1 and self.transport.baud != FIRST_BAUD:
            self._fall_back(lost)
        else:
            self.say(f"{lost}; beginning again")
        self.identity = self._hello(silent=lost.silent)

    def _fall_back(self, lost: SessionLost) -> None:
        quality = self.channel.quality
        if lost.poor and quality.fall_back():
            self.say(f"{lost}: going on with frames of {quality.payload} bytes, at most {quality.window} at once")
            return
        speed = self.transport.baud
        lower = self.identity.slower(speed) if self.identity else None
        if lower is None:
            raise TransportError(f"{self.transport.name}: {lost}, at {speed} baud, with the smallest frames; the line "
                                 f"is too noisy: try another cable, adapter or port, away from what disturbs it")
        self._silences = 0
        self._wanted = lower
        self.say(f"{lost}, at {speed} baud: going on at {lower} baud")

    def _hello(self, *, silent: bool) -> Identity:
        """Begin a session at the present speed; when no answer comes, at the first speed, after a break."""
        session, seq = self._random.randrange(1, 1 << 16), self._random.randrange(1 << 8)
        channel, transport = self.channel, self.transport
        before = dataclasses.replace(channel.statistics)
        for attempt in range(HELLO_TRIES):
            if attempt or silent:
                if attempt >= len(HELLO_SECONDS) and channel.statistics.received == before.received:
                    break
                if transport.baud != FIRST_BAUD:
                    transport.set_baud(FIRST_BAUD)
                transport.send_break()
            self._drop_stale()
            try:
                response = channel.begin(session, seq, HELLO_SECONDS[attempt if attempt < len(HELLO_SECONDS) else 0])
            except SessionLost:
                continue
            try:
                return Identity.unpack(response.payload)
            except DeviceError as error:
                raise DeviceError(f"{transport.name}: {error}") from None
        raise TransportError(f"{transport.name}: {_why_silent(channel, before)}")

    def _drop_stale(self) -> None:
        for _ in range(STALE_READS):
            if not self.transport.read(0):
                break
        self.channel.clear()

    def _speed_up(self) -> None:
        """Go to the wanted speed. Whether the board has changed is unknown when its answer is lost: begin again."""
        identity = self.identity
        assert identity is not None
        if self._wanted is None:
            self._wanted = identity.fastest
        elif not identity.reaches(self._wanted, EXPLICIT_CYCLES):
            raise DeviceError(f"{self.transport.name}: the board's clock of {identity.clock_hz / 1e6:g} MHz does not "
                             f"divide to {self._wanted} baud; the fastest usual speed is {identity.fastest}")
        baud = self._wanted
        for _ in range(SPEED_TRIES):
            if baud == self.transport.baud:
                return
            try:
                if self._change_speed(identity, baud):
                    return
                break
            except SessionLost:
                self.identity = self._hello(silent=True)
        self.say(f"the board does not answer at {baud} baud: staying at {self.transport.baud}")
        self._wanted = self.transport.baud

    def _change_speed(self, identity: Identity, baud: int) -> bool:
        """Change both sides; False when the board refuses."""
        old = self.transport.baud
        response = self.channel.call(Request(op=Op.BAUD, count=identity.divisor(baud)), retries=0)
        if response.answer != Answer.OK:
            return False
        # The board's stop bit still lasts.
        self.transport.read(SETTLE_SECONDS)
        try:
            self.transport.set_baud(baud)
        except TransportError as error:
            self.transport.set_baud(old)
            raise SessionLost(str(error), silent=True) from None
        self.channel.clear()
        self.channel.call(Request(op=Op.READ_WORDS, address=REGISTERS | Register.MAGIC, count=1), answer_bytes=2,
                          retries=2)
        return True


def _why_silent(channel: Channel, before: Statistics) -> str:
    received = channel.statistics.received - before.received
    if channel.echoed:
        return ("what is sent comes back as it is: the line ends in a loop; connect the adapter's output with the "
                "board's input, and its input with the board's output")
    if channel.statistics.answers > before.answers:
        return ("the board answers, but not the first request of a session: the line is too noisy, or another program "
                "is using the board; try another cable, adapter or port, and end other programs")
    if before.sessions:
        return ("the board no longer answers, as it did before; likely the cable to it is broken, or it lost its power "
                "or its bitstream; mend that, then repeat the command: a load goes on where it stopped")
    if received:
        return (f"{received} bytes came, but no answer to the first request; likely this is another port or device, "
                f"the board holds another bitstream, or the line is very noisy: program it with the bitstream of "
                f"'shiftwright build', and give the port of its UART (a USB adapter often has two)")
    return ("the board does not answer; likely its bitstream is not loaded (program it with that of 'shiftwright "
            "build'), this is another port than that of its UART (a USB adapter often has two: try the other one), or "
            "input and output are swapped")
