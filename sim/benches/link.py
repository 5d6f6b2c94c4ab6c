"""The link by its pins: requests and answers against :class:`.link_model.BoardModel`, and what goes wrong on lines."""

import random
from collections.abc import Callable, Coroutine
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge, SimTimeoutError, Timer

from ...hw.arch.bus import BUS_ADDR_BITS, Control, Region
from ...hw.arch.link import BREAK_BITS, ESCAPE, FLAG, PAYLOAD_MAX, SLOWEST, Answer, Op
from ...hw.uart import LEAST_DIVISOR
from ..bus import start_clock
from ..runner import bench_data
from .line import CLOCK_PS, LineDriver, LineMonitor, bit_ps, noise
from .link_model import CONTROL_AT, STATUS_AT, BoardModel, body_of, fields, framed, request, split

REGISTERS = Region.REGISTERS << BUS_ADDR_BITS - 2
ACTIVATIONS = Region.ACTIVATIONS << BUS_ADDR_BITS - 2
MEMORY = 64
"""Words of each region that tests use."""
QUIET_BITS = 200
"""Idle bits after which no more bytes of an answer come. Its status word waits for the end of a long write."""
BAD_OPS = (0, 9, 0x42, 0x81, 0xFF)


class Device:
    """What is behind the word bus. Reads take a random number of cycles; the word stays until the next one."""

    def __init__(self, dut: Any, rng: random.Random, *, latest: int = 7) -> None:
        self.dut, self.rng, self.latest = dut, rng, latest
        self.words: dict[int, int] = {}
        self.writes: list[tuple[int, int]] = []
        self.reads: list[int] = []
        self.log: list[str] = []
        dut.busy.value = dut.bus_r_valid.value = dut.bus_r_data.value = 0
        cocotb.start_soon(self._write())
        cocotb.start_soon(self._read())

    async def _write(self) -> None:
        edge = FallingEdge(self.dut.clk)
        while True:
            await RisingEdge(self.dut.bus_w_en)
            await edge
            while int(self.dut.bus_w_en.value):
                place, word = int(self.dut.bus_addr.value), int(self.dut.bus_w_data.value)
                self.writes.append((place, word))
                self.log.append("w")
                self.words[place] = word
                await edge

    async def _read(self) -> None:
        dut, edge = self.dut, FallingEdge(self.dut.clk)
        await FallingEdge(dut.rst)
        while True:
            if not int(dut.bus_r_en.value):
                await RisingEdge(dut.bus_r_en)
                await edge
            if not int(dut.bus_r_en.value):
                continue
            assert not int(dut.bus_w_en.value), "a word is read and written in one cycle"
            place = int(dut.bus_addr.value)
            self.reads.append(place)
            self.log.append("r")
            for _ in range(self.rng.randint(1, self.latest)):
                await edge
                assert not int(dut.bus_r_en.value), "a read begins before the last one was answered"
            dut.bus_r_valid.value = 1
            dut.bus_r_data.value = self.words.get(place, 0)
            await edge
            dut.bus_r_valid.value = 0


