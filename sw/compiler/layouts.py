"""Layouts: polyphase planes, pitches and vectors of a lowered network's tensors, before they have addresses.

A tensor has one layout, on which all its readers agree:

* its polyphase counts are their strides;
* the parts of a concatenation lie inside the whole, so they have its steps;
* a residual's position is found from the block of the layer's input, so where the map has several blocks, both tensors
  have the same steps, the greater of what each needs;
* what the tail reads and writes are vectors, one bank an image;
* what a layer makes of each activation alone (an addition, say) is written in the place of what it reads, if nobody
  reads that afterwards.
"""

import dataclasses
from collections.abc import Iterable

from ...hw.arch.config import AcceleratorConfig
from ..network import Concat, Layer, QuantizedNetwork, TensorSpec
from .placement import TensorPlacement

__all__ = ["Layouts", "agree", "demand", "first_of_tail", "plan", "roots"]

Phases = tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layouts:
    """Tensors that have steps but no addresses.

    Parameters
    ----------
    placements : dict of str to TensorPlacement
        By tensor name, concatenations included; ``base`` counts from the beginning of the tensor's storage.
    storage : dict of str to str
        Tensor that each tensor lies in: itself, the outermost concatenation that it is a part of, or the first of those
        that are in its place one after the other.
    tail : int
        First layer of the tail; the number of layers when there is none.
    """

    placements: dict[str, TensorPlacement]
    storage: dict[str, str]
    tail: int


def demand(layer: Layer) -> tuple[tuple[TensorSpec, Phases], ...]:
    """What `layer` reads, its source first, each with the polyphase counts that it wants there.

    A count is 0 along an axis with one output position: there the stride has no effect.
    """
    strides = (layer.stride, *(residual.stride for residual in layer.residuals))
    _, height, width = layer.target.shape
    return tuple((tensor, (y if height > 1 else 0, x if width > 1 else 0))
                 for tensor, (y, x) in zip(layer.sources, strides, strict=True))


def agree(demands: Iterable[Phases]) -> Phases | None:
    """The polyphase counts that satisfy all demands; ``None`` when there are none."""
    found = []
    for axis in zip(*demands, strict=True):
        strides = {stride for stride in axis if stride}
        if len(strides) > 1:
            return None
        found.append(strides.pop() if strides else 1)
    return (found[0], found[1]) if found else (1, 1)


def roots(network: QuantizedNetwork) -> dict[str, tuple[str, int]]:
    """The tensor that each tensor lies in, and its first channel there; each is part of one concatenation at most."""
    places: dict[str, tuple[str, int]] = {}
    for step in reversed(network.steps):
        root, channel = places.setdefault(step.target.name, (step.target.name, 0))
        for part in step.parts if isinstance(step, Concat) else ():
            places[part.name] = (root, channel)
            channel += part.channels
    places.setdefault(network.input.name, (network.input.name, 0))
    return places


def first_of_tail(network: QuantizedNetwork, config: AcceleratorConfig) -> int:
    """First of the fully connected layers at the network's end that can run in batch lanes.

    All that they read must be vectors, which only they read.
    """
    lanes_fit = max(config.lanes_y, config.lanes_x) < 1 << config.map_bits
    joined = {tensor.name for concat in network.concats for tensor in (concat.target, *concat.parts)}
    first = len(network.layers)
    while first and lanes_fit:
        layer = network.layers[first - 1]
        if (layer.op != "conv" or layer.groups != 1 or layer.target.shape[1:] != (1, 1) or any(layer.padding)
                or layer.kernel != layer.source.shape[1:] or any(r.source.shape[1:] != (1, 1) for r in layer.residuals)
                or any(tensor.name in joined for tensor in (layer.target, *layer.sources))):
            break
        first -= 1
    # A vector that a layer before the tail reads, too, would need another layout.
    while first < len(network.layers):
        vectors = {tensor.name for layer in network.layers[first:] for tensor in layer.sources}
        if not any(tensor.name in vectors for layer in network.layers[:first] for tensor in layer.sources):
            break
        first += 1
    return first


