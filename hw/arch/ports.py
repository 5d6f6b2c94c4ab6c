"""The accelerator as a peripheral: byte addresses of the word bus, and the registers that such a port adds.

A byte address is that of a bus word (:mod:`.bus`) times four. The word is the low half of a 32-bit word whose upper
half reads 0.
"""

import dataclasses
import enum

from .bus import BANK_SHIFT, BUS_ADDR_BITS, Region, Register, bus_address
from .config import AcceleratorConfig

__all__ = ["MAPPED_PORTS", "PORTS", "PORT_ADDR_BITS", "PORT_DATA_BITS", "WORD_SHIFT", "Part", "PortRegister",
           "address_map", "byte_address"]

WORD_SHIFT = 2
"""A byte address is the word address shifted by this."""
PORT_ADDR_BITS = BUS_ADDR_BITS + WORD_SHIFT
PORT_DATA_BITS = 32

MAPPED_PORTS = ("wishbone", "wishbone-classic", "axi4-lite")
"""Ports with byte addresses."""
PORTS = ("word", *MAPPED_PORTS, "uart")
"""What an accelerator may be reached through."""


class PortRegister(enum.IntEnum):
    """Registers of a port with byte addresses, behind those of the accelerator
    (:class:`~shiftwright.hw.arch.bus.Register`)."""

    IRQ_PENDING = 16
    """Bit 0: a run has ended since it was cleared. Writing a 1 clears it; so does the next start."""
    IRQ_ENABLE = 17
    """Bit 0: ``irq`` is high while one is pending. 0 after reset."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A contiguous part of the address map.

    Parameters
    ----------
    name : str
    at, size : int
        First address and number of addresses, in words of the word bus, or in bytes.
    access : str
        ``"r"`` or ``"rw"``.
    """

    name: str
    at: int
    size: int
    access: str


def byte_address(region: Region, offset: int) -> int:
    """Byte address of word ``offset`` of a region."""
    return bus_address(region, offset) << WORD_SHIFT


def address_map(config: AcceleratorConfig, *, mapped: bool) -> list[Part]:
    """The parts of an accelerator's address map, lowest address first.

    Parameters
    ----------
    config : AcceleratorConfig
    mapped : bool
        In byte addresses, with the registers of :class:`PortRegister`; otherwise in words of the word bus.
    """
    shift = WORD_SHIFT if mapped else 0
    scale = WORD_SHIFT - shift

    def part(name: str, region: Region, offset: int, words: int, access: str = "rw") -> Part:
        return Part(name=name, at=byte_address(region, offset) >> scale, size=words << shift, access=access)

    parts = [part("MODEL", Region.MODEL, 0, config.weight_depth)]
    parts += [part(f"BANK{bank}", Region.ACTIVATIONS, bank << BANK_SHIFT, config.act_depth)
              for bank in range(config.lanes)]
    parts += [part(register.name, Region.REGISTERS, register, 1, "rw" if register == Register.CONTROL else "r")
              for register in Register]
    if mapped:
        parts += [part(register.name, Region.REGISTERS, register, 1) for register in PortRegister]
    return parts
