"""Frames: bytes there and back, and nothing but whole frames out of any noise."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftwright.hw.arch.link import FLAG, HEADER_BYTES, PAYLOAD_MAX, REQUEST, RESPONSE, Answer, Op
from shiftwright.sw.device.frames import BODY_MAX, FrameParser, Request, Response, encode

HELLO = Request(op=Op.HELLO, seq=1, session=0x1234)


def test_bytes_of_a_request() -> None:
    request = Request(op=Op.WRITE_WORDS, seq=2, session=0x0102, address=0x7E0304, count=1, payload=b"\x7d\x55")
    body = bytes([2, 2, 0x02, 0x01, 0x04, 0x03, 0x7E, 1, 0, 0, 0x7D, 0x55])
    assert request.pack() == body and Request.unpack(body) == request
    crc = zlib.crc32(body).to_bytes(4, "little")
    assert not {0x7D, 0x7E} & set(crc)
    assert encode(body) == bytes([0x7E, 2, 2, 2, 1, 4, 3, 0x7D, 0x5E, 1, 0, 0, 0x7D, 0x5D, 0x55]) + crc + b"\x7e"


def test_bytes_of_an_answer() -> None:
    response = Response(op=Op.VERIFY, seq=9, session=0xABCD, answer=Answer.OK, next=10, status=0x12, damaged=0x0304,
                        payload=b"abcd")
    body = bytes([0x86, 9, 0xCD, 0xAB, 0, 10, 0x12, 0, 4, 3]) + b"abcd"
    assert response.pack() == body and Response.unpack(body) == response
    assert sum(REQUEST.values()) == sum(RESPONSE.values()) == HEADER_BYTES == 10


def test_what_is_no_answer() -> None:
    for body in (HELLO.pack(), bytes([0x80 | 99]) + bytes(9), bytes([0x81, 0, 0, 0, 77, 0, 0, 0, 0, 0])):
        with pytest.raises(ValueError):
            Response.unpack(body)


@given(st.lists(st.binary(min_size=HEADER_BYTES, max_size=80), max_size=5), st.integers(1, 50))
def test_there_and_back(bodies: list[bytes], piece: int) -> None:
    parser = FrameParser()
    line = b"".join(encode(body) for body in bodies)
    found = [body for at in range(0, len(line), piece) for body in parser.feed(line[at:at + piece])]
    assert found == bodies and parser.damaged == 0


@pytest.mark.parametrize("byte", [0x7D, 0x7E, 0x5D, 0x5E, 0])
def test_payloads_that_are_stuffed(byte: int) -> None:
    body = HELLO.pack() + bytes([byte]) * PAYLOAD_MAX
    line = encode(body)
    assert line.count(FLAG) == 2
    assert list(FrameParser().feed(line)) == [body]
    # Neighbours may share a flag.
    assert list(FrameParser().feed(line + line[1:] + line[1:])) == 3 * [body]


def test_noise_never_gives_a_frame_that_was_not_sent(rng: np.random.Generator) -> None:
    sent = {HELLO.pack() + rng.bytes(int(rng.integers(0, 60))) for _ in range(40)}
    parser, found = FrameParser(), []
    for body in 20 * sorted(sent):
        line = bytearray(encode(body))
        for _ in range(int(rng.integers(0, 3))):
            at = int(rng.integers(len(line)))
            match rng.integers(3):
                case 0:
                    line[at] ^= 1 << int(rng.integers(8))
                case 1:
                    del line[at]
                case _:
                    line.insert(at, int(rng.integers(256)))
        found += parser.feed(bytes(line) + rng.bytes(int(rng.integers(0, 4))))
    assert set(found) <= sent and 200 < len(found) < 800 and parser.damaged > 200


def test_what_is_damaged() -> None:
    parser = FrameParser()
    good = encode(HELLO.pack())
    for number, part in enumerate((b"\x01", b"abc\x7d", HELLO.pack() + b"\0\0\0\0", bytes(BODY_MAX + 1)), 1):
        assert list(parser.feed(good + part + good)) == 2 * [HELLO.pack()]
        assert parser.damaged == number
    body = bytes(HEADER_BYTES + PAYLOAD_MAX + 1)
    assert list(parser.feed(encode(body))) == [] and parser.damaged == 5
    assert list(parser.feed(b"\x7e\x7e\x7e")) == [] and parser.damaged == 5


def test_what_comes_before_the_first_flag_is_not_damaged() -> None:
    parser = FrameParser()
    line = encode(HELLO.pack())
    assert list(parser.feed(line[5:] + line)) == [HELLO.pack()] and parser.damaged == 0
    list(parser.feed(b"\x7ejunk"))
    parser.clear()
    assert list(parser.feed(b"junk" + line)) == [HELLO.pack()] and parser.damaged == 0


def test_memory_is_bounded() -> None:
    parser = FrameParser()
    for _ in range(100):
        assert list(parser.feed(bytes(10_000))) == []
    assert len(parser._inside) <= 2 * BODY_MAX
    assert list(parser.feed(encode(HELLO.pack()))) == [HELLO.pack()]


def test_a_header_that_has_begun() -> None:
    body = bytes([0x7D, 0x7E, *range(8)]) + b"payload"
    line, parser = encode(body), FrameParser()
    seen = []
    for byte in line:
        list(parser.feed(bytes([byte])))
        seen.append(parser.begun)
    assert seen[0] == b"" and seen[11] == b"" and seen[12] == body[:10] == seen[-2] and seen[-1] == b""


def test_text() -> None:
    assert str(Request(op=Op.WRITE_BYTES, seq=3, session=0xAB, address=0x400000, count=9, payload=bytes(range(9)))) == (
        "WRITE_BYTES seq 3 session 00ab address 400000 count 9 payload 9: 00 01 02 03 04 05 06 07 ...")
    response = Response(op=Op.READ_WORDS, seq=3, session=1, answer=Answer.OK, next=4, status=2, damaged=1,
                        payload=b"\1\2")
    assert str(response) == "READ_WORDS seq 3 session 0001 OK next 4 status 0002 damaged 1 payload 2: 01 02"
