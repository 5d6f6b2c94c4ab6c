"""Bus masters that others wrote, behind one interface, and checkers of the buses' rules.

The masters are those of ``cocotbext-axi`` and ``cocotbext-wishbone``. The checkers look at every clock edge.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import cocotb
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp
from cocotbext.wishbone.driver import WBOp, WishboneMaster

__all__ = ["Access", "Answer", "AxiLite", "AxiLiteChecker", "Master", "Wishbone", "WishboneChecker"]

WORD_BYTES = 4
ERROR_REPLY = 2
"""``cocotbext-wishbone``'s code of an answer by ``err``."""


class Access(NamedTuple):
    """An access by a byte address: a read when there is no data."""

    address: int
    data: int | None = None
    lanes: int = 0xF


class Answer(NamedTuple):
    """Whether it was refused, and the 32 bits that were read."""

    error: bool
    word: int


class Master(Protocol):
    """A master on one of the ports."""

    lanes: Sequence[int]
    """Combinations of byte lanes that it can write."""

    async def access(self, accesses: Sequence[Access]) -> list[Answer]:
        """Make accesses, one after the other."""

    async def write(self, address: int, words: Sequence[int]) -> None:
        """Write 32-bit words to consecutive addresses, as fast as it can; none may be refused."""

    def hurry(self, hurried: bool) -> None:
        """Without, or with, random pauses."""


class AxiLite:
    """``cocotbext.axi.AxiLiteMaster``."""

    lanes: Sequence[int] = (0x1, 0x2, 0x4, 0x8, 0x3, 0x6, 0xC, 0x7, 0xE, 0xF)

    def __init__(self, dut: Any, prefix: str, clock: Any) -> None:
        self._master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, f"{prefix}s_axi"), clock)
        write, read = self._master.write_if, self._master.read_if
        self._channels = [write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel]
        for interface in (write, read):
            interface.log.setLevel("WARNING")

    async def access(self, accesses: Sequence[Access]) -> list[Answer]:
        answers = []
        for address, data, lanes in accesses:
            if data is None:
                found = await self._master.read(address & -WORD_BYTES, WORD_BYTES)
                answers.append(Answer(found.resp != AxiResp.OKAY, int.from_bytes(found.data, "little")))
                assert found.resp in (AxiResp.OKAY, AxiResp.SLVERR), found.resp
            else:
                first = (lanes & -lanes).bit_length() - 1
                part = data.to_bytes(WORD_BYTES, "little")[first:lanes.bit_length()]
                done = await self._master.write((address & -WORD_BYTES) + first, part)
                answers.append(Answer(done.resp != AxiResp.OKAY, 0))
                assert done.resp in (AxiResp.OKAY, AxiResp.SLVERR), done.resp
        return answers

    async def both(self, writes: Sequence[Access], reads: Sequence[Access]) -> list[Answer]:
        """Make writes and reads at the same time; the answers to the reads."""
        written = [self._master.init_write(address, (data or 0).to_bytes(WORD_BYTES, "little"))
                   for address, data, _ in writes]
        asked = [self._master.init_read(address, WORD_BYTES) for address, *_ in reads]
        for event in (*written, *asked):
            await event.wait()
        assert all(event.data.resp == AxiResp.OKAY for event in written)
        return [Answer(event.data.resp != AxiResp.OKAY, int.from_bytes(event.data.data, "little")) for event in asked]

    async def write(self, address: int, words: Sequence[int]) -> None:
        done = await self._master.write(address, b"".join(word.to_bytes(WORD_BYTES, "little") for word in words))
        assert done.resp == AxiResp.OKAY, f"a write of {len(words)} words from {address:#x} was refused"

    def hurry(self, hurried: bool) -> None:
        for channel in self._channels:
            if hurried:
                channel.clear_pause_generator()
                channel.pause = False
            else:
                channel.set_pause_generator(_pauses(random.random()))


def _pauses(share: float) -> Iterator[bool]:
    while True:
        yield random.random() < share * 0.8


