"""Model memory: one single-port RAM of 16-bit words behind a fixed-priority arbiter of fetch ports."""

from amaranth.hdl import Elaboratable, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

__all__ = ["FetchSignature", "ModelMemory"]


class FetchSignature(wiring.Signature):
    """A requester's view of the model memory.

    A word is requested in each cycle in which ``req`` and ``gnt`` are high; its data arrives with ``valid``,
    :attr:`ModelMemory.LATENCY` cycles later, in order.

    Parameters
    ----------
    addr_width : int
        Bits of a word address.
    """

    def __init__(self, addr_width: int) -> None:
        super().__init__({
            "req": Out(1), "addr": Out(addr_width), "gnt": In(1), "valid": In(1), "data": In(16),
        })


class ModelMemory(wiring.Component):
    """Descriptors, tables and weight streams.

    One address serves reading and writing, so that the memory also maps to single-port RAM (iCE40 SPRAM).

    Parameters
    ----------
    depth : int
        Words.
    ports : int
        Number of fetch ports; a lower index has priority.

    Members
    -------
    port<n> : Out(FetchSignature).flip()
        Fetch ports.
    w_en, w_addr, w_data
        Write port; writing takes the memory's only port and delays fetches by a cycle.
    """

    LATENCY = 3
    """Cycles from a grant to its word."""

    def __init__(self, depth: int, ports: int) -> None:
        self.depth = depth
        self.ports = ports
        self.addr_width = ceil_log2(depth)
        members = {f"port{n}": In(FetchSignature(self.addr_width)) for n in range(ports)}
        super().__init__(members | {"w_en": In(1), "w_addr": In(self.addr_width), "w_data": In(16)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.memory = memory = Memory(shape=16, depth=self.depth, init=[])
        read, write = memory.read_port(), memory.write_port()
        ports = [getattr(self, f"port{n}") for n in range(self.ports)]
        addr = Signal(self.addr_width)
        data = Signal(16)
        writing = Signal()
        reading = Signal()
        owner = Signal(self.ports)
        owner_read = Signal(self.ports)
        owner_data = Signal(self.ports)
        fetched = Signal(16)

        taken = self.w_en
        selected = self.w_addr
        for port in reversed(ports):
            selected = Mux(port.req & ~self.w_en, port.addr, selected)
        for port in ports:
            m.d.comb += port.gnt.eq(port.req & ~taken)
            taken = taken | port.req
        m.d.sync += [
            addr.eq(selected),
            data.eq(self.w_data),
            writing.eq(self.w_en),
            reading.eq(taken & ~self.w_en),
        ]
        for n, port in enumerate(ports):
            m.d.sync += [owner[n].eq(port.gnt), owner_read[n].eq(owner[n]), owner_data[n].eq(owner_read[n])]
            m.d.comb += [port.valid.eq(owner_data[n]), port.data.eq(fetched)]
        # A large memory is many blocks and a multiplexer: its output wants a register of its own.
        m.d.sync += fetched.eq(read.data)
        m.d.comb += [
            read.addr.eq(addr), read.en.eq(reading & ~writing),
            write.addr.eq(addr), write.data.eq(data), write.en.eq(writing),
        ]
        return m
