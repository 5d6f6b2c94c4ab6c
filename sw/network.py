"""The compressed network: integer layers whose weights are sums of signed powers of two, and its file (``.swc``).

This is what a recipe makes, what the compiler takes, and what the golden model runs. The arithmetic is:

* a weight is a codebook entry, a tuple of :class:`Term`; its value is the sum of ``+-2**shift``;
* a product is ``(x << shift) >> (max_shift - guard_bits)``, truncated towards minus infinity, then signed;
* ``acc`` is the sum (or, for max pooling, the maximum) of the products over the taps inside the input, and of the
  products of each :class:`Residual`; of a leaky ReLU it is the greater of ``x << leak`` and ``x``;
* the output is ``clamp(((acc + bias) * scale) >> shift)``, rounded to the nearest integer, between ``qmin`` and
  ``qmax``; ``scale`` is a sum of :class:`Term` per output channel. A raw output is ``acc + bias``;
* a value halfway between two integers is rounded up, or to the even one, as the network's ``rounding`` is.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..hw.arch.config import ROUNDINGS
from ..hw.arch.errors import ModelError
from .terms import Term, term_sum

__all__ = ["Concat", "IntegerTensor", "Layer", "QuantizedNetwork", "Residual", "Term", "TensorSpec"]

ACTIVATION_BITS = 8


class IntegerTensor:
    """What follows from the shape and type of an integer tensor, wherever it is described."""

    channels: int
    height: int
    width: int
    bits: int
    signed: bool
    exponent: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        return self.channels, self.height, self.width

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest integer value."""
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)

    def quantize(self, values: np.ndarray, rounding: str) -> np.ndarray:
        """Integers of real values, int64 (N, channels, height, width): ``x / 2**exponent``, rounded and clamped.

        Parameters
        ----------
        values : array (N, ...)
            As many values each as the tensor has, in C order.
        rounding : str
            Of halves (:data:`ROUNDINGS`).
        """
        scaled = np.reshape(values, (-1, *self.shape)) / 2.0**self.exponent
        rounded = np.rint(scaled) if rounding == "half_even" else np.floor(scaled + 0.5)
        return np.clip(rounded, *self.range).astype(np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorSpec(IntegerTensor):
    """An activation tensor of one image.

    Parameters
    ----------
    name : str
        Unique in the network.
    channels, height, width : int
        Shape; a flat vector of N features is N x 1 x 1.
    bits : int
        2 to 8, or 32 for raw accumulators.
    signed : bool
        Two's complement; otherwise unsigned.
    exponent : int
        Real value = integer * 2**exponent.
    """

    name: str
    channels: int
    height: int
    width: int
    bits: int
    signed: bool
    exponent: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Residual:
    """Another tensor that a convolution adds to its accumulators.

    ``acc[c, y, x]`` takes the products of ``terms`` with ``source[c - channel_offset, y * stride_y, x * stride_x]``;
    channels outside the source contribute nothing.

    Parameters
    ----------
    source : TensorSpec
        Signed or unsigned like the layer's source: a layer reads its activations in one way.
    terms : tuple of Term
        Weight of every channel; a shift beyond ``max_shift`` takes several equal terms.
    stride : (int, int)
        Vertical, horizontal.
    channel_offset : int
        Output channel that the source's channel 0 joins; negative when its first channels are left out.
    """

    source: TensorSpec
    terms: tuple[Term, ...]
    stride: tuple[int, int] = (1, 1)
    channel_offset: int = 0

    def channels(self, rows: int) -> range:
        """The output channels, of ``rows``, that the source contributes to."""
        return range(max(0, self.channel_offset), min(rows, self.channel_offset + self.source.channels))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Concat:
    """A tensor that consists of others, channels in order; nothing is computed.

    Parameters
    ----------
    target : TensorSpec
        The joined tensor.
    parts : tuple of TensorSpec
        Equal to the target in height, width, bits, sign and exponent.
    """

    target: TensorSpec
    parts: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        if sum(part.channels for part in self.parts) != self.target.channels:
            raise ModelError(f"concatenation {self.target.name}: parts of {[part.channels for part in self.parts]} "
                             f"channels don't make {self.target.channels}")
        for part in self.parts:
            for name in ("height", "width", "bits", "signed", "exponent"):
                if getattr(part, name) != getattr(self.target, name):
                    raise ModelError(f"concatenation {self.target.name}: its parts must have {name} "
                                     f"{getattr(self.target, name)}, but {part.name} has {getattr(part, name)}")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One layer of the array. A fully connected layer is a convolution whose kernel covers the map.

    Parameters
    ----------
    name : str
        Path of the module it came from.
    op : str
        ``"conv"``, ``"maxpool"``, ``"avgpool"`` or ``"leaky"``, which is a leaky ReLU.
    source, target : TensorSpec
        Input and output tensor. (``target.name`` is the layer's output name.)
    kernel, stride, dilation : (int, int)
        Vertical, horizontal.
    padding : (int, int, int, int)
        Top, left, bottom, right. Padded taps count as zero (``conv``, ``avgpool``) or are left out (``maxpool``).
    groups : int
        Only for ``conv``.
    indices : uint8 array (channels out, channels in / groups, kernel height, kernel width)
        Codebook index of each weight; only for ``conv``.
    codebook : tuple of tuple of Term
        Up to 256 entries; an empty tuple is the weight 0. Only for ``conv``; pooling has one term ``+2**0`` a tap
        (plus ``max_shift - guard_bits`` of truncation, so that the product is x: see :class:`QuantizedNetwork`).
    bias : int64 array (channels out)
        In units of the accumulator.
    scale : tuple of tuple of Term
        For each output channel 1 to 4 terms with rising exponents, the first exponent 0.
    shift : int64 array (channels out)
        Right shift of the requantization; greater than the scale's largest exponent when there is more than one term.
    qmin, qmax : int
        Clamp; a ReLU is ``qmin = 0``.
    raw : bool
        The output is ``acc + bias`` (``target.bits`` = 32).
    residuals : tuple of Residual
        Tensors added to the accumulators; only for ``conv``.
    leak : int
        Negative activations are multiplied by ``2**-leak``, and the accumulator's unit is that much smaller; only for
        ``leaky``.
    """

    name: str
    op: Literal["conv", "maxpool", "avgpool", "leaky"]
    source: TensorSpec
    target: TensorSpec
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    indices: np.ndarray | None = None
    codebook: tuple[tuple[Term, ...], ...] = ()
    bias: np.ndarray
    scale: tuple[tuple[Term, ...], ...]
    shift: np.ndarray
    qmin: int
    qmax: int
    raw: bool = False
    residuals: tuple[Residual, ...] = ()
    leak: int = 0

    def __post_init__(self) -> None:
        for tensor in self.sources:
            if tensor.bits > ACTIVATION_BITS:
                raise ModelError(f"layer {self.name}: its source {tensor.name} has {tensor.bits} bits; only the "
                                 f"network's output may be raw")
        for axis in (0, 1):
            size = self.source.shape[1 + axis] + self.padding[axis] + self.padding[axis + 2]
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            if (size - reach) // self.stride[axis] + 1 != self.target.shape[1 + axis]:
                raise ModelError(
                    f"layer {self.name}: a map of {size} (padded) under a kernel of {reach} (dilated) with stride "
                    f"{self.stride[axis]} does not give an output of {self.target.shape[1 + axis]}")
        for residual in self.residuals:
            self._check_residual(residual)
        if self.op == "conv":
            for tensor in (self.source, self.target):
                if self.groups < 1 or tensor.channels % self.groups:
                    raise ModelError(f"layer {self.name}: {tensor.channels} channels of {tensor.name} can't be divided "
                                     f"into {self.groups} groups")
            expected = (self.target.channels, self.source.channels // self.groups, *self.kernel)
            if self.indices is None or self.indices.shape != expected:
                found = None if self.indices is None else self.indices.shape
                raise ModelError(f"layer {self.name}: weight indices must have shape {expected}, not {found}")
            if int(self.indices.max()) >= len(self.codebook):
                raise ModelError(f"layer {self.name}: weight index {int(self.indices.max())} is outside its codebook "
                                 f"of {len(self.codebook)} entries")

    def _check_residual(self, residual: Residual) -> None:
        where = f"layer {self.name}: residual {residual.source.name}"
        if self.op != "conv":
            raise ModelError(f"{where} joins a layer of kind {self.op}; only a convolution takes one")
        if not residual.terms:
            raise ModelError(f"{where} has no terms; leave it out")
        if residual.source.signed != self.source.signed:
            raise ModelError(f"{where} is {'signed' if residual.source.signed else 'unsigned'} but the source "
                             f"{self.source.name} is not; make the addition a layer of its own")
        for axis in (0, 1):
            size = residual.source.shape[1 + axis]
            needed = (self.target.shape[1 + axis] - 1) * residual.stride[axis] + 1
            if residual.stride[axis] < 1 or needed > size:
                raise ModelError(f"{where} with stride {residual.stride[axis]} needs {needed} pixels for an output of "
                                 f"{self.target.shape[1 + axis]}, but has {size}")
        if not residual.channels(self.target.channels):
            raise ModelError(f"{where} with channel_offset {residual.channel_offset} misses all of the layer's "
                             f"{self.target.channels} output channels")

    @property
    def sources(self) -> tuple[TensorSpec, ...]:
        """All tensors that the layer reads, its source first."""
        return self.source, *(residual.source for residual in self.residuals)

    @property
    def values(self) -> np.ndarray:
        """Integer weights (before truncation), int64, in the shape of :attr:`indices`."""
        assert self.indices is not None
        table = np.array([term_sum(entry) for entry in self.codebook], dtype=np.int64)
        return table[self.indices]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedNetwork:
    """Layers in execution order, each reading the network's input, earlier layers' targets or concatenations of them.

    Parameters
    ----------
    input : TensorSpec
        What the device is given.
    layers : tuple of Layer
        In execution order; the last one's target is the network's output.
    concats : tuple of Concat
        Joined tensors; one can be read when all of its parts are there.
    max_shift, guard_bits : int
        The arithmetic the weights were made for: products are ``(x << shift) >> (max_shift - guard_bits)``.
        ``guard_bits == max_shift`` is exact. Pooling terms are shifted left by ``max_shift - guard_bits``, so that
        their product is ``x``.
    rounding : str
        Where an output (or an input) halfway between two integers goes: ``"half_up"``, or ``"half_even"`` to the even
        one.
    acc_bits : int
        Accumulator width that the recipe assumed; the compiler proves it anew.
    parameters : int
        Number of float32 parameters of the original network (weights, biases and batch-norm parameters and statistics).
    metadata : dict
        Recipe, seed, accuracies and whatever else a person wants to find again.
    """

    input: TensorSpec
    layers: tuple[Layer, ...]
    concats: tuple[Concat, ...] = ()
    max_shift: int = 7
    guard_bits: int = 7
    rounding: str = "half_up"
    acc_bits: int = 24
    parameters: int = 0
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layers:
            raise ModelError("a network needs at least one layer")
        if self.rounding not in ROUNDINGS:
            raise ModelError(f"a network's rounding must be {' or '.join(map(repr, ROUNDINGS))}, not "
                             f"{self.rounding!r}")
        here = {self.input.name: self.input}
        for step in self.steps:
            kind, name, sources = (("concatenation", step.target.name, step.parts) if isinstance(step, Concat) else
                                   ("layer", step.name, step.sources))
            for source in sources:
                if source.name not in here:
                    raise ModelError(f"{kind} {name}: its source {source.name!r} is neither the network's input nor "
                                     f"an earlier layer's output, nor joined from such")
                if here[source.name] != source:
                    raise ModelError(f"{kind} {name}: its source is {source}, but that tensor is "
                                     f"{here[source.name]}")
            if step.target.name in here:
                raise ModelError(f"{kind} {name}: another tensor is named {step.target.name!r}; tensor names must be "
                                 f"unique")
            here[step.target.name] = step.target

    @property
    def steps(self) -> "tuple[Layer | Concat, ...]":
        """Layers in execution order, each concatenation among them where the last of its parts has arrived."""
        here, waiting = {self.input.name}, list(self.concats)
        steps: list[Layer | Concat] = []
        for layer in (None, *self.layers):
            if layer is not None:
                steps.append(layer)
                here.add(layer.target.name)
            while ready := [concat for concat in waiting if all(part.name in here for part in concat.parts)]:
                steps += ready
                here.update(concat.target.name for concat in ready)
                waiting = [concat for concat in waiting if concat not in ready]
        return (*steps, *waiting)

    @property
    def output(self) -> TensorSpec:
        """The last layer's output tensor."""
        return self.layers[-1].target

    def quantize_input(self, images: np.ndarray) -> np.ndarray:
        """Integers of real-valued images (N, C, H, W): ``x / 2**exponent``, rounded as outputs are and clamped, int64.

        A network whose input is a flat vector takes images too; they are flattened in C order.
        """
        return self.input.quantize(images, self.rounding)

    def save(self, path: str | Path) -> None:
        """Write a ``.swc`` file, never half-written."""
        from .swc import write

        write(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "QuantizedNetwork":
        """Read a ``.swc`` file; anything else is a :class:`ModelError`."""
        from .swc import read

        return read(path)
