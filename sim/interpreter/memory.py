"""The image file and the model memory: from bytes to layers with their terms."""

import dataclasses
import json
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import ConfigError, ImageError
from ...hw.arch.image import (
    DESCRIPTOR,
    DESCRIPTOR_TAG,
    HEADER_WORDS,
    KERNEL_ENTRY_WORDS,
    MODEL_MAGIC,
    WATCHDOG_UNIT,
    Flag,
)
from .parameters import RowParameters, read_parameters
from .streams import Terms, read_terms

__all__ = ["Axis", "LayerProgram", "Placement", "Program", "Words", "read_image"]

FILE_MAGIC, FILE_VERSION = b"SWI1", 1
FILE_HEADER, SECTION, TENSOR = struct.Struct("<4sHHII"), struct.Struct("<4sII"), struct.Struct("<4H4BbB")
SECTIONS = (b"CONF", b"TENS", b"WORD")
RAW_BITS = 32
MAX_COORDINATE = (1 << 12) - 1
AGAIN = "compile the network again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """A tensor that the host reads or writes, as the section ``TENS`` gives it."""

    base: int
    channels: int
    height: int
    width: int
    phases_y: int
    phases_x: int
    bits: int
    signed: bool
    exponent: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        return self.channels, self.height, self.width

    @property
    def raw(self) -> bool:
        """Whether values are raw accumulators of four bytes."""
        return self.bits == RAW_BITS


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """A kernel table: ``offset``, ``residue``, ``first`` and ``last`` of each kernel row or column, int64 (K,)."""

    offset: np.ndarray
    residue: np.ndarray
    first: np.ndarray
    last: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerProgram:
    """One layer as it stands in the model memory; names as in the descriptor's table."""

    number: int
    flags: Flag
    channels: int
    kernel: tuple[int, int]
    rows: int
    group_rows: int
    group_step: int
    out: tuple[int, int]
    in_base: int
    in_steps: tuple[int, int]
    out_base: int
    out_steps: tuple[int, int]
    out_planes: tuple[int, int]
    out_phases: tuple[int, int]
    clamp: tuple[int, int]
    vertical: Axis
    horizontal: Axis
    parameters: RowParameters
    terms: Terms

    @property
    def where(self) -> str:
        """For messages."""
        return f"layer {self.number}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A whole image, decoded."""

    config: AcceleratorConfig
    input: Placement
    output: Placement
    layers: tuple[LayerProgram, ...]


