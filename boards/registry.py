"""The boards that Shiftwright builds for: tuned ones, a file each in ``boards/catalog``, and all of amaranth-boards."""

import dataclasses
import functools
import importlib
import pkgutil
import re
from collections.abc import Mapping
from typing import Any

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import ConfigError
from . import catalog
from .devices import Device
from .fit import fits
from .platforms import Found, device_of, load, oscillator_mhz, scan
from .pll import PLLS, Pll, nearest

__all__ = ["Board", "Uart", "get", "names"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uart:
    """Where a board's UART is.

    Parameters
    ----------
    number : int
        The platform's resource ``uart`` of this number.
    connector : (str, int) or None
        For a platform without a UART: a connector of its, such as ``("gpio", 0)``.
    rx, tx : str
        Pins of the connector: what the board receives and sends.
    attributes : mapping of str to str
        What the device is to be told of these pins, such as their standard.
    """

    number: int = 0
    connector: tuple[str, int] | None = None
    rx: str = ""
    tx: str = ""
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Board:
    """A board.

    Parameters
    ----------
    name : str
        As on the command line, and in the board's answer to a host: at most 16 ASCII characters.
    title : str
        Maker's name.
    platform : str
        Amaranth platform, as ``module:Class``.
    config : AcceleratorConfig
        The accelerator that it gets by default; fits with room to route.
    clock_mhz : float
        Clock of the accelerator. Where it is not the oscillator's, a phase-locked loop makes it.
    programmer : tuple of str
        Arguments of openFPGALoader before the file; empty when it does not know the board.
    serial : str
        How the UART comes out, for people: the USB bridge and which of its ports.
    baud : int
        Fastest speed of the UART that bridge and clock are meant for, in bits a second.
    notes : str
        What else a person needs to know.
    uart : Uart
        Which UART.
    """

    name: str
    title: str
    platform: str
    config: AcceleratorConfig
    clock_mhz: float
    programmer: tuple[str, ...] = ()
    serial: str = ""
    baud: int = 1_000_000
    notes: str = ""
    uart: Uart = Uart()

    def make_platform(self) -> Any:
        """A fresh Amaranth platform with the UART.

        Raises
        ------
        ConfigError
            If there is no such platform, or it has no such UART.
        """
        platform = load(self.platform)()
        uart = self.uart
        if uart.connector is not None:
            from amaranth.build import Attrs, Pins, Resource, Subsignal

            platform.add_resources([Resource(
                "uart", uart.number, Subsignal("rx", Pins(uart.rx, dir="i", conn=uart.connector)),
                Subsignal("tx", Pins(uart.tx, dir="o", conn=uart.connector)), Attrs(**uart.attributes))])
        if ("uart", uart.number) not in platform.resources:
            raise ConfigError(f"{self.name}: the platform {self.platform} must have a resource ('uart', {uart.number})"
                              f"; name pins of a connector with Uart(connector=..., rx=..., tx=...)")
        return platform

    @functools.cached_property
    def device(self) -> Device | None:
        """Its FPGA; ``None`` when Shiftwright writes only Verilog and constraints for it."""
        return device_of(load(self.platform))

    @functools.cached_property
    def part(self) -> str:
        """Its FPGA's name, for people."""
        if self.device is not None:
            return self.device.title
        found = [each for each in scan() if each.platform == self.platform]
        return f"{found[0].family} {found[0].part}" if found else self.platform

    @functools.cached_property
    def oscillator_mhz(self) -> float:
        """Frequency of the oscillator."""
        return oscillator_mhz(load(self.platform)())

    @property
    def clock_hz(self) -> int:
        """Clock of the accelerator."""
        return round(self.clock_mhz * 1e6)

    def pll(self) -> Pll | None:
        """What makes the clock of the oscillator's; ``None`` when it is that.

        Raises
        ------
        ConfigError
            If it can't be made.
        """
        if self.clock_mhz == self.oscillator_mhz:
            return None
        if self.device is None:
            raise ConfigError(f"the clock of {self.name} must be that of its oscillator, {self.oscillator_mhz:g} MHz, "
                              f"not {self.clock_mhz:g}: there is no phase-locked loop for {self.part}")
        return nearest(PLLS[self.device.pll], self.oscillator_mhz, self.clock_mhz)

    def at(self, mhz: float) -> "Board":
        """The same board at the clock nearest to ``mhz``, and not above it."""
        if not mhz > 0:
            raise ConfigError(f"the clock must be greater than 0 MHz, not {mhz!r}")
        pll = dataclasses.replace(self, clock_mhz=mhz).pll()
        return dataclasses.replace(self, clock_mhz=mhz if pll is None else float(pll.output_mhz))

    def program(self, bitstream: str) -> str:
        """The command that puts a bitstream on the board; empty when there is none."""
        return " ".join(("openFPGALoader", *self.programmer, bitstream)) if self.programmer else ""


@functools.cache
def _tuned() -> dict[str, Board]:
    boards = [board for info in pkgutil.iter_modules(catalog.__path__)
              for board in importlib.import_module(f"{catalog.__name__}.{info.name}").BOARDS]
    return {board.name: board for board in sorted(boards, key=lambda board: board.name)}


def names() -> tuple[str, ...]:
    """Names of the tuned boards."""
    return tuple(_tuned())


def get(name: str) -> Board:
    """A board by its name.

    Parameters
    ----------
    name : str
        A tuned board, such as ``"icebreaker"``; a platform of amaranth-boards by its short name, such as
        ``"icesugar"``; or ``"module:Name"``, an Amaranth platform's class or a :class:`Board`.

    Raises
    ------
    ConfigError
        If there is none, or nothing fits it.
    """
    if ":" in name:
        thing = load(name)
        if isinstance(thing, Board):
            return thing
        if not hasattr(thing, "resources"):
            raise ConfigError(f"{name}: must be an Amaranth platform or a Board, not {thing!r}")
        kind = f"{thing.__module__}:{thing.__qualname__}"
        known = next((board for board in _tuned().values() if board.platform == kind), None)
        return known or _untuned(thing.__name__.removesuffix("Platform").strip("_").lower(), name, device_of(thing))
    if name in _tuned():
        return _tuned()[name]
    wanted = re.sub(r"[^a-z0-9]", "", name.lower())
    for each in scan():
        if re.sub(r"[^a-z0-9]", "", each.name) == wanted:
            known = next((board for board in _tuned().values() if board.platform == each.platform), None)
            return known or from_platform(each)
    raise ConfigError(f"the board must be one of {', '.join(_tuned())}, or one of 'shiftwright boards --all', "
                      f"not {name!r}; for another accelerator give its configuration")


def from_platform(found: Found) -> Board:
    """A board that nobody has tuned: the largest accelerator of its device's choice, and a clock that it meets."""
    return _untuned(found.name, found.platform, found.device)


def _untuned(name: str, platform: str, device: Device | None) -> Board:
    mhz = oscillator_mhz(load(platform)())
    config = AcceleratorConfig()
    if device is not None:
        config = AcceleratorConfig.from_dict(dict(device.config))
        misfit = fits(config, device)
        if misfit is not None:
            if misfit.nearest is None:
                raise ConfigError(f"{name}: {misfit}")
            config = misfit.nearest
        if mhz > device.clock_mhz:
            mhz = float(nearest(PLLS[device.pll], mhz, device.clock_mhz).output_mhz)
    return Board(name=name[:16], title=platform.rpartition(":")[2], platform=platform, config=config, clock_mhz=mhz)
