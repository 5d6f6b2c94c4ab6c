"""The compressed network: integer layers whose weights are sums of signed powers of two, and its file (``.swc``).

This is what a recipe makes, what the compiler takes, and what the golden model runs. The arithmetic is:

* a weight is a codebook entry, a tuple of :class:`Term`; its value is the sum of ``+-2**shift``;
* a product is ``(x << shift) >> (max_shift - guard_bits)``, truncated towards minus infinity, then signed;
* ``acc`` is the sum (or, for max pooling, the maximum) of the products over the taps inside the input;
* the output is ``clamp(((acc + bias) * scale) >> shift)``, rounded half up, between ``qmin`` and ``qmax``;
  ``scale`` is a sum of :class:`Term` per output channel. A raw output is ``acc + bias``.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..hw.arch.errors import ModelError
from ..hw.arch.files import write_atomically

__all__ = ["IntegerTensor", "Term", "TensorSpec", "Layer", "QuantizedNetwork"]

FORMAT = "shiftwright.swc"
VERSION = 1


class Term(NamedTuple):
    """A signed power of two, ``(-1)**neg * 2**shift``."""

    neg: bool
    shift: int


class IntegerTensor:
    """What follows from the shape and type of an integer tensor, wherever it is described."""

    channels: int
    height: int
    width: int
    bits: int
    signed: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        return self.channels, self.height, self.width

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest integer value."""
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)


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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One layer of the array. A fully connected layer is a convolution whose kernel covers the map.

    Parameters
    ----------
    name : str
        Path of the module it came from.
    op : str
        ``"conv"``, ``"maxpool"`` or ``"avgpool"``.
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
    """

    name: str
    op: Literal["conv", "maxpool", "avgpool"]
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

    def __post_init__(self) -> None:
        for axis in (0, 1):
            size = self.source.shape[1 + axis] + self.padding[axis] + self.padding[axis + 2]
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            if (size - reach) // self.stride[axis] + 1 != self.target.shape[1 + axis]:
                raise ModelError(
                    f"layer {self.name}: a map of {size} (padded) under a kernel of {reach} (dilated) with stride "
                    f"{self.stride[axis]} does not give an output of {self.target.shape[1 + axis]}")
        if self.op == "conv":
            expected = (self.target.channels, self.source.channels // self.groups, *self.kernel)
            if self.indices is None or self.indices.shape != expected:
                found = None if self.indices is None else self.indices.shape
                raise ModelError(f"layer {self.name}: weight indices must have shape {expected}, not {found}")
            if int(self.indices.max()) >= len(self.codebook):
                raise ModelError(f"layer {self.name}: weight index {int(self.indices.max())} is outside its codebook "
                                 f"of {len(self.codebook)} entries")

    @property
    def values(self) -> np.ndarray:
        """Integer weights (before truncation), int64, in the shape of :attr:`indices`."""
        assert self.indices is not None
        table = np.array([sum(-(1 << t.shift) if t.neg else 1 << t.shift for t in entry)
                          for entry in self.codebook], dtype=np.int64)
        return table[self.indices]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedNetwork:
    """A chain of layers (each layer's source is the network's input or an earlier layer's target).

    Parameters
    ----------
    input : TensorSpec
        What the device is given.
    layers : tuple of Layer
        In execution order; the last one's target is the network's output.
    max_shift, guard_bits : int
        The arithmetic the weights were made for: products are ``(x << shift) >> (max_shift - guard_bits)``.
        ``guard_bits == max_shift`` is exact. Pooling terms are shifted left by ``max_shift - guard_bits``, so that
        their product is ``x``.
    acc_bits : int
        Accumulator width that the recipe assumed; the compiler proves it anew.
    parameters : int
        Number of float32 parameters of the original network (weights, biases and batch-norm parameters and statistics).
    metadata : dict
        Recipe, seed, accuracies and whatever else a person wants to find again.
    """

    input: TensorSpec
    layers: tuple[Layer, ...]
    max_shift: int = 7
    guard_bits: int = 7
    acc_bits: int = 24
    parameters: int = 0
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def output(self) -> TensorSpec:
        """The last layer's output tensor."""
        return self.layers[-1].target

    def quantize_input(self, images: np.ndarray) -> np.ndarray:
        """Integers of real-valued images (N, C, H, W): ``clamp(floor(x / 2**exponent + 0.5))``, int64.

        A network whose input is a flat vector takes images too; they are flattened in C order.
        """
        low, high = self.input.range
        images = np.reshape(images, (-1, *self.input.shape))
        return np.clip(np.floor(images / 2.0**self.input.exponent + 0.5), low, high).astype(np.int64)

    def save(self, path: str | Path) -> None:
        """Write a ``.swc`` file: safetensors with the structure as JSON metadata, never half-written."""
        from safetensors.numpy import save

        arrays: dict[str, np.ndarray] = {}
        layers = []
        for number, layer in enumerate(self.layers):
            entry = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}
            for name in ("indices", "bias", "shift"):
                value = entry.pop(name)
                if value is not None:
                    dtype = np.uint8 if name == "indices" else np.int64
                    arrays[f"{number}.{name}"] = np.ascontiguousarray(value, dtype)
            entry["source"], entry["target"] = layer.source.name, dataclasses.asdict(layer.target)
            for name in ("codebook", "scale"):
                entry[name] = [[[int(t.neg), t.shift] for t in terms] for terms in entry[name]]
            layers.append(entry)
        structure = {
            "format": FORMAT, "version": VERSION, "input": dataclasses.asdict(self.input), "layers": layers,
            "max_shift": self.max_shift, "guard_bits": self.guard_bits, "acc_bits": self.acc_bits,
            "parameters": self.parameters, "metadata": self.metadata,
        }
        payload = save(arrays, metadata={"shiftwright": json.dumps(structure)})
        write_atomically(path, payload, ModelError)

    @classmethod
    def load(cls, path: str | Path) -> "QuantizedNetwork":
        """Read a ``.swc`` file; anything else is a :class:`ModelError`."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                structure = json.loads((file.metadata() or {}).get("shiftwright", "{}"))
                arrays = {name: file.get_tensor(name) for name in file.keys()}
        except OSError as error:
            raise ModelError(f"{path}: can't read the compressed network: {error.strerror or error}") from None
        except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"{path}: not a compressed network (.swc), or damaged: {error}; "
                             f"make one with 'shiftwright compress'") from None
        if not isinstance(structure, dict) or structure.get("format") != FORMAT:
            raise ModelError(f"{path}: is a safetensors file but not a compressed network (.swc); "
                             f"make one with 'shiftwright compress'")
        if structure.get("version") != VERSION:
            raise ModelError(f"{path}: .swc version {structure.get('version')!r} is not supported, only {VERSION}; "
                             f"compress the network again with this version of Shiftwright")
        try:
            return cls._from_structure(structure, arrays)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{path}: damaged compressed network (.swc): {error!r}; compress it again") from None

    @classmethod
    def _from_structure(cls, structure: dict[str, Any], arrays: dict[str, np.ndarray]) -> "QuantizedNetwork":
        tensors = {structure["input"]["name"]: TensorSpec(**structure["input"])}
        layers = []
        for number, entry in enumerate(structure["layers"]):
            entry = dict(entry)
            target = TensorSpec(**entry.pop("target"))
            for name in ("codebook", "scale"):
                entry[name] = tuple(tuple(Term(bool(neg), shift) for neg, shift in terms) for terms in entry[name])
            for name in ("kernel", "stride", "padding", "dilation"):
                entry[name] = tuple(entry[name])
            entry["source"] = tensors[entry["source"]]
            for name in ("indices", "bias", "shift"):
                entry[name] = arrays.get(f"{number}.{name}")
            layers.append(Layer(target=target, **entry))
            tensors[target.name] = target
        return cls(input=tensors[structure["input"]["name"]], layers=tuple(layers), **{
            name: structure[name] for name in ("max_shift", "guard_bits", "acc_bits", "parameters", "metadata")})
