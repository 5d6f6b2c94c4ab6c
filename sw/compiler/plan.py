"""Planning: what accelerators would need to run a network, and how long they would take, without an image.

A plan goes the way of :func:`~.compile.compile_detailed`, but where the compiler refuses a network since a memory or
another size of the configuration is too small, it takes the least that would do and notes it, even if no accelerator
can have that much. Configurations that differ only in what a step does not look at share its result.
"""

import dataclasses
import functools
import hashlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ModelError, OverflowProofError
from ...hw.arch.image import COORDINATE_BITS, HEADER_WORDS
from ...hw.arch.timing import memory_latency
from ..codec.alphabet import EncodedLayer
from ..network import QuantizedNetwork
from .compilation import CompiledLayer
from .compile import Part, assemble, place, prepare
from .cycles import run_cycles
from .memory import Allocation, busiest, first_fit
from .sharing import share_codes
from .weights import LayerWeights, encode_weights

__all__ = ["Plan", "plan", "plans"]

ANY: dict[str, int] = {"act_depth": 1 << 16, "weight_depth": 1 << 22, "row_depth": 1 << 16, "map_bits": COORDINATE_BITS,
                       "positions": 512}
"""The largest sizes that a configuration can have."""
ACC_WIDTH_MAX = 32
WORD_BYTES = 2

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What one configuration would need to run a network.

    Where the model memory is too small, layers are marked for an external one, which each byte comes from once an
    inference: those stay on the chip that would ask the most bytes a cycle of it.

    Parameters
    ----------
    config : AcceleratorConfig
        The accelerator as it is.
    needs : mapping of str to int
        Parameters of `config` that the network needs larger, with the least values that do (of activation memory, those
        that do without convolutions in pieces); they may be beyond what a configuration can have. The plan is for an
        accelerator with them.
    memory : Allocation
        Places of all tensors.
    peak_layer : str
        The layer during which the most activations are held.
    words : int
        16-bit words of the model.
    layers : tuple of CompiledLayer
        In execution order.
    map_bytes : int
        Bytes of activations an inference would move to and from a memory outside of the chip: every map that the banks
        of `config` have no place for is written once and read once by each of its readers. A lower bound: the array
        reads a map once for each output channel, so that the rest must come from a buffer.
    """

    config: AcceleratorConfig
    needs: Mapping[str, int]
    memory: Allocation
    peak_layer: str
    words: int
    layers: tuple[CompiledLayer, ...]
    map_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the compiler makes an image for `config`."""
        return not self.needs

    @property
    def cycles(self) -> int:
        """Predicted cycles of one inference."""
        return run_cycles(layer.cycles for layer in self.layers)

    @functools.cached_property
    def external(self) -> tuple[CompiledLayer, ...]:
        """Layers whose part of the model would lie in an external memory."""
        left, outside = self.config.weight_depth - HEADER_WORDS, set[str]()
        for layer in sorted(self.layers, key=_bytes_a_cycle, reverse=True):
            words = layer.bytes // WORD_BYTES
            if words <= left:
                left -= words
            else:
                outside.add(layer.name)
        return tuple(layer for layer in self.layers if layer.name in outside)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the model that an inference would fetch from outside of the chip, each once."""
        return sum(layer.bytes for layer in self.external)

    @property
    def weight_rate(self) -> float:
        """Bytes a cycle that would have to come while the layer runs that needs the most of them."""
        return max(map(_bytes_a_cycle, self.external), default=0.0)

    def activation_bytes(self, depth: int) -> int:
        """Activation memory of all banks and streams with `depth` activations in each bank."""
        return depth * self.config.lanes * self.config.streams * self.config.act_bits // 8


def _bytes_a_cycle(layer: CompiledLayer) -> float:
    return layer.bytes / layer.cycles.total


def plan(network: QuantizedNetwork, config: AcceleratorConfig) -> Plan:
    """Plan one configuration.

    Raises
    ------
    ModelError
        If the configuration can't run the network whatever its memories: another arithmetic, fewer activation bits, a
        layer that the array does not know.
    """
    found = plans(network, {"": config})[""]
    if isinstance(found, ModelError):
        raise found
    return found


def plans(network: QuantizedNetwork, configs: Mapping[str, AcceleratorConfig]) -> dict[str, Plan | ModelError]:
    """Plan several configurations, by name; for those that can't run the network the error that tells why."""
    planner, found = _Planner(network), dict[str, Plan | ModelError]()
    for name, config in sorted(configs.items(), key=lambda item: (item[1].name, item[1].acc_width, item[0])):
        try:
            found[name] = planner.plan(config)
        except ModelError as error:
            found[name] = error
    return {name: found[name] for name in configs}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Proven:
    """A network that is placed and proven."""

    lowered: QuantizedNetwork
    memory: Allocation
    parts: list[Part]


