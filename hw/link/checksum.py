"""CRC-32 in steps of two bits, and what it takes to read one out bit by bit."""

from amaranth.hdl import Elaboratable, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

__all__ = ["BEATS", "Checksum", "STEP_BITS"]

STEP_BITS = 2
BEATS = 8 // STEP_BITS
"""Steps of a byte."""


class Checksum(wiring.Component):
    """The CRC-32 of zlib.

    Members
    -------
    clear : In(1)
        Begin anew.
    data : In(STEP_BITS)
        The next bits, those of a byte from the low end.
    enable, pull : In(1)
        Take ``data``; or move the CRC on by as many bits, of which ``head`` are the next. Once pulled it is used up.
    head : Out(STEP_BITS)
    match : Out(1)
        What came ends with the CRC of the rest.
    """

    clear: In(1)
    data: In(STEP_BITS)
    enable: In(1)
    pull: In(1)
    head: Out(STEP_BITS)
    match: Out(1)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        crc = CRC32_ISO_HDLC(data_width=STEP_BITS).create()
        m.submodules.crc = ResetInserter(self.clear)(crc)
        chosen = Signal(STEP_BITS)
        m.d.comb += [
            crc.start.eq(0), crc.valid.eq(self.enable | self.pull), crc.data.eq(chosen),
            self.head.eq(crc.crc[:STEP_BITS]), self.match.eq(crc.match_detected),
            # Data that is equal to the register's end leaves no feedback: the register moves on as it is.
            chosen.eq(self.data),
        ]
        with m.If(self.pull):
            m.d.comb += chosen.eq(~self.head)
        return m
