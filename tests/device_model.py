"""A board in software, and a line to it in virtual time that loses and damages bytes.

The board is written from the text of ``hw/arch/link.py``, byte by byte, and shares no code with the host.
"""

import dataclasses
import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time
import tty
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from shiftwright.hw.arch.bus import MAP_VERSION, Control, Register, Status
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import TransportError
from shiftwright.hw.arch.link import FIRST_BAUD, PROTOCOL, Answer, Op
from shiftwright.sw.compiler.layout import pack_activations, unpack_activations
from shiftwright.sw.compiler.placement import TensorPlacement
from shiftwright.sw.image import Image
from tests.networks import tensor

FLAG, ESCAPE, ESCAPED, PAYLOAD_MAX, REPLY = 0x7E, 0x7D, 0x20, 512, 0x80
TOLERANCE = 0.04
TCGETS2 = 0x802C542A

Compute = Callable[["Board"], tuple[int, int]]
"""What a run does: works on the board's memories; gives cycles and status."""


def nothing(board: "Board") -> tuple[int, int]:
    return 1000, Status.OK


class Board:
    """The device: memories, registers and the link, driven by :meth:`byte` and :meth:`tick`.

    Attributes
    ----------
    out : deque of (float, int, float)
        Bytes on its output: time of the end, value, speed.
    torn : bool
        A write changed what an answer still had to tell: the host must never do that.
    """

    def __init__(self, config: AcceleratorConfig, *, clock_hz: int = 12_000_000, name: str = "software",
                 compute: Compute = nothing, seed: int = 0) -> None:
        self.config, self.clock_hz, self.name, self.compute = config, clock_hz, name, compute
        noise = np.random.default_rng(seed)
        self.model = noise.integers(1 << 16, size=config.weight_depth, dtype=np.uint16)
        self.banks = noise.integers(256, size=(config.lanes, config.act_depth), dtype=np.uint16)
        self.registers = dict.fromkeys(Register, 0)
        self.registers |= {Register.MAGIC: 0x5357, Register.VERSION: MAP_VERSION,
                           Register.FINGERPRINT_LO: config.fingerprint & 0xFFFF,
                           Register.FINGERPRINT_HI: config.fingerprint >> 16}
        self.random = random.Random(seed)
        self.first_divisor = round(clock_hz * 16 / FIRST_BAUD)
        self.out: deque[tuple[float, int, float]] = deque()
        self.torn = False
        self.runs = self.breaks = 0
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        self._tx_free = 0.0
        self.frames: list[tuple[Op, Answer]] = []
        self.restart(0.0)

    def restart(self, time: float) -> None:
        """As after a break, or a reset."""
        self.divisor = self.first_divisor
        self.session = self.next = self.damaged = 0
        self.inside: bytearray | None = None
        self.busy_until = self.run_until = time
        self.owed: tuple[int, int, Answer] | None = None
        self.run_end: Callable[[], None] | None = None
        self.events.clear()
        self.out = deque(item for item in self.out if item[0] <= time)
        self._tx_free = time
        self._watched: list[tuple[int, Callable[[], bytes], bytes]] = []

    @property
    def baud(self) -> float:
        return self.clock_hz * 16 / self.divisor

    def at(self, time: float, event: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self.events, (time, self._number, event))

    # The line.

    def byte(self, value: int, baud: float, time: float) -> None:
        """A byte that the line brought at some speed."""
        if value == 0 and baud * 9 <= FIRST_BAUD:
            self.breaks += 1
            self.restart(time)
            self.registers[Register.STATUS] = 0
            return
        if abs(baud / self.baud - 1) > TOLERANCE:
            if self.random.random() < 0.5:
                return
            value = self.random.randrange(256)
        if value != FLAG:
            if self.inside is not None and len(self.inside) < 2 * (PAYLOAD_MAX + 14):
                self.inside.append(value)
            return
        inside, self.inside = self.inside, bytearray()
        if inside:
            self.frame(bytes(inside), time)

    def frame(self, inside: bytes, time: float) -> None:
        body, escaped = bytearray(), False
        for value in inside:
            if escaped:
                body.append(value ^ ESCAPED)
                escaped = False
            elif value == ESCAPE:
                escaped = True
            else:
                body.append(value)
        good = not escaped and 14 <= len(body) <= 10 + PAYLOAD_MAX + 4 and \
            zlib.crc32(body[:-4]) == struct.unpack("<I", body[-4:])[0]
        if not good:
            self.damaged = self.damaged + 1 & 0xFFFF
            if self._tx_free <= time and time >= self.busy_until:
                self.send(Op.NONE, 0, Answer.DAMAGED, b"", time)
            return
        if time < self.busy_until:
            return  # lost: another one waits
        op, seq, session = struct.unpack_from("<BBH", body)
        address, count = int.from_bytes(body[4:7], "little"), int.from_bytes(body[7:10], "little")
        self.request(op, seq, session, address, count, bytes(body[10:-4]), time)

    def request(self, op: int, seq: int, session: int, address: int, count: int, payload: bytes, time: float) -> None:
        known = op in set(Op) - {Op.NONE}
        repeated = False
        if op == Op.HELLO:
            self.session, self.next = session, seq
        elif session != self.session:
            return self.refuse(op, seq, Answer.WRONG_SESSION, time)
        if known and op != Op.HELLO and seq != self.next:
            if seq != (self.next - 1) % 256:
                return self.refuse(op, seq, Answer.OUT_OF_ORDER, time)
            repeated = True
        if not known:
            return self.refuse(op, seq, Answer.BAD_OP, time)
        if not self.well_formed(op, count, payload):
            return self.refuse(op, seq, Answer.BAD_LENGTH, time)
        begin = time
        if op not in (Op.HELLO, Op.BAUD, Op.RESET) and address >> 22 < 2:
            begin = max(time, self.run_until)
        if op == Op.VERIFY:
            begin += 8 * count / self.clock_hz
        if not repeated:
            self.next = (seq + 1) % 256

        def execute(now: float) -> None:
            self.settle(now)
            self.execute(Op(op), seq, address, count, payload, repeated, now)

        if begin <= time:
            execute(time)
        else:
            self.busy_until = begin
            self.at(begin, execute)

    def well_formed(self, op: int, count: int, payload: bytes) -> bool:
        sizes = {Op.WRITE_WORDS: 2 * count, Op.WRITE_BYTES: count}
        if len(payload) != sizes.get(Op(op), 0):
            return False
        if op == Op.BAUD:
            return 4 * 16 <= count < 1 << 20
        if op in (Op.READ_WORDS, Op.READ_BYTES, Op.WRITE_WORDS, Op.WRITE_BYTES):
            return 0 < count <= PAYLOAD_MAX // (2 if op in (Op.READ_WORDS, Op.WRITE_WORDS) else 1)
        return op != Op.VERIFY or count > 0

    def refuse(self, op: int, seq: int, answer: Answer, time: float) -> None:
        if self._tx_free <= time:
            self.send(op & 0x7F, seq, answer, b"", time)
        else:
            self.owe(op & 0x7F, seq, answer)

    def owe(self, op: int, seq: int, answer: Answer) -> None:
        """Answer when the line is free; only the last one is told."""
        if self.owed is None:
            self.at(self._tx_free, self.pay)
        self.owed = op, seq, answer

    def pay(self, time: float) -> None:
        if time < self._tx_free:
            self.at(self._tx_free, self.pay)
        elif self.owed is not None:
            owed, self.owed = self.owed, None
            self.send(*owed, b"", time)

    def execute(self, op: Op, seq: int, address: int, count: int, payload: bytes, repeated: bool, time: float) -> None:
        self.frames.append((op, Answer.OK))
        if op in (Op.WRITE_WORDS, Op.WRITE_BYTES):
            if not repeated:
                words = np.frombuffer(payload, "<u2" if op == Op.WRITE_WORDS else np.uint8)
                for offset, word in enumerate(words.tolist()):
                    self.write(address + offset, word, time)
                self.torn |= any(until > time and before != look() for until, look, before in self._watched)
            if self._tx_free <= time:
                self.send(op, seq, Answer.OK, b"", time)
            else:
                self.owe(op, seq, Answer.OK)
            return
        self.answer(op, seq, lambda: self.look(op, address, count), count, repeated, time)

    def answer(self, op: Op, seq: int, look: Callable[[], bytes], count: int, repeated: bool, time: float) -> None:
        if self._tx_free > time:
            self.at(self._tx_free, lambda now: self.answer(op, seq, look, count, repeated, now))
            return
        if op == Op.HELLO:
            self.owed = None
        payload = look()
        end = self.send(op, seq, Answer.OK, payload, time)
        self._watched = [item for item in self._watched if item[0] > time] + [(end, look, payload)]
        if op == Op.BAUD and not repeated:
            self.at(end, lambda now: setattr(self, "divisor", count))
        if op == Op.RESET and not repeated:
            self.at(end, self.restart)

    def look(self, op: Op, address: int, count: int) -> bytes:
        if op == Op.HELLO:
            config = self.config
            return struct.pack("<8BIIIII16s", PROTOCOL, MAP_VERSION, config.lanes_y, config.lanes_x, config.streams,
                               config.act_bits, config.counters, 0, config.fingerprint, self.clock_hz,
                               self.first_divisor, config.weight_depth, config.act_depth, self.name.encode())
        if op in (Op.READ_WORDS, Op.READ_BYTES, Op.VERIFY):
            if address >> 22 == 0:
                words = self.model[address:address + count]
            elif address >> 22 == 1:
                bank, offset = address >> 16 & 63, address & 0xFFFF
                words = self.banks[bank, offset:offset + count]
            else:
                words = np.array([self.registers.get(Register(number), 0) if number < len(Register) else 0
                                  for number in range(address & 15, (address & 15) + count)])
            data = words.astype("<u2").tobytes()
            if op == Op.VERIFY:
                return struct.pack("<I", zlib.crc32(data))
            return data if op == Op.READ_WORDS else data[::2]
        return b""

    def send(self, op: int, seq: int, answer: Answer, payload: bytes, time: float) -> float:
        self.settle(time)
        body = struct.pack("<BBHBBHH", op | REPLY, seq, self.session, answer, self.next,
                           self.registers[Register.STATUS], self.damaged) + payload
        body += struct.pack("<I", zlib.crc32(body))
        line = bytearray([FLAG])
        for value in body:
            line += bytes([ESCAPE, value ^ ESCAPED]) if value in (FLAG, ESCAPE) else bytes([value])
        line.append(FLAG)
        for value in line:
            time += 10 / self.baud
            self.out.append((time, value, self.baud))
        self._tx_free = time
        return time

    # The accelerator.

    def write(self, address: int, word: int, time: float) -> None:
        region = address >> 22
        if region == 0:
            self.model[address & (1 << 22) - 1] = word
        elif region == 1:
            self.banks[address >> 16 & 63, address & 0xFFFF] = word & 0xFF
        elif address & 15 == Register.CONTROL and word & Control.START and time >= self.run_until:
            self.runs += 1
            cycles, status = self.compute(self)
            self.registers |= {Register.STATUS: 1, Register.CYCLES_LO: cycles & 0xFFFF,
                               Register.CYCLES_HI: cycles >> 16}
            self.run_until = time + cycles / self.clock_hz

            def end() -> None:
                self.registers[Register.STATUS] = 2 | status << 4
            self.run_end = end

    def told(self) -> None:
        """What answers had to tell has reached the host, sooner than on a line of that speed."""
        self.out.clear()
        self._watched.clear()

    def settle(self, time: float) -> None:
        if self.run_end is not None and time >= self.run_until:
            self.run_end()
            self.run_end = None


