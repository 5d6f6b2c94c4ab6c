"""Random small quantized networks for tests of everything behind the compressor.

Every choice comes from one :class:`numpy.random.Generator`, so a seed names a network. The requantization shift is
chosen from the range that the layer's accumulators really have, so that outputs use much of their range and some clamp.
"""

import dataclasses

import numpy as np

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sw.network import Concat, Layer, QuantizedNetwork, Residual, TensorSpec, Term

__all__ = ["Arithmetic", "arithmetic_of", "conv", "join", "linear", "pool", "random_images", "random_network", "tensor"]

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """What a layer must know of the network's arithmetic."""

    max_shift: int = 7
    guard_bits: int = 7
    acc_bits: int = 24
    rounding: str = "half_up"

    @property
    def truncate(self) -> int:
        return self.max_shift - self.guard_bits


def arithmetic_of(config: AcceleratorConfig) -> Arithmetic:
    """The arithmetic of an accelerator."""
    return Arithmetic(config.max_shift, config.max_shift - config.truncate, config.acc_width, config.rounding)


def tensor(name: str, channels: int, height: int = 1, width: int = 1, *, bits: int = 8, signed: bool = False,
           exponent: int = 0) -> TensorSpec:
    """A tensor with short arguments."""
    return TensorSpec(name=name, channels=channels, height=height, width=width, bits=bits, signed=signed,
                      exponent=exponent)


def random_codebook(rng: np.random.Generator, arithmetic: Arithmetic, *, entries: int,
                    terms: int) -> tuple[tuple[Term, ...], ...]:
    """Distinct codebook entries of up to `terms` terms with distinct shifts; usually with a zero."""
    found: dict[tuple[Term, ...], None] = {(): None} if rng.random() < 0.8 else {}
    for _ in range(20 * entries):
        if len(found) >= entries:
            break
        number = min(int(rng.integers(1, terms + 1)), arithmetic.max_shift + 1)
        shifts = sorted(rng.choice(arithmetic.max_shift + 1, size=number, replace=False).tolist(), reverse=True)
        found[tuple(Term(bool(rng.integers(2)), int(shift)) for shift in shifts)] = None
    return tuple(found)


def random_scale(rng: np.random.Generator, terms: int) -> tuple[Term, ...]:
    """One scale of 1 to `terms` terms, negative ones too."""
    shifts = np.cumsum([0, *rng.integers(1, 4, size=int(rng.integers(0, terms)))])
    return tuple(Term(bool(rng.integers(2)), int(shift)) for shift in shifts)


def output(rng: np.random.Generator, name: str, shape: tuple[int, int, int], *, raw: bool, bits: int,
           signed: bool) -> tuple[TensorSpec, int, int]:
    """A target tensor and its clamp, which is sometimes narrower than the tensor (a ReLU)."""
    spec = tensor(name, *shape, bits=32 if raw else bits, signed=raw or signed, exponent=-int(rng.integers(0, 8)))
    low, high = spec.range
    return spec, 0 if signed and not raw and rng.random() < 0.3 else low, high


