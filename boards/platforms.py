"""The boards of the package amaranth-boards: found by scanning it, built for when their device is known."""

import dataclasses
import functools
import importlib
import pkgutil
import re
import sys
from typing import Any

from ..hw.arch.errors import ConfigError, ToolError
from .devices import DEVICES, Device, ecp5, ice40

__all__ = ["Found", "device_of", "load", "oscillator_mhz", "scan"]

_VENDORS = (("LFE5", "Lattice ECP5"), ("iCE40", "Lattice iCE40"), ("LCMXO", "Lattice MachXO"), ("xc", "AMD (Xilinx)"),
            ("GW", "Gowin"), ("EP", "Intel (Altera)"), ("5C", "Intel (Altera)"), ("10M", "Intel (Altera)"),
            ("ql", "QuickLogic"))
_ECP5_PACKAGES = {"BG256": "CABGA256", "MG285": "CSFBGA285", "BG381": "CABGA381", "BG554": "CABGA554",
                  "BG756": "CABGA756"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A platform with a UART.

    Parameters
    ----------
    name : str
        Short name, made of the class's.
    platform : str
        ``module:Class``.
    part : str
        The device, in the platform's words.
    family : str
        Vendor and family of the device.
    device : Device or None
        The device as the open tools know it; ``None`` when Verilog and constraints are all that can be made.
    """

    name: str
    platform: str
    part: str
    family: str
    device: Device | None


@functools.cache
def scan() -> tuple[Found, ...]:
    """All platforms of amaranth-boards that have a resource ``uart``, by module and class.

    Raises
    ------
    ToolError
        If the package is not installed.
    """
    try:
        import amaranth_boards
    except ImportError:
        raise ToolError("the package amaranth-boards is missing (pins of the boards); get it with: "
                        "pip install 'shiftwright[fpga]'") from None
    found: dict[Any, Found] = {}
    for info in pkgutil.iter_modules(amaranth_boards.__path__, "amaranth_boards."):
        if info.ispkg:
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            kind = getattr(module, name)
            if any(resource.name == "uart" for resource in getattr(kind, "resources", ())) and kind not in found:
                part = _part(kind)
                found[kind] = Found(name=_short(name), platform=f"{info.name}:{name}", part=part, family=_family(part),
                                    device=device_of(kind))
    return tuple(sorted(found.values(), key=lambda each: each.name))


def load(path: str) -> Any:
    """The object ``module:Name``; the current folder is searched too.

    Raises
    ------
    ConfigError
        If there is no such thing.
    """
    module, _, name = path.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}: can't import the board: {error}; write module:Name, with the module in the current "
                          f"folder or installed") from error


def device_of(platform: Any) -> Device | None:
    """The device of an Amaranth platform (a class, or an instance), or ``None`` when the open flow has none like it."""
    part, package = str(getattr(platform, "device", "")), str(getattr(platform, "package", ""))
    if found := re.fullmatch(r"LFE5(U|UM|UM5G)-(12|25|45|85)F", part):
        if package not in _ECP5_PACKAGES:
            return None
        speed = str(platform.speed)
        name = f"ecp5-{ {'U': '', 'UM': 'm-', 'UM5G': '5g-'}[found[1]]}{found[2]}f"
        return ecp5(name, part, package=_ECP5_PACKAGES[package], speed=speed)
    if part in ("iCE40UP5K", "iCE40HX8K"):
        return ice40(part.removeprefix("iCE40").lower(), part.removeprefix("iCE40"), package=package)
    part, family = str(getattr(platform, "part", "")), str(getattr(platform, "family", ""))
    for device in DEVICES.values():
        if part and device.router_args[1] == part:
            # The tools know a part with memory in its package by the name of the one without.
            die = family.replace("GW1NR", "GW1N")
            return dataclasses.replace(device, router_args=("--device", part, "--vopt", f"family={die}"),
                                       packer_args=("-d", die, *device.packer_args[2:]))
    return None


def oscillator_mhz(platform: Any) -> float:
    """Frequency of an Amaranth platform's default clock, in MHz.

    Raises
    ------
    ConfigError
        If it has none that comes in by a pin.
    """
    try:
        clock = platform.default_clk_constraint
        platform.lookup(platform.default_clk)
    except (AttributeError, KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"the platform {type(platform).__name__} must have a default clock that comes in by a pin: "
                          f"{error}; derive a class from it with 'default_clk', the name of a clock resource") from None
    return float(clock.frequency) / 1e6


def _part(kind: Any) -> str:
    words = [str(getattr(kind, name)) for name in ("device", "package", "speed")
             if isinstance(getattr(kind, name, None), str)]
    part = getattr(kind, "part", None)
    return part if isinstance(part, str) else " ".join(words)


def _family(part: str) -> str:
    return next((family for prefix, family in _VENDORS if part.startswith(prefix)), "another vendor")


def _short(name: str) -> str:
    """``ULX3S_85F_Platform`` is ``ulx3s-85f``."""
    return name.removesuffix("Platform").strip("_").replace("_", "-").lower()