class Host:
    """Both ends of the line, the device behind it, and the model of both."""

    def __init__(self, dut: Any) -> None:
        given = bench_data()
        self.dut = dut
        self.rounds: int = given["rounds"]
        self.first: int = given["first"]
        self.rng = random.Random(f"{given['seed']} link")
        self.device = Device(dut, self.rng)
        self.model = BoardModel(self.first, bytes.fromhex(given["identity"]), self.device.words)
        self.line = LineDriver(dut.rx, self.first)
        self.monitor = LineMonitor(dut.tx, self.first)
        self._seen = 0

    @classmethod
    async def open(cls, dut: Any) -> "Host":
        """After a reset."""
        host = cls(dut)
        await start_clock(dut, period_ns=CLOCK_PS // 1000)
        await host.idle(4)
        return host

    async def idle(self, bits: float) -> None:
        """Wait for bits of the present speed."""
        await Timer(round(bits * bit_ps(self.line.divisor)), unit="ps")

    def speed(self, divisor: float) -> None:
        """Both ends on the host's side."""
        self.line.divisor = self.monitor.divisor = divisor

    async def answers(self, *, wait_bits: float = QUIET_BITS) -> list[bytes]:
        """All answers until the line is quiet; a damaged one is an ``AssertionError``."""
        while True:
            try:
                await self.monitor.more(wait_bits * bit_ps(self.line.divisor))
            except SimTimeoutError:
                break
        got = bytes(self.monitor.bytes[self._seen:])
        self._seen = len(self.monitor.bytes)
        assert not got or (got[0] == got[-1] == FLAG), f"answers do not stand between flags: {got.hex(' ')}"
        bodies = [body_of(piece) for piece in split(got)]
        assert None not in bodies, f"a damaged answer: {got.hex(' ')}"
        return [body for body in bodies if body is not None]

    async def put(self, line: bytes, *, wait_bits: float = QUIET_BITS) -> list[bytes]:
        """Bytes on the line, and the answers to them."""
        await self.line.send(line)
        return await self.answers(wait_bits=wait_bits)

    async def ask(self, body: bytes, *, crc: int = 0) -> bytes:
        """A frame on an idle line; its answer must be the model's."""
        # The model changes the same words: what the link writes is compared with what was there to be written.
        before, written = dict(self.device.words), len(self.device.writes)
        line = framed(body, crc=crc)
        words = int.from_bytes(body[7:10], "little") if body[:1] == bytes([Op.VERIFY]) else 0
        found = await self.put(line, wait_bits=QUIET_BITS + 4 * min(words, PAYLOAD_MAX))
        after = dict(self.device.words)
        self.device.words.clear()
        self.device.words.update(before)
        pieces = list(split(line))
        assert len(pieces) == 1
        expected = self.model.take(pieces[0])
        what = f"request {body[:10].hex(' ')} with {len(body) - 10} bytes"
        assert found == [expected], (f"{what}: found {[each.hex(' ') for each in found]}, "
                                     f"expected {expected.hex(' ')}")
        assert after == self.device.words, f"{what}: wrote {self.device.writes[written:]}"
        self.speed(self.model.divisor)
        return found[0]

    async def hello(self, session: int = 0x1234, seq: int | None = None) -> bytes:
        """Begin a session."""
        return await self.ask(request(Op.HELLO, self.rng.randrange(256) if seq is None else seq, session))

    def next(self, op: int, address: int = 0, count: int = 0, payload: bytes = b"", *, ahead: int = 0) -> bytes:
        """A request with the right numbers."""
        return request(op, self.model.next + ahead, self.model.session, address, count, payload)

    def some(self, count: int) -> bytes:
        """A random payload, now and then all of it to be stuffed."""
        kind = self.rng.randrange(4)
        return bytes((FLAG, ESCAPE)[kind] if kind < 2 else self.rng.getrandbits(8) for _ in range(count))

    def anything(self) -> bytes:
        """A random request: mostly legal, else wrong in one or another way."""
        rng = self.rng
        op = rng.choice([*list(Op)[1:7], *list(Op)[2:7], *([rng.choice(BAD_OPS)] if rng.random() < 0.2 else [])])
        seq = self.model.next if rng.random() < 0.8 else rng.choice((self.model.next - 1, rng.randrange(256)))
        session = self.model.session if rng.random() < 0.92 else rng.getrandbits(16)
        base = rng.choice((0, ACTIVATIONS, REGISTERS | 0x100, REGISTERS - MEMORY // 2))
        count = rng.choice((1, 2, 3, rng.randint(1, MEMORY)))
        payload = b""
        if op in (Op.WRITE_WORDS, Op.WRITE_BYTES):
            payload = self.some(count * (2 if op == Op.WRITE_WORDS else 1))
        if rng.random() < 0.1:
            count = rng.choice((0, count + 1, 257, 513, 1 << 17, 1 << 23))
            if op == Op.VERIFY and count > MEMORY:
                count = 0
        if rng.random() < 0.05:
            payload += b"\x55"
        return request(op, seq, session, base + rng.randrange(MEMORY), count, payload)


def test(function: Callable[[Host], Coroutine[Any, Any, None]]) -> Any:
    """A cocotb test of a host."""
    async def run(dut: Any) -> None:
        await function(await Host.open(dut))

    run.__name__ = run.__qualname__ = function.__name__
    run.__doc__ = function.__doc__
    return cocotb.test(run)


@test
async def every_operation(host: Host) -> None:
    """In turn, with payloads from one byte to the longest, and all bytes stuffed."""
    await host.hello()
    for count in (1, 2, 255, 256):
        await host.ask(host.next(Op.WRITE_WORDS, 0x10, count, host.some(2 * count)))
        await host.ask(host.next(Op.READ_WORDS, 0x10, count))
        await host.ask(host.next(Op.VERIFY, 0x10, count))
    for payload in (bytes([FLAG]) * PAYLOAD_MAX, host.some(PAYLOAD_MAX), b"\x00"):
        await host.ask(host.next(Op.WRITE_BYTES, ACTIVATIONS | 0x1F0, len(payload), payload))
        await host.ask(host.next(Op.READ_BYTES, ACTIVATIONS | 0x1F0, len(payload)))
    # The registers' region ends with the address.
    await host.ask(host.next(Op.WRITE_WORDS, (1 << BUS_ADDR_BITS - 2) - 1, 2, b"abcd"))
    await host.ask(host.next(Op.READ_WORDS, (1 << BUS_ADDR_BITS - 2) - 1, 2))


@test
async def random_requests(host: Host) -> None:
    """Legal and illegal ones."""
    await host.hello()
    for _ in range(40 * host.rounds):
        await host.ask(host.anything(), crc=host.rng.choice((0,) * 15 + (1 << host.rng.randrange(32),)))
        if host.rng.random() < 0.2:
            host.device.words[STATUS_AT] = host.rng.getrandbits(16)


@test
async def limits(host: Host) -> None:
    """Lengths and divisors at their ends, and one further; frames that are too short or too long."""
    await host.hello()
    for op, count in ((Op.READ_WORDS, 256), (Op.READ_WORDS, 257), (Op.READ_BYTES, 512), (Op.READ_BYTES, 513),
                      (Op.READ_WORDS, 0), (Op.VERIFY, 0), (Op.READ_BYTES, 1 << 23), (Op.READ_WORDS, 1 << 23)):
        await host.ask(host.next(op, 0x20, count))
    for size in (PAYLOAD_MAX, PAYLOAD_MAX + 1, PAYLOAD_MAX + 5, 1100):
        await host.ask(host.next(Op.WRITE_BYTES, 0x20, size, host.some(size)))
    for count in (0, 1, 3):
        await host.ask(host.next(Op.WRITE_WORDS, 0x20, count, b"abcd"))
    await host.ask(host.next(Op.WRITE_WORDS, 0x20, 0))
    await host.ask(host.next(Op.HELLO, payload=b"x"))
    await host.ask(host.next(Op.RESET, payload=b"x"))
    for size in (0, 1, 9):
        await host.ask(host.next(Op.HELLO)[:size])
    for divisor in (0, LEAST_DIVISOR - 1, SLOWEST * host.first + 1, 1 << 23, LEAST_DIVISOR, LEAST_DIVISOR + 7,
                    SLOWEST * host.first):
        await host.ask(host.next(Op.BAUD, 0, divisor))
        await host.ask(host.next(Op.READ_WORDS, 0x20, 2))
    await host.ask(host.next(Op.RESET))
    await host.ask(host.next(Op.READ_WORDS, 0x20, 2))
    await host.hello()


@test
async def order(host: Host) -> None:
    """Repeated requests have no second effect, others' sessions none at all."""
    await host.hello()
    write = host.next(Op.WRITE_WORDS, 5, 1, b"ab")
    await host.ask(write)
    host.device.words[5] = 77
    await host.ask(write)
    assert host.device.words[5] == 77
    await host.ask(host.next(Op.WRITE_WORDS, 5, 1, b"cd", ahead=1))
    read = host.next(Op.READ_WORDS, 5, 1)
    await host.ask(read)
    host.device.words[5] = 78
    await host.ask(read)
    baud = host.next(Op.BAUD, 0, host.first + 5)
    await host.ask(baud)
    await host.ask(host.next(Op.BAUD, 0, host.first + 50, ahead=-1))
    await host.hello(0x4321)
    await host.ask(request(Op.WRITE_WORDS, host.model.next, 0x1234, 5, 1, b"ef"))
    for n in range(3):
        await host.hello(0x7E7D, n)


@test
async def noise_between_and_inside_frames(host: Host) -> None:
    """It is counted and answered, and never takes effect; the frame behind it is received."""
    await host.hello()
    for _ in range(12 * host.rounds):
        rng = host.rng
        body = host.next(Op.WRITE_WORDS, 0x30, 4, host.some(8))
        line = framed(body)
        if rng.random() < 0.5:
            at = rng.randrange(1, len(line))
            line = line[:at] + noise(rng, rng.randint(1, 3)) + line[at:]
        else:
            line = noise(rng, rng.randint(1, 30)) + line
        while list(split(bytes([*line, FLAG]), inside=True))[-1:] == [body]:
            line = noise(rng, 5)
        pieces = list(split(line + bytes([FLAG]), inside=True))
        whole = [piece for piece in pieces if body_of(piece) is not None]
        found = await host.put(line + bytes([FLAG]))
        for piece in pieces:
            expected = host.model.take(piece)
        assert found, f"no answer to {line.hex(' ')}"
        last = fields(found[-1])
        assert last["next"] == host.model.next, f"{line.hex(' ')}: {found[-1].hex(' ')}"
        assert len(whole) or last["answer"] == Answer.DAMAGED
        if len(found) == len(pieces):
            assert found[-1] == expected
        await host.ask(host.next(Op.READ_WORDS, 0x30, 4))


@test
async def requests_wait_for_a_run(host: Host) -> None:
    """Those to a memory; registers are there all the time; what comes behind a waiting one is lost."""
    await host.hello()
    dut = host.dut
    for op, payload in ((Op.WRITE_WORDS, b"abcd"), (Op.READ_WORDS, b""), (Op.VERIFY, b""), (Op.READ_BYTES, b"")):
        dut.busy.value = 1
        await host.ask(host.next(Op.WRITE_WORDS, CONTROL_AT, 1, b"\x01\x00"))
        await host.ask(host.next(Op.READ_WORDS, STATUS_AT, 1))
        await host.ask(host.next(Op.BAUD, 0, host.first))
        waiting = host.next(op, 0x40, 2, payload)
        reads, writes = len(host.device.reads), len(host.device.writes)
        assert not await host.put(framed(waiting))
        assert not await host.put(framed(host.next(Op.HELLO)) + framed(b"") + noise(host.rng, 20))
        assert (reads, writes) == (len(host.device.reads), len(host.device.writes))
        dut.busy.value = 0
        found = await host.answers()
        assert found == [host.model.take(list(split(framed(waiting)))[0])]
        # The noise that was lost may have left a frame open.
        await host.put(bytes([FLAG]))
        host.model.damaged = fields((await host.put(framed(host.next(Op.BAUD, 0, host.first))))[-1])["damaged"]
        host.model.next = host.model.next + 1 & 0xFF
        await host.ask(host.next(Op.READ_WORDS, 0x40, 2))


@test
async def writes_pass_a_read(host: Host) -> None:
    """While an answer is sent, words are written; but a start waits until the last word was read."""
    await host.hello()
    count = 128
    await host.ask(host.next(Op.WRITE_WORDS, 0, count, host.some(2 * count)))
    before = b"".join(host.device.words[n].to_bytes(2, "little") for n in range(count))
    payload = host.some(64)
    read, write = host.next(Op.READ_WORDS, 0, count), host.next(Op.WRITE_BYTES, 0x200, 64, payload, ahead=1)
    start = host.next(Op.WRITE_WORDS, CONTROL_AT, 1, b"\x01\x00", ahead=2)
    host.device.log.clear()
    found = await host.put(framed(read) + framed(write) + framed(start))
    assert found[0][10:] == before
    assert [fields(each)["answer"] for each in found] == [Answer.OK] * len(found)
    host.model.next = host.model.next + 3 & 0xFF
    assert fields(found[-1])["next"] == host.model.next
    assert host.device.writes[-65:] == [*((0x200 + n, byte) for n, byte in enumerate(payload)), (CONTROL_AT, 1)]
    log = "".join(host.device.log)
    assert "rw" in log.rstrip("rw"[0]), log
    # Behind the start there is but the status of the last answer; the payload was read before.
    assert log.rindex("w") == log.rstrip("r").rindex("w") and len(log.rpartition("w")[2]) <= 1, log
    assert log.index("w") < count, "the write waited for the whole answer"
    await host.ask(host.next(Op.READ_BYTES, 0x200, 64))


@test
async def answers_to_writes_are_put_together(host: Host) -> None:
    """One stands for all before it, and none that was accepted has no answer behind it."""
    await host.hello()
    host.device.words[STATUS_AT] = FLAG << 8 | FLAG
    for count in (3, 20):
        frames = [host.next(Op.WRITE_WORDS, 0x80 + n, 1, host.some(2), ahead=n) for n in range(count)]
        written = len(host.device.writes)
        found = await host.put(b"".join(map(framed, frames)))
        host.model.next = host.model.next + count & 0xFF
        assert fields(found[-1])["next"] == host.model.next, [each.hex(" ") for each in found]
        assert len(host.device.writes) == written + count
        assert all(fields(each)["answer"] == Answer.OK for each in found)


@test
async def two_hosts(host: Host) -> None:
    """The session that began last has the board."""
    await host.hello(0x1111, 10)
    await host.hello(0x2222, 10)
    for session in (0x1111, 0x2222):
        await host.ask(request(Op.WRITE_BYTES, 11, session, 3, 1, bytes([session & 0xFF])))
    assert host.device.words[3] == 0x22


@test
async def breaks(host: Host) -> None:
    """They come through at any time and at any speed; and what is shorter than one is none."""
    rng, dut = host.rng, host.dut

    async def low(bits: float) -> None:
        dut.rx.value = 0
        await Timer(round(bits * bit_ps(host.first)), unit="ps")
        dut.rx.value = 1

    for divisor in (host.first, LEAST_DIVISOR, SLOWEST * host.first):
        await host.hello()
        await host.ask(host.next(Op.BAUD, 0, divisor))
        # As long as it may be, it is a damaged byte.
        await low(BREAK_BITS - 1)
        await host.idle(20)
        await host.line.send([FLAG])
        host.model.damaged += 1
        assert [fields(each)["answer"] for each in await host.answers()] == [Answer.DAMAGED]
        await host.ask(host.next(Op.READ_WORDS, 1, 2))
        frame = framed(host.next(Op.WRITE_WORDS, 0x20, 16, host.some(32)))
        await host.line.send(frame[:rng.randrange(len(frame))])
        writes = len(host.device.writes)
        await low(BREAK_BITS + 1)
        assert host.device.writes[writes:] == [(CONTROL_AT, Control.ABORT)]
        host.model.restart()
        host.speed(host.first)
        await host.idle(4)
        await host.ask(host.next(Op.READ_WORDS, 1, 2))
    await host.hello()
    # While an answer is sent, and for long: the line is silent at once, and stays so.
    await host.line.send(framed(host.next(Op.READ_WORDS, 0, 256)))
    await host.idle(100)
    await low(BREAK_BITS + 2)
    sent = len(host.monitor.bytes)
    await low(40 * BREAK_BITS)
    assert len(host.monitor.bytes) <= sent + 1
    host.monitor.bytes.clear()
    host._seen = 0
    host.model.restart()
    await host.idle(20)
    await host.hello()


@test
async def break_of_a_waiting_request(host: Host) -> None:
    """A run that does not end keeps nobody out."""
    await host.hello()
    host.dut.busy.value = 1
    assert not await host.put(framed(host.next(Op.READ_WORDS, 0, 4)))
    host.dut.rx.value = 0
    await host.idle(BREAK_BITS + 2)
    host.dut.rx.value = 1
    host.model.restart()
    await host.idle(4)
    await host.hello()
    host.dut.busy.value = 0
    await host.ask(host.next(Op.READ_WORDS, 0, 4))


@test
async def verifying_is_quick(host: Host) -> None:
    """Eight cycles a word, when the bus takes no longer."""
    await host.hello()
    host.device.latest = 5
    count = 200
    for n in range(count):
        host.device.words[n] = host.rng.getrandbits(16)
    asked = host.next(Op.VERIFY, 0, count)
    await host.line.send(framed(asked))
    # All but the status word.
    reads = len(host.device.reads)
    start = cocotb.simtime.get_sim_time("ps")
    while len(host.device.reads) < reads + count - 1:
        await RisingEdge(host.dut.bus_r_en)
    cycles = (cocotb.simtime.get_sim_time("ps") - start) / CLOCK_PS
    assert cycles <= 8 * count + 20, f"{cycles} cycles for {count} words"
    assert await host.answers() == [host.model.take(list(split(framed(asked)))[0])]


@test
async def a_line_that_is_low_from_the_start(host: Host) -> None:
    """The board says nothing, and works when the line comes up."""
    host.dut.rx.value = 0
    await start_clock(host.dut)
    sent = len(host.monitor.bytes)
    await host.idle(6 * BREAK_BITS)
    assert len(host.monitor.bytes) == sent
    host.dut.rx.value = 1
    await host.idle(20)
    await host.hello()


@test
async def other_ends_speed(host: Host) -> None:
    """Two per cent off is received."""
    await host.hello()
    for wrong in (0.98, 1.02):
        host.line.divisor = host.first * wrong
        found = await host.put(framed(host.next(Op.WRITE_BYTES, 9, 60, host.some(60))))
        host.model.next = host.model.next + 1 & 0xFF
        assert [fields(each)["answer"] for each in found] == [Answer.OK]
    host.line.divisor = host.first


@test
async def a_given_session(host: Host) -> None:
    """Requests and answers byte for byte, as a document shows them."""
    for sent, expected in bench_data().get("session", ()):
        before = len(host.monitor.bytes)
        await host.put(bytes.fromhex(sent))
        assert bytes(host.monitor.bytes[before:]).hex() == expected, f"the answer to {sent}"
