"""What becomes of loads and inferences when something goes wrong on the line: the host's own code against the RTL.

A trial is a board, a host with a model, and a trouble. It must end in a verified load and right results, or in one
clear error; afterwards, with the trouble gone, a new host must get right results from the same board.
"""

import dataclasses
import random
import time
from collections.abc import Callable, Iterator

import numpy as np

from ...hw.arch.errors import ShiftwrightError
from ...hw.arch.link import FIRST_BAUD
from ...sw.device.device import Device
from ...sw.device.transport import Transport
from ...sw.image import Image
from ..runner import Model
from .faults import FOREVER, Faults, Trouble
from .hosts import Turns
from .model import LEAST_CLOCK_HZ
from .pins import PinsTransport, SimulatedBoard

__all__ = ["KINDS", "Outcome", "Workload", "attempt", "kinds_in_turn", "trial"]

MOST_BOARD_SECONDS = 600.0
MOST_SECONDS = 300.0
"""How long a host may be at work, in the board's time and in the host's, before it counts as hanging."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """A model, inputs (N, C, H, W), and the outputs that the golden model gives for them."""

    image: Image
    inputs: np.ndarray
    expected: np.ndarray


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """How a trial ended.

    Parameters
    ----------
    kind : str
        What went wrong.
    loads, results : int
        Verified loads and right outputs, of the hosts that met the trouble.
    errors : list of str
        Clear errors in which hosts ended.
    wrong : int
        Wrong outputs that a host took for right ones, and images loaded that must not be.
    failures : list of str
        Hangs, exceptions that are no clear errors, and boards that were of no use afterwards.
    board_seconds, seconds : float
        Time of the board and of the host.
    """

    kind: str
    loads: int = 0
    results: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)
    wrong: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    board_seconds: float = 0.0
    seconds: float = 0.0


class _Hang(BaseException):
    """No :class:`Exception`, so that no host can take it for one of its own."""


class _Death(BaseException):
    """The host's process is gone."""


class _Watched:
    """A transport that ends a host which is at work for too long, or whose time has come."""

    def __init__(self, transport: Transport, *, dies_after: int | None = None) -> None:
        self._inner = transport
        self._dies_after = dies_after
        self._written = 0
        self._board_end, self._end = transport.now() + MOST_BOARD_SECONDS, time.monotonic() + MOST_SECONDS

    def __getattr__(self, name: str) -> object:
        self._check()
        return getattr(self._inner, name)

    def write(self, data: bytes) -> None:
        self._written += len(data)
        if self._dies_after is not None and self._written > self._dies_after:
            raise _Death
        self._check()
        self._inner.write(data)

    def _check(self) -> None:
        if self._inner.now() > self._board_end:
            raise _Hang(f"a host at work for {MOST_BOARD_SECONDS:g} s of the board's time")
        if time.monotonic() > self._end:
            raise _Hang(f"a host at work for {MOST_SECONDS:g} s")


