"""Model memory: a single-port RAM of 16-bit words behind a fixed-priority arbiter of fetch ports."""

from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from .arch.timing import BANK_WORDS
from .cells.use import select

__all__ = ["FetchSignature", "ModelMemory"]


class FetchSignature(wiring.Signature):
    """A requester's view of the model memory.

    A word is requested in each cycle in which ``req`` and ``gnt`` are high; its data arrives with ``valid``,
    :attr:`ModelMemory.latency` cycles later, in order.

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
    latency : int
        Cycles from a grant to its word: 3, or 4 with a register behind each bank.
    bank_words : int
        A power of two; a larger memory is made of banks of this size.

    Members
    -------
    port<n> : Out(FetchSignature).flip()
        Fetch ports.
    w_en, w_addr, w_data
        Write port; writing takes the memory's only port and delays fetches by a cycle.
    """

    def __init__(self, depth: int, ports: int, *, latency: int = 3, bank_words: int = BANK_WORDS) -> None:
        self.depth = depth
        self.ports = ports
        self.latency = latency
        self.bank_words = bank_words
        self.addr_width = ceil_log2(depth)
        members = {f"port{n}": In(FetchSignature(self.addr_width)) for n in range(ports)}
        super().__init__(members | {"w_en": In(1), "w_addr": In(self.addr_width), "w_data": In(16)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        ports = [getattr(self, f"port{n}") for n in range(self.ports)]
        addr, data, fetched = Signal(self.addr_width), Signal(16), Signal(16)
        writing, reading = Signal(), Signal()
        owners = [Signal(self.ports, name=f"owner{n}") for n in range(self.latency)]

        # Writing has the address when it is wanted, then the first port that asks.
        source = Signal(range(self.ports + 1), init=self.ports - 1)
        taken = self.w_en
        for port in ports:
            m.d.comb += port.gnt.eq(port.req & ~taken)
            taken = taken | port.req
        for n, port in reversed(list(enumerate(ports[:-1]))):
            with m.If(port.req):
                m.d.comb += source.eq(n)
        with m.If(self.w_en):
            m.d.comb += source.eq(self.ports)
        addresses: list[Value] = [port.addr for port in ports] + [self.w_addr]
        m.d.sync += [
            addr.eq(_choose(m, addresses, source, "source_addr")), data.eq(self.w_data), writing.eq(self.w_en),
            reading.eq(taken & ~self.w_en), owners[0].eq(Cat(port.gnt for port in ports)),
        ]
        m.d.sync += [after.eq(before) for before, after in zip(owners, owners[1:], strict=False)]
        for n, port in enumerate(ports):
            m.d.comb += [port.valid.eq(owners[-1][n]), port.data.eq(fetched)]

        # A large memory is many blocks and a multiplexer: its output wants a register of its own.
        words: list[Value] = []
        number = addr[exact_log2(self.bank_words):]
        for n, begin in enumerate(range(0, self.depth, self.bank_words)):
            bank = Memory(shape=16, depth=min(self.bank_words, self.depth - begin), init=[])
            m.submodules[f"bank{n}"] = bank
            read, write = bank.read_port(), bank.write_port()
            m.d.comb += [
                read.addr.eq(addr), read.en.eq(reading & ~writing), write.addr.eq(addr), write.data.eq(data),
                write.en.eq(writing & (number == n)),
            ]
            words.append(read.data)
        chosen: Value = Signal(range(max(2, len(words))))
        m.d.sync += chosen.eq(number)
        for stage in range(self.latency - 3):
            words, before = [Signal(16, name=f"word{n}_{stage}") for n in range(len(words))], [*words, chosen]
            chosen = Signal.like(chosen, name=f"chosen_{stage}")
            m.d.sync += [after.eq(value) for after, value in zip([*words, chosen], before, strict=True)]
        m.d.sync += fetched.eq(_choose(m, words, chosen, "bank_word"))
        return m


def _choose(m: Module, words: list[Value], index: Value, name: str) -> Value:
    """The word of a number; a number that has none may give any."""
    return select(m, words + [words[-1]] * ((1 << ceil_log2(len(words))) - len(words)), index, name=name)
