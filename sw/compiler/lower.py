"""Lowering: an equal network in which every layer is one layer of the image.

Three things the array can't do are rewritten with what it can do:

* a tensor that two readers want in different polyphase layouts, or two concatenations want as a part, is copied by a
  layer that adds up one tap;
* a grouped convolution whose groups can't be dealt to the streams evenly becomes one with a single group, whose other
  weights are 0;
* a concatenation that nobody reads goes.

And what it does slowly with what it does fast: a scale of several terms, which the drain takes a cycle a bit for, goes
into the weights of a layer that has one a channel (a normalization).
"""

import dataclasses

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError
from ...hw.arch.image import ENTRY_OPS_MAX
from ..network import Concat, Layer, QuantizedNetwork, TensorSpec, Term
from ..terms import power_terms, signed_digits, term_sum
from .layouts import agree, demand, roots
from .streams import dealable

__all__ = ["is_copy", "lower"]

CODEBOOK_MAX = 256
COPY = ".copy"
"""Follows a tensor's name in that of a copy, before a number."""


def lower(network: QuantizedNetwork, config: AcceleratorConfig) -> QuantizedNetwork:
    """Rewrite `network` for `config`; its outputs stay the same, bit for bit.

    Returns
    -------
    QuantizedNetwork
        Has the layers of the image, in their order; layers of the original keep their names.

    Raises
    ------
    CapacityError
        If a grouped convolution needs a zero in a codebook that is full.
    """
    network = _relay(_separate(_prune(network)))
    layers = (_unscale(layer, network, config) for layer in network.layers)
    return dataclasses.replace(network, layers=tuple(_densify(layer, config) for layer in layers))


def is_copy(layer: Layer) -> bool:
    """Whether lowering added `layer`, to have its source in another layout or in another concatenation as well."""
    return layer.target == dataclasses.replace(layer.source, name=layer.name) and layer.name.startswith(
        f"{layer.source.name}{COPY}")


def _prune(network: QuantizedNetwork) -> QuantizedNetwork:
    """Without the concatenations that nobody reads."""
    read = {tensor.name for layer in network.layers for tensor in layer.sources}
    kept: list[Concat] = []
    for step in reversed(network.steps):
        if isinstance(step, Concat) and step.target.name in read:
            kept.insert(0, step)
            read.update(part.name for part in step.parts)
    return dataclasses.replace(network, concats=tuple(kept))


class _Copies:
    """Steps of a network being rewritten, and the copies made so far."""

    def __init__(self, network: QuantizedNetwork) -> None:
        self.network = network
        self.layers: list[Layer] = []
        self.concats: list[Concat] = []
        self.names = {step.target.name for step in network.steps} | {layer.name for layer in network.layers}

    def copy(self, tensor: TensorSpec) -> TensorSpec:
        """Add a layer that copies `tensor`."""
        name = next(name for n in range(len(self.names) + 1) if (name := f"{tensor.name}{COPY}{n}") not in self.names)
        self.names.add(name)
        target = dataclasses.replace(tensor, name=name)
        low, high = tensor.range
        self.layers.append(Layer(
            name=name, op="avgpool", source=tensor, target=target, kernel=(1, 1),
            bias=np.zeros(tensor.channels, np.int64), scale=((Term(False, 0),),) * tensor.channels,
            shift=np.zeros(tensor.channels, np.int64), qmin=low, qmax=high))
        return target

    def result(self) -> QuantizedNetwork:
        """The rewritten network."""
        return dataclasses.replace(self.network, layers=tuple(self.layers), concats=tuple(self.concats))


def _separate(network: QuantizedNetwork) -> QuantizedNetwork:
    """Each tensor part of one concatenation at most: a part lies inside the whole."""
    copies, taken = _Copies(network), set()
    for step in network.steps:
        if isinstance(step, Layer):
            copies.layers.append(step)
            continue
        parts = []
        for part in step.parts:
            part = copies.copy(part) if part.name in taken else part
            taken.add(part.name)
            parts.append(part)
        copies.concats.append(dataclasses.replace(step, parts=tuple(parts)))
    return copies.result()