def plan(network: QuantizedNetwork, config: AcceleratorConfig, tail: int) -> Layouts:
    """Choose the layouts of a lowered network's tensors.

    Parameters
    ----------
    tail : int
        First layer to run in batch lanes, not before :func:`first_of_tail`.
    """
    specs = {network.input.name: network.input, **{step.target.name: step.target for step in network.steps}}
    places = roots(network)
    vectors = {tensor.name for layer in network.layers[tail:] for tensor in (layer.target, *layer.sources)}
    wanted: dict[str, list[Phases]] = {}
    for layer in network.layers:
        for tensor, phases in demand(layer):
            wanted.setdefault(places[tensor.name][0], []).append(phases)
    tight = {}
    for name, spec in specs.items():
        agreed = (1, 1) if name in vectors else agree(wanted.get(places[name][0], ()))
        assert agreed is not None, "lowering leaves tensors whose readers agree"
        tight[name] = TensorPlacement.of(spec, config, phases=agreed, vector=name in vectors)
    for name, before in _in_place(network, tail, tight).items():
        places[name] = places[before]
    steps = _steps(network, config, tail, tight, places)
    placements = {name: dataclasses.replace(place, base=places[name][1], col_step=steps[name][0],
                                            row_step=steps[name][1]) for name, place in tight.items()}
    return Layouts(placements=placements, storage={name: root for name, (root, _) in places.items()}, tail=tail)


def _in_place(network: QuantizedNetwork, tail: int, tight: dict[str, TensorPlacement]) -> dict[str, str]:
    """The tensors that are written in the place of another, which their layer is the last to read, in order."""
    last = {tensor.name: number for number, layer in enumerate(network.layers) for tensor in layer.sources}
    joined = {tensor.name for concat in network.concats for tensor in (concat.target, *concat.parts)}

    def free(tensor: TensorSpec, target: TensorSpec, number: int) -> bool:
        here, there = tight[tensor.name], tight[target.name]
        return (tensor.shape == target.shape and last[tensor.name] == number and not joined & {tensor.name, target.name}
                and (here.phases_y, here.phases_x) == (there.phases_y, there.phases_x)
                and not here.vector and not there.vector)

    found: dict[str, str] = {}
    for number, layer in enumerate(network.layers[:tail]):
        places = [tensor.name for tensor in layer.sources if free(tensor, layer.target, number)]
        if places and _is_pointwise(layer):
            found[layer.target.name] = places[0]
    return found


def _is_pointwise(layer: Layer) -> bool:
    """Whether each activation that a layer makes depends on those at its own channel and pixel alone."""
    alone = layer.op != "conv" or layer.groups == layer.source.channels == layer.target.channels
    return (alone and not layer.raw and layer.kernel == (1, 1) and layer.stride == (1, 1) and not any(layer.padding)
            and all(residual.stride == (1, 1) and not residual.channel_offset for residual in layer.residuals))


def _steps(network: QuantizedNetwork, config: AcceleratorConfig, tail: int, tight: dict[str, TensorPlacement],
           places: dict[str, tuple[str, int]]) -> dict[str, tuple[int, int]]:
    """Column and row step of each tensor: equal among those that are tied, and the least that all of them need."""
    columns, rows = _Ties(tight), _Ties(tight)
    for name, (root, _) in places.items():
        columns.tie(name, root)
        rows.tie(name, root)
    for layer in network.layers[:tail]:
        for residual in layer.residuals:
            if layer.target.width > config.lanes_x:
                columns.tie(residual.source.name, layer.source.name)
            if layer.target.height > config.lanes_y:
                rows.tie(residual.source.name, layer.source.name)
    pitch: dict[str, int] = {}
    for name, place in tight.items():
        key = columns.find(name)
        pitch[key] = max(pitch.get(key, 0), place.col_step)
    step: dict[str, int] = {}
    for name, place in tight.items():
        least = place.row_step // place.col_step * pitch[columns.find(name)]
        key = rows.find(name)
        step[key] = max(step.get(key, 0), least)
    return {name: (pitch[columns.find(name)], step[rows.find(name)]) for name in tight}


class _Ties:
    """Disjoint sets of tensor names."""

    def __init__(self, names: Iterable[str]) -> None:
        self.parent = {name: name for name in names}

    def find(self, name: str) -> str:
        """The name that stands for the set of `name`."""
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def tie(self, one: str, other: str) -> None:
        """Join two sets."""
        self.parent[self.find(one)] = self.find(other)
