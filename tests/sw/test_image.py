"""The image file: round trips, and every damage found before a byte is used."""

import dataclasses
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ImageError, ModelError
from shiftwright.hw.arch.image import DESCRIPTOR, DESCRIPTOR_WORDS
from shiftwright.sw.compiler.compile import compile_
from shiftwright.sw.image import Image
from tests.networks import random_network

CONFIG = AcceleratorConfig(lanes_y=2, lanes_x=8, act_depth=4096)


@pytest.fixture(scope="module")
def image() -> Image:
    return compile_(random_network(7, CONFIG, layers=1, size=6), CONFIG)


def rebuild(sections: list[tuple[bytes, bytes]], *, fingerprint: int = CONFIG.fingerprint, version: int = 3) -> bytes:
    """A file with valid checksums whatever it holds, written from the byte table of the document."""
    head = b"SWI1" + struct.pack("<HHI", version, len(sections), fingerprint)
    table = b"".join(kind + struct.pack("<II", len(payload), zlib.crc32(payload)) for kind, payload in sections)
    return head + struct.pack("<I", zlib.crc32(head + table)) + table + b"".join(payload for _, payload in sections)


def parts(image: Image) -> list[tuple[bytes, bytes]]:
    conf = json.dumps({"act_depth": 4096, "lanes_x": 8, "lanes_y": 2}, separators=(",", ":")).encode()
    return [(b"CONF", conf), (b"TENS", image.input.pack() + image.output.pack()),
            (b"WORD", image.words.astype("<u2").tobytes())]


def test_round_trip(image: Image, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "network.swi"
    image.save(path)
    found = Image.load(path)
    assert (found.config, found.input, found.output) == (CONFIG, image.input, image.output)
    np.testing.assert_array_equal(found.words, image.words)
    assert found.words.dtype == np.uint16
    assert found.to_bytes() == image.to_bytes() == path.read_bytes()


def test_bytes_are_the_documented_ones(image: Image) -> None:
    assert image.to_bytes() == rebuild(parts(image))


def test_every_flipped_bit_is_found(image: Image) -> None:
    data = image.to_bytes()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ImageError, match="^here: "):
            Image.from_bytes(bytes(damaged), source="here")


def test_every_truncation_is_found(image: Image) -> None:
    data = image.to_bytes()
    for length in range(len(data)):
        with pytest.raises(ImageError, match=r"^here: (truncated: \d+ bytes|not an image)"):
            Image.from_bytes(data[:length], source="here")


def test_damage_names_section_bytes_and_way_out(image: Image) -> None:
    data = bytearray(image.to_bytes())
    data[-1] ^= 1
    start = len(data) - 2 * image.words.size
    with pytest.raises(ImageError, match=rf"^net.swi: section WORD \(bytes {start} to {len(data) - 1}\) must have "
                                         r"CRC-32 0x[0-9a-f]{8}, not 0x[0-9a-f]{8}: the file is damaged; compile"):
        Image.from_bytes(bytes(data), source="net.swi")


def test_bytes_after_the_end_are_found(image: Image) -> None:
    with pytest.raises(ImageError, match="bytes after the last section"):
        Image.from_bytes(image.to_bytes() + b"\0")


@pytest.mark.parametrize(("data", "message"), [
    (b"", "not an image .* not nothing"), (b"PK\3\4" + bytes(100), "not an image .*not 50 4b 03 04; make one with"),
    (b"SWI1", "truncated: 4 bytes, less than the header's 16"),
    (b"SWI1" + struct.pack("<HHII", 1, 3, 0, 0), "byte 4: image version 1 is not supported, only 3"),
])
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        Image.from_bytes(data)


def test_missing_file_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none.swi: can't read the image: No such file"):
        Image.load(tmp_path / "none.swi")


def test_unwritable_place_is_one_clear_error(image: Image, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelError, match="can't write"):
        image.save(tmp_path / "file" / "network.swi")


