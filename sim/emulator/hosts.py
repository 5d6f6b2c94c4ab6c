"""Several hosts at one simulated board, one at a time and always in the same order."""

import threading
from collections.abc import Callable, Sequence

from ...hw.arch.link import FIRST_BAUD
from .pins import PinsTransport, SimulatedBoard

__all__ = ["Turns"]


class _Seat(PinsTransport):
    """A host's transport: to read is to let the others go on."""

    def __init__(self, board: SimulatedBoard, name: str, told: threading.Semaphore) -> None:
        super().__init__(board, baud=FIRST_BAUD, name=name)
        self.may_go_on = threading.Semaphore(0)
        self.until: float | None = None
        self.result: object = None
        self.failure: BaseException | None = None
        self.done = False
        self._told = told

    def hear(self, data: bytes) -> None:
        self._received += data

    def read(self, timeout: float) -> bytes:
        self._check()
        if not self._received:
            # At least a clock cycle: less could be lost in the sum.
            self.until = self.now() + (max(timeout, 1 / self.board.clock_hz) if timeout > 0 else 0.0)
            self._told.release()
            self.may_go_on.acquire()
            self.until = None
        found, self._received = self._received, b""
        return found

    def _drain(self) -> None:
        kept = b""
        while self.pending() > 0:
            kept += self.read(self.pending())
        self._received = kept + self._received


class Turns:
    """A table with a seat for each host. Everything on the wires is heard by all of them.

    Parameters
    ----------
    board : SimulatedBoard
    """

    def __init__(self, board: SimulatedBoard) -> None:
        self._board = board
        self._told = threading.Semaphore(0)

    def run(self, hosts: Sequence[Callable[[PinsTransport], object]]) -> list[object]:
        """Let each host do its work with its transport. Returns what each returned, or the exception that ended it."""
        seats = [_Seat(self._board, f"host {number}", self._told) for number in range(len(hosts))]
        threads = []
        for seat, host in zip(seats, hosts, strict=True):
            threads.append(threading.Thread(target=self._sit, args=(seat, host), daemon=True))
            threads[-1].start()
            self._told.acquire()
        while waiting := [seat for seat in seats if not seat.done]:
            untils = [seat.until for seat in waiting if seat.until is not None]
            try:
                data = self._board.run(max(0.0, min(untils) - self._board.last.now))
            except Exception:
                data = b""  # each host finds out by itself that the board is gone
                untils = [self._board.last.now]
            for seat in waiting:
                if data or seat.until is None or seat.until <= max(self._board.last.now, min(untils)):
                    seat.hear(data)
                    seat.may_go_on.release()
                    self._told.acquire()
        for thread in threads:
            thread.join()
        return [seat.failure or seat.result for seat in seats]

    def _sit(self, seat: _Seat, host: Callable[[PinsTransport], object]) -> None:
        try:
            seat.result = host(seat)
        except BaseException as error:
            seat.failure = error
        finally:
            seat.done = True
            self._told.release()
