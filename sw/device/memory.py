"""Reading, writing and checking a board's memories, by as many requests as it takes."""

import zlib
from collections.abc import Iterator

import numpy as np

from ...hw.arch.bus import Region, bus_address
from ...hw.arch.link import PAYLOAD_MAX, Op
from .channel import Channel
from .frames import Request

__all__ = ["MODEL", "crc_of", "read_bytes", "read_words", "verify", "write_bytes", "write_words", "writes"]

MODEL = bus_address(Region.MODEL)
WORD_BYTES = 2
VERIFY_CYCLES = 8
"""Clock cycles that a board takes for a word of a range that it checks."""


def crc_of(words: np.ndarray) -> int:
    """CRC-32 of words, as :func:`verify` gives it."""
    return zlib.crc32(np.asarray(words).astype("<u2").tobytes())


def writes(address: int, data: bytes, op: Op, payload: int) -> Iterator[Request]:
    """The requests that write items to consecutive addresses.

    Parameters
    ----------
    address : int
        That of the first.
    data : bytes
        Two for an item with WRITE_WORDS, one with WRITE_BYTES.
    op : Op
        One of these two.
    payload : int
        Bytes of a request, at most.
    """
    size = WORD_BYTES if op == Op.WRITE_WORDS else 1
    for at in range(0, len(data), payload):
        part = data[at:at + payload]
        yield Request(op=op, address=address + at // size, count=len(part) // size, payload=part)


def write_words(channel: Channel, address: int, words: np.ndarray) -> None:
    """Write words (uint16) to consecutive addresses. They are accepted once a later request is answered."""
    for request in writes(address, np.asarray(words).astype("<u2").tobytes(), Op.WRITE_WORDS, channel.payload):
        channel.post(request)


def write_bytes(channel: Channel, address: int, data: bytes) -> None:
    """Write words whose upper halves are 0 to consecutive addresses."""
    for request in writes(address, data, Op.WRITE_BYTES, channel.payload):
        channel.post(request)


def read_words(channel: Channel, address: int, count: int) -> np.ndarray:
    """Words (uint16) from consecutive addresses."""
    return np.frombuffer(_read(channel, Op.READ_WORDS, WORD_BYTES, address, count), "<u2").astype(np.uint16)


def read_bytes(channel: Channel, address: int, count: int) -> bytes:
    """The low bytes of words from consecutive addresses."""
    return _read(channel, Op.READ_BYTES, 1, address, count)


def _read(channel: Channel, op: Op, size: int, address: int, count: int) -> bytes:
    parts = []
    most = min(PAYLOAD_MAX, channel.payload) // size
    for at in range(0, count, most):
        items = min(most, count - at)
        response = channel.call(Request(op=op, address=address + at, count=items), answer_bytes=items * size)
        parts.append(response.payload)
    return b"".join(parts)


def verify(channel: Channel, address: int, count: int, clock_hz: int) -> int:
    """CRC-32 of `count` words, as the board reads them."""
    response = channel.call(Request(op=Op.VERIFY, address=address, count=count),
                            seconds=count * VERIFY_CYCLES / clock_hz, answer_bytes=4)
    return int.from_bytes(response.payload, "little")
