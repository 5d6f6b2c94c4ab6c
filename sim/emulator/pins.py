"""A simulated board in lock step with its host: time passes only while the host waits.

:class:`SimulatedBoard` is the board with its two wires, and what can go wrong on them. :class:`PinsTransport` is a
host's end of them.
"""

import contextlib
import dataclasses
import struct
import subprocess
import tempfile
from types import TracebackType
from typing import Self

from ...hw.arch.errors import ToolError, TransportError
from ...hw.arch.link import FIRST_BAUD
from ...sw.device.transport import BREAK_BAUD
from ..runner import Model
from .faults import NO_FAULTS, Faults, Trouble

__all__ = ["PinsTransport", "Report", "SimulatedBoard"]

MOST_BYTES = 1 << 16
_ANSWER = struct.Struct("<ddQQQBI")
_END_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Where a simulated board stands.

    Parameters
    ----------
    now : float
        Its time, in seconds.
    pending : float
        Seconds that the bytes queued to it will still take.
    cycles, simulated : int
        Clock cycles since it was switched on, and those of them that were simulated: the others could be left out,
        because nothing changed in them.
    sent : int
        Bytes that have begun on the wire to it.
    busy : bool
        Whether its pin ``busy`` is high.
    """

    now: float
    pending: float
    cycles: int
    simulated: int
    sent: int
    busy: bool


class SimulatedBoard:
    """A board that is simulated in lock step.

    Parameters
    ----------
    model : Model
        From :func:`.model.board_model`.
    clock_hz : int
        What the model was made for.
    seed : int
        Of registers without a reset, and of faults.
    """

    def __init__(self, model: Model, *, clock_hz: int, seed: int = 0) -> None:
        self.clock_hz = clock_hz
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(
                [str(model.folder / "model"), "pins", str(clock_hz), str(seed % 0x7fffffff + 1)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)
        except OSError as error:
            self._errors.close()
            raise ToolError(f"{model.folder}: can't start the simulated board: {error.strerror}; "
                            f"empty the cache folder to have it built again") from None
        self._report = Report(now=0.0, pending=0.0, cycles=0, simulated=0, sent=0, busy=False)
        self.report()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    @property
    def last(self) -> Report:
        """The report of the last command."""
        return self._report

    def report(self) -> Report:
        """A fresh report."""
        self._command(b"q")
        return self._report

    def queue(self, data: bytes) -> None:
        """Queue bytes to the board, at the speed that the host has now."""
        self._command(b"w" + struct.pack("<I", len(data)) + data)

    def speed(self, baud: float) -> None:
        """The host's speed, for bytes that are queued from now on and for those that come."""
        self._command(b"s" + struct.pack("<d", baud))

    def run(self, seconds: float) -> bytes:
        """Go on until bytes have come to the host, which are returned, or until `seconds` have passed."""
        return self._command(b"r" + struct.pack("<dI", seconds, MOST_BYTES))

    def faults(self, *, to_board: Faults = NO_FAULTS, to_host: Faults = NO_FAULTS, seed: int = 0) -> None:
        """Random faults from now on."""
        rates = (*dataclasses.astuple(to_board), *dataclasses.astuple(to_host))
        self._command(b"f" + struct.pack("<8dQ", *rates, seed))

    def trouble(self, kind: Trouble, *, after: int = 0, seconds: float = 0.0) -> None:
        """Let something happen when `after` more bytes have been sent to the board."""
        self._command(b"e" + struct.pack("<QBd", self._report.sent + after, kind, seconds))

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self._command(b"c")

    def reset(self) -> None:
        """Reset the board now."""
        self._command(b"x")

    def forget(self) -> None:
        """Take back the bytes that are queued, as if the host had died."""
        self._command(b"k")

    def close(self) -> None:
        """End the simulation."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was in the buffer may have no reader any more
                    pipe.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._errors.close()

    def _command(self, command: bytes) -> bytes:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(command)
            stdin.flush()
            head = stdout.read(_ANSWER.size)
            now, pending, cycles, simulated, sent, busy, count = _ANSWER.unpack(head)
            data = stdout.read(count)
        except (OSError, ValueError, struct.error):
            raise TransportError(f"the simulated board has ended{self._last_words()}") from None
        self._report = Report(now=now, pending=pending, cycles=cycles, simulated=simulated, sent=sent, busy=bool(busy))
        return data

    def _last_words(self) -> str:
        if self._errors.closed:
            return ": it was closed"
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return ""
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return f" (exit code {code})" + (f": {text}" if text else "")


class PinsTransport:
    """A host's end of a simulated board's wires: a :class:`~shiftwright.sw.device.transport.Transport` in the board's
    time.

    Parameters
    ----------
    board : SimulatedBoard
        Closed by its owner, not by :meth:`close`.
    baud : int
        Speed to begin with.
    """

    def __init__(self, board: SimulatedBoard, *, baud: int = FIRST_BAUD, name: str = "simulated pins") -> None:
        self.board, self.name, self.baud = board, name, baud
        self._received = b""
        self._closed = False
        board.speed(baud)

    def write(self, data: bytes) -> None:
        self._check()
        self.board.queue(data)

    def read(self, timeout: float) -> bytes:
        self._check()
        found = self._received or self.board.run(timeout)
        self._received = b""
        return found

    def pending(self) -> float:
        return self.board.last.pending

    def set_baud(self, baud: int) -> None:
        self._drain()
        self.board.speed(baud)
        self.baud = baud

    def send_break(self) -> None:
        self._drain()
        self.board.speed(BREAK_BAUD)
        self.board.queue(b"\0")
        self._drain()
        self.board.speed(self.baud)

    def now(self) -> float:
        return self.board.last.now

    def close(self) -> None:
        self._closed = True

    def _drain(self) -> None:
        self._check()
        while (left := self.board.report().pending) > 0:
            self._received += self.board.run(left)

    def _check(self) -> None:
        if self._closed:
            raise TransportError(f"{self.name}: the transport was closed")