class _Planner:
    """Steps of the compiler for one network, and their results so far."""

    def __init__(self, network: QuantizedNetwork) -> None:
        self.network = network
        self.encoder = _Encoder()
        # Only the last: it has all weights as taps.
        self._proven: tuple[object, _Proven | OverflowProofError] | None = None
        self._assembled: dict[object, tuple[list[CompiledLayer], int]] = {}

    def plan(self, config: AcceleratorConfig) -> Plan:
        """Plan one configuration; errors as for :func:`plan`."""
        needs: dict[str, int] = {}
        found, built = self._prove(config.replace(map_bits=max(config.map_bits, _map_bits(self.network))), needs)
        _raise(config, needs, map_bits=_map_bits(found.lowered, 0), act_depth=found.memory.peak)
        encoded = None
        while encoded is None:
            try:
                encoded = share_codes([part.weights for part in found.parts], found.memory.tail, built, self.encoder)
            except CapacityError as error:
                if "row_depth" not in error.needs or error.needs["row_depth"] > ANY["row_depth"]:
                    raise
                needs |= error.needs
                built = built.replace(**error.needs)
        layers, words = self._assemble(found, encoded, built, needs)
        _raise(config, needs, weight_depth=words)
        peak_layer = found.lowered.layers[busiest(found.memory.lifetimes, len(layers))].name
        return Plan(config=config, needs=needs, memory=found.memory, peak_layer=peak_layer, words=words,
                    layers=tuple(layers), map_bytes=_moved(found.lowered, found.memory, config))

    def _prove(self, config: AcceleratorConfig, needs: dict[str, int]) -> tuple[_Proven, AcceleratorConfig]:
        """Place and prove, with the least width of accumulators that is enough."""
        first: OverflowProofError | None = None
        for width in range(config.acc_width, ACC_WIDTH_MAX + 1):
            built = config.replace(acc_width=width)
            found = self._proven_with(built)
            if isinstance(found, _Proven):
                _raise(config, needs, acc_width=width)
                return found, built
            first = first or found
        assert first is not None
        raise first

    def _proven_with(self, config: AcceleratorConfig) -> _Proven | OverflowProofError:
        try:
            lowered, memory = place(self.network, config)
        except CapacityError as error:
            if "act_depth" not in error.needs:
                raise
            lowered, memory = place(self.network, config, error.needs["act_depth"])
        # What is proven and encoded does not depend on the rest.
        key = (memory.tail, _layers(lowered), config.replace(
            **ANY, interleave=1, max_code_bits=15, dict_depth=1024, counters=False, shadow_chain=False,
            weight_memory="block"))
        if self._proven is None or self._proven[0] != key:
            self._proven = None
            found: _Proven | OverflowProofError
            try:
                found = _Proven(lowered=lowered, memory=memory, parts=prepare(lowered, memory, config))
            except OverflowProofError as error:
                found = error
            self._proven = key, found
        return self._proven[1]

    def _assemble(self, found: _Proven, encoded: tuple[list[EncodedLayer], list[bool]],
                  config: AcceleratorConfig, needs: dict[str, int]) -> tuple[list[CompiledLayer], int]:
        """Layers and words, with the latency of a model memory that holds them, and as many positions as they take."""
        least = sum(each.codeword_bits for each in encoded[0]) // (8 * WORD_BYTES)
        depth = max(config.weight_depth, least)
        while True:
            built = config.replace(weight_depth=min(depth, ANY["weight_depth"]))
            latency = memory_latency(built)
            key = found.memory.tail, _layers(found.lowered), latency, config.replace(
                act_depth=ANY["act_depth"], weight_depth=ANY["weight_depth"], map_bits=ANY["map_bits"],
                weight_memory="block")
            try:
                layers, words = _remembered(self._assembled, key, functools.partial(_counted, found, encoded, built))
            except CapacityError as error:
                if not config.positions < error.needs.get("positions", 0) <= ANY["positions"]:
                    raise
                needs |= error.needs
                config = config.replace(**error.needs)
                continue
            if words <= depth or latency == memory_latency(built.replace(weight_depth=min(words, ANY["weight_depth"]))):
                return layers, words
            depth = words


