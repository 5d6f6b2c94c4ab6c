"""The image file: sections, configuration, tensors, and the decoded whole."""

import dataclasses
import json
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import ConfigError, ImageError
from ...hw.arch.image import RAW_BYTES
from .banks import Sites, Walk, place
from .program import LayerProgram, read_layers

__all__ = ["Placement", "Program", "read_image"]

FILE_MAGIC, FILE_VERSION = b"SWI1", 3
FILE_HEADER, SECTION, TENSOR = struct.Struct("<4sHHII"), struct.Struct("<4sII"), struct.Struct("<6H4BbB")
SECTIONS = (b"CONF", b"TENS", b"WORD")
RAW_BITS = 32
MAX_COORDINATE = (1 << 12) - 1
SIGNED, VECTOR = 1, 2
"""Flags of a tensor."""
AGAIN = "compile the network again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """A tensor that the host reads or writes, as the section ``TENS`` gives it; ``vector`` when it lies whole in the
    bank of its image."""

    base: int
    channels: int
    height: int
    width: int
    col_step: int
    row_step: int
    phases_y: int
    phases_x: int
    bits: int
    signed: bool
    vector: bool
    exponent: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        return self.channels, self.height, self.width

    @property
    def raw(self) -> bool:
        """Whether values are raw accumulators of four bytes."""
        return self.bits == RAW_BITS

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest value."""
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)

    @property
    def bytes(self) -> int:
        """Channels of bytes."""
        return self.channels * (RAW_BYTES if self.raw else 1)

    def sites(self, config: AcceleratorConfig, image: int) -> Sites:
        """Where it lies, (byte channels, pixels); ``image`` matters for a vector."""
        if self.vector:
            vertical, horizontal = (Walk(1, 0, step, step) for step in (self.row_step, self.col_step))
            return place(config, (self.height, self.width), self.bytes, self.base, vertical, horizontal, vector=image)
        plane_x = math.ceil(math.ceil(self.height / self.phases_y) / config.lanes_y) * self.row_step
        vertical, horizontal = (
            Walk(phases, plane, (1 - phases) * plane, (1 - phases) * plane + step)
            for phases, plane, step in ((self.phases_y, self.phases_x * plane_x, self.row_step),
                                        (self.phases_x, plane_x, self.col_step)))
        return place(config, (self.height, self.width), self.bytes, self.base, vertical, horizontal)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A whole image, decoded; ``tail`` is the first layer of the tail, or the number of layers when there is none."""

    config: AcceleratorConfig
    input: Placement
    output: Placement
    layers: tuple[LayerProgram, ...]
    tail: int


def read_image(image: bytes | str | Path) -> Program:
    """Read an image file (or its bytes) and decode every layer.

    Raises
    ------
    ImageError
        If anything in it breaks a rule of ``docs/image.md``.
    """
    if not isinstance(image, bytes):
        path = Path(image)
        try:
            image = path.read_bytes()
        except OSError as error:
            raise ImageError(f"{path}: can't read the image: {error.strerror or error}") from None
        try:
            return read_image(image)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from None
    sections, fingerprint = _read_sections(image)
    config = _read_config(sections[b"CONF"], fingerprint)
    tensors = sections[b"TENS"]
    if len(tensors) != 2 * TENSOR.size:
        raise ImageError(f"section TENS: must have {2 * TENSOR.size} bytes, not {len(tensors)}; {AGAIN}")
    source, target = (_read_tensor(tensors[start:start + TENSOR.size], what, config)
                      for start, what in ((0, "input tensor"), (TENSOR.size, "output tensor")))
    if source.raw or source.bits > config.act_bits:
        raise ImageError(f"input tensor: must have 2 to {config.act_bits} bits, not {source.bits}; {AGAIN}")
    words = sections[b"WORD"]
    if len(words) % 2 or len(words) > 2 * config.weight_depth:
        raise ImageError(f"section WORD: must be whole words, at most the model memory's {config.weight_depth}, but "
                         f"has {len(words)} bytes; {AGAIN}")
    layers, tail = read_layers(np.frombuffer(words, "<u2"), config)
    for what, tensor, vector in (("input", source, tail == 0), ("output", target, tail < len(layers))):
        if tensor.vector != vector:
            raise ImageError(f"{what} tensor: must {'' if vector else 'not '}be a vector, with {len(layers)} layers "
                             f"and a tail from {tail} on; {AGAIN}")
    return Program(config=config, input=source, output=target, layers=layers, tail=tail)


def _read_sections(image: bytes) -> tuple[dict[bytes, bytes], int]:
    """Payloads by kind, and the fingerprint; checks magic, version, sizes and all CRCs."""
    if image[:4] != FILE_MAGIC:
        raise ImageError(f"not an image: begins with {image[:4]!r}, an image with {FILE_MAGIC!r}; make one with "
                         f"'shiftwright compile'")
    if len(image) < FILE_HEADER.size:
        raise ImageError(f"image: {len(image)} bytes are fewer than a header of {FILE_HEADER.size}; {AGAIN}")
    _, version, count, fingerprint, crc = FILE_HEADER.unpack_from(image)
    if version != FILE_VERSION:
        raise ImageError(f"image version {version} is not supported, only {FILE_VERSION}; {AGAIN}")
    end = FILE_HEADER.size + count * SECTION.size
    if count != len(SECTIONS) or len(image) < end:
        raise ImageError(f"image: must have a table of {len(SECTIONS)} sections, but has {count} in {len(image)} "
                         f"bytes; {AGAIN}")
    if zlib.crc32(image[:12] + image[FILE_HEADER.size:end]) != crc:
        raise ImageError(f"image header: CRC-32 is wrong, the file is damaged; {AGAIN}")
    sections: dict[bytes, bytes] = {}
    for number in range(count):
        kind, size, crc = SECTION.unpack_from(image, FILE_HEADER.size + number * SECTION.size)
        name = kind.decode("ascii", "backslashreplace")
        if kind not in SECTIONS or kind in sections:
            raise ImageError(f"image: section {name} is unknown or there twice; {AGAIN}")
        if size > len(image) - end:
            raise ImageError(f"section {name}: promises {size} bytes, but {len(image) - end} are left, the file is cut "
                             f"off; {AGAIN}")
        sections[kind] = image[end:end + size]
        end += size
        if zlib.crc32(sections[kind]) != crc:
            raise ImageError(f"section {name}: CRC-32 is wrong, the file is damaged; {AGAIN}")
    if end != len(image):
        raise ImageError(f"image: {len(image) - end} bytes after its last section; {AGAIN}")
    return sections, fingerprint


def _read_config(payload: bytes, fingerprint: int) -> AcceleratorConfig:
    try:
        values = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"section CONF: not JSON: {error}; {AGAIN}") from None
    if not isinstance(values, dict):
        raise ImageError(f"section CONF: must be a JSON object, not {type(values).__name__}; {AGAIN}")
    try:
        config = AcceleratorConfig.from_dict(values, source="section CONF")
    except ConfigError as error:
        raise ImageError(f"section CONF: {error}; {AGAIN}") from None
    if config.fingerprint != fingerprint:
        raise ImageError(f"image: fingerprint 0x{fingerprint:08x} is not that of its configuration, "
                         f"0x{config.fingerprint:08x}; {AGAIN}")
    return config


def _read_tensor(payload: bytes, what: str, config: AcceleratorConfig) -> Placement:
    (base, channels, height, width, col_step, row_step, phases_y, phases_x, bits, flags, exponent,
     _) = TENSOR.unpack(payload)
    if not (channels and 1 <= height <= MAX_COORDINATE and 1 <= width <= MAX_COORDINATE):
        raise ImageError(f"{what}: {channels} x {height} x {width} is not a shape; {AGAIN}")
    if not phases_y or not phases_x or not (2 <= bits <= 8 or bits == RAW_BITS) or flags > SIGNED | VECTOR:
        raise ImageError(f"{what}: phases {phases_y} x {phases_x} must be at least 1, bits {bits} 2 to 8 or 32, flags "
                         f"{flags} at most {SIGNED | VECTOR}; {AGAIN}")
    tensor = Placement(base=base, channels=channels, height=height, width=width, col_step=col_step, row_step=row_step,
                       phases_y=phases_y, phases_x=phases_x, bits=bits, signed=bool(flags & SIGNED),
                       vector=bool(flags & VECTOR), exponent=exponent)
    banks = 1 if tensor.vector else config.lanes
    if tensor.bytes * height * width > banks * config.act_depth:
        raise ImageError(f"{what}: {tensor.bytes} x {height} x {width} activations don't fit the {banks} banks of "
                         f"{config.act_depth}; {AGAIN}")
    return tensor
