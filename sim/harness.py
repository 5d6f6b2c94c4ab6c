"""The top of an accelerator simulation: the accelerator, and a bridge that moves many words for one visit of Python.

cocotb pays tens of microseconds each time that Python runs. Loading a model and reading every layer's output are
hundreds of thousands of bus transfers, so this bridge takes a burst of words in one wide port, makes the single-word
transfers of the word bus itself, and gives a burst of words back. The accelerator is a black box here: its Verilog, or
a netlist of it, is a source of its own.
"""

from amaranth.hdl import Cat, ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..hw.arch.bus import BUS_ADDR_BITS, BUS_DATA_BITS

__all__ = ["BURST_WORDS", "Harness"]

BURST_WORDS = 128
"""Words of the wide ports."""


class Harness(wiring.Component):
    """Accelerator and burst bridge.

    Parameters
    ----------
    dut : str
        Module name of the accelerator.

    Members
    -------
    start : In(1)
        Starts a burst; the bridge must be idle.
    write : In(1)
        Direction of the burst.
    addr, count : In
        First bus address; words, 1 to :data:`BURST_WORDS`.
    w_words, r_words : In, Out
        Words of the burst. Word k of a write is bits 16k + 15 to 16k; a read of n words fills the n uppermost.
    ended : Out(1)
        High for a cycle after the burst's last transfer.
    pause, busy, done, layer_done
        The accelerator's.
    """

    def __init__(self, dut: str = "accelerator") -> None:
        self._dut = dut
        super().__init__({
            "start": In(1), "write": In(1), "addr": In(BUS_ADDR_BITS), "count": In(range(BURST_WORDS + 1)),
            "w_words": In(BUS_DATA_BITS * BURST_WORDS), "r_words": Out(BUS_DATA_BITS * BURST_WORDS), "ended": Out(1),
            "pause": In(1), "busy": Out(1), "done": Out(1), "layer_done": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus_w_en, bus_r_en, bus_r_valid = Signal(), Signal(), Signal()
        bus_r_data = Signal(BUS_DATA_BITS)
        bus_addr = Signal(BUS_ADDR_BITS)
        words = Signal(BUS_DATA_BITS * BURST_WORDS)
        left = Signal(range(BURST_WORDS + 1))

        with m.FSM():
            with m.State("idle"):
                with m.If(self.start):
                    m.d.sync += [bus_addr.eq(self.addr), words.eq(self.w_words), left.eq(self.count)]
                    with m.If(self.write):
                        m.next = "write"
                    with m.Else():
                        m.next = "read"
            with m.State("write"):
                m.d.comb += bus_w_en.eq(1)
                m.d.sync += [bus_addr.eq(bus_addr + 1), words.eq(words >> BUS_DATA_BITS), left.eq(left - 1)]
                with m.If(left == 1):
                    m.d.sync += self.ended.eq(1)
                    m.next = "end"
            with m.State("read"):
                m.d.comb += bus_r_en.eq(1)
                m.next = "answer"
            with m.State("answer"):
                with m.If(bus_r_valid):
                    m.d.sync += [
                        bus_addr.eq(bus_addr + 1), left.eq(left - 1),
                        self.r_words.eq(Cat(self.r_words[BUS_DATA_BITS:], bus_r_data)),
                    ]
                    m.next = "read"
                    with m.If(left == 1):
                        m.d.sync += self.ended.eq(1)
                        m.next = "end"
            with m.State("end"):
                m.d.sync += self.ended.eq(0)
                m.next = "idle"

        m.submodules.dut = Instance(
            self._dut, i_clk=ClockSignal(), i_rst=ResetSignal(), i_bus_addr=bus_addr,
            i_bus_w_data=words[:BUS_DATA_BITS], i_bus_w_en=bus_w_en, i_bus_r_en=bus_r_en, o_bus_r_data=bus_r_data,
            o_bus_r_valid=bus_r_valid, i_pause=self.pause, o_busy=self.busy, o_done=self.done,
            o_layer_done=self.layer_done)
        return m
