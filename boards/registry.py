"""The boards that Shiftwright builds for."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import ConfigError
from .devices import Device

__all__ = ["Board", "get", "names"]

_MODULES = {"ulx3s-85f": "ulx3s", "icebreaker": "icebreaker"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Board:
    """A board.

    Parameters
    ----------
    name : str
        As on the command line.
    title : str
        Maker's name.
    device : Device
        Its FPGA.
    config : AcceleratorConfig
        The accelerator that it gets by default; fits with room to route.
    clock_mhz : float
        Frequency of the oscillator that clocks the accelerator.
    platform : callable
        Makes a fresh Amaranth platform with a resource ``("shiftwright", 0)``: a serial port with the subsignals
        ``sclk``, ``mosi``, ``cs`` and ``miso``.
    pins : str
        Where that port is, for people.
    """

    name: str
    title: str
    device: Device
    config: AcceleratorConfig
    clock_mhz: float
    platform: Callable[[], Any]
    pins: str


def names() -> tuple[str, ...]:
    """Names of all boards."""
    return tuple(_MODULES)


def get(name: str) -> Board:
    """The board called ``name``; an unknown one is a :class:`ConfigError`."""
    if name not in _MODULES:
        raise ConfigError(f"the board must be one of {', '.join(_MODULES)}, not {name!r}; "
                          f"for another accelerator give its configuration")
    board: Board = importlib.import_module(f".{_MODULES[name]}", __package__).BOARD
    return board
