"""The model image: everything an accelerator needs to run one network, and its file (``.swi``).

The byte layout is the table "The file" of ``docs/image.md``. Every damage is found before a byte is used: each section
has a CRC-32, and so have the header and the section table.
"""

import dataclasses
import json
import struct
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import ConfigError, ImageError, ModelError
from ..hw.arch.files import write_atomically
from .compiler.descriptor import LayerView, walk
from .compiler.placement import TENSOR_BYTES, TensorPlacement

__all__ = ["Image"]

MAGIC = b"SWI1"
VERSION = 3
SECTIONS = (b"CONF", b"TENS", b"WORD")
"""Section kinds, in file order."""

_HEADER = struct.Struct("<4sHHII")
_ENTRY = struct.Struct("<4sII")
_AGAIN = "compile the network again, or copy the file again from where it came"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """A compiled network.

    Parameters
    ----------
    config : AcceleratorConfig
        The accelerator it was compiled for; it runs on no other.
    input, output : TensorPlacement
        Where the host writes the network's input and reads its output.
    words : uint16 array
        Contents of the model memory.
    """

    config: AcceleratorConfig
    input: TensorPlacement
    output: TensorPlacement
    words: np.ndarray

    @cached_property
    def layers(self) -> tuple[LayerView, ...]:
        """The layers as they stand in the model memory; an :class:`ImageError` when it is malformed."""
        return walk(self.words, self.config)

    @property
    def placements(self) -> tuple[TensorPlacement, ...]:
        """Every layer's output tensor. Exponents of inner tensors are not in the image and read 0."""
        return (*(layer.target for layer in self.layers[:-1]), self.output)

    def check_config(self, config: AcceleratorConfig) -> None:
        """Raise :class:`ImageError` unless the image was compiled for `config`; names what differs."""
        if config.fingerprint == self.config.fingerprint:
            return
        mine, other = self.config.to_dict(), config.to_dict()
        differs = ", ".join(f"{name} {mine[name]} (accelerator: {other[name]})"
                            for name in mine if mine[name] != other[name])
        raise ImageError(f"the image was compiled for another configuration (fingerprint "
                         f"0x{self.config.fingerprint:08x}, accelerator 0x{config.fingerprint:08x}): {differs}; "
                         f"compile the network for this accelerator")

    def to_bytes(self) -> bytes:
        """The file's contents. Equal images give equal bytes."""
        payloads = (json.dumps(self.config.changes, sort_keys=True, separators=(",", ":")).encode(),
                    self.input.pack() + self.output.pack(), self.words.astype("<u2").tobytes())
        table = b"".join(_ENTRY.pack(kind, len(payload), zlib.crc32(payload))
                         for kind, payload in zip(SECTIONS, payloads, strict=True))
        head = struct.pack("<4sHHI", MAGIC, VERSION, len(SECTIONS), self.config.fingerprint)
        return b"".join((head, struct.pack("<I", zlib.crc32(head + table)), table, *payloads))

    @classmethod
    def from_bytes(cls, data: bytes, *, source: str = "image") -> "Image":
        """Read a file's contents.

        Parameters
        ----------
        data : bytes
            A whole ``.swi`` file.
        source : str
            Name for messages.

        Raises
        ------
        ImageError
            If anything is damaged, of another version or of another kind.
        """
        sections = _split(data, source)
        fingerprint = _HEADER.unpack_from(data)[3]
        try:
            values = json.loads(sections[b"CONF"])
            config = AcceleratorConfig.from_dict(values, source="its configuration")
        except (ValueError, TypeError, AttributeError, ConfigError) as error:
            raise ImageError(f"{source}: section CONF is not a configuration: {error}; {_AGAIN}") from None
        if config.fingerprint != fingerprint:
            raise ImageError(f"{source}: byte 8: fingerprint 0x{fingerprint:08x} is not that of section CONF, "
                             f"0x{config.fingerprint:08x}: the image comes from another version of Shiftwright; "
                             f"compile the network again")
        if len(sections[b"TENS"]) != 2 * TENSOR_BYTES:
            raise ImageError(f"{source}: section TENS must have {2 * TENSOR_BYTES} bytes, not "
                             f"{len(sections[b'TENS'])}; {_AGAIN}")
        if len(sections[b"WORD"]) % 2:
            raise ImageError(f"{source}: section WORD must have an even number of bytes, not "
                             f"{len(sections[b'WORD'])}; {_AGAIN}")
        try:
            first, second = (TensorPlacement.unpack(sections[b"TENS"][at:at + TENSOR_BYTES])
                             for at in (0, TENSOR_BYTES))
            image = cls(config=config, input=first, output=second,
                        words=np.frombuffer(sections[b"WORD"], "<u2").astype(np.uint16))
            image._check()
        except ImageError as error:
            raise ImageError(f"{source}: {error}") from None
        return image

    def _check(self) -> None:
        if len(self.words) > self.config.weight_depth:
            raise ImageError(f"section WORD holds {len(self.words)} words, more than the {self.config.weight_depth} of "
                             f"its configuration's weight_depth; compile the network again")
        for name, tensor in (("input", self.input), ("output", self.output)):
            end = tensor.base + tensor.steps(self.config).size
            if end > self.config.act_depth:
                raise ImageError(f"section TENS: the {name} tensor ends at bank address {end}, past its "
                                 f"configuration's act_depth of {self.config.act_depth}; compile the network again")
        if not self.layers:
            raise ImageError("the model must have at least one layer, not 0; compile the network again")

    def save(self, path: str | Path) -> None:
        """Write a ``.swi`` file, never half-written."""
        write_atomically(path, self.to_bytes(), ModelError)

    @classmethod
    def load(cls, path: str | Path) -> "Image":
        """Read a ``.swi`` file; anything else is an :class:`ImageError`."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ImageError(f"{path}: can't read the image: {error.strerror or error}") from None
        return cls.from_bytes(data, source=str(path))


def _split(data: bytes, source: str) -> dict[bytes, bytes]:
    """Check header, table and checksums; the payloads by kind."""
    if data[:4] != MAGIC:
        found = data[:4].hex(" ") or "nothing"
        raise ImageError(f"{source}: not an image (.swi): byte 0 must begin '{MAGIC.decode()}', not {found}; "
                         f"make one with 'shiftwright compile'")
    if len(data) < _HEADER.size:
        raise ImageError(f"{source}: truncated: {len(data)} bytes, less than the header's {_HEADER.size}; {_AGAIN}")
    _, version, count, _, stated = _HEADER.unpack_from(data)
    if version != VERSION:
        raise ImageError(f"{source}: byte 4: image version {version} is not supported, only {VERSION}; "
                         f"compile the network again with this version of Shiftwright")
    end = _HEADER.size + count * _ENTRY.size
    if len(data) < end:
        raise ImageError(f"{source}: truncated: {len(data)} bytes, less than the {end} of header and section table "
                         f"({count} sections); {_AGAIN}")
    computed = zlib.crc32(data[:12] + data[_HEADER.size:end])
    if computed != stated:
        raise ImageError(f"{source}: byte 12: the header and section table must have CRC-32 0x{stated:08x}, not "
                         f"0x{computed:08x}: the file is damaged; {_AGAIN}")
    entries = [_ENTRY.unpack_from(data, _HEADER.size + number * _ENTRY.size) for number in range(count)]
    kinds = tuple(entry[0] for entry in entries)
    if kinds != SECTIONS:
        raise ImageError(f"{source}: byte {_HEADER.size}: sections must be {', '.join(k.decode() for k in SECTIONS)}, "
                         f"not {', '.join(repr(k)[1:] for k in kinds) or 'none'}; "
                         f"compile the network again with this version of Shiftwright")
    total = end + sum(entry[1] for entry in entries)
    if len(data) != total:
        raise ImageError(f"{source}: {'truncated' if len(data) < total else 'bytes after the last section'}: "
                         f"{len(data)} bytes, not the {total} of its section table; {_AGAIN}")
    sections, at = {}, end
    for kind, length, crc in entries:
        payload = data[at:at + length]
        if zlib.crc32(payload) != crc:
            raise ImageError(f"{source}: section {kind.decode()} (bytes {at} to {at + length - 1}) must have CRC-32 "
                             f"0x{crc:08x}, not 0x{zlib.crc32(payload):08x}: the file is damaged; {_AGAIN}")
        sections[kind] = payload
        at += length
    return sections
