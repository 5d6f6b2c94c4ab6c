"""Rules that a network must keep to run on a configuration, each with its own message."""

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ModelError, UnsupportedError
from ...hw.arch.image import COORDINATE_BITS, LAYERS_MAX, PHASE_BITS
from ..network import Layer, QuantizedNetwork

__all__ = ["check_layer", "check_network", "input_ranges"]

RAW_ACT_BITS = 8
"""A raw output is stored as bytes."""


def check_network(network: QuantizedNetwork, config: AcceleratorConfig) -> None:
    """Check the network's arithmetic and every layer against `config`.

    Raises
    ------
    ModelError
        If the arithmetic differs, or a layer is inconsistent.
    UnsupportedError, CapacityError
        If the array can't run a layer, or it is too large.
    """
    if not network.layers:
        raise ModelError("the network must have at least one layer, not 0; compress a network with layers")
    if len(network.layers) > LAYERS_MAX:
        raise CapacityError(f"a network has at most {LAYERS_MAX} layers, not {len(network.layers)}; fuse layers")
    truncate = network.max_shift - network.guard_bits
    if truncate != config.truncate:
        kept = config.max_shift - truncate
        mend = f"generate the accelerator with guard_bits={kept}" if 0 <= kept <= config.max_shift else \
            f"generate the accelerator with max_shift={network.max_shift} and guard_bits={network.guard_bits}"
        raise ModelError(f"the network was compressed for products that lose {truncate} low bits (max_shift "
                         f"{network.max_shift}, guard_bits {network.guard_bits}), but the accelerator drops "
                         f"{config.truncate} (max_shift {config.max_shift}, guard_bits {config.guard_bits}); "
                         f"{mend}, or compress the network for this arithmetic")
    for layer in network.layers:
        check_layer(layer, config)


def check_layer(layer: Layer, config: AcceleratorConfig) -> None:
    """Check one layer against `config`; errors as for :func:`check_network`."""
    where = f"layer {layer.name}"
    source, target = layer.source, layer.target
    if layer.op not in ("conv", "maxpool", "avgpool"):
        raise UnsupportedError(f"{where}: operator must be conv, maxpool or avgpool, not {layer.op!r}; rewrite it")
    if source.bits > config.act_bits:
        raise CapacityError(f"{where}: its input {source.name} has {source.bits} bits, more than the accelerator's "
                            f"act_bits of {config.act_bits}; compress with {config.act_bits}-bit activations"
                            f"{' (a raw output can only be the last)' if source.bits > 8 else ' or raise act_bits'}")
    if layer.raw != (target.bits == 32):
        raise ModelError(f"{where}: a raw output has 32 bits and any other 2 to 8, not raw={layer.raw} with "
                         f"{target.bits} bits; compress the network again")
    needed = RAW_ACT_BITS if layer.raw else target.bits
    if needed > config.act_bits:
        raise CapacityError(f"{where}: its output {target.name} is stored with {needed} bits an activation, more than "
                            f"the accelerator's act_bits of {config.act_bits}; raise act_bits to {needed}, or compress "
                            f"with a requantized output of {config.act_bits} bits")
    if not layer.raw:
        low, high = target.range
        if not low <= layer.qmin <= layer.qmax <= high:
            raise ModelError(f"{where}: the clamp must be inside its output's range {low} to {high}, not {layer.qmin} "
                             f"to {layer.qmax}; compress the network again")
    for size, axis in zip(layer.kernel, ("height", "width"), strict=True):
        if not 1 <= size <= config.kernel_max:
            raise CapacityError(f"{where}: kernel {axis} must be 1 to the accelerator's kernel_max of "
                                f"{config.kernel_max}, not {size}; raise kernel_max (at most 64) or use a smaller "
                                f"kernel")
    for size, axis in zip(target.shape[1:], ("high", "wide"), strict=True):
        if not 1 <= size < 1 << config.map_bits:
            raise CapacityError(f"{where}: an output map is 1 to {(1 << config.map_bits) - 1} {axis} with the "
                                f"accelerator's map_bits of {config.map_bits}, not {size}; raise map_bits (at most "
                                f"{COORDINATE_BITS}) or split the input into tiles")
    most = (1 << PHASE_BITS) - 1
    for step in layer.stride:
        if not 1 <= step <= most:
            raise UnsupportedError(f"{where}: stride must be 1 to {most}, not {step}; use a smaller one")
    for step in layer.dilation:
        if not 1 <= step <= 255:
            raise UnsupportedError(f"{where}: dilation must be 1 to 255, not {step}; use a smaller one")
    if layer.op == "conv":
        _check_conv(layer, config)
    else:
        _check_pool(layer)


def _check_conv(layer: Layer, config: AcceleratorConfig) -> None:
    if layer.groups < 1 or layer.source.channels % layer.groups or layer.target.channels % layer.groups:
        raise ModelError(f"layer {layer.name}: groups must divide the {layer.source.channels} input and "
                         f"{layer.target.channels} output channels, not {layer.groups}; compress the network again")
    for number, terms in enumerate(layer.codebook):
        for term in terms:
            if not 0 <= term.shift <= config.max_shift:
                raise CapacityError(
                    f"layer {layer.name}: codebook entry {number} shifts by {term.shift}, but the accelerator's "
                    f"max_shift is {config.max_shift}; raise max_shift to {term.shift}, or compress with fewer levels")


def _check_pool(layer: Layer) -> None:
    if layer.source.channels != layer.target.channels:
        raise ModelError(f"layer {layer.name}: pooling must keep its {layer.source.channels} channels, not give "
                         f"{layer.target.channels}; compress the network again")
    if layer.op != "maxpool":
        return
    for axis, word in ((0, "row"), (1, "column")):
        d = np.arange(layer.kernel[axis]) * layer.dilation[axis] - layer.padding[axis]
        at = np.arange(layer.target.shape[1 + axis])[:, None] * layer.stride[axis] + d[None, :]
        empty = ~((at >= 0) & (at < layer.source.shape[1 + axis])).any(axis=1)
        if empty.any():
            raise UnsupportedError(f"layer {layer.name}: output {word} {int(empty.argmax())} of a max pooling sees "
                                   f"only padding and has no maximum; use padding smaller than the kernel")


def input_ranges(network: QuantizedNetwork) -> tuple[tuple[int, int], ...]:
    """Least and greatest activation that each layer can read: the clamp of the layer before, or the tensor's range."""
    ranges = {network.input.name: network.input.range}
    found = []
    for layer in network.layers:
        found.append(ranges[layer.source.name])
        ranges[layer.target.name] = (layer.qmin, layer.qmax)
    return tuple(found)
