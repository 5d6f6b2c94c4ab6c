"""The compiler: a compressed network and a configuration become an image."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ModelError
from ...hw.arch.image import DESCRIPTOR_TAG, HEADER_WORDS, Flag
from ..codec.alphabet import EncodedLayer, encode_layer, shared_row
from ..image import Image
from ..network import Layer, QuantizedNetwork
from .checks import check_network, input_ranges
from .cycles import LayerCycles, RowWork, layer_cycles, pixel_cycles_of, run_cycles, watchdog
from .descriptor import SECTIONS, pack_descriptor, pack_header
from .memory import Allocation, allocate
from .parameters import Scales, pack_parameters, parameter_shape
from .placement import TensorPlacement
from .proof import Proof, prove
from .tables import code_table, dictionary_words, kernel_tables

__all__ = ["Compilation", "CompiledLayer", "compile_", "compile_detailed"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CompiledLayer:
    """What the compiler made of one layer.

    Parameters
    ----------
    name, op : str
        Of the network's layer.
    alphabet : str
        Kind of dictionary that gave the smallest layer.
    entries : int
        Dictionary entries, which is also codewords.
    weights : int
        Weights of the layer; 0 for pooling.
    words : mapping of str to int
        16-bit words of each section, by the names of :data:`~shiftwright.sw.compiler.descriptor.SECTIONS`.
    cycles : LayerCycles
        Prediction.
    proof : Proof
        Bounds of the accumulator.
    target : TensorPlacement
        Where the output lies when the layer has run.
    """

    name: str
    op: str
    alphabet: str
    entries: int
    weights: int
    words: Mapping[str, int]
    cycles: LayerCycles
    proof: Proof
    target: TensorPlacement

    @property
    def bytes(self) -> int:
        """Bytes of the layer in the model memory, all sections."""
        return 2 * sum(self.words.values())

    @property
    def bits_per_weight(self) -> float | None:
        """All bits of the layer over its weights; ``None`` for pooling."""
        return 8 * self.bytes / self.weights if self.weights else None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Compilation:
    """An image and how it came about.

    Parameters
    ----------
    image : Image
        The result.
    layers : tuple of CompiledLayer
        In execution order.
    placements : dict of str to TensorPlacement
        Place of every tensor by its name, the network's input included. A place is reused by later tensors.
    peak : int
        Activation addresses in use in every bank.
    parameters : int
        Float32 parameters of the original network.
    size : int
        Bytes of the whole ``.swi`` file.
    """

    image: Image
    layers: tuple[CompiledLayer, ...]
    placements: dict[str, TensorPlacement]
    peak: int
    parameters: int
    size: int

    @property
    def ratio(self) -> float:
        """Float32 bytes of the original parameters over the bytes of the whole image file."""
        return 4 * self.parameters / self.size

    @property
    def bits_per_weight(self) -> float:
        """Bits of the whole image file over the original parameters."""
        return 8 * self.size / self.parameters if self.parameters else float("nan")

    @property
    def cycles(self) -> int:
        """Predicted cycles of one inference."""
        return run_cycles(layer.cycles for layer in self.layers)

    @property
    def overhead(self) -> int:
        """Bytes of the file outside the layers: file header, section table, configuration, tensors, model header."""
        return self.size - sum(layer.bytes for layer in self.layers)


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
    check_network(network, config)
    memory = allocate(network, config)
    layers, parts = [], []
    used = HEADER_WORDS
    for layer, x_range in zip(network.layers, input_ranges(network), strict=True):
        compiled, words = _compile_layer(layer, x_range, memory, config)
        layers.append(compiled)
        parts.append(words)
        used += words.size
    if used > config.weight_depth:
        raise _too_large(layers, used, config)
    words = np.concatenate((pack_header(len(layers), used), *parts))
    image = Image(config=config, input=memory.placements[network.input.name],
                  output=memory.placements[network.output.name], words=words)
    return Compilation(image=image, layers=tuple(layers), placements=memory.placements, peak=memory.peak,
                       parameters=network.parameters, size=len(image.to_bytes()))


def _compile_layer(layer: Layer, x_range: tuple[int, int], memory: Allocation,
                   config: AcceleratorConfig) -> tuple[CompiledLayer, np.ndarray]:
    source, target = memory.placements[layer.source.name], memory.placements[layer.target.name]
    scales = Scales.of(layer)
    parameters = pack_parameters(layer, scales)
    proof = prove(layer, x_range, scales, config)
    encoded = _encode(layer, config)
    dictionary = dictionary_words(encoded.entries)
    work = RowWork.of(encoded.symbols, encoded.row_lengths, code_lengths=encoded.lengths,
                      entry_sizes=np.array([len(entry) for entry in encoded.entries]))
    cycles = layer_cycles(config, kernel=layer.kernel, dict_words=dictionary.size, out=layer.target.shape[1:],
                          work=work, shared_row=layer.op != "conv",
                          pixel_cycles=pixel_cycles_of(scales.count, layer.raw),
                          row_words=parameter_shape(parameters.words, parameters.flags, layer.target.channels)[1])
    flags = parameters.flags
    for flag, on in ((Flag.MAX, layer.op == "maxpool"), (Flag.X_SIGNED, layer.source.signed), (Flag.RAW, layer.raw),
                     (Flag.SHARED_ROW, layer.op != "conv")):
        flags |= flag if on else Flag(0)
    rows, columns = kernel_tables(layer, source, config)
    fields = {
        "tag_flags": DESCRIPTOR_TAG << 12 | flags, **_geometry(layer, source, target, config),
        "qmin": 0 if layer.raw else layer.qmin & 0xFFFF, "qmax": 0 if layer.raw else layer.qmax & 0xFFFF,
        "dict_words": dictionary.size, "eor": encoded.eor, "watchdog": watchdog(cycles),
    }
    for name, words in (("param", parameters.words), ("a", encoded.words_a), ("b", encoded.words_b)):
        fields[f"{name}_words_lo"], fields[f"{name}_words_hi"] = words.size & 0xFFFF, words.size >> 16
    parts = (pack_descriptor(layer.name, fields), rows.ravel(), columns.ravel(),
             code_table(encoded.lengths, config.max_code_bits), dictionary, parameters.words, encoded.words_a,
             encoded.words_b)
    compiled = CompiledLayer(
        name=layer.name, op=layer.op, alphabet=encoded.alphabet, entries=len(encoded.entries),
        weights=0 if layer.indices is None else layer.indices.size, cycles=cycles, proof=proof, target=target,
        words={name: part.size for name, part in zip(SECTIONS, parts, strict=True)})
    return compiled, np.concatenate(parts).astype(np.uint16)


def _encode(layer: Layer, config: AcceleratorConfig) -> EncodedLayer:
    if layer.op != "conv":
        return shared_row(layer.kernel[0] * layer.kernel[1], config.truncate, max_code_bits=config.max_code_bits)
    assert layer.indices is not None
    channels = layer.indices.shape[1]
    in_tap_order = layer.indices.transpose(0, 2, 3, 1).reshape(layer.indices.shape[0], -1)
    try:
        return encode_layer(np.ascontiguousarray(in_tap_order), layer.codebook, channels=channels,
                            kernel_width=layer.kernel[1], max_code_bits=config.max_code_bits,
                            dict_depth=config.dict_depth)
    except ModelError as error:
        raise type(error)(f"layer {layer.name}: {error}") from None


def _geometry(layer: Layer, source: TensorPlacement, target: TensorPlacement,
              config: AcceleratorConfig) -> dict[str, int]:
    """Descriptor fields from ``channels`` to ``out_phases``. Address steps wrap at 16 bits, as addresses do."""
    taken, given = source.steps(config), target.steps(config)
    conv = layer.op == "conv"
    inner = layer.source.channels // layer.groups if conv else 1
    return {
        "channels": inner, "kernel": layer.kernel[0] << 8 | layer.kernel[1], "rows": layer.target.channels,
        "group_rows": layer.target.channels // layer.groups if conv else 1, "group_step": inner,
        "out_h": layer.target.height, "out_w": layer.target.width,
        "in_base": source.base, "in_col_step": taken.col & 0xFFFF, "in_row_step": taken.row & 0xFFFF,
        "out_base": target.base, "out_col_step": given.col & 0xFFFF, "out_row_step": given.row & 0xFFFF,
        "out_plane_x": given.plane_x & 0xFFFF, "out_plane_y": given.plane_y & 0xFFFF,
        "out_phases": target.phases_y << 8 | target.phases_x,
    }


def _too_large(layers: list[CompiledLayer], used: int, config: AcceleratorConfig) -> CapacityError:
    largest = max(layers, key=lambda layer: layer.bytes)
    return CapacityError(
        f"model memory (weight_depth) must hold {used} words of 16 bits, but has {config.weight_depth}; the largest "
        f"layer is {largest.name} with {largest.bytes // 2}; raise weight_depth to {used}, or compress to fewer bits a "
        f"weight (fewer levels, more zeros): {config.weight_depth / used:.0%} of the present size fits")
