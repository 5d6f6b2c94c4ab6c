"""The map of both memories: where the tensors of a compiled network lie and when, and where the parts of its model."""

import dataclasses
from collections.abc import Sequence

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.image import HEADER_WORDS
from ..network import QuantizedNetwork
from .descriptor import SECTIONS, LayerView
from .lower import is_copy
from .memory import Allocation
from .placement import TensorPlacement

__all__ = ["MappedTensor", "layout_name", "memory_map", "model_map"]

START, END = "start", "end"
"""Before the first layer, when the host writes; and after the last one, when it reads."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MappedTensor:
    """A tensor in the activation memory.

    Parameters
    ----------
    name : str
    place : TensorPlacement
        Shape, bits and base address.
    addresses : int
        From its first to its last, in every bank.
    first, last : str
        Layers from which to which its addresses are its own: the one that writes it and its last reader.
        :data:`START` is the host's write of the input, and of what waits in batch lanes while the layers before run for
        other images; :data:`END` the host's read of the output. A concatenation has its addresses from its first part
        on, and each part as long as the whole.
    within : str or None
        The concatenation that it is a part of and lies in, or the tensor in whose place it is written.
    copy_of : str or None
        The tensor that lowering copied, since its readers want different layouts, or two concatenations want it.
    """

    name: str
    place: TensorPlacement
    addresses: int
    first: str
    last: str
    within: str | None
    copy_of: str | None


def layout_name(place: TensorPlacement) -> str:
    """``plain``, ``polyphase 2x2`` for a reader with strides 2 and 2, or ``vector`` (one bank an image)."""
    if place.vector:
        return "vector"
    phases = place.phases_y, place.phases_x
    return "plain" if phases == (1, 1) else "polyphase {}x{}".format(*phases)


def memory_map(lowered: QuantizedNetwork, memory: Allocation, config: AcceleratorConfig) -> tuple[MappedTensor, ...]:
    """All tensors of a lowered network: its input, then in the order in which they arise."""
    lifetimes = {lifetime.name: lifetime for lifetime in memory.lifetimes}

    def named(number: int) -> str:
        return START if number < 0 else lowered.layers[number].name if number < len(lowered.layers) else END

    writers = {layer.target.name: number for number, layer in enumerate(lowered.layers)}
    copies = {layer.target.name: layer.source.name for layer in lowered.layers if is_copy(layer)}
    found = []
    for name in (lowered.input.name, *(step.target.name for step in lowered.steps)):
        root = memory.storage[name]
        life, place = lifetimes[root], memory.placements[name]
        # What waits for its readers has its addresses from the start, a part from when it is written.
        first = life.first if root == name or life.first < 0 else writers.get(name, life.first)
        found.append(MappedTensor(
            name=name, place=place, addresses=place.steps(config).size, first=named(first), last=named(life.last),
            within=None if root == name else root, copy_of=copies.get(name)))
    return tuple(found)


def model_map(layers: Sequence[LayerView]) -> tuple[dict[str, range], ...]:
    """Words of the model memory that each section of each layer takes, by the names of :data:`SECTIONS`."""
    found, at = [], HEADER_WORDS
    for layer in layers:
        sections = {}
        for name in SECTIONS:
            sections[name] = range(at, at + len(layer.parts[name]))
            at += len(layer.parts[name])
        found.append(sections)
    return tuple(found)
