"""Image files made by hand from ``docs/image.md``, for tests of what reads them. No code of the packer is used."""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.image import DESCRIPTOR

__all__ = ["ADD", "EOR", "SKIP", "SUB", "file_bytes", "layer_words", "model_words", "op", "position", "sections",
           "stream_words", "tensor"]

ADD, SUB, SKIP, EOR = range(4)
WORD = 16


def op(kind: int, *, last: bool = True, shift: int = 0, pre: int = 0, post: int = 0) -> int:
    """A micro-operation."""
    return kind | last << 2 | shift << 3 | pre << 7 | post << 13


def position(offset: int, residue: tuple[int, int] = (0, 0), first: tuple[int, int] = (0, 0),
             last: tuple[int, int] = (0, 0)) -> list[int]:
    """Three words of the position table; pairs are vertical, horizontal."""
    return [offset & 0xFFFF, residue[0] | residue[1] << 3 | first[0] << 6 | first[1] << 10, last[0] | last[1] << 4]


def stream_words(codewords: Iterable[str], contexts: int) -> list[int]:
    """The words of a stream whose codewords are strings of bits."""
    bits = [""] * contexts
    order = [(context, word) for context in range(contexts) for word in (0, 1)]
    for number, codeword in enumerate(codewords):
        context = number % contexts
        begin = len(bits[context])
        bits[context] += codeword
        end = len(bits[context])
        if end // WORD > begin // WORD:
            order.append((context, end // WORD + 1))
    words = [int(bits[context][WORD * word:WORD * (word + 1)].ljust(WORD, "0"), 2) for context, word in order]
    while order and WORD * order[-1][1] >= len(bits[order[-1][0]]):
        order.pop()
        words.pop()
    return words


def layer_words(config: AcceleratorConfig, *, flags: int, positions: Sequence[list[int]], counts: Sequence[int],
                dictionary: Sequence[int], parameters: Sequence[Sequence[int]],
                codewords: Sequence[str | Sequence[int]], kept: int = 0, **fields: int) -> list[int]:
    """One layer of the model memory.

    Parameters
    ----------
    positions, counts : sequences
        Those that follow the descriptor; with ``SAME_CODE`` no counts.
    kept : int
        Positions kept from the layer before.
    parameters, codewords : sequences, one item a stream
        Words; codewords also as a string of bits with blanks between them.
    **fields : int
        Words of the descriptor; those not given are 0, or follow from the rest.
    """
    streams = [stream_words(words.split(), config.interleave) if isinstance(words, str) else list(words)
               for words in codewords]
    values = dict.fromkeys(DESCRIPTOR, 0) | {"group_rows": fields["rows"], "out_phases": 0x0101}
    values |= {"tag_flags": 0xD000 | flags, "positions": kept << 10 | len(positions), "dict_words": len(dictionary)}
    values |= fields
    lengths = [half for pair in zip(parameters, streams, strict=True) for words in pair
               for half in (len(words) & 0xFFFF, len(words) >> WORD)]
    padded = [] if flags & 1 << 10 else [*counts, *[0] * (config.max_code_bits - len(counts))]
    tables = [*[values[name] for name in DESCRIPTOR], *lengths, *(word for entry in positions for word in entry),
              *padded, *dictionary, *(word for words in parameters for word in words),
              *(word for words in streams for word in words)]
    return [word & 0xFFFF for word in tables]


def model_words(layers: Sequence[Sequence[int]], tail: int | None = None) -> list[int]:
    """The model memory; ``tail`` is the first layer of the tail."""
    starts = [7 + sum(map(len, layers[:number])) for number in range(len(layers))]
    total = 7 + sum(map(len, layers))
    first, address = (len(layers), 0) if tail is None else (tail, starts[tail])
    return [0x5357, len(layers), total & 0xFFFF, total >> WORD, first, address & 0xFFFF, address >> WORD,
            *(word for layer in layers for word in layer)]


def tensor(base: int, shape: tuple[int, int, int], *, steps: tuple[int, int] = (0, 0), phases: tuple[int, int] = (1, 1),
           bits: int = 8, signed: bool = False, vector: bool = False, exponent: int = 0) -> bytes:
    """An entry of ``TENS``; ``steps`` are the row's and the column's."""
    return struct.pack("<6H4BbB", base, *shape, steps[1], steps[0], *phases, bits, signed | vector << 1, exponent, 0)


def file_bytes(config: AcceleratorConfig, words: Sequence[int], source: bytes, target: bytes, *,
               changes: dict[str, bytes] | None = None) -> bytes:
    """A ``.swi`` file; ``changes`` are payloads that replace those made here."""
    defaults = AcceleratorConfig().to_dict()
    conf = {name: value for name, value in config.to_dict().items() if value != defaults[name]}
    payloads = {"CONF": json.dumps(conf).encode(), "TENS": source + target,
                "WORD": struct.pack(f"<{len(words)}H", *words)} | (changes or {})
    table = b"".join(struct.pack("<4sII", kind.encode(), len(payload), zlib.crc32(payload))
                     for kind, payload in payloads.items())
    head = struct.pack("<4sHHI", b"SWI1", 3, len(payloads), config.fingerprint)
    return head + struct.pack("<I", zlib.crc32(head + table)) + table + b"".join(payloads.values())


def sections(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Sections of an image file as (kind, payload)."""
    count = struct.unpack_from("<H", data, 6)[0]
    start = 16 + 12 * count
    for number in range(count):
        kind, size, _ = struct.unpack_from("<4sII", data, 16 + 12 * number)
        yield kind.decode(), data[start:start + size]
        start += size
