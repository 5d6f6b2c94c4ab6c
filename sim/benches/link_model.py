"""What a board must answer, written from the text of :mod:`shiftwright.hw.arch.link`: the bench's other opinion."""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence

from ...hw.arch.bus import BUS_ADDR_BITS, Control, Region, Register, bus_address
from ...hw.arch.link import (
    CRC_BYTES,
    ESCAPE,
    ESCAPED,
    FLAG,
    HEADER_BYTES,
    PAYLOAD_MAX,
    REPLY,
    REQUEST,
    RESPONSE,
    SLOWEST,
    Answer,
    Op,
)
from ...hw.uart import LEAST_DIVISOR

__all__ = ["CONTROL_AT", "STATUS_AT", "BoardModel", "body_of", "fields", "framed", "request", "split"]

CONTROL_AT, STATUS_AT = (bus_address(Region.REGISTERS, each) for each in (Register.CONTROL, Register.STATUS))


def request(op: int, seq: int, session: int, address: int = 0, count: int = 0, payload: bytes = b"") -> bytes:
    """A request's header and payload."""
    values = (op, seq & 0xFF, session, address, count)
    return b"".join(value.to_bytes(size, "little")
                    for value, size in zip(values, REQUEST.values(), strict=True)) + payload


def framed(body: bytes, *, crc: int = 0) -> bytes:
    """A frame with its flags, as on the line; ``crc`` is exclusive-or'ed to the right one."""
    out = bytearray([FLAG])
    for byte in body + (zlib.crc32(body) ^ crc).to_bytes(CRC_BYTES, "little"):
        out += bytes([ESCAPE, byte ^ ESCAPED]) if byte in (FLAG, ESCAPE) else bytes([byte])
    return bytes([*out, FLAG])


def body_of(raw: Sequence[int]) -> bytes | None:
    """What stands between two flags, unstuffed and without its CRC; None when it is damaged."""
    out, escaped = bytearray(), False
    for byte in raw:
        if byte == ESCAPE and not escaped:
            escaped = True
            continue
        out.append(byte ^ ESCAPED if escaped else byte)
        escaped = False
    body, crc = bytes(out[:-CRC_BYTES]), bytes(out[-CRC_BYTES:])
    right = HEADER_BYTES <= len(body) <= HEADER_BYTES + PAYLOAD_MAX and crc == zlib.crc32(body).to_bytes(4, "little")
    return body if right and not escaped else None


def split(line: Sequence[int], *, inside: bool = False) -> Iterator[bytes]:
    """What lies between each two flags, empty pieces left out. ``inside``: a flag has come before."""
    pieces = bytes(line).split(bytes([FLAG]))
    yield from (piece for piece in pieces[0 if inside else 1:-1] if piece)


def fields(answer: bytes) -> dict[str, int]:
    """An answer's header."""
    found, at = {}, 0
    for name, size in RESPONSE.items():
        found[name] = int.from_bytes(answer[at:at + size], "little")
        at += size
    return found


@dataclasses.dataclass
class BoardModel:
    """A board: what it knows, and the words behind its bus.

    Parameters
    ----------
    first : int
        Divisor of the first speed.
    identity : bytes
    words : dict
        Words by bus address; others are 0.
    """

    first: int
    identity: bytes
    words: dict[int, int] = dataclasses.field(default_factory=dict)
    session: int = 0
    next: int = 0
    damaged: int = 0
    divisor: int = 0

    def __post_init__(self) -> None:
        self.divisor = self.first

    def restart(self) -> None:
        """A break."""
        self.session = self.next = self.damaged = 0
        self.divisor = self.first
        self.words[CONTROL_AT] = Control.ABORT

    def take(self, raw: Sequence[int]) -> bytes:
        """What lay between two flags while the line was idle; returns the answer's header and payload."""
        body = body_of(raw)
        if body is None:
            self.damaged = self.damaged + 1 & 0xFFFF
            return self._answer(Op.NONE, 0, Answer.DAMAGED)
        op, seq, session = body[0], body[1], int.from_bytes(body[2:4], "little")
        address, count = int.from_bytes(body[4:7], "little"), int.from_bytes(body[7:10], "little")
        payload = body[HEADER_BYTES:]
        if op != Op.HELLO and session != self.session:
            return self._answer(op, seq, Answer.WRONG_SESSION)
        again = seq == (self.next - 1) % 256
        if op != Op.HELLO and seq != self.next and not again:
            return self._answer(op, seq, Answer.OUT_OF_ORDER)
        if op not in list(Op)[1:]:
            return self._answer(op, seq, Answer.BAD_OP)
        if not self._fits(Op(op), count, len(payload)):
            return self._answer(op, seq, Answer.BAD_LENGTH)
        self.next = (seq + 1) % 256
        if op == Op.HELLO:
            self.session = session
        region, offset = address >> BUS_ADDR_BITS - 2, address & (1 << BUS_ADDR_BITS - 2) - 1
        places = [region << BUS_ADDR_BITS - 2 | offset + n & (1 << BUS_ADDR_BITS - 2) - 1
                  for n in range(count if op in (*WRITES, *READS) else 0)]
        if op in WRITES and not again:
            size = WRITES[Op(op)]
            self.words.update({place: int.from_bytes(payload[size * n:size * (n + 1)], "little")
                               for n, place in enumerate(places)})
        data = b""
        if op in READS:
            data = b"".join(self.words.get(place, 0).to_bytes(2, "little")[:READS[Op(op)]] for place in places)
        if op == Op.HELLO:
            data = self.identity
        if op == Op.VERIFY:
            data = zlib.crc32(data).to_bytes(CRC_BYTES, "little")
        answer = self._answer(op, seq, Answer.OK) + data
        if op == Op.BAUD and not again:
            self.divisor = count
        if op == Op.RESET and not again:
            self.restart()
        return answer

    def _fits(self, op: Op, count: int, size: int) -> bool:
        if op in WRITES:
            return count > 0 and size == count * WRITES[op]
        if size:
            return False
        if op == Op.VERIFY:
            return count > 0
        if op in READS:
            return 0 < count * READS[op] <= PAYLOAD_MAX
        return op != Op.BAUD or LEAST_DIVISOR <= count <= SLOWEST * self.first

    def _answer(self, op: int, seq: int, answer: Answer) -> bytes:
        values = (op | REPLY, seq, self.session, answer, self.next, self.words.get(STATUS_AT, 0), self.damaged)
        return b"".join(value.to_bytes(size, "little") for value, size in zip(values, RESPONSE.values(), strict=True))


WRITES = {Op.WRITE_WORDS: 2, Op.WRITE_BYTES: 1}
READS = {Op.READ_WORDS: 2, Op.READ_BYTES: 1, Op.VERIFY: 2}
