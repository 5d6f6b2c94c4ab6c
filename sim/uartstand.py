"""A receiver and a transmitter of bytes side by side, for their bench."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, flipped

from ..hw.uart import UartReceiver, UartTransmitter

__all__ = ["UartStand"]


class UartStand(wiring.Component):
    """Ports of both, prefixed by ``receiver__`` and ``transmitter__``.

    Parameters
    ----------
    first : int
        Divisor of the first speed.
    """

    def __init__(self, first: int) -> None:
        self.units: dict[str, wiring.Component] = {
            "receiver": UartReceiver(first), "transmitter": UartTransmitter(first),
        }
        super().__init__({name: Out(unit.signature) for name, unit in self.units.items()})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, unit in self.units.items():
            m.submodules[name] = unit
            wiring.connect(m, unit, flipped(getattr(self, name)))
        return m
