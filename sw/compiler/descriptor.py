"""Layer descriptors: fields to words and back, and the walk over a model memory (``docs/image.md`` "Descriptor")."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ImageError
from ...hw.arch.image import (
    DESCRIPTOR,
    DESCRIPTOR_TAG,
    DESCRIPTOR_WORDS,
    HEADER_WORDS,
    KEPT_AT,
    LENGTH_WORDS,
    MODEL_MAGIC,
    POSITION_WORDS,
    Flag,
)
from .placement import RAW_BITS, TensorPlacement

__all__ = ["LayerView", "pack_descriptor", "pack_header", "walk"]

SECTIONS = ("descriptor", "lengths", "positions", "code_table", "dictionary", "parameters", "codewords")
"""The parts of a layer, in order."""


def pack_descriptor(layer: str, fields: Mapping[str, int]) -> np.ndarray:
    """The words of a descriptor, uint16 (DESCRIPTOR_WORDS,).

    Raises
    ------
    CapacityError
        If a field does not fit its 16 bits; names `layer` and the field.
    """
    for name in DESCRIPTOR:
        if not 0 <= fields[name] <= 0xFFFF:
            raise CapacityError(f"layer {layer}: descriptor field {name} holds 0 to 65535, not {fields[name]}; "
                                f"split the layer or make it smaller")
    return np.array([fields[name] for name in DESCRIPTOR], dtype=np.uint16)


def pack_header(layers: Sequence[int], tail: int) -> np.ndarray:
    """The first words of the model memory, uint16 (HEADER_WORDS,).

    Parameters
    ----------
    layers : sequence of int
        Words of each layer.
    tail : int
        First layer of the tail; the number of layers when there is none.
    """
    total = HEADER_WORDS + sum(layers)
    at = HEADER_WORDS + sum(layers[:tail]) if tail < len(layers) else 0
    return np.array([MODEL_MAGIC, len(layers), total & 0xFFFF, total >> 16, tail, at & 0xFFFF, at >> 16], np.uint16)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerView:
    """One layer as it stands in the model memory.

    Parameters
    ----------
    config : AcceleratorConfig
        Of the image.
    fields : mapping of str to int
        Descriptor words by the names of :data:`~shiftwright.hw.arch.image.DESCRIPTOR`.
    parts : mapping of str to uint16 array
        Words of each of :data:`SECTIONS`.
    code_table, dictionary : uint16 array
        Those of `parts`, or with ``SAME_CODE`` those of the layer before.
    """

    config: AcceleratorConfig
    fields: Mapping[str, int]
    parts: Mapping[str, np.ndarray]
    code_table: np.ndarray
    dictionary: np.ndarray

    @property
    def flags(self) -> Flag:
        """The descriptor's flags."""
        return Flag(self.fields["tag_flags"] & 0xFFF)

    @property
    def words(self) -> int:
        """Words of the whole layer."""
        return sum(len(part) for part in self.parts.values())

    @property
    def positions(self) -> int:
        """Positions of the layer, those kept included."""
        return (self.fields["positions"] >> KEPT_AT) + _loaded(self.fields)

    def rows(self, stream: int) -> int:
        """Rows of a stream: ceil((rows - stream) / streams)."""
        return -(-max(0, self.fields["rows"] - stream) // self.config.streams)

    @property
    def parameters(self) -> tuple[np.ndarray, ...]:
        """Parameter words of each stream."""
        return _split(self.parts["parameters"], _lengths(self.parts["lengths"])[:, 0])

    @property
    def codewords(self) -> tuple[np.ndarray, ...]:
        """Codeword words of each stream."""
        return _split(self.parts["codewords"], _lengths(self.parts["lengths"])[:, 1])

    @property
    def target(self) -> TensorPlacement:
        """The output tensor's place. Its exponent is not in the model memory and reads 0; its bits are the memory's."""
        f, raw = self.fields, Flag.RAW in self.flags
        batch, flat = Flag.BATCH in self.flags, Flag.FLATTEN in self.flags
        height, width = (1, 1) if batch else (f["out_h"], f["out_w"])
        if flat:
            col_step, row_step = f["out_plane_x"], f["out_plane_y"]
        else:
            col_step, row_step = ((f[f"out_wrap_{axis}"] - f[f"out_turn_{axis}"]) & 0xFFFF for axis in "xy")
        return TensorPlacement(
            base=f["out_base"], channels=f["rows"], height=height, width=width, col_step=col_step, row_step=row_step,
            phases_y=f["out_phases"] >> 8, phases_x=f["out_phases"] & 0xFF, vector=batch or flat,
            bits=RAW_BITS if raw else self.config.act_bits, signed=raw or f["qmin"] >= 0x8000)


def _loaded(fields: Mapping[str, int]) -> int:
    """Positions that follow the descriptor."""
    return fields["positions"] & (1 << KEPT_AT) - 1


def _lengths(words: np.ndarray) -> np.ndarray:
    """Words of parameters and codewords of each stream, int64 (streams, 2)."""
    pairs = words.astype(np.int64).reshape(-1, 2, LENGTH_WORDS // 2)
    return np.asarray(pairs[..., 0] | pairs[..., 1] << 16)


def _split(words: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.split(words, np.cumsum(lengths)[:-1]))


def walk(words: np.ndarray, config: AcceleratorConfig) -> tuple[LayerView, ...]:
    """Cut a model memory into its layers.

    Raises
    ------
    ImageError
        If the header, a tag or a length is wrong; names the word.
    """
    size = len(words)
    if size < HEADER_WORDS or int(words[0]) != MODEL_MAGIC:
        found = f"0x{int(words[0]):04x}" if size else "nothing"
        raise ImageError(f"model word 0 must be 0x{MODEL_MAGIC:04x}, not {found}; compile the network again")
    stated = int(words[2]) | int(words[3]) << 16
    if stated != size:
        raise ImageError(f"model words 2 and 3 must hold the {size} words in use, not {stated}; "
                         f"compile the network again")
    layers: list[LayerView] = []
    starts, at = {}, HEADER_WORDS
    for number in range(int(words[1])):
        starts[number] = at
        if at + DESCRIPTOR_WORDS > size:
            raise ImageError(f"layer {number}: its descriptor at word {at} runs past the model's {size} words; "
                             f"compile the network again")
        fields = dict(zip(DESCRIPTOR, map(int, words[at:at + DESCRIPTOR_WORDS]), strict=True))
        if fields["tag_flags"] >> 12 != DESCRIPTOR_TAG:
            raise ImageError(f"layer {number}: word {at} must begin with tag 0x{DESCRIPTOR_TAG:X}, not "
                             f"0x{fields['tag_flags'] >> 12:X}; compile the network again")
        parts: dict[str, np.ndarray] = {}
        same = bool(fields["tag_flags"] & Flag.SAME_CODE)
        if same and not layers:
            raise ImageError(f"layer {number}: word {at} says that its code is that of the layer before, but there is "
                             f"none; compile the network again")
        sizes = {"descriptor": DESCRIPTOR_WORDS, "lengths": LENGTH_WORDS * config.streams,
                 "positions": POSITION_WORDS * _loaded(fields), "code_table": 0 if same else config.max_code_bits,
                 "dictionary": fields["dict_words"]}
        for name in SECTIONS:
            if name == "parameters":
                sizes["parameters"], sizes["codewords"] = map(int, _lengths(parts["lengths"]).sum(axis=0))
            if at + sizes[name] > size:
                raise ImageError(f"layer {number}: {name} at word {at} has {sizes[name]} words, past the model's "
                                 f"{size}; compile the network again")
            parts[name] = words[at:at + sizes[name]]
            at += sizes[name]
        code = (layers[-1].code_table, layers[-1].dictionary) if same else (parts["code_table"], parts["dictionary"])
        layers.append(LayerView(config=config, fields=fields, parts=parts, code_table=code[0], dictionary=code[1]))
    if at != size:
        raise ImageError(f"the {len(layers)} layers end at word {at}, but the model has {size} words; "
                         f"compile the network again")
    tail, stated = int(words[4]), int(words[5]) | int(words[6]) << 16
    if tail > len(layers) or stated != starts.get(tail, 0):
        raise ImageError(f"model words 4 to 6 must name a layer and its word, or {len(layers)} and 0 when there is no "
                         f"tail, not {tail} and {stated}; compile the network again")
    return tuple(layers)