def attempt(outcome: Outcome, transport: Transport, workload: Workload, *, seed: int, baud: int | None = None,
            dies_after: int | None = None, refused: bool = False) -> bool:
    """Load and infer with one host; whether all of it succeeded.

    Parameters
    ----------
    outcome : Outcome
        Gets what happened.
    transport : Transport
    workload : Workload
    seed : int
        Of the host's random numbers.
    baud : int or None
        The speed that it asks for.
    dies_after : int or None
        Bytes that it may write before it dies.
    refused : bool
        The load must end in an error.
    """
    watched = _Watched(transport, dies_after=dies_after)
    loads, results, wrong = outcome.loads, outcome.results, outcome.wrong
    try:
        device = Device(watched, baud=baud, entropy=random.Random(seed))  # type: ignore[arg-type]
        device.load(workload.image)
        outcome.loads += 1
        outcome.wrong += refused
        for found, expected in zip(device.infer(workload.image, workload.inputs), workload.expected, strict=True):
            right = np.array_equal(found, expected)
            outcome.results += right
            outcome.wrong += not right
        if seed & 1:  # others leave the board in the middle of their session
            device.close()
    except ShiftwrightError as error:
        outcome.errors.append(f"{type(error).__name__}: {error}")
        if not str(error):
            outcome.failures.append(f"{type(error).__name__} without a message")
    except _Death:
        pass
    except _Hang as hang:
        outcome.failures.append(f"hang: {hang}")
    except Exception as error:
        outcome.failures.append(f"crash: {type(error).__name__}: {error}")
    return (outcome.loads == loads + 1 and outcome.results == results + len(workload.expected)
            and outcome.wrong == wrong)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scene:
    """A trial's parts."""

    outcome: Outcome
    board: SimulatedBoard
    rng: np.random.Generator
    workload: Workload
    other: Workload
    foreign: Workload

    def rate(self, low: float, high: float) -> float:
        """A random rate or duration, logarithmically uniform."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def somewhere(self) -> int:
        """A random byte of a load and the inferences behind it."""
        return int(self.rng.integers(int(1.3 * self.workload.image.words.nbytes) + 500))

    def use(self, **options: object) -> bool:
        """Load and infer with a new host."""
        return attempt(self.outcome, PinsTransport(self.board), self.workload,
                       seed=int(self.rng.integers(1 << 32)), **options)  # type: ignore[arg-type]


def _random(scene: _Scene, **names: tuple[float, float]) -> None:
    """Faults of both directions, or of one."""
    rates = [Faults(**{name: scene.rate(*limits) for name, limits in names.items()}) for _ in range(2)]
    alone = int(scene.rng.integers(3))
    scene.board.faults(to_board=rates[0] if alone != 1 else Faults(), to_host=rates[1] if alone != 2 else Faults(),
                       seed=int(scene.rng.integers(1 << 32)))
    scene.use()


def _troubles(scene: _Scene, kind: Trouble, most: int, seconds: tuple[float, float]) -> None:
    for _ in range(int(scene.rng.integers(1, most + 1))):
        scene.board.trouble(kind, after=scene.somewhere(), seconds=scene.rate(*seconds))
    scene.use()


def _cut_for_good(scene: _Scene) -> None:
    scene.board.trouble(Trouble.CUT, after=scene.somewhere(), seconds=FOREVER)
    scene.use()


def _host_dies(scene: _Scene) -> None:
    for _ in range(int(scene.rng.integers(1, 4))):
        scene.use(dies_after=scene.somewhere())
        if scene.rng.random() < 0.5:
            scene.board.forget()
        if scene.rng.random() < 0.5:
            scene.board.run(float(scene.rng.random()))
    scene.use()


def _other_speed(scene: _Scene) -> None:
    """Another host left the board at a speed of its own, or this one begins at a wrong speed."""
    baud = int(scene.rng.choice([57600, 38400, 19200]))
    if scene.rng.random() < 0.5:
        scene.use(baud=baud, dies_after=int(scene.rng.integers(100, 1000)))
        scene.use()
    else:
        attempt(scene.outcome, PinsTransport(scene.board, baud=baud), scene.workload,
                seed=int(scene.rng.integers(1 << 32)))


def _other_configuration(scene: _Scene) -> None:
    """An image for another accelerator, before or after the right one."""
    before = scene.rng.random() < 0.5
    if before:
        scene.use()
    attempt(scene.outcome, PinsTransport(scene.board), scene.foreign, seed=int(scene.rng.integers(1 << 32)),
            refused=True)
    if not before:
        scene.use()


def _two_hosts(scene: _Scene) -> None:
    seeds, delay = scene.rng.integers(1 << 32, size=2), float(scene.rng.random())

    def second(transport: PinsTransport) -> None:
        transport.read(delay)
        attempt(scene.outcome, transport, scene.other, seed=int(seeds[1]))

    for result in Turns(scene.board).run([
            lambda transport: attempt(scene.outcome, transport, scene.workload, seed=int(seeds[0])), second]):
        if isinstance(result, BaseException):
            scene.outcome.failures.append(f"crash: {type(result).__name__}: {result}")


KINDS: dict[str, Callable[[_Scene], None]] = {
    "flipped bits": lambda scene: _random(scene, flip=(1e-4, 1e-2)),
    "dropped bytes": lambda scene: _random(scene, drop=(1e-4, 3e-2)),
    "duplicated bytes": lambda scene: _random(scene, duplicate=(1e-4, 3e-2)),
    "inserted bytes": lambda scene: _random(scene, insert=(1e-4, 3e-2)),
    "all of these": lambda scene: _random(scene, flip=(1e-5, 1e-3), drop=(1e-5, 3e-3), duplicate=(1e-5, 3e-3),
                                          insert=(1e-5, 3e-3)),
    "breaks": lambda scene: _troubles(scene, Trouble.LOW, 4, (1e-5, 0.3)),
    "cable cut": lambda scene: _troubles(scene, Trouble.CUT, 3, (1e-4, 5.0)),
    "cable cut for good": _cut_for_good,
    "host dies": _host_dies,
    "board reset": lambda scene: _troubles(scene, Trouble.RESET, 3, (1e-3, 1e-2)),
    "other speed": _other_speed,
    "other configuration": _other_configuration,
    "two hosts": _two_hosts,
}
"""What goes wrong, each a function that has hosts work in a scene."""


def trial(kind: str, model: Model, workload: Workload, other: Workload, foreign: Workload, *, seed: int,
          clock_hz: int = LEAST_CLOCK_HZ) -> Outcome:
    """Run one trial.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    model : Model
        The board, with a clock of `clock_hz`.
    workload, other, foreign : Workload
        A model for it and another one; and one for another accelerator.
    seed : int
        Names all random choices.
    """
    outcome = Outcome(kind=kind)
    started = time.monotonic()
    with SimulatedBoard(model, clock_hz=clock_hz, seed=seed) as board:
        scene = _Scene(outcome=outcome, board=board, rng=np.random.default_rng(seed), workload=workload, other=other,
                       foreign=foreign)
        KINDS[kind](scene)
        board.calm()
        afterwards = Outcome(kind=kind)
        if not attempt(afterwards, PinsTransport(board, baud=FIRST_BAUD), workload, seed=seed):
            outcome.failures.append(f"no use afterwards: {afterwards.errors + afterwards.failures}")
            outcome.wrong += afterwards.wrong
        outcome.board_seconds = board.last.now
    outcome.seconds = time.monotonic() - started
    return outcome


def kinds_in_turn(count: int) -> Iterator[str]:
    """So many kinds, each as often as the others."""
    names = list(KINDS)
    return (names[number % len(names)] for number in range(count))
