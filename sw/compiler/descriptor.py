"""Layer descriptors: fields to words and back, and the walk over a model memory (``docs/image.md`` "Descriptor")."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ImageError
from ...hw.arch.image import (
    DESCRIPTOR,
    DESCRIPTOR_TAG,
    DESCRIPTOR_WORDS,
    HEADER_WORDS,
    KERNEL_ENTRY_WORDS,
    MODEL_MAGIC,
    Flag,
)
from .placement import RAW_BITS, TensorPlacement

__all__ = ["LayerView", "pack_descriptor", "pack_header", "walk"]

SECTIONS = ("descriptor", "row_table", "column_table", "code_table", "dictionary", "parameters", "stream_a", "stream_b")
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


def pack_header(layers: int, words: int) -> np.ndarray:
    """The first words of the model memory: magic, number of layers, words in use."""
    return np.array([MODEL_MAGIC, layers, words & 0xFFFF, words >> 16], dtype=np.uint16)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerView:
    """One layer as it stands in the model memory.

    Parameters
    ----------
    act_bits : int
        Width of an activation in memory.
    fields : mapping of str to int
        Descriptor words by the names of :data:`~shiftwright.hw.arch.image.DESCRIPTOR`.
    parts : mapping of str to uint16 array
        Words of each of :data:`SECTIONS`.
    """

    act_bits: int
    fields: Mapping[str, int]
    parts: Mapping[str, np.ndarray]

    @property
    def flags(self) -> Flag:
        """The descriptor's flags."""
        return Flag(self.fields["tag_flags"] & 0xFFF)

    @property
    def kernel(self) -> tuple[int, int]:
        """Kernel height and width."""
        return self.fields["kernel"] >> 8, self.fields["kernel"] & 0xFF

    @property
    def words(self) -> int:
        """Words of the whole layer."""
        return sum(len(part) for part in self.parts.values())

    @property
    def target(self) -> TensorPlacement:
        """The output tensor's place. Its exponent is not in the model memory and reads 0; its bits are the memory's."""
        f, raw = self.fields, Flag.RAW in self.flags
        return TensorPlacement(
            base=f["out_base"], channels=f["rows"], height=f["out_h"], width=f["out_w"],
            phases_y=f["out_phases"] >> 8, phases_x=f["out_phases"] & 0xFF, bits=RAW_BITS if raw else self.act_bits,
            signed=raw or f["qmin"] >= 0x8000)


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
    layers, at = [], HEADER_WORDS
    for number in range(int(words[1])):
        if at + DESCRIPTOR_WORDS > size:
            raise ImageError(f"layer {number}: its descriptor at word {at} runs past the model's {size} words; "
                             f"compile the network again")
        fields = dict(zip(DESCRIPTOR, map(int, words[at:at + DESCRIPTOR_WORDS]), strict=True))
        if fields["tag_flags"] >> 12 != DESCRIPTOR_TAG:
            raise ImageError(f"layer {number}: word {at} must begin with tag 0x{DESCRIPTOR_TAG:X}, not "
                             f"0x{fields['tag_flags'] >> 12:X}; compile the network again")
        lengths = (DESCRIPTOR_WORDS, KERNEL_ENTRY_WORDS * (fields["kernel"] >> 8),
                   KERNEL_ENTRY_WORDS * (fields["kernel"] & 0xFF), config.max_code_bits, fields["dict_words"],
                   *(fields[f"{name}_words_lo"] | fields[f"{name}_words_hi"] << 16 for name in ("param", "a", "b")))
        parts = {}
        for name, length in zip(SECTIONS, lengths, strict=True):
            if at + length > size:
                raise ImageError(f"layer {number}: {name} at word {at} has {length} words, past the model's {size}; "
                                 f"compile the network again")
            parts[name] = words[at:at + length]
            at += length
        layers.append(LayerView(act_bits=config.act_bits, fields=fields, parts=parts))
    if at != size:
        raise ImageError(f"the {len(layers)} layers end at word {at}, but the model has {size} words; "
                         f"compile the network again")
    return tuple(layers)
