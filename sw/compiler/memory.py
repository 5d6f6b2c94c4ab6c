"""Activation memory: which tensors live when, and where in the banks each lies."""

import dataclasses
from collections.abc import Sequence

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError
from ..network import Layer, QuantizedNetwork
from .layouts import Layouts, first_of_tail, plan
from .placement import TensorPlacement

__all__ = ["Allocation", "Lifetime", "allocate", "assign", "busiest", "first_fit", "peak_layer"]


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
        By tensor name, the network's input and concatenations included.
    storage : dict of str to str
        See :class:`~.layouts.Layouts`.
    lifetimes : tuple of Lifetime
        Of every storage, in order of its first layer.
    peak : int
        Bank addresses in use, at most the configuration's ``act_depth``.
    tail : int
        First layer that runs in batch lanes; the number of layers when there is none.
    """

    placements: dict[str, TensorPlacement]
    storage: dict[str, str]
    lifetimes: tuple[Lifetime, ...]
    peak: int
    tail: int


def assign(tensors: Sequence[Lifetime]) -> dict[str, int]:
    """Base addresses such that tensors that live at the same time do not overlap.

    A plain chain, where only neighbours live together, alternates between the two ends of the memory, which is optimal
    (the peak is the largest sum of two neighbours). Otherwise tensors go first-fit, in the better of two orders: the
    largest first, or as they come to life.
    """
    if all(not first.overlaps(second) for n, first in enumerate(tensors) for second in tensors[n + 2:]):
        peak = max(sum(tensor.size for tensor in tensors[n:n + 2]) for n in range(len(tensors)))
        return {tensor.name: peak - tensor.size if n % 2 else 0 for n, tensor in enumerate(tensors)}
    orders = (sorted(tensors, key=lambda tensor: (-tensor.size, tensor.first)),
              sorted(tensors, key=lambda tensor: (tensor.first, -tensor.size)))
    size = {tensor.name: tensor.size for tensor in tensors}
    return min((first_fit(order) for order in orders),
               key=lambda bases: max(base + size[name] for name, base in bases.items()))


def first_fit(tensors: Sequence[Lifetime], depth: int | None = None) -> dict[str, int]:
    """Lowest base address of each tensor among those before it; with `depth`, none of what would end above it."""
    placed: list[tuple[int, Lifetime]] = []
    for tensor in tensors:
        base = 0
        for start, other in sorted(placed, key=lambda item: item[0]):
            if other.overlaps(tensor) and start < base + tensor.size and base < start + other.size:
                base = start + other.size
        if depth is None or base + tensor.size <= depth:
            placed.append((base, tensor))
    return {tensor.name: base for base, tensor in placed}


def busiest(tensors: Sequence[Lifetime], layers: int) -> int:
    """Number of the layer, of so many, during which the most addresses are needed."""
    return max(range(layers), key=lambda number: sum(tensor.size for tensor in _live(tensors, number)))


def peak_layer(network: QuantizedNetwork, config: AcceleratorConfig) -> int:
    """Number of the layer of a lowered network at which the banks are fullest, without batch lanes."""
    lifetimes = _lifetimes(network, config, plan(network, config, len(network.layers)))
    return busiest(lifetimes, len(network.layers))


def _live(tensors: Sequence[Lifetime], number: int) -> list[Lifetime]:
    return [tensor for tensor in tensors if tensor.first <= number <= tensor.last]


def allocate(network: QuantizedNetwork, config: AcceleratorConfig, depth: int | None = None) -> Allocation:
    """Place all tensors of a lowered network in the banks of `config`.

    Parameters
    ----------
    depth : int, optional
        Activations in each bank, however many; the configuration's ``act_depth`` if not given.

    The network's input may be overwritten once its last reader has run; the output of the last layer stays. Batch lanes
    are used when the vectors fit: while the layers before the tail run for one image, those of the others stay.

    Raises
    ------
    CapacityError
        If the banks are too small; names the layer, what it needs and what would make it fit.
    """
    depth = config.act_depth if depth is None else depth
    tail = first_of_tail(network, config)
    if tail < len(network.layers):
        try:
            return _place(network, config, plan(network, config, tail), depth)
        except CapacityError:
            pass
    return _place(network, config, plan(network, config, len(network.layers)), depth)


def _place(network: QuantizedNetwork, config: AcceleratorConfig, layouts: Layouts, depth: int) -> Allocation:
    tensors = _lifetimes(network, config, layouts)
    bases = assign(tensors)
    peak = max(bases[tensor.name] + tensor.size for tensor in tensors)
    if peak > depth:
        raise _too_small(network.layers, tensors, peak, depth, config)
    return Allocation(storage=layouts.storage, lifetimes=tuple(tensors), peak=peak, tail=layouts.tail, placements={
        name: dataclasses.replace(place, base=place.base + bases[layouts.storage[name]])
        for name, place in layouts.placements.items()})


def _lifetimes(network: QuantizedNetwork, config: AcceleratorConfig, layouts: Layouts) -> list[Lifetime]:
    """Lifetime of every storage, in order of its first layer. What the tail reads waits while other images run."""
    first, last = {layouts.storage[network.input.name]: -1}, {layouts.storage[network.input.name]: -1}
    size: dict[str, int] = {}
    waiting = {network.input.name, *(layer.target.name for layer in network.layers[:layouts.tail])}
    for number, layer in enumerate(network.layers):
        for tensor in layer.sources:
            root = layouts.storage[tensor.name]
            last[root] = number
            if number >= layouts.tail and tensor.name in waiting:
                first[root] = -1
        root = layouts.storage[layer.target.name]
        first.setdefault(root, number)
        last[root] = max(last.get(root, number), number)
    last[layouts.storage[network.output.name]] = len(network.layers)
    for name, place in layouts.placements.items():
        root = layouts.storage[name]
        size[root] = max(size.get(root, 0), place.base + place.steps(config).size)
    return sorted((Lifetime(name=root, size=size[root], first=first[root], last=last[root]) for root in first),
                  key=lambda tensor: tensor.first)


def _too_small(layers: Sequence[Layer], tensors: Sequence[Lifetime], peak: int, depth: int,
               config: AcceleratorConfig) -> CapacityError:
    worst = busiest(tensors, len(layers))
    parts = ", ".join(f"{tensor.name} {tensor.size}" for tensor in _live(tensors, worst))
    return CapacityError(
        f"layer {layers[worst].name}: activation memory (act_depth) must hold {peak} activations in each of the "
        f"{config.lanes} banks ({parts}), but has {depth}; raise act_depth to {peak}, use more lanes (now "
        f"{config.name}), or make the layer's maps smaller; {peak - depth} are missing at this layer, the peak; "
        f"fewer bits save none, as an activation takes an address whatever its bits (a raw output's four), but an "
        f"accelerator with fewer act_bits has more in the same RAM", act_depth=int(peak))
