"""Activation memory: which tensors live when, and where in the banks each lies."""

import dataclasses
from collections.abc import Sequence

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ModelError, UnsupportedError
from ..network import Layer, QuantizedNetwork, TensorSpec
from .placement import TensorPlacement

__all__ = ["Allocation", "Lifetime", "allocate", "assign", "layouts"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lifetime:
    """A block of bank addresses and the layers during which it must keep its contents.

    Parameters
    ----------
    name : str
        Tensor.
    size : int
        Addresses in every bank.
    first, last : int
        First and last layer number, both included; -1 is the host's write of the input.
    """

    name: str
    size: int
    first: int
    last: int

    def overlaps(self, other: "Lifetime") -> bool:
        """Whether both must keep their contents at some time."""
        return self.first <= other.last and other.first <= self.last


@dataclasses.dataclass(frozen=True, kw_only=True)
class Allocation:
    """Places of all tensors of a network.

    Parameters
    ----------
    placements : dict of str to TensorPlacement
        By tensor name, the network's input included.
    peak : int
        Bank addresses in use, at most the configuration's ``act_depth``.
    """

    placements: dict[str, TensorPlacement]
    peak: int


def assign(tensors: Sequence[Lifetime]) -> dict[str, int]:
    """Base addresses such that tensors that live at the same time do not overlap.

    A plain chain, where only neighbours live together, alternates between the two ends of the memory, which is optimal
    (the peak is the largest sum of two neighbours). Otherwise tensors go first-fit, the largest first.
    """
    ordered = sorted(tensors, key=lambda tensor: (-tensor.size, tensor.first))
    placed: list[tuple[int, Lifetime]] = []
    for tensor in ordered:
        base = 0
        for start, other in sorted(placed, key=lambda item: item[0]):
            if other.overlaps(tensor) and start < base + tensor.size and base < start + other.size:
                base = start + other.size
        placed.append((base, tensor))
    if all(not first.overlaps(second) for n, first in enumerate(tensors) for second in tensors[n + 2:]):
        peak = max(sum(tensor.size for tensor in tensors[n:n + 2]) for n in range(len(tensors)))
        if peak < max(base + tensor.size for base, tensor in placed):
            return {tensor.name: peak - tensor.size if n % 2 else 0 for n, tensor in enumerate(tensors)}
    return {tensor.name: base for base, tensor in placed}


def layouts(network: QuantizedNetwork) -> dict[str, tuple[int, int]]:
    """Polyphase counts (vertical, horizontal) of every tensor: the strides of the layers that read it.

    Along an axis with one output position the stride has no effect, so such a reader takes any layout.

    Raises
    ------
    UnsupportedError
        If two layers read a tensor with different strides.
    """
    phases: dict[str, list[int]] = {tensor.name: [0, 0] for tensor in tensors_of(network)}
    for layer in network.layers:
        entry = phases[layer.source.name]
        for axis in (0, 1):
            if layer.target.shape[1 + axis] == 1:
                continue
            if entry[axis] not in (0, layer.stride[axis]):
                raise UnsupportedError(
                    f"layer {layer.name}: reads tensor {layer.source.name} with stride {layer.stride}, but an earlier "
                    f"layer reads it with stride {entry[axis]} along axis {axis}, and a tensor has one layout; "
                    f"insert a 1 x 1 layer between the tensor and one of its readers")
            entry[axis] = layer.stride[axis]
    return {name: (max(1, y), max(1, x)) for name, (y, x) in phases.items()}


def tensors_of(network: QuantizedNetwork) -> tuple[TensorSpec, ...]:
    """The input and every layer's output, checked: unique names, and each layer reads an earlier tensor."""
    known = {network.input.name: network.input}
    for layer in network.layers:
        if known.get(layer.source.name) != layer.source:
            raise ModelError(f"layer {layer.name}: its source {layer.source.name!r} must be the network's input or an "
                             f"earlier layer's output; known are {', '.join(known)}")
        if layer.target.name in known:
            raise ModelError(f"layer {layer.name}: its output name {layer.target.name!r} must be unique in the "
                             f"network; rename it")
        known[layer.target.name] = layer.target
    return tuple(known.values())


def allocate(network: QuantizedNetwork, config: AcceleratorConfig) -> Allocation:
    """Place all tensors of `network` in the banks of `config`.

    The network's input may be overwritten once its last reader has run; the output of the last layer stays.

    Raises
    ------
    CapacityError
        If the banks are too small; names the layer, what it needs and what would make it fit.
    """
    phases = layouts(network)
    specs = tensors_of(network)
    last = {spec.name: number - 1 for number, spec in enumerate(specs)}
    for number, layer in enumerate(network.layers):
        last[layer.source.name] = number
    last[network.output.name] = len(network.layers)
    unplaced = [TensorPlacement.of(spec, phases=phases[spec.name]) for spec in specs]
    tensors = [Lifetime(name=spec.name, size=place.steps(config).size, first=number - 1, last=last[spec.name])
               for number, (spec, place) in enumerate(zip(specs, unplaced, strict=True))]
    bases = assign(tensors)
    peak = max(bases[tensor.name] + tensor.size for tensor in tensors)
    if peak > config.act_depth:
        raise _too_small(network.layers, tensors, peak, config)
    return Allocation(peak=peak, placements={
        spec.name: dataclasses.replace(place, base=bases[spec.name])
        for spec, place in zip(specs, unplaced, strict=True)})


def _too_small(layers: Sequence[Layer], tensors: Sequence[Lifetime], peak: int,
               config: AcceleratorConfig) -> CapacityError:
    def live(number: int) -> list[Lifetime]:
        return [tensor for tensor in tensors if tensor.first <= number <= tensor.last]

    worst = max(range(len(layers)), key=lambda number: sum(tensor.size for tensor in live(number)))
    parts = ", ".join(f"{tensor.name} {tensor.size}" for tensor in live(worst))
    return CapacityError(
        f"layer {layers[worst].name}: activation memory (act_depth) must hold {peak} activations in each of the "
        f"{config.lanes} banks ({parts}), but has {config.act_depth}; raise act_depth to {peak}, use more lanes "
        f"(now {config.name}), or make the layer's maps smaller")
