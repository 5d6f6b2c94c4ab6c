"""The integer golden model: the definition of the arithmetic, in PyTorch.

Written from the design's section "Arithmetic" and the description in :mod:`shiftwright.sw.network` alone. It shares no
code with the compiler, the packer and the codec, and evaluates the terms of the codebooks itself.

A product is ``(x << shift) >> truncate`` with ``truncate = max_shift - guard_bits``. For a term with
``shift >= truncate`` that is x times a whole power of two, and all such terms of a weight add up to one integer weight.
A term with a smaller shift drops low bits of x before its sign is applied, so those terms are summed apart, one matrix
product for each distinct ``x >> (truncate - shift)``. Matrix products of integers are computed in float32 where a bound
on every partial sum proves them exact, in float64 otherwise. Residuals are added term by term.
"""

import dataclasses
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from ..hw.arch.errors import ModelError
from ..sw.data import PIXEL_SCALE
from ..sw.network import Concat, Layer, QuantizedNetwork, Residual, TensorSpec, Term
from ..sw.terms import term_sum

if TYPE_CHECKING:
    import torch

    from ..sw.data import Dataset

__all__ = ["run", "predict", "accuracy"]

FLOAT32_EXACT = 1 << 24
FLOAT64_EXACT = 1 << 53
INT64_BITS = 63
RAW_BITS = 32
CHUNK_ELEMENTS = 1 << 24
"""Most elements of an unfolded map that are held at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Product:
    """One matrix product: ``weights`` (groups, rows per group, taps) applied to ``x >> drop``."""

    drop: int
    weights: "torch.Tensor"


@dataclasses.dataclass(frozen=True, eq=False)
class _Prepared:
    layer: Layer
    truncate: int
    products: tuple[_Product, ...]


@overload
def run(network: QuantizedNetwork, x: np.ndarray, *, layers: Literal[False] = False) -> np.ndarray: ...
@overload
def run(network: QuantizedNetwork, x: np.ndarray, *, layers: Literal[True]) -> dict[str, np.ndarray]: ...


def run(network: QuantizedNetwork, x: np.ndarray, *, layers: bool = False) -> np.ndarray | dict[str, np.ndarray]:
    """Run a compressed network on integer images.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    x : integer array (N, C, H, W)
        Images in the range of ``network.input`` (see :meth:`QuantizedNetwork.quantize_input`).
    layers : bool
        Return every layer's output, by the layer's name, in place of the last one's.

    Returns
    -------
    int64 array (N, C, H, W), or a dict of them
        Raw accumulators where the layer is raw.

    Raises
    ------
    ModelError
        If the images don't fit the input tensor, a layer is malformed, or an accumulator leaves ``acc_bits`` (which the
        compiler's proof rules out for every network that it accepts).
    """
    images = _check_input(network.input, x)
    truncate = network.max_shift - network.guard_bits
    if not 0 <= truncate <= network.max_shift:
        raise ModelError(f"guard_bits must be from 0 to max_shift = {network.max_shift}, not {network.guard_bits}")
    prepared = {id(layer): _prepare(layer, truncate) for layer in network.layers}
    kept: dict[str, list[np.ndarray]] = {layer.name: [] for layer in network.layers[0 if layers else -1:]}
    if layers and len(kept) != len(network.layers):
        raise ModelError("layer names must be unique, or their outputs can't be told apart")
    chunk = _chunk(network)
    for start in range(0, max(len(images), 1), chunk):
        outputs = _run_chunk(network, prepared, images[start:start + chunk])
        for name, parts in kept.items():
            parts.append(outputs[name])
    joined = {name: np.concatenate(parts) for name, parts in kept.items()}
    return joined if layers else joined[network.layers[-1].name]


def predict(network: QuantizedNetwork, images: np.ndarray, *, batch: int = 1000) -> np.ndarray:
    """Classes (int64, (N,)) of uint8 images (N, C, H, W): the index of the greatest output, the first on a tie."""
    if math.prod(images.shape[1:]) != math.prod(network.input.shape):
        raise ModelError(f"the network takes inputs of shape {network.input.shape}; data of shape {images.shape[1:]} "
                         f"doesn't fit")
    classes = []
    for start in range(0, len(images), batch):
        x = network.quantize_input(images[start:start + batch] / PIXEL_SCALE)
        classes.append(run(network, x).reshape(len(x), -1).argmax(axis=1))
    return np.concatenate(classes) if classes else np.zeros(0, np.int64)


def accuracy(network: QuantizedNetwork, dataset: "Dataset", *, batch: int = 1000) -> float:
    """Share of a data set's images that the integer network classifies rightly, 0 to 1."""
    return float(np.mean(predict(network, dataset.images, batch=batch) == dataset.labels))


