"""AXI4-Lite."""

import enum

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..arch.bus import BUS_DATA_BITS
from ..arch.config import AcceleratorConfig
from ..arch.ports import PORT_ADDR_BITS, PORT_DATA_BITS, WORD_SHIFT
from ..wordbus import WORD_BUS
from .bridge import Bridge, forward

__all__ = ["Axi4LitePort", "Response"]

PROT_BITS, RESPONSE_BITS = 3, 2


class Response(enum.IntEnum):
    """``BRESP`` and ``RRESP``."""

    OKAY = 0
    SLVERR = 2


class Axi4LitePort(wiring.Component):
    """An AXI4-Lite subordinate in front of the accelerator: 32 bits, byte addresses.

    Bits 1:0 of an address are ignored, and so is ``PROT``. A write is taken when its address and its data are both
    there; ``AWREADY`` and ``WREADY`` rise together. When a write and a read wait, the kind that was not served last
    goes first. Outputs are functions of registers alone: no path leads from an input to an output.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    s_axi_*
        The five channels.
    irq : Out(1)
    bus_*, busy
        The accelerator.
    """

    CLOCK, RESET, RESET_LOW = "s_axi_aclk", "s_axi_aresetn", True

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "s_axi_awaddr": In(PORT_ADDR_BITS), "s_axi_awprot": In(PROT_BITS), "s_axi_awvalid": In(1),
            "s_axi_awready": Out(1),
            "s_axi_wdata": In(PORT_DATA_BITS), "s_axi_wstrb": In(PORT_DATA_BITS // 8), "s_axi_wvalid": In(1),
            "s_axi_wready": Out(1),
            "s_axi_bresp": Out(RESPONSE_BITS), "s_axi_bvalid": Out(1), "s_axi_bready": In(1),
            "s_axi_araddr": In(PORT_ADDR_BITS), "s_axi_arprot": In(PROT_BITS), "s_axi_arvalid": In(1),
            "s_axi_arready": Out(1),
            "s_axi_rdata": Out(PORT_DATA_BITS), "s_axi_rresp": Out(RESPONSE_BITS), "s_axi_rvalid": Out(1),
            "s_axi_rready": In(1),
            "irq": Out(1), **WORD_BUS,
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bridge = bridge = Bridge(self.config)
        forward(m, self, bridge)
        writing, write, taken = Signal(), Signal(), Signal()
        both = self.s_axi_awvalid & self.s_axi_wvalid
        m.d.comb += [
            write.eq(both & ~(self.s_axi_arvalid & writing)), taken.eq(bridge.ready & bridge.valid),
            bridge.valid.eq(both | self.s_axi_arvalid), bridge.write.eq(write),
            bridge.addr.eq(Mux(write, self.s_axi_awaddr, self.s_axi_araddr)[WORD_SHIFT:]),
            bridge.data.eq(self.s_axi_wdata[:BUS_DATA_BITS]), bridge.lanes.eq(self.s_axi_wstrb),
            bridge.taken.eq(Mux(writing, self.s_axi_bready, self.s_axi_rready)),
            self.s_axi_rdata.eq(bridge.word), self.s_axi_wready.eq(self.s_axi_awready),
            self.s_axi_bresp.eq(Mux(bridge.error, Response.SLVERR, Response.OKAY)),
            self.s_axi_rresp.eq(self.s_axi_bresp),
            self.s_axi_bvalid.eq(bridge.answered & writing), self.s_axi_rvalid.eq(bridge.answered & ~writing),
        ]
        # The channels' handshake is the cycle after the bridge has taken what stands on them.
        m.d.sync += [self.s_axi_awready.eq(taken & write), self.s_axi_arready.eq(taken & ~write)]
        with m.If(taken):
            m.d.sync += writing.eq(write)
        return m
