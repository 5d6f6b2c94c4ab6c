"""The link: a serial line on one side, the word bus on the other."""

from amaranth.hdl import Elaboratable, Module, Mux, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..arch.bus import BUS_ADDR_BITS, BUS_DATA_BITS, Control, Region, Register, bus_address
from ..uart import UartReceiver, UartTransmitter
from .executor import Executor
from .receiver import FrameReceiver
from .sender import FrameSender

__all__ = ["Link"]

CONTROL_AT = bus_address(Region.REGISTERS, Register.CONTROL)


class Link(wiring.Component):
    """Answers requests of :mod:`shiftwright.hw.arch.link`.

    Parameters
    ----------
    first : int
        Divisor of the first speed.
    identity : bytes
        From :func:`.identity.identity`.

    Members
    -------
    rx, tx : In(1), Out(1, init=1)
        The line, high when idle. ``rx`` need not be synchronous.
    bus_*
        A host's side of the accelerator's word bus.
    busy : In(1)
        Of the accelerator.
    """

    def __init__(self, first: int, identity: bytes) -> None:
        self.first = first
        self.identity = identity
        super().__init__({
            "rx": In(1, init=1), "tx": Out(1, init=1), "busy": In(1),
            "bus_addr": Out(BUS_ADDR_BITS), "bus_w_data": Out(BUS_DATA_BITS), "bus_w_en": Out(1), "bus_r_en": Out(1),
            "bus_r_data": In(BUS_DATA_BITS), "bus_r_valid": In(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        # A break, or a reset that was asked for: everything begins anew, and the first cycle ends the run.
        restart, restarted = Signal(), Signal()
        again = ResetInserter(restart)
        m.submodules.uart_receiver = uart_receiver = UartReceiver(self.first)
        uart_transmitter = UartTransmitter(self.first)
        receiver, executor, sender = FrameReceiver(), Executor(self.first), FrameSender(self.identity)
        m.submodules.uart_transmitter = again(uart_transmitter)
        m.submodules.receiver = again(receiver)
        m.submodules.executor = again(executor)
        m.submodules.sender = again(sender)
        m.d.sync += [restart.eq(uart_receiver.broken | executor.reset), restarted.eq(restart)]

        m.d.comb += [
            uart_receiver.rx.eq(self.rx), self.tx.eq(uart_transmitter.tx),
            uart_receiver.divisor.eq(executor.divisor), uart_transmitter.divisor.eq(executor.divisor),
            receiver.byte.eq(uart_receiver.data), receiver.valid.eq(uart_receiver.valid),
            receiver.error.eq(uart_receiver.error), receiver.release.eq(executor.release),
            executor.arrived.eq(receiver.arrived), executor.header.eq(receiver.header),
            executor.complete.eq(receiver.complete), executor.size.eq(receiver.size),
            executor.damaged.eq(receiver.damaged),
            receiver.read_at.eq(executor.read_at), executor.read_data.eq(receiver.read_data),
            executor.busy.eq(self.busy), sender.w_en.eq(self.bus_w_en),
            uart_transmitter.data.eq(sender.byte), uart_transmitter.valid.eq(sender.byte_valid),
            sender.byte_ready.eq(uart_transmitter.ready), sender.line_idle.eq(uart_transmitter.idle),
            sender.address.eq(receiver.header.address), sender.words.eq(receiver.header.count),
            sender.r_data.eq(self.bus_r_data), sender.r_valid.eq(self.bus_r_valid),
        ]
        m.d.comb += [getattr(sender, name).eq(getattr(executor, name)) for name in
                     ("want", "answer", "label", "session", "next", "count", "load")]
        m.d.comb += [getattr(executor, name).eq(getattr(sender, name)) for name in
                     ("taken", "sending", "reading", "ended", "held", "turn_label", "turn_session", "turn_next",
                      "turn_count")]
        m.d.comb += [getattr(receiver, name).eq(getattr(sender, name)) for name in
                     ("sum_clear", "sum_data", "sum_enable", "sum_pull")]
        m.d.comb += sender.sum_head.eq(receiver.sum_head)

        aborting = Signal()
        m.d.comb += [
            aborting.eq(restart & ~restarted), self.bus_w_en.eq(executor.w_en | aborting),
            self.bus_r_en.eq(sender.r_en),
            self.bus_addr.eq(Mux(aborting, CONTROL_AT, Mux(executor.w_en, executor.w_addr, sender.r_addr))),
            self.bus_w_data.eq(Mux(aborting, Control.ABORT, executor.w_data)),
        ]
        return m
