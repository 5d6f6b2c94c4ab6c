"""The serial port's pins on a board's connector."""

from collections.abc import Mapping
from typing import Any

__all__ = ["with_serial_port"]


def with_serial_port(platform: Any, connector: tuple[str, int], pins: Mapping[str, str], **attributes: str) -> Any:
    """An Amaranth platform, given the resource ``("shiftwright", 0)`` of :class:`.registry.Board`.

    Parameters
    ----------
    platform : amaranth.build.Platform
        Fresh; it is changed and returned.
    connector : (str, int)
        Which of the platform's connectors.
    pins : mapping of str to str
        The connector's pin for ``cs`` (active low), ``mosi``, ``miso`` and ``sclk``.
    **attributes : str
        What the device needs to be told of each pin, such as its standard.
    """
    from amaranth.build import Attrs, Pins, PinsN, Resource, Subsignal

    ports = [Subsignal(name, (PinsN if name == "cs" else Pins)(pin, dir="o" if name == "miso" else "i", conn=connector))
             for name, pin in pins.items()]
    platform.add_resources([Resource("shiftwright", 0, *ports, Attrs(**attributes))])
    return platform
