"""Lines of bytes to a board: the protocol :class:`Transport`, and serial ports and pseudo-terminals."""

import contextlib
import errno
import termios
import time
from typing import Protocol

from ...hw.arch.errors import ToolError, TransportError
from ...hw.arch.link import FIRST_BAUD

__all__ = ["BREAK_BAUD", "BYTE_BITS", "SerialTransport", "Transport", "ports"]

BYTE_BITS = 10
"""Start bit, eight bits, stop bit."""
BREAK_BAUD = FIRST_BAUD // 16
SETTLE_SECONDS = 0.03
"""What may lie in an adapter's buffers, or in those of a pseudo-terminal, when the system says that all is sent."""
WRITE_SECONDS = 30.0


class Transport(Protocol):
    """A line of bytes. Time is the line's own, so that a simulated one may run in virtual time.

    Every method raises :class:`~shiftwright.hw.arch.errors.TransportError` when the line is gone.
    """

    name: str
    baud: int

    def write(self, data: bytes) -> None:
        """Queue bytes to send; returns when they are accepted."""

    def read(self, timeout: float) -> bytes:
        """Bytes that came: at least one, unless `timeout` seconds of the line's time passed."""

    def pending(self) -> float:
        """Seconds that queued bytes will still take to leave; 0 when unknown."""

    def set_baud(self, baud: int) -> None:
        """Change the speed, in bits a second, once all queued bytes have left."""

    def send_break(self) -> None:
        """Send a byte 0 at a sixteenth of the first speed; the speed is then as before."""

    def now(self) -> float:
        """Seconds of the line's time, monotonic."""

    def close(self) -> None:
        """Give the line back."""


def ports() -> list[str]:
    """Serial ports of this machine that have a device behind them."""
    from serial.tools import list_ports

    return sorted(port.device for port in list_ports.comports() if port.hwid != "n/a")


class SerialTransport:
    """A serial port, for instance of a USB adapter, or a pseudo-terminal.

    Parameters
    ----------
    port : str
        Its name, ``/dev/ttyUSB1`` for instance.
    baud : int
        Speed to begin with.

    Raises
    ------
    TransportError
        If it can't be opened; the message says why, and what to try.
    ToolError
        If pyserial is missing.
    """

    def __init__(self, port: str, baud: int = FIRST_BAUD) -> None:
        try:
            import serial
        except ModuleNotFoundError:
            raise ToolError("pyserial is needed to talk to a serial port; get it with: "
                            "pip install 'shiftwright[device]'") from None
        self.name, self.baud = port, baud
        self._free_at = 0.0
        self._failures = (serial.SerialException, OSError, termios.error)
        try:
            self._serial = serial.Serial(port, baud, timeout=0, write_timeout=WRITE_SECONDS,
                                                        exclusive=True)
        except (*self._failures, ValueError) as error:
            raise TransportError(_why_not_open(port, error)) from None
        # A pseudo-terminal and some drivers don't have it: answers come a little later.
        with contextlib.suppress(OSError, ValueError, NotImplementedError, AttributeError):
            self._serial.set_low_latency_mode(True)

    def write(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except self._failures as error:
            raise self._lost("write to", error) from None
        self._free_at = max(self._free_at, self.now()) + len(data) * BYTE_BITS / self.baud

    def read(self, timeout: float) -> bytes:
        try:
            waiting = self._serial.in_waiting
            if not waiting:
                self._serial.timeout = timeout
                first = self._serial.read(1)
                return first + self._serial.read(self._serial.in_waiting) if first else b""
            return bytes(self._serial.read(waiting))
        except self._failures as error:
            raise self._lost("read from", error) from None

    def pending(self) -> float:
        return max(0.0, self._free_at - self.now())

    def set_baud(self, baud: int) -> None:
        self._drain()
        self._speed(baud)
        self.baud = baud

    def send_break(self) -> None:
        self._drain()
        self._speed(BREAK_BAUD)
        try:
            self._serial.write(b"\0")
            self._serial.flush()
        except self._failures as error:
            raise self._lost("write to", error) from None
        time.sleep(BYTE_BITS / BREAK_BAUD + SETTLE_SECONDS)
        self._speed(self.baud)

    def now(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        with contextlib.suppress(*self._failures):  # it may be gone already
            self._serial.close()

    def _drain(self) -> None:
        waiting = self.pending()
        try:
            self._serial.flush()
        except self._failures as error:
            raise self._lost("write to", error) from None
        time.sleep(waiting + SETTLE_SECONDS)

    def _speed(self, baud: int) -> None:
        try:
            self._serial.baudrate = baud
        except (*self._failures, ValueError) as error:
            raise TransportError(f"{self.name}: the port does not take a speed of {baud} baud ({error}); give another "
                                 f"one with --baud") from None

    def _lost(self, what: str, error: Exception) -> TransportError:
        if "timeout" in str(error).lower():
            return TransportError(f"{self.name}: can't {what} the port: it has taken no byte for {WRITE_SECONDS:.0f} "
                                  f"seconds; is flow control on, or the virtual board stopped?")
        return TransportError(f"{self.name}: can't {what} the port any more ({error}); likely the cable was pulled, "
                              f"the board lost its power, or the virtual board ended; connect it again, then repeat "
                              f"the command: a load goes on where it stopped")


def _why_not_open(port: str, error: Exception) -> str:
    number = getattr(error, "errno", None)
    text = str(error)
    if number == errno.ENOENT or "No such file" in text:
        found = ports()
        return (f"{port}: there is no such port; " + (f"found: {', '.join(found)}" if found else
                "no serial port was found: is the board connected, and the cable one for data?"))
    if number in (errno.EACCES, errno.EPERM):
        return (f"{port}: no permission to open the port; join the group that owns it, mostly dialout: "
                f"sudo usermod -a -G dialout $USER, then log in again")
    if number in (errno.EAGAIN, errno.EBUSY) or "lock" in text:
        return f"{port}: the port is in use by another program; end that one (a terminal, another load), then try again"
    if number in (errno.ENOTTY, errno.EINVAL, errno.EISDIR) or "Inappropriate ioctl" in text:
        return f"{port}: this is not a serial port; give one, for instance --port {(ports() or ['/dev/ttyUSB0'])[0]}"
    if number in (errno.EIO, errno.ENXIO, errno.ENODEV):
        return f"{port}: nothing is behind this port any more; connect the board, or start the virtual board again"
    return f"{port}: can't open the port: {text}"