def _check_input(spec: TensorSpec, x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 4 or x.shape[1:] != spec.shape:
        raise ModelError(f"input {spec.name} must have shape (N, {', '.join(map(str, spec.shape))}), not {x.shape}")
    if x.dtype.kind not in "ui":
        raise ModelError(f"input {spec.name} must be integers, not {x.dtype}; use QuantizedNetwork.quantize_input")
    low, high = spec.range
    if x.size and (x.min() < low or x.max() > high):
        bad = int(x.min() if x.min() < low else x.max())
        raise ModelError(f"input {spec.name} must lie between {low} and {high} ({spec.bits} bits, "
                         f"{'signed' if spec.signed else 'unsigned'}), but holds {bad}")
    return x.astype(np.int64)


def _chunk(network: QuantizedNetwork) -> int:
    """Images at a time, so that the largest unfolded map stays within :data:`CHUNK_ELEMENTS`."""
    largest = max(layer.source.channels * layer.kernel[0] * layer.kernel[1] * layer.target.height * layer.target.width
                  for layer in network.layers)
    return max(1, CHUNK_ELEMENTS // largest)


def _run_chunk(network: QuantizedNetwork, prepared: dict[int, _Prepared],
               images: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    tensors = {network.input.name: torch.from_numpy(images)}
    outputs = {}
    for step in network.steps:
        if isinstance(step, Concat):
            tensors[step.target.name] = torch.cat([tensors[part.name] for part in step.parts], dim=1)
            continue
        item = prepared[id(step)]
        x = tensors[step.source.name]
        acc = (_convolve(item, x) if step.op == "conv" else
               torch.maximum(x << step.leak, x) if step.op == "leaky" else _pool(step, x))
        for residual in step.residuals:
            _join(item, residual, tensors[residual.source.name], acc)
        _check_width(step, acc, network.acc_bits, "accumulator")
        y = _requantize(step, acc, half_even=network.rounding == "half_even")
        tensors[step.target.name] = y
        outputs[step.name] = y.numpy()
    return outputs


def _join(item: _Prepared, residual: Residual, x: "torch.Tensor", acc: "torch.Tensor") -> None:
    """Add a residual's products to the accumulators, in place."""
    _, rows, height, width = acc.shape
    (sy, sx), channels = residual.stride, residual.channels(rows)
    first = channels.start - residual.channel_offset
    x = x[:, first:first + len(channels), :(height - 1) * sy + 1:sy, :(width - 1) * sx + 1:sx]
    target = acc[:, channels.start:channels.stop]
    for term in residual.terms:
        product = (x << term.shift) >> item.truncate
        target += -product if term.neg else product


def _check_width(layer: Layer, values: "torch.Tensor", bits: int, what: str) -> None:
    if not values.numel():
        return
    low, high = int(values.min()), int(values.max())
    if low < -(1 << bits - 1) or high >= 1 << bits - 1:
        worst = low if low < -(1 << bits - 1) else high
        raise ModelError(f"layer {layer.name}: {what} reaches {worst}, outside of {bits} signed bits; widen the "
                         f"accumulator or lower the weights' fractional bits")


def _prepare(layer: Layer, truncate: int) -> _Prepared:
    """Split the codebook's terms by how many bits of x their products drop."""
    import torch

    if layer.op != "conv":
        return _Prepared(layer, truncate, ())
    assert layer.indices is not None
    tables: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(len(layer.codebook), np.int64))
    for index, entry in enumerate(layer.codebook):
        for term in entry:
            magnitude = 1 << max(0, term.shift - truncate)
            tables[max(0, truncate - term.shift)][index] += -magnitude if term.neg else magnitude
    largest = max(map(abs, layer.source.range))
    rows_per_group = layer.target.channels // layer.groups
    products = []
    for drop, table in sorted(tables.items()):
        weights = table[layer.indices].reshape(layer.groups, rows_per_group, -1)
        bound = int(np.abs(weights).sum(axis=-1).max()) * largest
        if bound >= FLOAT64_EXACT:
            raise ModelError(f"layer {layer.name}: sums of up to {bound} can't be an accumulator's")
        # A lowered matmul precision would let float32 products be rounded.
        exact = bound < FLOAT32_EXACT and torch.get_float32_matmul_precision() == "highest"
        products.append(_Product(drop, torch.from_numpy(weights).to(torch.float32 if exact else torch.float64)))
    return _Prepared(layer, truncate, tuple(products))


def _convolve(item: _Prepared, x: "torch.Tensor") -> "torch.Tensor":
    """Accumulators, int64 (N, channels out, H, W). Taps in the padding contribute zero."""
    import torch
    from torch.nn import functional

    layer = item.layer
    count, rows = len(x), layer.target.channels
    top, left, bottom, right = layer.padding
    acc = torch.zeros((count, rows, layer.target.height * layer.target.width), dtype=torch.int64)
    for product in item.products:
        dropped = functional.pad((x >> product.drop).to(product.weights.dtype), (left, right, top, bottom))
        taps = functional.unfold(dropped, layer.kernel, dilation=layer.dilation, stride=layer.stride)
        if taps.shape[2] == 1 and layer.groups == 1:
            acc[:, :, 0] += (taps[:, :, 0] @ product.weights[0].T).long()
        else:
            grouped = taps.reshape(count, layer.groups, -1, taps.shape[2])
            acc += (product.weights @ grouped).reshape(count, rows, -1).long()
    return acc.reshape(count, *layer.target.shape)


def _pool(layer: Layer, x: "torch.Tensor") -> "torch.Tensor":
    """Maximum over the taps inside the input, or sum of all taps (padding counts as zero)."""
    import torch
    from torch.nn import functional

    top, left, bottom, right = layer.padding
    # Below every activation, so that a tap in the padding never is the maximum.
    outside = -(1 << INT64_BITS - 1) if layer.op == "maxpool" else 0
    padded = functional.pad(x, (left, right, top, bottom), value=outside)
    height, width = layer.target.height, layer.target.width
    acc: torch.Tensor | None = None
    for ky in range(layer.kernel[0]):
        for kx in range(layer.kernel[1]):
            y0, x0 = ky * layer.dilation[0], kx * layer.dilation[1]
            tap = padded[:, :, y0:y0 + layer.stride[0] * (height - 1) + 1:layer.stride[0],
                         x0:x0 + layer.stride[1] * (width - 1) + 1:layer.stride[1]]
            acc = tap.clone() if acc is None else torch.maximum(acc, tap) if layer.op == "maxpool" else acc + tap
    if acc is None:
        raise ModelError(f"layer {layer.name}: kernel must be at least 1 x 1, not {layer.kernel}")
    if layer.op == "maxpool" and acc.numel() and int(acc.min()) == outside:
        raise ModelError(f"layer {layer.name}: a max pooling window lies wholly in the padding {layer.padding}")
    return acc


def _requantize(layer: Layer, acc: "torch.Tensor", *, half_even: bool) -> "torch.Tensor":
    """``clamp(((acc + bias) * scale) >> shift)``, rounded half up, or half to even, int64."""
    import torch

    total = acc + torch.from_numpy(np.asarray(layer.bias, np.int64)).reshape(1, -1, 1, 1)
    if layer.raw:
        _check_width(layer, total, RAW_BITS, "raw output")
        return total
    alike: dict[tuple[tuple[Term, ...], int], list[int]] = defaultdict(list)
    for channel, (terms, shift) in enumerate(zip(layer.scale, layer.shift.tolist(), strict=True)):
        alike[terms, shift].append(channel)
    if len(alike) == 1:
        return _rescale(layer, total, *next(iter(alike)), half_even)
    output = torch.empty_like(total)
    for (terms, shift), channels in alike.items():
        output[:, channels] = _rescale(layer, total[:, channels], terms, shift, half_even)
    return output


def _rescale(layer: Layer, total: "torch.Tensor", terms: tuple[Term, ...], shift: int,
             half_even: bool) -> "torch.Tensor":
    import torch

    if shift < 0 or not terms:
        raise ModelError(f"layer {layer.name}: a channel needs a scale term and a shift of at least 0, not {terms} and "
                         f"{shift}")
    bits = int(total.abs().max()).bit_length() + max(term.shift for term in terms) + 2 if total.numel() else 0
    if max(bits, shift) > INT64_BITS - 1:
        return _rescale_big(layer, total, terms, shift, half_even)
    scaled = torch.zeros_like(total)
    for term in terms:
        scaled += (-total if term.neg else total) << term.shift
    half = 1 << shift >> 1
    rounded = (scaled + half) >> shift
    if half_even and half:
        # Of the two integers beside a tie, half up takes the greater one, which may be odd.
        rounded -= rounded & (scaled + half == rounded << shift)
    return rounded.clamp(layer.qmin, layer.qmax)


def _rescale_big(layer: Layer, total: "torch.Tensor", terms: tuple[Term, ...], shift: int,
                 half_even: bool) -> "torch.Tensor":
    """As :func:`_rescale`, with Python's integers, for scales that don't fit 64 bits."""
    import torch

    scale = term_sum(terms)
    half = 1 << shift >> 1
    values = []
    for value in total.flatten().tolist():
        rounded, rest = divmod(value * scale + half, 1 << shift)
        rounded -= rounded & 1 if half_even and half and not rest else 0
        values.append(min(max(rounded, layer.qmin), layer.qmax))
    return torch.tensor(values, dtype=torch.int64).reshape(total.shape)
