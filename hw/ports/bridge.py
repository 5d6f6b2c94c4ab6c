"""What every port with byte addresses shares: the address map, refusals, the interrupt, the transfers on the word bus.

One access at a time. It is taken in ``Idle``, its address is looked up in ``Look``, it is refused or not in ``Check``,
done in ``Answer`` (a read waits in ``Read`` for its word), and the answer stands until it is taken. Each step begins
and ends in registers, so that neither the system's bus nor the accelerator sees the other's paths.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..arch.bus import BANK_SHIFT, BUS_ADDR_BITS, BUS_DATA_BITS, Control, Region, Register
from ..arch.config import AcceleratorConfig
from ..arch.ports import PortRegister
from ..wordbus import WORD_BUS

__all__ = ["Bridge", "forward"]

REGISTER_BITS = 5


class Bridge(wiring.Component):
    """Single accesses to the word bus, of which the wrong ones are refused.

    An access is refused, without any effect, when it reaches

    - no memory and no register of the configuration;
    - a memory while a run is under way;
    - a register that can't be written, to write it, or ``CONTROL`` to start a run while one is under way;
    - only a part of a word, to write it. The low byte is enough for an activation. Without any byte, a write does
      nothing.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    valid, ready : In(1), Out(1)
        An access is taken in a cycle in which both are high.
    write, addr, data, lanes : In
        Direction, word address, word, and which bytes of 32 bits are written.
    answered, taken : Out(1), In(1)
        The answer stands until a cycle in which both are high.
    error : Out(1)
        The access was refused.
    word : Out(16)
        What was read.
    irq : Out(1)
        A run has ended (:class:`~shiftwright.hw.arch.ports.PortRegister`).
    bus_*, busy
        The accelerator.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "valid": In(1), "ready": Out(1), "write": In(1), "addr": In(BUS_ADDR_BITS), "data": In(BUS_DATA_BITS),
            "lanes": In(4), "answered": Out(1), "taken": In(1), "error": Out(1), "word": Out(BUS_DATA_BITS),
            "irq": Out(1), **WORD_BUS,
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        write, lanes = Signal(), Signal(4)
        refused, mine = Signal(), Signal()
        acting = Signal()
        m.d.comb += [mine.eq(self._refusal(m, write, lanes, refused)), acting.eq(~refused & ~mine)]
        pending, enabled, set_pending, set_enable = self._interrupt(m)

        m.d.sync += [self.bus_w_en.eq(0), self.bus_r_en.eq(0)]
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += self.ready.eq(1)
                m.d.sync += [self.bus_addr.eq(self.addr), self.bus_w_data.eq(self.data), write.eq(self.write),
                             lanes.eq(self.lanes)]
                with m.If(self.valid):
                    m.next = "Look"
            with m.State("Look"):
                m.next = "Check"
            with m.State("Check"):
                m.d.sync += [
                    self.error.eq(refused), self.bus_w_en.eq(acting & write & lanes[0]),
                    self.bus_r_en.eq(acting & ~write), self.word.eq(mine & Mux(self.bus_addr[0], enabled, pending)),
                ]
                own = Signal()
                m.d.comb += [
                    own.eq(mine & ~refused & write & lanes[0]),
                    set_pending.eq(own & (self.bus_addr[0] == PortRegister.IRQ_PENDING & 1)),
                    set_enable.eq(own & (self.bus_addr[0] == PortRegister.IRQ_ENABLE & 1)),
                ]
                m.next = "Answer"
                with m.If(acting & ~write):
                    m.next = "Read"
            with m.State("Read"):
                m.d.sync += self.word.eq(self.bus_r_data)
                with m.If(self.bus_r_valid):
                    m.next = "Answer"
            with m.State("Answer"):
                m.d.comb += self.answered.eq(1)
                with m.If(self.taken):
                    m.next = "Idle"
        return m

    def _refusal(self, m: Module, write: Signal, lanes: Signal, refused: Signal) -> Value:
        """Drive ``refused`` from a cycle after the access was taken; 1 for the port's own registers."""
        config = self.config
        addr = self.bus_addr
        region, offset = addr[-2:], addr[:-2]
        register, beyond = offset[:REGISTER_BITS], offset[REGISTER_BITS:].any()
        free, mine, memory, known, writable, start = (Signal(name=name) for name in (
            "free", "mine", "memory", "known", "writable", "start"))
        # The accelerator's own register of the same thing rises and falls with this one.
        m.d.sync += [
            free.eq(~self.busy), memory.eq(region != Region.REGISTERS), mine.eq(0), known.eq(0),
            start.eq((region == Region.REGISTERS) & (self.bus_w_data & Control.START).any()
                     & (register == Register.CONTROL)),
        ]
        with m.Switch(region):
            with m.Case(Region.MODEL):
                m.d.sync += [known.eq(_below(offset, config.weight_depth)), writable.eq(lanes[:2].all())]
            with m.Case(Region.ACTIVATIONS):
                m.d.sync += [
                    known.eq(_below(offset[BANK_SHIFT:], config.lanes) & _below(offset[:BANK_SHIFT], config.act_depth)),
                    writable.eq(lanes[0]),
                ]
            with m.Case(Region.REGISTERS):
                own = Cat(register == number for number in PortRegister).any()
                m.d.sync += [
                    mine.eq(own & ~beyond), known.eq((own | (register <= max(Register))) & ~beyond),
                    writable.eq(lanes[:2].all() & (own | (register == Register.CONTROL))),
                ]
        m.d.comb += refused.eq(~known | memory & ~free | write & lanes.any() & (~writable | start & ~free))
        return mine

    def _interrupt(self, m: Module) -> tuple[Signal, Signal, Signal, Signal]:
        """Registers ``pending`` and ``enabled``, and what writes them with the held word."""
        pending, enabled, set_pending, set_enable, running = (Signal(name=name) for name in (
            "irq_pending", "irq_enabled", "set_pending", "set_enable", "running"))
        m.d.comb += self.irq.eq(pending & enabled)
        m.d.sync += running.eq(self.busy)
        with m.If(running & ~self.busy):
            m.d.sync += pending.eq(1)
        with m.Elif(self.busy | set_pending & self.bus_w_data[0]):
            m.d.sync += pending.eq(0)
        with m.If(set_enable):
            m.d.sync += enabled.eq(self.bus_w_data[0])
        return pending, enabled, set_pending, set_enable


def forward(m: Module, port: wiring.Component, bridge: Bridge) -> None:
    """Make the bridge's word bus and interrupt those of the port that it is in."""
    for name, member in (WORD_BUS | {"irq": Out(1)}).items():
        outer, inner = getattr(port, name), getattr(bridge, name)
        m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)


def _below(value: Value, limit: int) -> Value:
    """Whether an address is in a memory of ``limit`` words."""
    if limit >= 1 << len(value):
        return Value.cast(1)
    return ~value[exact_log2(limit):].any() if limit & limit - 1 == 0 else value < limit
