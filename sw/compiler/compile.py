"""The compiler: a compressed network and a configuration become an image."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError
from ...hw.arch.image import DESCRIPTOR, DESCRIPTOR_TAG, KEPT_AT, Flag
from ..codec.alphabet import EncodedLayer
from ..codec.bitstream import encode_stream
from ..image import Image
from ..network import Layer, QuantizedNetwork
from .checks import check_network, tensor_ranges
from .compilation import Compilation, CompiledLayer
from .cycles import LayerWork, layer_cycles, watchdog
from .descriptor import SECTIONS, LayerView, pack_descriptor, pack_header
from .memory import Allocation
from .parameters import Scales, pack_parameters, row_bias
from .placement import TensorPlacement
from .proof import Proof, prove
from .sharing import share_codes
from .split import split_to_fit
from .streams import deal
from .tables import PositionTable, live_pixels, position_table
from .weights import LayerWeights

__all__ = ["Compilation", "CompiledLayer", "Part", "assemble", "compile_", "compile_detailed", "place", "prepare"]


def compile_(network: QuantizedNetwork, config: AcceleratorConfig) -> Image:
    """Compile a network for an accelerator.

    Parameters
    ----------
    network : QuantizedNetwork
        Compressed network, see :mod:`shiftwright.sw.compress`.
    config : AcceleratorConfig
        The accelerator that will run it.

    Returns
    -------
    Image
        Equal arguments give equal bytes.

    Raises
    ------
    CapacityError
        If the network does not fit `config`; names the resource, what is needed, what there is, and the way out.
    OverflowProofError
        If an accumulator or the requantizer could overflow.
    UnsupportedError
        If the array can't run a layer.
    ModelError
        If the network breaks its own rules, or was compressed for another arithmetic.
    """
    return compile_detailed(network, config).image


def compile_detailed(network: QuantizedNetwork, config: AcceleratorConfig) -> Compilation:
    """Compile as :func:`compile_` does, and tell sizes, places, proofs and cycles of every layer."""
    lowered, memory = place(network, config)
    parts = prepare(lowered, memory, config)
    layers, words = assemble(parts, share_codes([part.weights for part in parts], memory.tail, config), memory, config)
    if words.size > config.weight_depth:
        raise _too_large(layers, words.size, config)
    image = Image(config=config, input=memory.placements[network.input.name],
                  output=memory.placements[network.output.name], words=words)
    return Compilation(image=image, network=lowered, layers=tuple(layers), memory=memory,
                       parameters=network.parameters, size=len(image.to_bytes()))


def place(network: QuantizedNetwork, config: AcceleratorConfig, depth: int | None = None,
          ) -> tuple[QuantizedNetwork, Allocation]:
    """First step of :func:`compile_detailed`: what can be told without looking at the weights.

    Parameters
    ----------
    depth : int, optional
        Activations in each bank; the configuration's ``act_depth`` if not given.

    Returns
    -------
    lowered : QuantizedNetwork
    memory : Allocation
        Of its tensors.
    """
    check_network(network, config)
    return split_to_fit(network, config, config.act_depth if depth is None else depth)


def prepare(lowered: QuantizedNetwork, memory: Allocation, config: AcceleratorConfig) -> "list[Part]":
    """Second step: prove every layer, and put its weights in order."""
    ranges = tensor_ranges(lowered)
    return [Part.of(layer, number >= memory.tail, ranges, memory, config)
            for number, layer in enumerate(lowered.layers)]


def assemble(parts: "Sequence[Part]", encoded: tuple[Sequence[EncodedLayer], Sequence[bool]], memory: Allocation,
             config: AcceleratorConfig) -> tuple[list[CompiledLayer], np.ndarray]:
    """Last step: layers, and the words of the model memory.

    Parameters
    ----------
    encoded : sequences of EncodedLayer and bool
        What :func:`~.sharing.share_codes` returns, the step between.
    """
    table, made = PositionTable(), []
    for number, (part, code, same) in enumerate(zip(parts, *encoded, strict=True)):
        if number == memory.tail:
            table = PositionTable()
        made.append(_compile_layer(part, code, same, table, config))
    words = np.concatenate((pack_header([part.size for _, part in made], memory.tail), *(part for _, part in made)))
    return [compiled for compiled, _ in made], words


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A layer before its weights are encoded, which takes long: what can be refused without that has been.

    Parameters
    ----------
    layer : Layer
    batch : bool
        It belongs to the tail.
    source, residuals, target : TensorPlacement
    scales : Scales
    proof : Proof
    channels : int
        Taps of a position.
    weights : LayerWeights
    """

    layer: Layer
    batch: bool
    source: TensorPlacement
    residuals: tuple[TensorPlacement, ...]
    target: TensorPlacement
    scales: Scales
    proof: Proof
    channels: int
    weights: LayerWeights

    @classmethod
    def of(cls, layer: Layer, batch: bool, ranges: Mapping[str, tuple[int, int]], memory: Allocation,
           config: AcceleratorConfig) -> "Part":
        source, *residuals = (memory.placements[tensor.name] for tensor in layer.sources)
        scales = Scales.of(layer)
        proof = prove(layer, [ranges[tensor.name] for tensor in layer.sources], scales, config)
        channels = 1 if layer.indices is None else layer.indices[0].size if batch else layer.indices.shape[1]
        weights = LayerWeights.of(layer, live_pixels(layer, source, config), channels, scales.negated, config)
        return cls(layer=layer, batch=batch, source=source, residuals=tuple(residuals),
                   target=memory.placements[layer.target.name], scales=scales, proof=proof, channels=channels,
                   weights=weights)