def _layers(network: QuantizedNetwork) -> tuple[str, ...]:
    """What tells a lowered network from others of one network: some have convolutions in pieces."""
    return tuple(layer.name for layer in network.layers)


def _counted(found: _Proven, encoded: tuple[list[EncodedLayer], list[bool]],
             config: AcceleratorConfig) -> tuple[list[CompiledLayer], int]:
    layers, words = assemble(found.parts, encoded, found.memory, config)
    return layers, words.size


def _map_bits(network: QuantizedNetwork, least: int | None = None) -> int:
    """Of the coordinates of all maps; also of the input, which lowering may copy, if `least` is not given."""
    first = max(network.input.shape[1:]) if least is None else least
    return max(first, *(side for layer in network.layers for side in layer.target.shape[1:])).bit_length()


def _raise(config: AcceleratorConfig, needs: dict[str, int], **least: int) -> None:
    """Note what is needed larger than `config` has it."""
    needs |= {name: value for name, value in least.items() if value > getattr(config, name)}


class _Encoder:
    """:func:`~.weights.encode_weights` that knows what it has encoded before: the row buffer is no part of it."""

    def __init__(self) -> None:
        self._digests: weakref.WeakKeyDictionary[LayerWeights, bytes] = weakref.WeakKeyDictionary()
        self._encoded: dict[object, tuple[EncodedLayer, ...]] = {}

    def __call__(self, group: Sequence[LayerWeights], config: AcceleratorConfig) -> tuple[EncodedLayer, ...]:
        if any(each.taps is None for each in group):
            return encode_weights(group, config)
        key = (tuple(map(self._digest, group)), config.max_code_bits, config.dict_depth)
        made = _remembered(self._encoded, key, functools.partial(
            encode_weights, group, config.replace(row_depth=ANY["row_depth"])))
        longest = max((int(code.row_lengths.max()) for each, code in zip(group, made, strict=True) if each.replayed),
                      default=0)
        if longest > config.row_depth:
            # Never shown: planning goes on with what is needed.
            raise CapacityError(f"a row has {longest} codewords", row_depth=1 << (longest - 1).bit_length())
        return made

    def _digest(self, weights: LayerWeights) -> bytes:
        """Of everything that is encoded."""
        if weights not in self._digests:
            assert weights.taps is not None
            taps = weights.taps
            found = hashlib.blake2b(repr((taps.codebook, taps.channels, taps.indices.shape, weights.replayed)).encode())
            found.update(np.ascontiguousarray(taps.indices).data)
            self._digests[weights] = found.digest()
        return self._digests[weights]


def _remembered(known: dict[object, _T], key: object, make: Callable[[], _T]) -> _T:
    if key not in known:
        known[key] = make()
    return known[key]


def _moved(lowered: QuantizedNetwork, memory: Allocation, config: AcceleratorConfig) -> int:
    """Bytes of :attr:`Plan.map_bytes`; those maps stay on the chip that save the most for the time they take there."""
    if memory.peak <= config.act_depth:
        return 0
    tensors = [(layer.target, layer.sources) for layer in lowered.layers]
    moved = dict.fromkeys((lifetime.name for lifetime in memory.lifetimes), 0)
    for tensor in (lowered.input, *(each for target, sources in tensors for each in (target, *sources))):
        placed = memory.placements[tensor.name]
        moved[memory.storage[tensor.name]] += placed.byte_channels * placed.height * placed.width
    worth = sorted(memory.lifetimes, key=lambda life: (
        -moved[life.name] / (life.size * (life.last - life.first + 1)), life.size))
    kept = first_fit(worth, config.act_depth)
    return sum(size for name, size in moved.items() if name not in kept)