def test_sections_are_checked(image: Image) -> None:
    conf, tens, word = parts(image)
    for sections, message in (
        ([conf, tens], "byte 16: sections must be CONF, TENS, WORD, not 'CONF', 'TENS'"),
        ([conf, tens, word, (b"MORE", b"")], "not 'CONF', 'TENS', 'WORD', 'MORE'"),
        ([conf, tens, (b"ABCD", b"")], "not 'CONF', 'TENS', 'ABCD'"),
        ([tens, conf, word], "not 'TENS', 'CONF', 'WORD'"),
        ([], "not none"), ([conf, (b"TENS", tens[1] + b"\0"), word], "section TENS must have 36 bytes, not 37"),
        ([conf, tens, (b"WORD", word[1] + b"\0")], "section WORD must have an even number of bytes"),
        ([(b"CONF", b"{"), tens, word], "section CONF is not a configuration"),
        ([(b"CONF", b"[]"), tens, word], "section CONF is not a configuration"),
        ([(b"CONF", b"\xff"), tens, word], "section CONF is not a configuration"),
        ([(b"CONF", b'{"wings":2}'), tens, word], "section CONF .*unknown parameter 'wings'"),
        ([(b"CONF", b'{"lanes_y":99}'), tens, word], "section CONF .*lanes_y must be 1, 2, 4 or 8, not 99"),
        ([(b"CONF", b"{}"), tens, word], "byte 8: fingerprint 0x[0-9a-f]{8} is not that of section CONF"),
        ([conf, tens, (b"WORD", b"")], "model word 0 must be 0x5357, not nothing"),
    ):
        with pytest.raises(ImageError, match=f"^here: .*{message}"):
            Image.from_bytes(rebuild(sections), source="here")


@pytest.mark.parametrize(("at", "value", "message"), [
    (0, 0x1234, "model word 0 must be 0x5357, not 0x1234"), (2, 9, "must hold the [0-9]+ words in use, not 9"),
    (1, 0, "end at word 7, but the model has"), (7, 0x0000, "layer 0: word 7 must begin with tag 0xD, not 0x0"),
    (7 + DESCRIPTOR.index("dict_words"), 60_000, "layer 0: dictionary at word [0-9]+ has 60000 words, past the model"),
    (7 + DESCRIPTOR_WORDS + 3, 1, "layer 0: codewords at word [0-9]+ has [0-9]+ words, past the model's"),
    (4, 9, "model words 4 to 6 must name a layer and its word, or [0-9] and 0 when there is no tail, not 9 and"),
    (5, 3, "model words 4 to 6 must name a layer and its word, .* not [0-9] and 3;"),
])
def test_malformed_model_is_refused(image: Image, at: int, value: int, message: str) -> None:
    words = image.words.copy()
    words[at] = value
    with pytest.raises(ImageError, match=f"^here: .*{message}"):
        Image.from_bytes(dataclasses.replace(image, words=words).to_bytes(), source="here")


def test_model_without_layers_is_refused(image: Image) -> None:
    words = np.array([0x5357, 0, 7, 0, 0, 0, 0], np.uint16)
    with pytest.raises(ImageError, match="at least one layer"):
        Image.from_bytes(dataclasses.replace(image, words=words).to_bytes())


def test_image_beyond_its_own_memories_is_refused(image: Image) -> None:
    tight = AcceleratorConfig(weight_depth=256)
    words = np.zeros(300, np.uint16)
    with pytest.raises(ImageError, match="300 words, more than the 256 of its configuration's weight_depth"):
        Image.from_bytes(dataclasses.replace(image, config=tight, words=words).to_bytes())
    far = dataclasses.replace(image.input, base=4096)
    with pytest.raises(ImageError, match="the input tensor ends at bank address .* act_depth of 4096"):
        Image.from_bytes(dataclasses.replace(image, input=far).to_bytes())


def test_other_configuration_names_what_differs(image: Image) -> None:
    image.check_config(AcceleratorConfig(lanes_y=2, lanes_x=8, act_depth=4096))
    with pytest.raises(ImageError, match=r"another configuration \(fingerprint 0x[0-9a-f]{8}, accelerator "
                                         r"0x[0-9a-f]{8}\): lanes_y 2 \(accelerator: 4\), "
                                         r"guard_bits None \(accelerator: 0\); compile"):
        image.check_config(CONFIG.replace(lanes_y=4, guard_bits=0))
