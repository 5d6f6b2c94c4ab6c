"""Rules that a network must keep to run on a configuration, each with its own message."""

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ModelError, UnsupportedError
from ...hw.arch.image import COORDINATE_BITS, LAYERS_MAX, PHASE_BITS
from ..data import PIXEL_SCALE
from ..network import Concat, Layer, QuantizedNetwork

__all__ = ["check_layer", "check_network", "tensor_ranges"]

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
    if network.rounding != config.rounding and (where := _rounded(network)):
        raise ModelError(f"{where} is rounded {network.rounding!r} where it lies halfway between two integers, but the "
                         f"accelerator rounds {config.rounding!r}; generate the accelerator with "
                         f"rounding={network.rounding!r}, or compress the network for this arithmetic")
    for layer in network.layers:
        check_layer(layer, config)


def _rounded(network: QuantizedNetwork) -> str | None:
    """What of a network is rounded, if anything: pixels that are no integers of its input, or a layer's output."""
    if PIXEL_SCALE * 2.0**network.input.exponent > 1:
        return "the network's input"
    return next((f"layer {layer.name}: its output" for layer in network.layers
                 if not layer.raw and np.any(layer.shift)), None)


def check_layer(layer: Layer, config: AcceleratorConfig) -> None:
    """Check one layer against `config`; errors as for :func:`check_network`."""
    where = f"layer {layer.name}"
    target = layer.target
    if layer.op not in ("conv", "maxpool", "avgpool", "leaky"):
        raise UnsupportedError(f"{where}: operator must be conv, maxpool, avgpool or leaky, not {layer.op!r}; rewrite "
                               f"it")
    for tensor in layer.sources:
        if tensor.bits > config.act_bits:
            raise CapacityError(f"{where}: its input {tensor.name} has {tensor.bits} bits, more than the accelerator's "
                                f"act_bits of {config.act_bits}; compress with {config.act_bits}-bit activations or "
                                f"raise act_bits")
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
    for size, axis in zip(target.shape[1:], ("high", "wide"), strict=True):
        if not 1 <= size < 1 << config.map_bits:
            raise CapacityError(f"{where}: an output map is 1 to {(1 << config.map_bits) - 1} {axis} with the "
                                f"accelerator's map_bits of {config.map_bits}, not {size}; raise map_bits (at most "
                                f"{COORDINATE_BITS}) or split the input into tiles")
    most = (1 << PHASE_BITS) - 1
    sizes = layer.target.shape[1:]
    for step, size in (*zip(layer.stride, sizes, strict=True), *(
            pair for residual in layer.residuals for pair in zip(residual.stride, sizes, strict=True))):
        if step < 1 or step > most and size > 1:  # with one position there is no step
            raise UnsupportedError(f"{where}: stride must be 1 to {most}, not {step}; use a smaller one")
    if layer.op == "conv":
        _check_conv(layer, config)
    else:
        _check_pool(layer)
    if layer.op == "leaky":
        _check_leaky(layer, config)


def _check_conv(layer: Layer, config: AcceleratorConfig) -> None:
    named = {f"codebook entry {number}": terms for number, terms in enumerate(layer.codebook)}
    named.update((f"residual {residual.source.name}", residual.terms) for residual in layer.residuals)
    for name, terms in named.items():
        for term in terms:
            if not 0 <= term.shift <= config.max_shift:
                raise CapacityError(
                    f"layer {layer.name}: {name} shifts by {term.shift}, but the accelerator's "
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


def _check_leaky(layer: Layer, config: AcceleratorConfig) -> None:
    if layer.source.shape != layer.target.shape or layer.kernel != (1, 1) or not layer.source.signed:
        raise ModelError(f"layer {layer.name}: a leaky ReLU keeps the shape of a signed map; compress the network "
                         f"again")
    most = config.max_shift - config.truncate
    if not 1 <= layer.leak <= most:
        raise CapacityError(f"layer {layer.name}: a leaky ReLU's slope must be 2**-1 to 2**-{most} with the "
                            f"accelerator's max_shift of {config.max_shift} and guard_bits of {config.guard_bits}, not "
                            f"2**-{layer.leak}; use a slope nearer to 1")


def tensor_ranges(network: QuantizedNetwork) -> dict[str, tuple[int, int]]:
    """Least and greatest activation of each tensor: its layer's clamp, the input's range, or what its parts have."""
    ranges = {network.input.name: network.input.range}
    for step in network.steps:
        if isinstance(step, Concat):
            lows, highs = zip(*(ranges[part.name] for part in step.parts), strict=True)
            ranges[step.target.name] = (min(lows), max(highs))
        else:
            ranges[step.target.name] = (step.qmin, step.qmax)
    return ranges
