"""The word bus as ports of components."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arch.bus import BUS_ADDR_BITS, BUS_DATA_BITS

__all__ = ["WORD_BUS", "attach"]

WORD_BUS = {
    "bus_addr": Out(BUS_ADDR_BITS), "bus_w_data": Out(BUS_DATA_BITS), "bus_w_en": Out(1), "bus_r_en": Out(1),
    "bus_r_data": In(BUS_DATA_BITS), "bus_r_valid": In(1), "busy": In(1),
}
"""A host's side of the accelerator."""


def attach(m: Module, host: wiring.Component, core: wiring.Component) -> None:
    """Connect an accelerator's bus to its host's; ``busy``, which a host may do without, is the caller's."""
    for name, member in WORD_BUS.items():
        if name != "busy":
            ours, theirs = getattr(host, name), getattr(core, name)
            m.d.comb += ours.eq(theirs) if member.flow == In else theirs.eq(ours)
