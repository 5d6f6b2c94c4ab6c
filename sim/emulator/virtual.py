"""The virtual board: a simulated board behind a pseudo-terminal, which unmodified hosts take for a serial port."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import DeviceError, ToolError
from ...hw.arch.link import FIRST_BAUD
from ..runner import Model
from .faults import NO_FAULTS, Faults
from .model import FAST_CLOCK_HZ, board_model

__all__ = ["Usage", "VirtualBoard"]

_END_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """What a virtual board did.

    Parameters
    ----------
    cycles, simulated : int
        Clock cycles that passed, and those of them that were simulated.
    seconds : float
        Time that the simulation took, without waiting for the host.
    """

    cycles: int
    simulated: int
    seconds: float


class VirtualBoard:
    """A context in which a virtual board runs.

    Parameters
    ----------
    config : AcceleratorConfig
        Of its accelerator.
    clock_hz : int
        Its clock.
    board : str
        Name that it tells the host.
    fast : bool
        Slow its clock down until a bit takes few cycles: fewer are simulated for the same bytes.
    link : path or None
        Symbolic link to make to the terminal; an old link there is replaced.
    seed : int
        Of registers without a reset, and of faults.
    faults : Faults
        Of both directions.
    model : Model or None
        To run in place of the one that the other parameters tell.

    Raises
    ------
    ConfigError
        If the clock is too slow.
    DeviceError
        If the board does not start, or the link can't be made.
    ToolError
        If a tool is missing or fails.
    """

    def __init__(self, config: AcceleratorConfig, *, clock_hz: int = 12_000_000, board: str = "", fast: bool = False,
                 link: str | Path | None = None, seed: int = 0, faults: Faults = NO_FAULTS,
                 model: Model | None = None) -> None:
        self.config, self.board = config, board
        self.clock_hz = FAST_CLOCK_HZ if fast else clock_hz
        self.model = model or board_model(config, clock_hz=self.clock_hz, board=board)
        self.port = ""
        self.usage: Usage | None = None
        self._link = Path(link) if link is not None else None
        self._seed, self._faults = seed, faults
        self._process: subprocess.Popen[str] | None = None
        self._errors = contextlib.ExitStack()

    def __enter__(self) -> Self:
        errors = self._errors.enter_context(tempfile.TemporaryFile("w+"))
        try:
            # A session of its own: Ctrl-C is for the host's program, which then ends the board.
            self._process = subprocess.Popen(
                [str(self.model.folder / "model"), "pty", str(self.clock_hz), str(self._seed % 0x7fffffff + 1),
                 str(FIRST_BAUD), *(str(rate) for rate in dataclasses.astuple(self._faults))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
        except OSError as error:
            self._errors.close()
            raise ToolError(f"{self.model.folder}: can't start the virtual board: {error.strerror}; "
                            f"empty the cache folder to have it built again") from None
        assert self._process.stdout is not None
        self.port = self._process.stdout.readline().strip()
        if not self.port:
            self._process.wait(_END_SECONDS)
            errors.seek(0)
            text = errors.read().strip()
            self.close()
            raise DeviceError(f"the virtual board did not start: {text}")
        try:
            self._make_link()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def reset(self) -> None:
        """Press the board's reset button."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)

    def wait(self, seconds: float | None) -> bool:
        """Wait until the board has ended (True) or `seconds` have passed."""
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """End the board; :attr:`usage` then tells what it did."""
        process, self._process = self._process, None
        if process is None:
            return
        self._remove_link()
        process.terminate()
        try:
            out, _ = process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
        self._errors.close()
        numbers = out.split()
        if len(numbers) == 3:
            self.usage = Usage(cycles=int(numbers[0]), simulated=int(numbers[1]), seconds=float(numbers[2]))

    def _make_link(self) -> None:
        if self._link is None:
            return
        if os.path.lexists(self._link) and not self._link.is_symlink():
            raise DeviceError(f"{self._link}: is no symbolic link, and is not replaced by one; give another --link")
        partial = self._link.with_name(f".{self._link.name}.{os.getpid()}")
        try:
            partial.symlink_to(self.port)
            os.replace(partial, self._link)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise DeviceError(f"{self._link}: can't make the link to {self.port}: {error.strerror}") from None

    def _remove_link(self) -> None:
        if self._link is not None and self._link.is_symlink() and os.readlink(self._link) == self.port:
            self._link.unlink(missing_ok=True)
