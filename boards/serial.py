"""A few pins for a design with many ports, so that a build keeps all of its logic.

Boards have a UART (:mod:`shiftwright.hw.top`). What is here is for measuring: area and clock of accelerators and of
their parts are those of designs behind these few pins.
"""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..hw.arch.bus import BUS_ADDR_BITS, BUS_DATA_BITS
from ..hw.arch.config import AcceleratorConfig
from ..hw.generate import accelerator
from ..hw.wordbus import attach

__all__ = ["AcceleratorOverSerial", "BusOverSerial", "COMMAND_BITS", "PortScan"]

COMMAND_BITS = 8
READ_BIT = 0
WRITE_BIT = 1


class BusOverSerial(wiring.Component):
    """Word bus behind a four-wire serial port (SPI mode 0, sampled by the system clock).

    A frame, from ``cs`` going high to its going low, most significant bit first: 8 command bits (bit 1 write, bit 0
    read), 24 address bits, then words of 16 bits. A write takes each whole word to the next address. A read fetches the
    addressed word when the address is complete and each next one when a word has been shifted out; the first word after
    the address is filler, so that there is time to fetch.

    ``sclk`` must be slower than an eighth of the system clock.

    Members
    -------
    sclk, mosi, cs : In(1)
        Serial clock, data and chip select (active high here; a board inverts its pin).
    miso : Out(1)
        Data out, changes after the falling edge of ``sclk``.
    bus_*
        A host's side of the accelerator's word bus.
    """

    sclk: In(1)
    mosi: In(1)
    cs: In(1)
    miso: Out(1)
    bus_addr: Out(BUS_ADDR_BITS)
    bus_w_data: Out(BUS_DATA_BITS)
    bus_w_en: Out(1)
    bus_r_en: Out(1)
    bus_r_data: In(BUS_DATA_BITS)
    bus_r_valid: In(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sclk, mosi, cs = Signal(3), Signal(2), Signal(2)
        # The first two flip-flops of each pin synchronize it.
        m.d.sync += [sclk.eq(Cat(self.sclk, sclk)), mosi.eq(Cat(self.mosi, mosi)), cs.eq(Cat(self.cs, cs))]
        rising, falling, selected = Signal(), Signal(), Signal()
        m.d.comb += [rising.eq(sclk[1] & ~sclk[2]), falling.eq(~sclk[1] & sclk[2]), selected.eq(cs[1])]

        header_bits = COMMAND_BITS + BUS_ADDR_BITS
        bits_in = Signal(max(header_bits, BUS_DATA_BITS))
        bits_out = Signal(BUS_DATA_BITS)
        fetched = Signal(BUS_DATA_BITS)
        left = Signal(range(header_bits + 1), init=header_bits)
        in_data, taken = Signal(), Signal()
        is_read, is_write = Signal(), Signal()

        m.d.sync += [self.bus_w_en.eq(0), self.bus_r_en.eq(0)]
        m.d.comb += self.miso.eq(bits_out[-1])
        with m.If(self.bus_r_valid):
            m.d.sync += fetched.eq(self.bus_r_data)
        with m.If(self.bus_w_en | self.bus_r_en):
            m.d.sync += self.bus_addr.eq(self.bus_addr + 1)
        with m.If(taken):
            # One cycle after the last bit of a header or word came in.
            m.d.sync += [taken.eq(0), left.eq(BUS_DATA_BITS), in_data.eq(1), bits_out.eq(fetched)]
            with m.If(in_data):
                m.d.sync += [self.bus_w_data.eq(bits_in), self.bus_w_en.eq(is_write), self.bus_r_en.eq(is_read)]
            with m.Else():
                m.d.sync += [
                    self.bus_addr.eq(bits_in), is_read.eq(bits_in[BUS_ADDR_BITS + READ_BIT]),
                    is_write.eq(bits_in[BUS_ADDR_BITS + WRITE_BIT]),
                    self.bus_r_en.eq(bits_in[BUS_ADDR_BITS + READ_BIT]),
                ]
        with m.Elif(falling & (left != BUS_DATA_BITS)):
            # The falling edge after a whole word came is before the first bit of the next: nothing to shift yet.
            m.d.sync += bits_out.eq(bits_out << 1)
        with m.If(rising):
            m.d.sync += [bits_in.eq(Cat(mosi[1], bits_in)), left.eq(left - 1)]
            with m.If(left == 1):
                m.d.sync += taken.eq(1)
        with m.If(~selected):
            m.d.sync += [left.eq(header_bits), in_data.eq(0), taken.eq(0)]
        return m


class AcceleratorOverSerial(wiring.Component):
    """The accelerator of a configuration behind :class:`BusOverSerial`.

    Members
    -------
    sclk, mosi, cs, miso
        The serial port.
    busy : Out(1)
        A run is in progress.
    """

    sclk: In(1)
    mosi: In(1)
    cs: In(1)
    miso: Out(1)
    busy: Out(1)

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.link = link = BusOverSerial()
        m.submodules.core = core = accelerator(self.config)
        m.d.comb += [
            link.sclk.eq(self.sclk), link.mosi.eq(self.mosi), link.cs.eq(self.cs), self.miso.eq(link.miso),
        ]
        attach(m, link, core)
        m.d.comb += [core.pause.eq(0), self.busy.eq(core.busy)]
        return m


class PortScan(wiring.Component):
    """Any component between registers, so that it can be routed for its area and clock alone.

    Inputs come from a shift register, outputs are captured by another, whose parity is what can be seen: every path of
    the component begins and ends in a flip-flop, as it would in a design.

    Parameters
    ----------
    component : wiring.Component
        Its ports may be signals and nested interfaces.

    Attributes
    ----------
    inputs : int
        Bits of the component's inputs.
    extra_ff, extra_lut4 : int
        Flip-flops and LUTs that the scan adds.
    """

    scan_in: In(1)
    scan_out: Out(1)

    def __init__(self, component: wiring.Component) -> None:
        self._component = component
        flat = [(member.flow, Value.cast(value)) for _, member, value in component.signature.flatten(component)]
        self._inputs = [value for flow, value in flat if flow == wiring.In]
        self._outputs = [value for flow, value in flat if flow == wiring.Out]
        outputs = sum(len(value) for value in self._outputs)
        self.inputs = sum(len(value) for value in self._inputs)
        self.extra_ff = self.inputs + outputs + 1
        # A tree of exclusive ors with four inputs each.
        self.extra_lut4 = -(-(max(1, outputs) - 1) // 3)
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = self._component
        # Kept, so that inputs which the component does not use are counted like the others.
        given = Signal(max(1, sum(len(value) for value in self._inputs)), attrs={"keep": 1})
        taken = Signal(max(1, sum(len(value) for value in self._outputs)))
        m.d.sync += given.eq(Cat(self.scan_in, given))
        at = 0
        for value in self._inputs:
            m.d.comb += value.eq(given[at:at + len(value)])
            at += len(value)
        m.d.sync += [taken.eq(Cat(*self._outputs)), self.scan_out.eq(taken.xor())]
        return m