def _relay(network: QuantizedNetwork) -> QuantizedNetwork:
    """One layout for each tensor: where readers disagree, it is not split, and each stride gets a copy."""
    places = roots(network)
    wanted: dict[str, list[tuple[int, int]]] = {}
    for layer in network.layers:
        for tensor, phases in demand(layer):
            wanted.setdefault(places[tensor.name][0], []).append(phases)
    plain = {root for root, phases in wanted.items() if agree(phases) is None}
    copies = _Copies(network)
    made: dict[tuple[str, tuple[int, int]], TensorSpec] = {}

    def source(tensor: TensorSpec, phases: tuple[int, int]) -> TensorSpec:
        if places[tensor.name][0] not in plain or agree([phases, (1, 1)]):
            return tensor
        if (tensor.name, phases) not in made:
            made[tensor.name, phases] = copies.copy(tensor)
        return made[tensor.name, phases]

    for step in network.steps:
        if isinstance(step, Concat):
            copies.concats.append(step)
            continue
        first, *others = (source(tensor, phases) for tensor, phases in demand(step))
        copies.layers.append(dataclasses.replace(step, source=first, residuals=tuple(
            dataclasses.replace(residual, source=other)
            for residual, other in zip(step.residuals, others, strict=True))))
    return copies.result()


def _unscale(layer: Layer, network: QuantizedNetwork, config: AcceleratorConfig) -> Layer:
    """One scale term in place of several, for a layer of one weight an output channel.

    With ``floor((w x + b) S + h) / 2**s)`` for the output, w S = A 2**g and h for half of 2**s, the floors can be
    nested: it is ``floor((A x + floor((b S + h) / 2**g)) / 2**(s - g))``. Where ties go to the even integer, the inner
    floor must make no tie of another value: if it loses something, its lowest bit is set, with g such that A x and both
    integers and ties are even.
    """
    if (layer.op != "conv" or layer.raw or layer.residuals or layer.kernel != (1, 1) or layer.indices is None
            or not layer.source.channels == layer.groups == layer.target.channels
            or network.guard_bits != network.max_shift or max(len(terms) for terms in layer.scale) == 1):
        return layer
    codebook: dict[tuple[Term, ...], int] = {}
    indices, bias, shift = [], [], []
    reach = max(abs(value) for value in layer.source.range)
    for weight, terms, offset, places in zip(layer.values.ravel().tolist(), layer.scale, layer.bias.tolist(),
                                             layer.shift.tolist(), strict=True):
        scale = term_sum(terms)
        product = weight * scale
        spare = min(places, (product & -product).bit_length() - 1) if product else places
        added, sticky = offset * scale, 0
        if network.rounding == "half_even" and added % (1 << spare):
            spare = max(0, min(spare - 1, places - 2))
            sticky = int(added % (1 << spare) != 0)
        entry = tuple(term for digit in signed_digits(product >> spare)
                      for term in power_terms(digit.shift, network.max_shift, digit.neg))
        rest = places - spare
        bias.append((added + (1 << places >> 1) >> spare) - (1 << rest >> 1) | sticky)
        shift.append(rest)
        indices.append(codebook.setdefault(entry, len(codebook)))
        if len(entry) > ENTRY_OPS_MAX or reach * abs(product >> spare) + abs(bias[-1]) >= 1 << config.acc_width - 1:
            return layer
    return dataclasses.replace(
        layer, codebook=tuple(codebook), indices=np.array(indices, np.uint8).reshape(layer.indices.shape),
        scale=((Term(False, 0),),) * len(bias), shift=np.array(shift, np.int64), bias=np.array(bias, np.int64))


def _densify(layer: Layer, config: AcceleratorConfig) -> Layer:
    """One group in place of many, where the streams can't be dealt whole groups."""
    if layer.op != "conv" or dealable(layer, config.streams):
        return layer
    assert layer.indices is not None
    codebook = layer.codebook if () in layer.codebook else (*layer.codebook, ())
    if len(codebook) > CODEBOOK_MAX:
        raise CapacityError(
            f"layer {layer.name}: its {layer.groups} groups of {layer.target.channels // layer.groups} output channels "
            f"can't be dealt to {config.streams} streams, and its codebook of {len(layer.codebook)} entries has no "
            f"room for the zeros that one group needs; use fewer weight levels, or streams that divide {layer.groups}")
    rows, inner = layer.indices.shape[:2]
    indices = np.full((rows, layer.source.channels, *layer.kernel), codebook.index(()), np.uint8)
    for group, part in enumerate(np.split(layer.indices, layer.groups)):
        size = rows // layer.groups
        indices[group * size:(group + 1) * size, group * inner:(group + 1) * inner] = part
    return dataclasses.replace(layer, groups=1, indices=indices, codebook=codebook)
