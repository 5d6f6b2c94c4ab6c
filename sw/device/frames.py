"""Frames of the link as bytes: :mod:`shiftwright.hw.arch.link` defines them."""

import dataclasses
import re
import zlib
from collections.abc import Iterator, Mapping

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
    Answer,
    Op,
)

__all__ = ["BODY_MAX", "FrameParser", "Request", "Response", "encode", "pack_fields", "unpack_fields"]

BODY_MAX = HEADER_BYTES + PAYLOAD_MAX + CRC_BYTES
"""Bytes between two flags, before stuffing, at most."""
_FLAG, _ESCAPE = bytes([FLAG]), bytes([ESCAPE])
_STUFFED = re.compile(re.escape(_ESCAPE) + b"(.)", re.DOTALL)


def pack_fields(layout: Mapping[str, int], values: Mapping[str, int]) -> bytes:
    """Little-endian fields, in the layout's order."""
    return b"".join(values[name].to_bytes(size, "little") for name, size in layout.items())


def unpack_fields(layout: Mapping[str, int], data: bytes) -> dict[str, int]:
    """The fields of :func:`pack_fields`; `data` may be longer."""
    values, at = {}, 0
    for name, size in layout.items():
        values[name] = int.from_bytes(data[at:at + size], "little")
        at += size
    return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What the host sends. The fields are those of :data:`~shiftwright.hw.arch.link.REQUEST`."""

    op: Op
    seq: int = 0
    session: int = 0
    address: int = 0
    count: int = 0
    payload: bytes = b""

    def pack(self) -> bytes:
        """Header and payload."""
        return pack_fields(REQUEST, vars(self)) + self.payload

    @classmethod
    def unpack(cls, body: bytes) -> "Request":
        """Read header and payload; a ValueError when the operation is none."""
        fields = unpack_fields(REQUEST, body)
        return cls(op=Op(fields.pop("op")), **fields, payload=body[HEADER_BYTES:])

    def __str__(self) -> str:
        return (f"{self.op.name} seq {self.seq} session {self.session:04x} address {self.address:06x} "
                f"count {self.count}{_first(self.payload)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Response:
    """What the board sends. The fields are those of :data:`~shiftwright.hw.arch.link.RESPONSE`."""

    op: Op
    seq: int
    session: int
    answer: Answer
    next: int
    status: int
    damaged: int
    payload: bytes = b""

    def pack(self) -> bytes:
        """Header and payload."""
        return pack_fields(RESPONSE, vars(self) | {"op": self.op | REPLY}) + self.payload

    @classmethod
    def unpack(cls, body: bytes) -> "Response":
        """Read header and payload; a ValueError when it is no answer, or of an unknown kind."""
        fields = unpack_fields(RESPONSE, body)
        op, answer = fields.pop("op"), fields.pop("answer")
        if not op & REPLY:
            raise ValueError("a request, not an answer")
        return cls(op=Op(op & ~REPLY), answer=Answer(answer), **fields, payload=body[HEADER_BYTES:])

    def __str__(self) -> str:
        return (f"{self.op.name} seq {self.seq} session {self.session:04x} {self.answer.name} next {self.next} "
                f"status {self.status:04x} damaged {self.damaged}{_first(self.payload)}")


def _first(payload: bytes, most: int = 8) -> str:
    dots = " ..." if len(payload) > most else ""
    return f" payload {len(payload)}: {payload[:most].hex(' ')}{dots}" if payload else ""


def encode(body: bytes) -> bytes:
    """The bytes on the line: flag, stuffed `body` and CRC-32, flag."""
    data = body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")
    for byte in (ESCAPE, FLAG):
        data = data.replace(bytes([byte]), bytes([ESCAPE, byte ^ ESCAPED]))
    return _FLAG + data + _FLAG


class FrameParser:
    """Frames out of a stream of bytes, whatever else is in it.

    Attributes
    ----------
    damaged : int
        Frames that were too short, too long, or whose CRC was wrong.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self._inside = b""
        self._skipping = True  # what comes before the first flag is the end of something else

    def clear(self) -> None:
        """Forget a frame that has begun."""
        self._inside, self._skipping = b"", True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Header and payload of every whole frame that `data` ends."""
        *ended, rest = (self._inside + data).split(_FLAG)
        # No frame is longer: its beginning is kept, which makes it a damaged one.
        self._inside = rest[:2 * BODY_MAX]
        for part in ended:
            skip, self._skipping = self._skipping, False
            body = _unstuff(part)
            if not part or skip and len(part) < HEADER_BYTES + CRC_BYTES:
                continue
            if body is None or not HEADER_BYTES + CRC_BYTES <= len(body) <= BODY_MAX or \
                    zlib.crc32(body[:-CRC_BYTES]).to_bytes(CRC_BYTES, "little") != body[-CRC_BYTES:]:
                self.damaged += not skip
                continue
            yield body[:-CRC_BYTES]

    @property
    def begun(self) -> bytes:
        """Header of the frame that has begun, not yet checked by its CRC; empty until all of it is here."""
        if self._skipping:
            return b""
        header = _unstuff(self._inside[:2 * HEADER_BYTES].removesuffix(_ESCAPE))
        return b"" if header is None or len(header) < HEADER_BYTES else header[:HEADER_BYTES]


def _unstuff(part: bytes) -> bytes | None:
    """Undo the stuffing; ``None`` when an escape has nothing behind it."""
    if ESCAPE not in part:
        return part
    if len(part) - len(part.rstrip(_ESCAPE)) & 1:
        return None
    return _STUFFED.sub(lambda match: bytes([match[1][0] ^ ESCAPED]), part)