def _extent(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    return (size + padding - dilation * (kernel - 1) - 1) // stride + 1


def conv(rng: np.random.Generator, source: TensorSpec, name: str, *, channels: int, kernel: Pair = (3, 3),
         stride: Pair = (1, 1), padding: tuple[int, int, int, int] = (0, 0, 0, 0), dilation: Pair = (1, 1),
         groups: int = 1, arithmetic: Arithmetic = Arithmetic(), entries: int = 8, terms: int = 2,
         zeros: float = 0.3, raw: bool = False, bits: int = 8, signed: bool = False, scale_terms: int = 3,
         per_channel: bool = True, bias: float = 0.2, residuals: tuple[Residual, ...] = ()) -> Layer:
    """A convolution with random weights.

    Parameters
    ----------
    entries, terms : int
        Size of the codebook, and most terms of an entry.
    zeros : float
        Share of weights that are made 0 when the codebook has a zero.
    scale_terms : int
        Most terms of a requantization scale.
    per_channel : bool
        Whether every channel has a scale of its own.
    bias : float
        Size of biases, as a share of the accumulator's range; 0 gives none.
    residuals : tuple of Residual
        Tensors that it adds.
    """
    shape = (channels, *(_extent(source.shape[1 + axis], kernel[axis], stride[axis], dilation[axis],
                                 padding[axis] + padding[axis + 2]) for axis in (0, 1)))
    codebook = random_codebook(rng, arithmetic, entries=entries, terms=terms)
    indices = rng.integers(0, len(codebook), size=(channels, source.channels // groups, *kernel)).astype(np.uint8)
    if () in codebook:
        indices[rng.random(indices.shape) < zeros] = codebook.index(())
    # The typical accumulator: the norm of a row's weights times a typical activation.
    scaled = [sum((-1) ** t.neg * 2.0 ** (t.shift - arithmetic.truncate) for t in entry) for entry in codebook]
    spread = np.sqrt((np.array(scaled)[indices] ** 2).reshape(channels, -1).sum(axis=1)).clip(1)
    typical = spread * max(map(abs, source.range)) / 2
    target, qmin, qmax = output(rng, f"{name}.out", shape, raw=raw, bits=bits, signed=signed)
    scale = tuple(random_scale(rng, scale_terms) for _ in range(channels if per_channel else 1))
    if not per_channel:
        scale, typical = scale * channels, np.full(channels, typical.mean())
    weight = np.array([sum(2.0**term.shift for term in terms) for terms in scale])
    shift = np.round(np.log2(typical * weight / max(1, qmax)).clip(0) if not raw else 0 * typical)
    shift = np.maximum(shift, [s[-1].shift + 1 if len(s) > 1 else 0 for s in scale]).astype(np.int64)
    return Layer(name=name, op="conv", source=source, target=target, kernel=kernel, stride=stride, padding=padding,
                 dilation=dilation, groups=groups, indices=indices, codebook=codebook,
                 bias=np.round(rng.normal(0, bias, channels) * typical).astype(np.int64), scale=scale, shift=shift,
                 qmin=qmin, qmax=qmax, raw=raw, residuals=residuals)


def linear(rng: np.random.Generator, source: TensorSpec, name: str, *, features: int, **options: object) -> Layer:
    """A fully connected layer: a convolution whose kernel covers the map. Options as for :func:`conv`."""
    return conv(rng, source, name, channels=features, kernel=(source.height, source.width), **options)  # type: ignore[arg-type]


def pool(rng: np.random.Generator, source: TensorSpec, name: str, *, op: str = "maxpool", kernel: Pair = (2, 2),
         stride: Pair = (2, 2), padding: tuple[int, int, int, int] = (0, 0, 0, 0), dilation: Pair = (1, 1)) -> Layer:
    """A max or average pooling, or a leaky ReLU, that keeps the tensor's type; an average by powers of two, shifted."""
    shape = (source.channels, *(_extent(source.shape[1 + axis], kernel[axis], stride[axis], dilation[axis],
                                        padding[axis] + padding[axis + 2]) for axis in (0, 1)))
    target = tensor(f"{name}.out", *shape, bits=source.bits, signed=source.signed, exponent=source.exponent)
    scale, shift = (Term(False, 0),), 0
    leak = 3 if op == "leaky" else 0
    if op == "leaky":
        shift = leak
    if op == "avgpool":
        shift = 6 + int(np.ceil(np.log2(kernel[0] * kernel[1])))
        factor = max(1, round(2**shift / (kernel[0] * kernel[1])))
        bits = [bit for bit in range(factor.bit_length()) if factor >> bit & 1][-4:]
        scale, shift = tuple(Term(False, bit - bits[0]) for bit in bits), shift - bits[0]
    low, high = target.range
    return Layer(name=name, op=op, source=source, target=target, kernel=kernel, stride=stride,  # type: ignore[arg-type]
                 padding=padding, dilation=dilation, bias=np.zeros(source.channels, np.int64),
                 scale=(scale,) * source.channels, shift=np.full(source.channels, shift, np.int64), qmin=low, qmax=high,
                 leak=leak)


def join(name: str, *parts: TensorSpec) -> Concat:
    """A concatenation."""
    channels = sum(part.channels for part in parts)
    return Concat(target=dataclasses.replace(parts[0], name=name, channels=channels), parts=parts)


CHANNELS = 8
"""Most output channels of a random convolution, but for depthwise ones."""
RESERVED = 8
"""Positions that kernels of random convolutions leave to residuals."""


@dataclasses.dataclass(frozen=True)
class _Geometry:
    kernel: Pair
    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair

    def out(self, source: TensorSpec) -> Pair:
        height, width = (_extent(source.shape[1 + axis], self.kernel[axis], self.stride[axis], self.dilation[axis],
                                 self.padding[axis] + self.padding[axis + 2]) for axis in (0, 1))
        return height, width


def _random_geometry(rng: np.random.Generator, source: TensorSpec, config: AcceleratorConfig) -> _Geometry:
    """A kernel (small, one row, one column, or large) that fits the map, its stride, padding and dilation; with an
    output of which several fit the activation memory."""
    most_positions, side = config.positions - RESERVED, min(32, (1 << config.map_bits) - 1)
    while True:
        most = int(rng.choice([3, 5, 5, 11]))
        kernel = (int(rng.integers(1, most + 1)), int(rng.integers(1, most + 1)))
        kernel = [kernel, kernel, (1, kernel[1]), (kernel[0], 1)][int(rng.integers(4))]
        found = _Geometry(kernel, (int(rng.integers(1, 5)), int(rng.integers(1, 5))),
                          tuple(int(rng.integers(0, kernel[n % 2])) for n in range(4)),  # type: ignore[arg-type]
                          (int(rng.integers(1, 3)), int(rng.integers(1, 3))))
        if rng.random() < 0.5:
            found = dataclasses.replace(found, stride=(1, 1))
        out = found.out(source)
        if (min(out) > 0 and max(out) <= side and kernel[0] * kernel[1] <= most_positions
                and 4 * CHANNELS * out[0] * out[1] <= config.lanes * config.act_depth):
            return found


def _random_residuals(rng: np.random.Generator, source: TensorSpec, out: Pair, channels: int,
                      tensors: list[TensorSpec], arithmetic: Arithmetic) -> tuple[Residual, ...]:
    """Up to two of the tensors that can be added to an output of `channels` maps of size `out`."""
    found = []
    for _ in range(int(rng.integers(1, 3))):
        other = tensors[int(rng.integers(len(tensors)))]
        strides = [[stride for stride in range(1, 5) if (out[axis] - 1) * stride < other.shape[1 + axis]]
                   for axis in (0, 1)]
        if other.signed == source.signed and all(strides):
            offset = int(rng.integers(1 - other.channels, channels)) if rng.random() < 0.3 else 0
            terms = random_codebook(rng, arithmetic, entries=2, terms=2)[-1]
            found.append(Residual(source=other, terms=terms, channel_offset=offset,
                                  stride=(int(rng.choice(strides[0])), int(rng.choice(strides[1])))))
    return tuple(found)


def _fits(layer: Layer, config: AcceleratorConfig) -> bool:
    """Whether no accumulator of a convolution can overflow, whatever the activations."""
    assert layer.indices is not None
    terms = np.array([sum(2.0**max(0, t.shift - config.truncate) for t in entry) for entry in layer.codebook])
    worst = terms[layer.indices].reshape(len(layer.indices), -1).sum(axis=1) * max(map(abs, layer.source.range))
    worst += sum(2.0**max(0, t.shift - config.truncate) * max(map(abs, r.source.range))
                 for r in layer.residuals for t in r.terms)
    return bool((worst + abs(layer.bias) < 1 << config.acc_width - 1).all())


def _positions(layer: Layer) -> int:
    """Positions of the kernel and of residuals."""
    size = layer.source.channels // layer.groups
    return layer.kernel[0] * layer.kernel[1] + sum(-(-r.source.channels // size) for r in layer.residuals)


def _random_conv(rng: np.random.Generator, source: TensorSpec, name: str, config: AcceleratorConfig,
                 tensors: list[TensorSpec], geometry: _Geometry, **options: object) -> Layer:
    """A convolution, sometimes grouped or depthwise, sometimes with residuals."""
    arithmetic, terms, zeros = arithmetic_of(config), int(rng.integers(1, 5)), float(rng.random()) * 0.9
    groups = [n for n in range(1, source.channels + 1) if source.channels % n == 0]
    while True:
        group = int(rng.choice([1, 1, *groups, groups[-1]]))
        channels = group * int(rng.integers(1, max(1, CHANNELS // group) + 1))
        residuals = (_random_residuals(rng, source, geometry.out(source), channels, tensors, arithmetic)
                     if rng.random() < 0.3 else ())
        layer = conv(rng, source, name, **{  # type: ignore[arg-type]
            "channels": channels, "groups": group, **vars(geometry), "arithmetic": arithmetic, "terms": terms,
            "entries": int(rng.integers(2, 24)), "zeros": zeros, "residuals": residuals,
            "bits": int(rng.integers(2, config.act_bits + 1)), "signed": bool(rng.integers(2)),
            "scale_terms": int(rng.integers(1, 5)), "per_channel": bool(rng.integers(2)),
            "bias": float(rng.choice([0.0, 0.2, 1.0])), **options})
        if _positions(layer) <= config.positions and _fits(layer, config):
            return layer
        terms, zeros = max(1, terms - 1), (1 + zeros) / 2


def _random_pool(rng: np.random.Generator, source: TensorSpec, name: str, geometry: _Geometry,
                 config: AcceleratorConfig) -> Layer:
    op = str(rng.choice(["maxpool", "avgpool"]))
    if op == "maxpool":  # every window must see a pixel
        kernel = (min(geometry.kernel[0], source.height), min(geometry.kernel[1], source.width))
        geometry = dataclasses.replace(geometry, kernel=kernel, dilation=(1, 1),
                                       padding=(kernel[0] // 2, kernel[1] // 2, 0, 0))
    elif rng.random() < 0.2 and source.height * source.width <= config.positions:  # global
        geometry = _Geometry((source.height, source.width), (1, 1), (0, 0, 0, 0), (1, 1))
    return pool(rng, source, name, op=op, **vars(geometry))


def _random_linear(rng: np.random.Generator, source: TensorSpec, name: str, config: AcceleratorConfig,
                   raw: bool) -> Layer:
    zeros = 0.3
    while True:
        layer = linear(rng, source, name, features=int(rng.integers(2, 12)), arithmetic=arithmetic_of(config),
                       entries=int(rng.integers(2, 17)), terms=int(rng.integers(1, 3)), bits=config.act_bits,
                       signed=True, raw=raw, zeros=zeros)
        if _fits(layer, config):
            return layer
        zeros = (1 + zeros) / 2


def random_network(seed: int, config: AcceleratorConfig | None = None, *, layers: int = 3, size: int = 12,
                   raw: bool | None = None) -> QuantizedNetwork:
    """A random network for `config` (default: :class:`AcceleratorConfig`'s): convolutions (plain, grouped, depthwise)
    with residuals, poolings and concatenations, then sometimes fully connected layers.

    Parameters
    ----------
    seed : int
        Names the network.
    layers : int
        Layers before the possible fully connected ones, not counting those that make a part of a concatenation.
    size : int
        Greatest height and width of the input.
    raw : bool or None
        Whether a last, fully connected layer returns raw accumulators; ``None`` takes a random one of raw,
        requantized, or no such layer.
    """
    config = AcceleratorConfig() if config is None else config
    rng = np.random.default_rng(seed)
    arithmetic = arithmetic_of(config)
    source = tensor("input", int(rng.integers(1, 4)), int(rng.integers(4, size + 1)), int(rng.integers(4, size + 1)),
                    bits=int(rng.integers(2, config.act_bits + 1)), signed=bool(rng.integers(2)), exponent=-8)
    chain: list[Layer] = []
    concats: list[Concat] = []
    tensors = [source]
    for number in range(layers):
        last, name = tensors[-1], f"layer{number}"
        if rng.random() < 0.15:
            last = tensors[int(rng.integers(len(tensors)))]
        geometry = _random_geometry(rng, last, config)
        if rng.random() < 0.35 and geometry.kernel[0] * geometry.kernel[1] <= 49:
            chain.append(_random_pool(rng, last, name, geometry, config))
            tensors.append(chain[-1].target)
            continue
        chain.append(_random_conv(rng, last, name, config, tensors, geometry))
        tensors.append(chain[-1].target)
        if rng.random() < 0.3:  # a second one of equal type, and both side by side
            one = chain[-1].target
            two = _random_conv(rng, last, f"{name}.beside", config, tensors[:-1], geometry, bits=one.bits,
                               signed=one.signed)
            two = dataclasses.replace(two, target=dataclasses.replace(two.target, exponent=one.exponent))
            chain.append(two)
            concats.append(join(f"{name}.joined", *((one, two.target) if rng.random() < 0.5 else (two.target, one))))
            tensors += [two.target, concats[-1].target]
    if raw is not None or rng.random() < 0.6:
        dense = 1 + int(rng.random() < 0.4)
        while tensors[-1].height * tensors[-1].width > config.positions:
            chain.append(pool(rng, tensors[-1], f"small{len(chain)}"))
            tensors.append(chain[-1].target)
        for number in range(dense):
            last_one = number == dense - 1
            chain.append(_random_linear(rng, tensors[-1], "fc" if last_one else f"fc{number}", config,
                                        last_one and (bool(rng.integers(2)) if raw is None else raw)))
            tensors.append(chain[-1].target)
    return QuantizedNetwork(input=source, layers=tuple(chain), concats=tuple(concats), max_shift=arithmetic.max_shift,
                            guard_bits=arithmetic.guard_bits, rounding=arithmetic.rounding,
                            acc_bits=arithmetic.acc_bits,
                            parameters=sum(layer.indices.size + layer.bias.size for layer in chain
                                           if layer.indices is not None), metadata={"seed": seed})


def random_images(network: QuantizedNetwork, count: int, seed: int = 0) -> np.ndarray:
    """Input integers over the whole range, int64 (count, C, H, W); the first image holds only the extremes."""
    rng = np.random.default_rng(seed)
    low, high = network.input.range
    images = rng.integers(low, high + 1, size=(count, *network.input.shape))
    images[0] = rng.choice([low, high], size=network.input.shape)
    return images
