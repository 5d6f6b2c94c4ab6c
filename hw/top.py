"""The accelerator behind a serial line: what a board's bitstream is."""

from amaranth.hdl import Elaboratable, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arch.config import AcceleratorConfig
from .arch.errors import ConfigError
from .arch.link import DIVISOR_FRACTION, FIRST_BAUD
from .core import Accelerator
from .link import Link
from .link.identity import identity
from .uart import LEAST_DIVISOR
from .wordbus import attach

__all__ = ["AcceleratorOverUart", "divisor_of", "first_divisor"]


def divisor_of(clock_hz: int, baud: int) -> int:
    """Clock cycles of a bit, with :data:`DIVISOR_FRACTION` bits behind the point, rounded half up."""
    return (2 * (clock_hz << DIVISOR_FRACTION) + baud) // (2 * baud)


def first_divisor(clock_hz: int, divisor: int | None = None) -> int:
    """Divisor of the first speed: that of :data:`FIRST_BAUD`, unless another one is given.

    Raises
    ------
    ConfigError
        If a bit is too short.
    """
    chosen = divisor_of(clock_hz, FIRST_BAUD) if divisor is None else divisor
    if chosen < LEAST_DIVISOR:
        raise ConfigError(f"the first speed's divisor must be {LEAST_DIVISOR} or more, not {chosen} (with a clock of "
                          f"{clock_hz / 1e6:g} MHz); take a faster clock")
    return chosen


class AcceleratorOverUart(wiring.Component):
    """The accelerator of a configuration behind the link of :mod:`shiftwright.hw.arch.link`.

    Parameters
    ----------
    config : AcceleratorConfig
    clock_hz : int
        Clock frequency; the board tells it, and its first speed follows from it.
    board : str
        Name that the board tells.
    divisor : int or None
        That of the first speed; of :data:`FIRST_BAUD` when None. A smaller one is for simulation.

    Members
    -------
    rx, tx : In(1, init=1), Out(1, init=1)
        The line, high when idle. ``rx`` need not be synchronous.
    busy : Out(1)
        A run is under way.

    Raises
    ------
    ConfigError
        If a bit of the first speed is too short, or the name is none.
    """

    def __init__(self, config: AcceleratorConfig, *, clock_hz: int, board: str = "",
                 divisor: int | None = None) -> None:
        self.config = config
        self.clock_hz = clock_hz
        self.board = board
        self.divisor = first_divisor(clock_hz, divisor)
        self.identity = identity(config, clock_hz=clock_hz, divisor=self.divisor, board=board)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "busy": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.link = link = Link(self.divisor, self.identity)
        m.submodules.core = core = Accelerator(self.config)
        m.d.comb += [
            link.rx.eq(self.rx), self.tx.eq(link.tx), link.busy.eq(core.busy), self.busy.eq(core.busy),
        ]
        attach(m, link, core)
        m.d.comb += core.pause.eq(0)
        return m