class Words:
    """A reader of model memory words that never runs past their end."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words
        self.position = 0

    def take(self, count: int, what: str) -> np.ndarray:
        """The next ``count`` words as int64; ``what`` names them in the error."""
        if count > len(self.words) - self.position:
            raise ImageError(f"{what}: needs {count} words at word {self.position}, but the model ends at word "
                             f"{len(self.words)}; {AGAIN}")
        self.position += count
        return self.words[self.position - count:self.position].astype(np.int64)


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
    source, target = (_read_tensor(tensors[start:start + TENSOR.size], what)
                      for start, what in ((0, "input tensor"), (TENSOR.size, "output tensor")))
    if source.raw:
        raise ImageError(f"input tensor: must have 2 to 8 bits, not {source.bits}; {AGAIN}")
    words = sections[b"WORD"]
    if len(words) % 2 or len(words) > 2 * config.weight_depth:
        raise ImageError(f"section WORD: must be whole words, at most the model memory's {config.weight_depth}, but "
                         f"has {len(words)} bytes; {AGAIN}")
    layers = _read_layers(np.frombuffer(words, "<u2"), config)
    return Program(config=config, input=source, output=target, layers=layers)


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


def _read_tensor(payload: bytes, what: str) -> Placement:
    base, channels, height, width, phases_y, phases_x, bits, signed, exponent, _ = TENSOR.unpack(payload)
    if not (channels and 1 <= height <= MAX_COORDINATE and 1 <= width <= MAX_COORDINATE):
        raise ImageError(f"{what}: {channels} x {height} x {width} is not a shape; {AGAIN}")
    if not phases_y or not phases_x or not (2 <= bits <= 8 or bits == RAW_BITS) or signed > 1:
        raise ImageError(f"{what}: phases {phases_y} x {phases_x} must be at least 1, bits {bits} 2 to 8 or 32, signed "
                         f"{signed} 0 or 1; {AGAIN}")
    return Placement(base=base, channels=channels, height=height, width=width, phases_y=phases_y, phases_x=phases_x,
                     bits=bits, signed=bool(signed), exponent=exponent)


def _read_layers(words: np.ndarray, config: AcceleratorConfig) -> tuple[LayerProgram, ...]:
    magic, count, low, high = Words(words).take(HEADER_WORDS, "model header").tolist()
    used = high << 16 | low
    if magic != MODEL_MAGIC or not count:
        raise ImageError(f"model header: begins with 0x{magic:04x} and has {count} layers; it must begin with "
                         f"0x{MODEL_MAGIC:04x} and have at least 1; {AGAIN}")
    if not HEADER_WORDS <= used <= len(words):
        raise ImageError(f"model header: {used} words in use, but the section WORD has {len(words)}; {AGAIN}")
    reader = Words(words[:used])
    reader.take(HEADER_WORDS, "model header")
    layers = tuple(_read_layer(number, reader, config) for number in range(count))
    if reader.position != used:
        raise ImageError(f"model: its {count} layers end at word {reader.position}, but {used} are in use; {AGAIN}")
    return layers


def _read_axis(reader: Words, size: int, lanes: int, what: str) -> Axis:
    entries = reader.take(size * KERNEL_ENTRY_WORDS, what).reshape(size, KERNEL_ENTRY_WORDS)
    residue = entries[:, 1] >> 12
    if residue.max() >= lanes:
        raise ImageError(f"{what}: residue {int(residue.max())} must be below the number of lanes, {lanes}; {AGAIN}")
    return Axis(entries[:, 0], residue, entries[:, 1] & MAX_COORDINATE, entries[:, 2] & MAX_COORDINATE)


def _signed(word: int) -> int:
    return word - (word >> 15 << 16)


def _read_layer(number: int, reader: Words, config: AcceleratorConfig) -> LayerProgram:
    where = f"layer {number}"
    d = dict(zip(DESCRIPTOR, reader.take(len(DESCRIPTOR), f"{where} descriptor").tolist(), strict=True))
    if d["tag_flags"] >> 12 != DESCRIPTOR_TAG:
        raise ImageError(f"{where} descriptor: tag is 0x{d['tag_flags'] >> 12:x}, not 0x{DESCRIPTOR_TAG:x}; {AGAIN}")
    bits = d["tag_flags"] & 0xFFF
    if bits & ~sum(Flag):
        raise ImageError(f"{where} descriptor: flags 0x{bits:03x} have undefined bits; {AGAIN}")
    flags = Flag(bits)
    height, width = d["kernel"] >> 8, d["kernel"] & 0xFF
    phases = d["out_phases"] >> 8, d["out_phases"] & 0xFF
    clamp = _signed(d["qmin"]), _signed(d["qmax"])
    for name, value, high in (
            ("channels", d["channels"], 0xFFFF), ("kernel height", height, config.kernel_max),
            ("kernel width", width, config.kernel_max), ("rows", d["rows"], 0xFFFF),
            ("group_rows", d["group_rows"], 0xFFFF), ("out_h", d["out_h"], MAX_COORDINATE),
            ("out_w", d["out_w"], MAX_COORDINATE), ("vertical phases", phases[0], 0xFF),
            ("horizontal phases", phases[1], 0xFF)):
        if not 1 <= value <= high:
            raise ImageError(f"{where} descriptor: {name} must be from 1 to {high}, not {value}; {AGAIN}")
    byte = (-128, 127) if clamp[0] < 0 else (0, 255)
    if Flag.RAW not in flags and not byte[0] <= clamp[0] <= clamp[1] <= byte[1]:
        raise ImageError(f"{where} descriptor: clamp {clamp[0]} to {clamp[1]} is not a range of 8 bits; {AGAIN}")
    # Every output has an activation of its own, so this bounds all arrays below.
    outputs = d["rows"] * d["out_h"] * d["out_w"] * (4 if Flag.RAW in flags else 1)
    if outputs > config.lanes * config.act_depth:
        raise ImageError(f"{where} descriptor: {outputs} activations don't fit the {config.lanes} banks of "
                         f"{config.act_depth}; {AGAIN}")
    vertical = _read_axis(reader, height, config.lanes_y, f"{where} row table")
    horizontal = _read_axis(reader, width, config.lanes_x, f"{where} column table")
    counts = reader.take(config.max_code_bits, f"{where} code table")
    dictionary = reader.take(d["dict_words"], f"{where} dictionary")
    parameter_words = reader.take(d["param_words_hi"] << 16 | d["param_words_lo"], f"{where} parameters")
    streams = tuple(
        reader.take(d[f"{name}_words_hi"] << 16 | d[f"{name}_words_lo"], f"{where} sub-stream {name.upper()}")
        for name in "ab")
    shared = Flag.SHARED_ROW in flags
    passes = math.ceil(d["out_h"] / config.lanes_y) * math.ceil(d["out_w"] / config.lanes_x)
    terms = read_terms(
        where, config, counts=counts, dictionary=dictionary, eor=d["eor"], streams=streams,
        rows=1 if shared else d["rows"], channels=d["channels"], kernel=(height, width),
        most=(d["watchdog"] + 1) * WATCHDOG_UNIT // (passes * (d["rows"] if shared else 1)))
    return LayerProgram(
        number=number, flags=flags, channels=d["channels"], kernel=(height, width), rows=d["rows"],
        group_rows=d["group_rows"], group_step=d["group_step"], out=(d["out_h"], d["out_w"]), in_base=d["in_base"],
        in_steps=(d["in_row_step"], d["in_col_step"]), out_base=d["out_base"],
        out_steps=(d["out_row_step"], d["out_col_step"]), out_planes=(d["out_plane_y"], d["out_plane_x"]),
        out_phases=phases, clamp=clamp, vertical=vertical, horizontal=horizontal,
        parameters=read_parameters(where, parameter_words, flags, d["rows"]), terms=terms)
