"""Convolutions in pieces: a way to need less activation memory where a pooling follows.

A map that only a pooling reads lives as a whole between the two, and is often the largest there is. When the memory has
no room for it, the convolution computes some of its channels, these are pooled, and so on; the pooled pieces lie side
by side as a concatenation's parts do. Nothing else changes: every activation is computed once, by the same weights.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError
from ..network import Concat, Layer, QuantizedNetwork
from .checks import check_network
from .lower import lower
from .memory import Allocation, allocate, peak_layer

__all__ = ["split", "split_to_fit"]


PIECE = ".channels"
"""Follows a layer's name in that of a piece, before its channels."""


def split_to_fit(network: QuantizedNetwork, config: AcceleratorConfig,
                 depth: int) -> tuple[QuantizedNetwork, Allocation]:
    """Lower and place a network, with convolutions taken apart, always that at which memory is fullest, until it fits.

    Returns
    -------
    lowered : QuantizedNetwork
    memory : Allocation
        Of its tensors.

    Raises
    ------
    CapacityError
        Of the network as it is, if it does not fit and memory is fullest where nothing can be taken apart.
    """
    pools = _pooled(network)
    pieces: dict[str, int] = {}
    first: CapacityError | None = None
    while True:
        lowered = lower(split(network, pieces), config)
        try:
            check_network(lowered, config)
            return lowered, allocate(lowered, config, depth)
        except CapacityError as error:
            first = first or error
            if "act_depth" not in error.needs:
                raise first from None
        worst = lowered.layers[peak_layer(lowered, config)].name.partition(PIECE)[0]
        name = next((conv for conv, pool in pools.items() if worst in (conv, pool.name)), None)
        if name is None or pieces.get(name, 1) == pools[name].target.channels:
            raise first
        pieces[name] = min(2 * pieces.get(name, 1), pools[name].target.channels)


def _pooled(network: QuantizedNetwork) -> dict[str, Layer]:
    """The convolutions that can be taken apart, by name, and the pooling that is the only one to read each."""
    readers: dict[str, list[Layer | Concat]] = {}
    for step in network.steps:
        for tensor in step.parts if isinstance(step, Concat) else step.sources:
            readers.setdefault(tensor.name, []).append(step)
    pools = {}
    for layer in network.layers[:-1]:
        pool, *others = readers.get(layer.target.name, [None])
        if (layer.op == "conv" and layer.groups == 1 and not others and isinstance(pool, Layer) and pool.op != "conv"
                and pool is not network.layers[-1]):
            pools[layer.name] = pool
    return pools


def split(network: QuantizedNetwork, pieces: Mapping[str, int]) -> QuantizedNetwork:
    """An equal network in which some convolutions, by name, are in so many pieces, and the pooling after each, too."""
    pools = {name: pool for name, pool in _pooled(network).items() if pieces.get(name, 1) > 1}
    waiting = {pool.name for pool in pools.values()}
    layers, concats = [], list(network.concats)
    for layer in network.layers:
        if layer.name in pools:
            pool, parts = pools[layer.name], []
            for channels in np.array_split(np.arange(layer.target.channels), pieces[layer.name]):
                first, last = int(channels[0]), int(channels[-1]) + 1
                conv = _piece(layer, first, last)
                layers += [conv, dataclasses.replace(_piece(pool, first, last), source=conv.target)]
                parts.append(layers[-1].target)
            concats.append(Concat(target=pool.target, parts=tuple(parts)))
        elif layer.name not in waiting:
            layers.append(layer)
    return dataclasses.replace(network, layers=tuple(layers), concats=tuple(concats))


def _piece(layer: Layer, first: int, last: int) -> Layer:
    """A layer that computes some of its channels."""
    name = f"{layer.name}{PIECE}{first}-{last - 1}"
    moved = (dataclasses.replace(residual, channel_offset=residual.channel_offset - first)
             for residual in layer.residuals)
    return dataclasses.replace(
        layer, name=name, target=dataclasses.replace(layer.target, name=name, channels=last - first),
        indices=None if layer.indices is None else layer.indices[first:last], bias=layer.bias[first:last],
        scale=layer.scale[first:last], shift=layer.shift[first:last],
        residuals=tuple(residual for residual in moved if residual.channels(last - first)))
