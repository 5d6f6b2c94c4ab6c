"""A board with an accelerator: identify it, load a model, run it."""

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TypeVar

import numpy as np

from ...hw.arch.bus import COUNTER_WORDS, Counter, Register
from ...hw.arch.errors import DataError, DeviceError, ImageError, ShiftwrightError
from ...hw.arch.image import HEADER, HEADER_WORDS, MODEL_MAGIC
from ...hw.arch.link import FIRST_BAUD, Op
from ..image import Image
from .events import SessionLost, Statistics, Trace
from .frames import Request
from .identity import Identity
from .inference import check_model, infer
from .loading import LoadResult, Progress, load_words
from .memory import MODEL, read_words, verify
from .session import REGISTERS, Notice, Session
from .transport import SerialTransport, Transport

__all__ = ["Device"]

T = TypeVar("T")


class Device:
    """A board, over whatever line it is reached. A context manager: leaving it returns the board to its first speed.

    Parameters
    ----------
    transport : Transport
        The line. It is closed with the device.
    baud : int or None
        Speed; ``None`` takes the fastest usual one that the board's clock divides to.
    trace : callable, optional
        Told of every frame (:data:`~shiftwright.sw.device.events.Trace`).
    notice : callable, optional
        Told, once each, what a person should know: a slower line, a board that was reset.
    entropy : random.Random, optional
        Where session numbers come from; by default the system. Two hosts must not draw the same.
    """

    def __init__(self, transport: Transport, *, baud: int | None = None, trace: Trace | None = None,
                 notice: Notice | None = None, entropy: random.Random | None = None) -> None:
        self.transport = transport
        self._session = Session(transport, baud=baud, trace=trace, notice=notice, entropy=entropy)

    @classmethod
    def open(cls, port: str, *, baud: int | None = None, trace: Trace | None = None,
             notice: Notice | None = None) -> "Device":
        """The board behind a serial port or pseudo-terminal; parameters as for the class."""
        return cls(SerialTransport(port), baud=baud, trace=trace, notice=notice)

    @property
    def name(self) -> str:
        """The line's."""
        return self.transport.name

    @property
    def statistics(self) -> Statistics:
        """What went over the line so far."""
        return self._session.channel.statistics

    def identify(self) -> Identity:
        """Connect, if that is not done yet, and tell what the board is.

        Raises
        ------
        TransportError
            If it does not answer; the message says what to try.
        DeviceError
            If it is of another version.
        """
        return self._session.open()

    def check(self, image: Image) -> None:
        """Raise :class:`ImageError` unless the board has the configuration that the image was compiled for."""
        identity = self.identify()
        if identity.fingerprint != image.config.fingerprint:
            board = f"--board {identity.board}, or " if identity.board else ""
            raise ImageError(
                f"{self.name}: the image was compiled for another accelerator: {image.config.name}, "
                f"{image.config.weight_depth} words of model memory, {image.config.act_depth} activations a bank, "
                f"configuration 0x{image.config.fingerprint:08x}; the board is {identity}; compile the network for it: "
                f"shiftwright compile FILE.swc {board}--config with the file that its bitstream was built with")

    def load(self, image: Image, *, force: bool = False, progress: Progress | None = None) -> LoadResult:
        """Put the image's words into the model memory and verify them; what is there already is not sent.

        Parameters
        ----------
        image : Image
        force : bool
            Send all of it.
        progress : callable, optional
            Told of bytes in place, and of all.

        Raises
        ------
        ImageError
            If the image was compiled for another configuration; nothing was written.
        TransportError
            If the board is lost for good, or its memory does not keep what is written.
        """
        return load_words(self._session, image.words, force=force, progress=progress, check=lambda: self.check(image))

    def infer(self, image: Image, inputs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Run the loaded model on integer inputs (C, H, W); yields the outputs, int32 arrays (C, H, W), in order.

        That the board holds the image is checked first, and again whenever the board was lost.

        Raises
        ------
        DataError, ImageError
            If an input or the image does not fit.
        DeviceError
            If the board does not hold the image, or a run ends with an error.
        """
        self.check(image)
        return infer(self._session, image, inputs)

    def run(self, image: Image, x: np.ndarray) -> np.ndarray:
        """:meth:`infer` for one input."""
        return next(self.infer(image, [x]))

    def holds(self, image: Image) -> bool:
        """Whether the model memory holds the image."""
        self.check(image)
        try:
            self._repeat(lambda: check_model(self._session, image))
        except DeviceError as error:
            if type(error) is DeviceError:
                return False
            raise
        return True

    def model(self) -> tuple[int, int]:
        """Words and CRC-32 of the model in the model memory.

        Raises
        ------
        DeviceError
            If there is none.
        """
        identity = self.identify()
        channel = self._session.channel

        def ask() -> tuple[int, int]:
            header = read_words(channel, MODEL, HEADER_WORDS)
            values = dict(zip(HEADER, (int(word) for word in header), strict=True))
            count = values["total_lo"] | values["total_hi"] << 16
            if values["magic"] != MODEL_MAGIC or not HEADER_WORDS <= count <= identity.weight_depth:
                raise DeviceError(f"{self.name}: the board holds no model; load one with: "
                                  f"shiftwright load FILE.swi --port {self.name}")
            return count, verify(channel, MODEL, count, identity.clock_hz)

        return self._repeat(ask)

    def cycles(self) -> int:
        """Clock cycles of the last run."""
        self.identify()
        low, high = self._repeat(lambda: read_words(self._session.channel, REGISTERS | Register.CYCLES_LO, 2))
        return int(low) | int(high) << 16

    def profile(self, image: Image) -> np.ndarray:
        """What the layers' cycles of the last run were spent on.

        Returns
        -------
        int64 array (layers, counters)
            In the order of :class:`~shiftwright.hw.arch.bus.Counter`; zeros where the image has overwritten them.

        Raises
        ------
        DataError
            If the accelerator has no counters.
        """
        if not image.config.counters:
            raise DataError(f"{self.name}: this accelerator has no counters; build one with counters = true in its "
                            f"configuration, or leave --profile out")
        self.check(image)
        layers = len(image.layers)
        found = np.zeros((layers, len(Counter)), np.int64)
        # The first layer's stand last; those that the image reaches are not written.
        fit = min(layers, (image.config.weight_depth - len(image.words)) // COUNTER_WORDS)
        if fit:
            words = self._repeat(lambda: read_words(
                self._session.channel, MODEL + image.config.weight_depth - fit * COUNTER_WORDS, fit * COUNTER_WORDS))
            pairs = words.astype(np.int64).reshape(fit, len(Counter), 2)[::-1]
            found[:fit] = pairs[:, :, 0] | pairs[:, :, 1] << 16
        return found

    def _repeat(self, ask: Callable[[], T]) -> T:
        """Do something that may be done again, until it is done within one session."""
        while True:
            try:
                result = ask()
            except SessionLost as lost:
                self._session.recover(lost)
            else:
                self._session.progressed()
                return result

    def reset(self) -> None:
        """End the session and the run; the board returns to its first speed. Memories keep what they hold."""
        self.identify()
        try:
            self._session.channel.call(Request(op=Op.RESET), retries=1)
            self.transport.set_baud(FIRST_BAUD)
        except SessionLost:
            self.transport.set_baud(FIRST_BAUD)
            self.transport.send_break()
        self._session.identity = None

    def close(self) -> None:
        """Return the board to its first speed, if it can be reached, and close the line."""
        with contextlib.suppress(ShiftwrightError):
            if self._session.identity is not None:
                self.transport.set_baud(FIRST_BAUD)
                self.transport.send_break()
        self._session.identity = None
        self.transport.close()

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