class Line:
    """A transport in virtual time, with a board at its end.

    Parameters
    ----------
    flips : float
        Chance that a bit on the line is flipped, in either direction.
    drops, doubles, inserts : float
        Chance of each byte to be lost, to come twice, and to be followed by one more.
    slow : float
        How much slower the whole board's time runs than the host believes.
    script : mapping of float to callable
        What happens at which time; called with the line.
    rtt : float
        Time that bytes from the board take longer, as with a USB adapter.
    limit : float
        Virtual seconds after which the host is taken to hang.
    """

    def __init__(self, board: Board, *, seed: int = 0, flips: float = 0.0, drops: float = 0.0, doubles: float = 0.0,
                 inserts: float = 0.0, slow: float = 1.0, script: dict[float, Callable[["Line"], None]] | None = None,
                 rtt: float = 0.0, limit: float = 600.0) -> None:
        self.board, self.name, self.baud = board, "line", FIRST_BAUD
        self.random = random.Random(seed)
        self.faults = (min(1.0, 10 * flips), drops, doubles, inserts)
        self.slow, self.rtt, self.limit = slow, rtt, limit
        self.script = sorted((script or {}).items(), key=lambda item: item[0])
        self.to_board: deque[tuple[float, int, float]] = deque()
        self.time = self.tx_free = 0.0
        self.cut = self.closed = False
        self.happened: list[float] = []

    def spoil(self, value: int) -> list[int]:
        flip, drop, double, insert = self.faults
        if not any(self.faults):
            return [value]
        draw = self.random.random
        if draw() < drop:
            return []
        values = [value ^ 1 << self.random.randrange(8) if draw() < flip else value]
        if draw() < double:
            values *= 2
        if draw() < insert:
            values.append(self.random.randrange(256))
        return values

    def write(self, data: bytes) -> None:
        self.check()
        for value in data:
            self.tx_free = max(self.tx_free, self.time) + self.slow * 10 / self.baud
            for spoilt in self.spoil(value):
                self.to_board.append((self.tx_free, spoilt, self.baud))

    def read(self, timeout: float) -> bytes:
        self.check()
        until = self.time + max(timeout, 1e-6)
        while True:
            came = [item for item in self.due() if item]
            if came:
                return b"".join(came)
            moment = self.upcoming()
            if moment is None or moment > until:
                self.time = until
                return b""
            self.time = max(self.time, moment)
            self.step()

    def due(self) -> list[bytes]:
        """Bytes that have reached the host."""
        out = []
        while self.board.out and self.board.out[0][0] * self.slow + self.rtt <= self.time + 1e-12:
            _, value, baud = self.board.out.popleft()
            if abs(baud / self.baud - 1) > TOLERANCE:
                value = self.random.randrange(256)
            out.append(bytes(self.spoil(value)))
        return out

    def upcoming(self) -> float | None:
        moments = [self.board.out[0][0] * self.slow + self.rtt] if self.board.out else []
        moments += [self.to_board[0][0]] if self.to_board else []
        moments += [self.board.events[0][0] * self.slow] if self.board.events else []
        moments += [self.script[0][0]] if self.script else []
        return min(moments, default=None)

    def step(self) -> None:
        """Let the board and the script do what is due."""
        board = self.board
        while self.script and self.script[0][0] <= self.time:
            at, happen = self.script.pop(0)
            self.happened.append(at)
            happen(self)
        self.check()
        while True:
            events = board.events[0][0] * self.slow if board.events else float("inf")
            bytes_at = self.to_board[0][0] if self.to_board else float("inf")
            if min(events, bytes_at) > self.time + 1e-12:
                return
            if events <= bytes_at:
                time, _, event = heapq.heappop(board.events)
                event(time)
            else:
                time, value, baud = self.to_board.popleft()
                board.byte(value, baud, time / self.slow)

    def pending(self) -> float:
        return 0.0 if self.slow > 1 else max(0.0, self.tx_free - self.time)

    def set_baud(self, baud: int) -> None:
        self.time = max(self.time, self.tx_free)
        self.step()
        self.baud = baud

    def send_break(self) -> None:
        before = self.baud
        self.set_baud(FIRST_BAUD // 16)
        self.write(b"\0")
        self.set_baud(before)

    def now(self) -> float:
        return self.time

    def close(self) -> None:
        self.closed = True

    def check(self) -> None:
        assert self.time < self.limit, "the host hangs"
        if self.cut:
            raise TransportError("line: the cable is cut")


def frame(op: int, seq: int, session: int, address: int = 0, count: int = 0, payload: bytes = b"") -> bytes:
    """A request on the line, of another host."""
    body = struct.pack("<BBH", op, seq, session) + address.to_bytes(3, "little") + count.to_bytes(3, "little") + payload
    body += struct.pack("<I", zlib.crc32(body))
    stuffed = b"".join(bytes([ESCAPE, value ^ ESCAPED]) if value in (FLAG, ESCAPE) else bytes([value])
                       for value in body)
    return bytes([FLAG]) + stuffed + bytes([FLAG])


@dataclasses.dataclass(frozen=True, eq=False)
class Toy:
    """A model that the software board runs: the output depends on every word of the model and of the input."""

    image: Image
    weights: np.ndarray

    @classmethod
    def random(cls, seed: int, *, words: int = 3000, config: AcceleratorConfig | None = None,
               overlap: bool = False) -> "Toy":
        rng = np.random.default_rng(seed)
        config = config or AcceleratorConfig(lanes_y=2, lanes_x=2, weight_depth=8192, act_depth=128)
        source = TensorPlacement.of(tensor("x", 3, 5, 6, signed=True), config, base=0 if overlap else 30)
        target = TensorPlacement.of(tensor("y", 7, bits=32, signed=True), config, base=0)
        memory = rng.integers(1 << 16, size=words, dtype=np.uint16)
        memory[:7] = [0x5357, 1, words & 0xFFFF, words >> 16, 1, 0, 0]
        return cls(Image(config=config, input=source, output=target, words=memory),
                   rng.integers(-99, 99, size=(7, 90)))

    def inputs(self, count: int, seed: int = 0) -> np.ndarray:
        low, high = self.image.input.range
        return np.random.default_rng(seed).integers(low, high + 1, size=(count, *self.image.input.shape))

    def output(self, x: np.ndarray, words: np.ndarray | None = None) -> np.ndarray:
        """What a run gives, int32 (7, 1, 1)."""
        words = self.image.words if words is None else words
        salt = zlib.crc32(words.astype("<u2").tobytes()) % 9973
        return np.asarray(self.weights @ x.ravel().astype(np.int64) + salt).astype(np.int32).reshape(7, 1, 1)

    def compute(self, board: Board) -> tuple[int, int]:
        config, target = self.image.config, self.image.output
        x = unpack_activations(self.image.input, config, board.banks)
        banks, addresses, data = pack_activations(target, config,
                                                  self.output(x, board.model[:len(self.image.words)]))
        board.banks[:] = np.random.default_rng(int(x.sum()) & 0xFF).integers(256, size=board.banks.shape)
        board.banks[banks, addresses] = data
        return 20_000, Status.OK

    def board(self, **options: Any) -> Board:
        return Board(self.image.config, compute=self.compute, **options)


class Terminal:
    """A context in which the software board is behind a pseudo-terminal, in real time, as fast as it can."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.port = ""
        self.frozen = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Terminal":
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    def unplug(self) -> None:
        """Cut the cable: the port is gone."""
        if not self._end.is_set():
            self._end.set()
            self._thread.join()
            os.close(self._slave)
            os.close(self._master)

    def speed(self) -> float:
        """What the host has set (struct termios2, whose last word is the output speed)."""
        return float(struct.unpack("11I", fcntl.ioctl(self._master, TCGETS2, bytes(44)))[10])

    def _work(self) -> None:
        board = self.board
        while not self._end.is_set():
            ready, _, _ = select.select([self._master], [], [], 0.002)
            data = os.read(self._master, 4096) if ready and not self.frozen else b""
            baud = self.speed()
            for value in data:
                board.byte(value, baud, time.monotonic())
            while board.events:
                # Nobody waits for the board's clock: what it would do later is done now.
                moment, _, event = heapq.heappop(board.events)
                event(moment)
            out = bytes(value for _, value, speed in board.out if abs(speed / baud - 1) < TOLERANCE)
            board.told()
            while out:
                out = out[os.write(self._master, out):]
