"""The link between a host and a board: frames on a line of bytes, and what they ask for.

Bytes travel as 8N1, least significant bit first. A frame lies between two bytes :data:`FLAG` (one may end a frame and
begin the next). Inside, :data:`FLAG` and :data:`ESCAPE` are sent as :data:`ESCAPE` and the byte exclusive-or
:data:`ESCAPED`. A frame is a header of :data:`HEADER_BYTES`, a payload of at most :data:`PAYLOAD_MAX` bytes, and the
CRC-32 (that of zlib) of both. All numbers are little-endian. Anything else between two flags is a damaged frame, and
nothing between them is none.

The host asks and the board answers. Each request has a sequence number, modulo 256. The board accepts a request of its
session whose number is the next; answers tell the next number, so that one answer stands for all requests before it.

- A request that is refused leaves the next number as it is.
- The last accepted request may come again, because its answer was lost: a read is done again, all others are only
  answered.
- Answers to writes may be left out while the line is busy; the last one is sent.
- A damaged frame is answered by :attr:`Op.NONE` with :attr:`Answer.DAMAGED`, unless the line is busy.
- Requests that reach a memory wait for the end of a run. A request that comes while another one waits is lost.

A break, which is the line low for :data:`BREAK_BITS` bits of the board's first speed, ends the session and the run, and
returns the board to that speed. A host makes it by sending a byte 0 at a sixteenth of that speed.
"""

import enum
from collections.abc import Mapping

__all__ = ["BREAK_BITS", "CRC_BYTES", "DIVISOR_FRACTION", "ESCAPE", "ESCAPED", "FIRST_BAUD", "FLAG", "HEADER_BYTES",
           "IDENTITY", "PAYLOAD_MAX", "PROTOCOL", "REPLY", "REQUEST", "RESPONSE", "SLOWEST", "Answer", "Op"]

PROTOCOL = 1
"""Version of all that is told here."""
FLAG, ESCAPE, ESCAPED = 0x7E, 0x7D, 0x20
PAYLOAD_MAX = 512
CRC_BYTES = 4
FIRST_BAUD = 115200
"""Bits a second, after reset and after a break."""
BREAK_BITS = 64
SLOWEST = 6
"""A speed may be less than the first one, but by no more than this: a byte 0 must not be a break."""
DIVISOR_FRACTION = 4
"""Fractional bits of a divisor, which is the clock cycles of a bit."""

REQUEST: Mapping[str, int] = {"op": 1, "seq": 1, "session": 2, "address": 3, "count": 3}
"""Fields of a request's header, and their bytes."""
RESPONSE: Mapping[str, int] = {"op": 1, "seq": 1, "session": 2, "answer": 1, "next": 1, "status": 2, "damaged": 2}
"""Fields of an answer's header: the request's op with bit 7 set, and its number; the board's session; the number that
it accepts next; the word bus's STATUS register; and damaged frames since the last break, modulo 65536."""
HEADER_BYTES = sum(REQUEST.values())
REPLY = 0x80

IDENTITY: Mapping[str, int] = {
    "protocol": 1, "map_version": 1, "lanes_y": 1, "lanes_x": 1, "streams": 1, "act_bits": 1, "counters": 1,
    "reserved": 1, "fingerprint": 4, "clock_hz": 4, "divisor": 4, "weight_depth": 4, "act_depth": 4, "board": 16,
}
"""Payload of the answer to :attr:`Op.HELLO`. ``divisor`` is that of :data:`FIRST_BAUD`; ``board`` is ASCII, filled with
zeros."""


class Op(enum.IntEnum):
    """What a request asks for. Addresses are the word bus's (:mod:`.bus`)."""

    NONE = 0
    """Only in answers: to a damaged frame."""
    HELLO = 1
    """Begin a session: the request's session number and sequence number are accepted, whatever they are."""
    WRITE_WORDS = 2
    """``count`` words of two bytes to as many addresses."""
    WRITE_BYTES = 3
    """``count`` words, of which a byte is sent and the upper half is 0: activations."""
    READ_WORDS = 4
    """``count`` words from as many addresses."""
    READ_BYTES = 5
    """The low bytes of ``count`` words."""
    VERIFY = 6
    """CRC-32 of ``count`` words, low bytes first."""
    BAUD = 7
    """Another speed, of which ``count`` is the divisor. From the end of the answer on."""
    RESET = 8
    """After the answer, as if a break had come."""


class Answer(enum.IntEnum):
    """How a request ended."""

    OK = 0
    DAMAGED = 1
    """A frame was too short, too long, or its CRC is wrong."""
    WRONG_SESSION = 2
    """Another host has begun a session, or the board was reset."""
    OUT_OF_ORDER = 3
    """The sequence number is neither the next one nor the last."""
    BAD_OP = 4
    BAD_LENGTH = 5
    """The payload is not ``count`` items; a count is 0, or would take more than :data:`PAYLOAD_MAX`; a divisor is
    out of range."""
