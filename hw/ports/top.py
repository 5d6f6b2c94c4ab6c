"""Top modules for other people's designs, one for each of :data:`~shiftwright.hw.arch.ports.PORTS`."""

from typing import ClassVar, Protocol

from amaranth.hdl import ClockDomain, Elaboratable, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ..arch.config import AcceleratorConfig
from ..arch.errors import ConfigError
from ..arch.ports import MAPPED_PORTS, PORTS
from ..core import Accelerator
from ..wordbus import WORD_BUS, attach
from .axi4lite import Axi4LitePort
from .wishbone import WishbonePort

__all__ = ["AcceleratorOverPort", "Port", "accelerator_with_port", "make_port"]


class Port(Protocol):
    """A component between a system's bus and the accelerator's word bus."""

    CLOCK: ClassVar[str]
    """Conventional name of the clock that goes with the names of its ports."""
    RESET: ClassVar[str]
    RESET_LOW: ClassVar[bool]
    """Whether the reset is active low."""
    signature: wiring.Signature

    def elaborate(self, platform: object) -> Elaboratable:
        """Its logic."""


def make_port(config: AcceleratorConfig, port: str) -> WishbonePort | Axi4LitePort:
    """The component of one of :data:`~shiftwright.hw.arch.ports.MAPPED_PORTS`, without the accelerator."""
    if port == "axi4-lite":
        return Axi4LitePort(config)
    return WishbonePort(config, pipelined=port == "wishbone")


class AcceleratorOverPort(wiring.Component):
    """An accelerator with a port of byte addresses, and clock and reset by the names that belong to it.

    Parameters
    ----------
    config : AcceleratorConfig
    port : str
        One of :data:`~shiftwright.hw.arch.ports.MAPPED_PORTS`.

    Members
    -------
    wb_* or s_axi_*
        The port; ``wb_clk_i`` and ``wb_rst_i``, ``s_axi_aclk`` and ``s_axi_aresetn`` are clock and synchronous reset.
    irq : Out(1)
        High while an enabled interrupt is pending (:class:`~shiftwright.hw.arch.ports.PortRegister`).

    Attributes
    ----------
    clock : dict of str to str
        Names and kinds of clock and reset, for the manifest.
    """

    def __init__(self, config: AcceleratorConfig, port: str) -> None:
        self.config = config
        self.port = port
        self._port = make_port(config, port)
        clock, reset, low = self._port.CLOCK, self._port.RESET, self._port.RESET_LOW
        self.clock = {"clock": clock, "reset": reset, "edge": "rising",
                      "reset_kind": f"synchronous, active {'low' if low else 'high'}"}
        self._outside = {name: member for name, member in self._port.signature.members.items() if name not in WORD_BUS}
        super().__init__({clock: In(1), reset: In(1), **self._outside})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = sync = ClockDomain(local=True)
        m.submodules.port = port = self._port
        m.submodules.core = core = Accelerator(self.config)
        reset = getattr(self, port.RESET)
        m.d.comb += [sync.clk.eq(getattr(self, port.CLOCK)), sync.rst.eq(~reset if port.RESET_LOW else reset)]
        for name, member in self._outside.items():
            outer, inner = getattr(self, name), getattr(port, name)
            m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        attach(m, port, core)
        m.d.comb += port.busy.eq(core.busy)
        return m


def accelerator_with_port(config: AcceleratorConfig, port: str = "word", *, clock_hz: int | None = None,
                          board: str = "") -> wiring.Component:
    """An accelerator as a top module.

    Parameters
    ----------
    config : AcceleratorConfig
    port : str
        One of :data:`~shiftwright.hw.arch.ports.PORTS`.
    clock_hz : int or None
        The clock that it will have; only ``"uart"`` needs it.
    board : str
        Name that it tells the host (``"uart"``).

    Raises
    ------
    ConfigError
        If there is no such port, or ``clock_hz`` is missing.
    """
    if port in MAPPED_PORTS:
        return AcceleratorOverPort(config, port)
    if port == "uart":
        from ..top import AcceleratorOverUart

        if clock_hz is None:
            raise ConfigError("the port uart must have a clock, from which the length of a bit follows; give clock_hz")
        return AcceleratorOverUart(config, clock_hz=clock_hz, board=board)
    if port != "word":
        raise ConfigError(f"the port must be one of {', '.join(PORTS)}, not {port!r}")
    return Accelerator(config)