class Wishbone:
    """``cocotbext.wishbone.driver.WishboneMaster``, pipelined when there is a ``stall``."""

    lanes: Sequence[int] = range(16)
    SIGNALS = {"cyc": "cyc_i", "stb": "stb_i", "we": "we_i", "adr": "adr_i", "datwr": "dat_i", "datrd": "dat_o",
               "ack": "ack_o"}
    OPTIONAL = {"sel": "sel_i", "err": "err_o"}

    def __init__(self, dut: Any, prefix: str, clock: Any, *, pipelined: bool) -> None:
        signals = self.SIGNALS | self.OPTIONAL | ({"stall": "stall_o"} if pipelined else {})
        self._master = WishboneMaster(dut, f"{prefix}wb", clock, timeout=1000, signals_dict=signals)
        self._idle = 0

    async def access(self, accesses: Sequence[Access]) -> list[Answer]:
        answers: list[Answer] = []
        while len(answers) < len(accesses):
            # A few accesses share a cycle of the bus.
            part = accesses[len(answers):][:random.randint(1, 8) if self._idle else len(accesses)]
            found = await self._master.send_cycle([
                WBOp(adr=address, dat=data, sel=lanes, idle=random.randint(0, self._idle))
                for address, data, lanes in part])
            assert len(found) == len(part), f"{len(found)} answers to {len(part)} accesses"
            answers += [Answer(each.ack == ERROR_REPLY, 0 if data is not None else int(each.datrd.to_unsigned()))
                        for each, (_, data, _) in zip(found, part, strict=True)]
        return answers

    async def write(self, address: int, words: Sequence[int]) -> None:
        answers = await self.access([Access(address + WORD_BYTES * at, word) for at, word in enumerate(words)])
        assert not any(answer.error for answer in answers), f"a write of {len(words)} words from {address:#x} failed"

    def hurry(self, hurried: bool) -> None:
        self._idle = 0 if hurried else 5


class WishboneChecker:
    """One answer to each access, only while the cycle lasts, and not both kinds at once."""

    def __init__(self, dut: Any, prefix: str, clock: Any, *, pipelined: bool) -> None:
        self._clock, self._pipelined = clock, pipelined
        names = ("cyc_i", "stb_i", "ack_o", "err_o", *(["stall_o"] if pipelined else []))
        self._signals = [getattr(dut, f"{prefix}wb_{name}") for name in names]
        self.answers = 0
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        edge = RisingEdge(self._clock)
        waiting = 0
        while True:
            await edge
            cyc, stb, ack, err, *stall = (int(signal.value) for signal in self._signals)
            assert not (ack and err), "ack and err at once"
            assert cyc or not (ack or err), "an answer outside a cycle"
            if not self._pipelined:
                assert stb or not (ack or err), "an answer without stb"
                self.answers += ack or err
                continue
            if not cyc:
                waiting = 0
            if ack or err:
                assert waiting, "an answer to no access"
                waiting -= 1
                self.answers += 1
            waiting += cyc & stb & ~stall[0]


class AxiLiteChecker:
    """An answer stands unchanged until it is taken, and follows an access; one answer to each. Neither direction waits
    for more than one access of the other."""

    def __init__(self, dut: Any, prefix: str, clock: Any) -> None:
        self._dut, self._prefix, self._clock = dut, f"{prefix}s_axi_", clock
        self.answers = 0
        cocotb.start_soon(self._watch("b", ("bresp",), ("aw", "w")))
        cocotb.start_soon(self._watch("r", ("rresp", "rdata"), ("ar",)))
        cocotb.start_soon(self._take_turns(("aw", "w"), ("ar",)))
        cocotb.start_soon(self._take_turns(("ar",), ("aw", "w")))

    async def _watch(self, channel: str, payload: tuple[str, ...], causes: tuple[str, ...]) -> None:
        signal = {name: getattr(self._dut, self._prefix + name) for name in (
            f"{channel}valid", f"{channel}ready", *payload,
            *(f"{cause}{kind}" for cause in causes for kind in ("valid", "ready")))}
        edge = RisingEdge(self._clock)
        standing = None
        taken = dict.fromkeys(causes, 0)
        while True:
            await edge
            valid = int(signal[f"{channel}valid"].value)
            now = [int(signal[name].value) for name in payload] if valid else None
            assert standing is None or now == standing, f"{channel.upper()} changed before it was taken"
            # What is answered was taken at an earlier edge.
            assert not valid or all(taken.values()), f"{channel}valid before its access was taken"
            for cause in causes:
                taken[cause] += int(signal[f"{cause}valid"].value) & int(signal[f"{cause}ready"].value)
            standing = now
            if valid and int(signal[f"{channel}ready"].value):
                standing = None
                taken = {cause: count - 1 for cause, count in taken.items()}
                self.answers += 1

    async def _take_turns(self, waiting: tuple[str, ...], others: tuple[str, ...]) -> None:
        valid, ready, other_valid, other_ready = (
            [getattr(self._dut, f"{self._prefix}{channel}{kind}") for channel in channels]
            for channels in (waiting, others) for kind in ("valid", "ready"))
        edge = RisingEdge(self._clock)
        overtaken = 0
        while True:
            await edge
            if not all(int(pin.value) for pin in valid) or all(int(pin.value) for pin in ready):
                overtaken = 0
            elif all(int(pin.value) for pin in (*other_valid, *other_ready)):
                overtaken += 1
            assert overtaken < 2, f"{waiting[0].upper()} waits for more than one access of {others[0].upper()}"