def _compile_layer(part: Part, encoded: EncodedLayer, same: bool, table: PositionTable, config: AcceleratorConfig,
                   ) -> tuple[CompiledLayer, np.ndarray]:
    layer, scales, target = part.layer, part.scales, part.target
    bias = row_bias(layer, scales, config)
    dealing = deal(layer, config.streams, encoded.cycles_per_row if layer.op == "conv" else None)
    positions = position_table(layer, part.source, part.residuals, part.channels, config)
    if len(positions) > config.positions:
        raise CapacityError(f"layer {layer.name}: kernel and residuals take {len(positions)} positions, more than the "
                            f"accelerator's {config.positions}; raise positions (at most 512) or use a smaller kernel",
                            positions=len(positions))
    kept = table.replace(positions)
    parameters, flags = pack_parameters(layer, bias, scales, dealing.channels, dealing.order)
    # A pooling's stream has its one row, if it has any output channel.
    symbols = [encoded.rows(rows if layer.op == "conv" else rows[:1] * 0) for rows in dealing.channels]
    codewords = [encode_stream(each, encoded.code, config.interleave) for each in symbols]
    for flag, on in ((Flag.MAX, layer.op == "maxpool"), (Flag.X_SIGNED, layer.source.signed), (Flag.RAW, layer.raw),
                     (Flag.SHARED_ROW, layer.op != "conv"), (Flag.FLATTEN, target.vector and not part.batch),
                     (Flag.BATCH, part.batch), (Flag.SAME_CODE, same)):
        flags |= flag if on else Flag(0)
    code = encoded.code_table, encoded.dictionary
    own = tuple(words[:0] for words in code) if same else code
    fields = {
        "tag_flags": DESCRIPTOR_TAG << 12 | flags, "channels": part.channels,
        "positions": kept << KEPT_AT | len(positions) - kept,
        "rows": layer.target.channels, "group_rows": dealing.group_rows, "group_step": dealing.group_step,
        "stream_step": dealing.stream_step, **_geometry(part.source, target, part.batch, config),
        "qmin": 0 if layer.raw else layer.qmin & 0xFFFF, "qmax": 0 if layer.raw else layer.qmax & 0xFFFF,
        "dict_words": own[1].size, "eor": encoded.eor, "watchdog": 0,
    }
    lengths = np.array([(words.size & 0xFFFF, words.size >> 16) for pair in zip(parameters, codewords, strict=True)
                        for words in pair])
    words = dict(zip(SECTIONS, (
        pack_descriptor(layer.name, fields), lengths.ravel(), positions[kept:].ravel(), *own,
        np.concatenate(parameters), np.concatenate(codewords)), strict=True))
    view = LayerView(config=config, fields=fields, parts=words, code_table=code[0], dictionary=code[1])
    work = LayerWork.of(symbols, encoded.dictionary, encoded.eor)
    cycles = layer_cycles(view, work)
    longest = layer_cycles(view, work, config.lanes) if part.batch else cycles
    words["descriptor"][DESCRIPTOR.index("watchdog")] = watchdog(longest)
    compiled = CompiledLayer(
        name=layer.name, op=layer.op, alphabet=encoded.alphabet, entries=len(encoded.entries), same_code=same,
        weights=0 if layer.indices is None else layer.indices.size, cycles=cycles, proof=part.proof, target=target,
        words={name: section.size for name, section in words.items()})
    return compiled, np.concatenate(list(words.values())).astype(np.uint16)


def _geometry(source: TensorPlacement, target: TensorPlacement, batch: bool,
              config: AcceleratorConfig) -> dict[str, int]:
    """Descriptor fields from ``out_h`` to ``out_wrap_y``. Addresses and steps wrap at 16 bits."""
    height, width = (config.lanes_y, config.lanes_x) if batch else (target.height, target.width)
    steps, flat = target.steps(config), target.vector and not batch
    fields = {
        "out_h": height, "out_w": width, "in_base": source.base, "in_col_step": source.col_step,
        "in_row_step": source.row_step, "out_base": target.base,
        "out_phases": target.phases_y << 8 | target.phases_x,
    }
    for axis, phases, plane, step in (("x", target.phases_x, steps.plane_x, target.col_step),
                                      ("y", target.phases_y, steps.plane_y, target.row_step)):
        turn = -(phases - 1) * plane
        fields[f"out_plane_{axis}"] = step if flat else plane
        fields[f"out_turn_{axis}"] = 0 if flat else turn
        fields[f"out_wrap_{axis}"] = 0 if flat else turn + step
    return {name: value & 0xFFFF for name, value in fields.items()}


def _too_large(layers: list[CompiledLayer], used: int, config: AcceleratorConfig) -> CapacityError:
    largest, depth = max(layers, key=lambda layer: layer.bytes), config.weight_depth
    return CapacityError(
        f"model memory (weight_depth) must hold {used} words of 16 bits, but has {depth}; the largest layer is "
        f"{largest.name} with {largest.bytes // 2}; {used - depth} are missing: raise weight_depth to {used}, or "
        f"compress to fewer bits a weight (another recipe, fewer levels, more zeros, --target-size {2 * depth}): "
        f"{depth / used:.0%} of the present size fits",
        weight_depth=used)
