"""Wishbone B4: pipelined, or the classic standard cycle."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..arch.bus import BUS_DATA_BITS
from ..arch.config import AcceleratorConfig
from ..arch.ports import PORT_ADDR_BITS, PORT_DATA_BITS, WORD_SHIFT
from ..wordbus import WORD_BUS
from .bridge import Bridge, forward

__all__ = ["WishbonePort"]


class WishbonePort(wiring.Component):
    """A Wishbone device in front of the accelerator: 32 bits, byte granularity, byte addresses.

    Bits 1:0 of an address are ignored. An access is answered by ``ack`` or, when it is refused, by ``err``. When the
    master gives an access up (``cyc`` low, in a classic cycle ``stb`` as well), its answer is dropped; a write may have
    been done.

    Parameters
    ----------
    config : AcceleratorConfig
    pipelined : bool
        Each cycle with ``stb`` and without ``stall`` is an access. Otherwise ``stb`` stands until the answer, and there
        is no ``stall``.

    Members
    -------
    wb_*
        The Wishbone; at most one of ``wb_ack_o`` and ``wb_err_o`` is high.
    irq : Out(1)
    bus_*, busy
        The accelerator.
    """

    CLOCK, RESET, RESET_LOW = "wb_clk_i", "wb_rst_i", False

    def __init__(self, config: AcceleratorConfig, *, pipelined: bool = True) -> None:
        self.config = config
        self.pipelined = pipelined
        stall = {"wb_stall_o": Out(1)} if pipelined else {}
        super().__init__({
            "wb_cyc_i": In(1), "wb_stb_i": In(1), "wb_we_i": In(1), "wb_adr_i": In(PORT_ADDR_BITS),
            "wb_sel_i": In(PORT_DATA_BITS // 8), "wb_dat_i": In(PORT_DATA_BITS), "wb_dat_o": Out(PORT_DATA_BITS),
            "wb_ack_o": Out(1), "wb_err_o": Out(1), **stall, "irq": Out(1), **WORD_BUS,
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bridge = bridge = Bridge(self.config)
        forward(m, self, bridge)
        asked, wanted, dropped = Signal(), Signal(), Signal()
        m.d.comb += [
            asked.eq(self.wb_cyc_i & self.wb_stb_i), wanted.eq(self.wb_cyc_i if self.pipelined else asked),
            bridge.valid.eq(asked), bridge.write.eq(self.wb_we_i), bridge.addr.eq(self.wb_adr_i[WORD_SHIFT:]),
            bridge.data.eq(self.wb_dat_i[:BUS_DATA_BITS]), bridge.lanes.eq(self.wb_sel_i), bridge.taken.eq(1),
            self.wb_dat_o.eq(bridge.word),
            self.wb_ack_o.eq(bridge.answered & wanted & ~dropped & ~bridge.error),
            self.wb_err_o.eq(bridge.answered & wanted & ~dropped & bridge.error),
        ]
        m.d.sync += dropped.eq(~bridge.ready & (dropped | ~wanted))
        if self.pipelined:
            m.d.comb += self.wb_stall_o.eq(~bridge.ready)
        return m
