"""Trials over the pseudo-terminal: the host as people run it, in real time, against the free running board."""

import contextlib
import os
import threading
import time
from collections.abc import Callable

import numpy as np

from ...hw.arch.errors import ShiftwrightError, TransportError
from ...sw.device.transport import SerialTransport
from ..runner import Model
from .faults import NO_FAULTS, Faults
from .trials import Outcome, Workload, attempt
from .virtual import VirtualBoard

__all__ = ["TERMINAL_KINDS", "terminal_trial"]

LATEST = 0.5
"""Seconds after the start of a load in which something happens."""


class _Scene:
    """A trial's parts."""

    def __init__(self, outcome: Outcome, board: VirtualBoard, rng: np.random.Generator, workload: Workload,
                 foreign: Workload) -> None:
        self.outcome, self.board, self.rng, self.workload, self.foreign = outcome, board, rng, workload, foreign

    def use(self, *, workload: Workload | None = None, baud: int | None = None, dies_after: int | None = None,
            refused: bool = False) -> bool:
        """Open the port, load and infer."""
        transport = SerialTransport(self.board.port)
        try:
            return attempt(self.outcome, transport, workload or self.workload, seed=int(self.rng.integers(1 << 32)),
                           baud=baud, dies_after=dies_after, refused=refused)
        finally:
            transport.close()

    @contextlib.contextmanager
    def _beside(self, work: Callable[[threading.Event], None]):  # type: ignore[no-untyped-def]
        end = threading.Event()
        thread = threading.Thread(target=work, args=(end,))
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def use_while(self, work: Callable[[threading.Event], None]) -> None:
        """:meth:`use`, with something else going on until it ends."""
        with self._beside(work):
            self.use()


def _faults(scene: _Scene) -> None:
    scene.use()


def _reset(scene: _Scene) -> None:
    delays = scene.rng.uniform(0, LATEST, size=int(scene.rng.integers(1, 4)))

    def work(end: threading.Event) -> None:
        for delay in delays:
            if end.wait(delay):
                return
            scene.board.reset()

    scene.use_while(work)


def _noise(scene: _Scene) -> None:
    """Another program writes rubbish to the port now and then."""
    parts = [scene.rng.bytes(int(scene.rng.integers(1, 40))) for _ in range(4)]
    delays = scene.rng.uniform(0, LATEST / 4, size=len(parts))
    port = os.open(scene.board.port, os.O_RDWR | os.O_NOCTTY)

    def work(end: threading.Event) -> None:
        for part, delay in zip(parts, delays, strict=True):
            if end.wait(delay):
                return
            os.write(port, part)

    try:
        scene.use_while(work)
    finally:
        os.close(port)


def _host_dies(scene: _Scene) -> None:
    scene.use(dies_after=int(scene.rng.integers(scene.workload.image.words.nbytes)))
    scene.use()


def _board_dies(scene: _Scene) -> None:
    delay = float(scene.rng.uniform(0, LATEST))

    def work(end: threading.Event) -> None:
        end.wait(delay)
        scene.board.close()

    scene.use_while(work)


def _other_speed(scene: _Scene) -> None:
    scene.use(baud=int(scene.rng.choice([57600, 38400])), dies_after=int(scene.rng.integers(100, 1000)))
    scene.use()


def _other_configuration(scene: _Scene) -> None:
    scene.use(workload=scene.foreign, refused=True)
    scene.use()


def _two_hosts(scene: _Scene) -> None:
    """The second one finds the port in use."""
    port = scene.board.port

    def work(end: threading.Event) -> None:
        end.wait(0.1)
        if end.is_set():
            return
        try:
            SerialTransport(port).close()
        except TransportError as error:
            scene.outcome.errors.append(f"TransportError: {error}")
        except ShiftwrightError as error:
            scene.outcome.failures.append(f"{type(error).__name__}: {error}")

    scene.use_while(work)


TERMINAL_KINDS: dict[str, tuple[Callable[[_Scene], None], Callable[[np.random.Generator], Faults]]] = {
    "flipped bits": (_faults, lambda rng: Faults(flip=10 ** rng.uniform(-4, -2))),
    "dropped bytes": (_faults, lambda rng: Faults(drop=10 ** rng.uniform(-4, -2))),
    "duplicated bytes": (_faults, lambda rng: Faults(duplicate=10 ** rng.uniform(-4, -2))),
    "inserted bytes": (_faults, lambda rng: Faults(insert=10 ** rng.uniform(-4, -2))),
    **{name: (function, lambda rng: NO_FAULTS) for name, function in {
        "board reset": _reset, "noise of another program": _noise, "host dies": _host_dies, "board dies": _board_dies,
        "other speed": _other_speed, "other configuration": _other_configuration, "two hosts": _two_hosts}.items()},
}
"""What goes wrong: a function that has hosts work, and the line's faults."""


def terminal_trial(kind: str, model: Model, workload: Workload, foreign: Workload, *, seed: int) -> Outcome:
    """Run one trial; where the line has no faults, a new host must then get right results from the same board.

    Parameters
    ----------
    kind : str
        One of :data:`TERMINAL_KINDS`.
    model : Model
        The board, made for ``FAST_CLOCK_HZ``.
    workload, foreign : Workload
        A model for it, and one for another accelerator.
    seed : int
        Names all random choices; when things happen also depends on the machine.
    """
    outcome, rng = Outcome(kind=kind), np.random.default_rng(seed)
    function, faults_of = TERMINAL_KINDS[kind]
    faults = faults_of(rng)
    started = time.monotonic()
    with VirtualBoard(workload.image.config, fast=True, seed=seed, faults=faults, model=model) as board:
        scene = _Scene(outcome, board, rng, workload, foreign)
        function(scene)
        if faults == NO_FAULTS and kind != "board dies":
            afterwards = Outcome(kind=kind)
            scene.outcome = afterwards
            if not scene.use():
                outcome.failures.append(f"no use afterwards: {afterwards.errors + afterwards.failures}")
                outcome.wrong += afterwards.wrong
    outcome.seconds = time.monotonic() - started
    return outcome
