"""Random small quantized networks for tests of everything behind the compressor.

Every choice comes from one :class:`numpy.random.Generator`, so a seed names a network. The requantization shift is
chosen from the range that the layer's accumulators really have, so that outputs use much of their range and some clamp.
"""

import dataclasses

import numpy as np

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sw.network import Layer, QuantizedNetwork, TensorSpec, Term

__all__ = ["Arithmetic", "arithmetic_of", "conv", "linear", "pool", "random_images", "random_network", "tensor"]

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """What a layer must know of the network's arithmetic."""

    max_shift: int = 7
    guard_bits: int = 7
    acc_bits: int = 24

    @property
    def truncate(self) -> int:
        return self.max_shift - self.guard_bits


def arithmetic_of(config: AcceleratorConfig) -> Arithmetic:
    """The arithmetic of an accelerator."""
    return Arithmetic(config.max_shift, config.max_shift - config.truncate, config.acc_width)


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
         per_channel: bool = True, bias: float = 0.2) -> Layer:
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
                 qmin=qmin, qmax=qmax, raw=raw)


def linear(rng: np.random.Generator, source: TensorSpec, name: str, *, features: int, **options: object) -> Layer:
    """A fully connected layer: a convolution whose kernel covers the map. Options as for :func:`conv`."""
    return conv(rng, source, name, channels=features, kernel=(source.height, source.width), **options)  # type: ignore[arg-type]


def pool(rng: np.random.Generator, source: TensorSpec, name: str, *, op: str = "maxpool", kernel: Pair = (2, 2),
         stride: Pair = (2, 2), padding: tuple[int, int, int, int] = (0, 0, 0, 0), dilation: Pair = (1, 1)) -> Layer:
    """A max or average pooling that keeps the tensor's type; the average by a sum of powers of two and a shift."""
    shape = (source.channels, *(_extent(source.shape[1 + axis], kernel[axis], stride[axis], dilation[axis],
                                        padding[axis] + padding[axis + 2]) for axis in (0, 1)))
    target = tensor(f"{name}.out", *shape, bits=source.bits, signed=source.signed, exponent=source.exponent)
    scale, shift = (Term(False, 0),), 0
    if op == "avgpool":
        shift = 6 + int(np.ceil(np.log2(kernel[0] * kernel[1])))
        factor = max(1, round(2**shift / (kernel[0] * kernel[1])))
        bits = [bit for bit in range(factor.bit_length()) if factor >> bit & 1][-4:]
        scale, shift = tuple(Term(False, bit - bits[0]) for bit in bits), shift - bits[0]
    low, high = target.range
    return Layer(name=name, op=op, source=source, target=target, kernel=kernel, stride=stride,  # type: ignore[arg-type]
                 padding=padding, dilation=dilation, bias=np.zeros(source.channels, np.int64),
                 scale=(scale,) * source.channels, shift=np.full(source.channels, shift, np.int64), qmin=low, qmax=high)


def _random_layer(rng: np.random.Generator, source: TensorSpec, name: str, arithmetic: Arithmetic, *,
                  act_bits: int) -> Layer:
    def fits(kernel: int, dilation: int, size: int, padding: int) -> bool:
        return dilation * (kernel - 1) + 1 <= size + padding

    while True:
        kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
        stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        dilation = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        top, left, bottom, right = (int(rng.integers(0, max(1, kernel[n % 2]))) for n in range(4))
        if (fits(kernel[0], dilation[0], source.height, top + bottom)
                and fits(kernel[1], dilation[1], source.width, left + right)):
            break
    op = str(rng.choice(["conv", "conv", "conv", "maxpool", "avgpool"]))
    if op == "conv":
        return conv(rng, source, name, channels=int(rng.integers(1, 9)), kernel=kernel, stride=stride,
                    padding=(top, left, bottom, right), dilation=dilation, arithmetic=arithmetic,
                    entries=int(rng.integers(2, 24)), terms=int(rng.integers(1, 5)), zeros=float(rng.random()) * 0.9,
                    bits=int(rng.integers(2, act_bits + 1)), signed=bool(rng.integers(2)),
                    scale_terms=int(rng.integers(1, 5)), per_channel=bool(rng.integers(2)),
                    bias=float(rng.choice([0.0, 0.2, 1.0])))
    if op == "maxpool":  # every window must see a pixel
        kernel = (min(kernel[0], source.height), min(kernel[1], source.width))
        dilation, padding = (1, 1), (kernel[0] // 2, kernel[1] // 2, 0, 0)
    else:
        padding = (top, left, bottom, right)
    return pool(rng, source, name, op=op, kernel=kernel, stride=stride, padding=padding, dilation=dilation)


def random_network(seed: int, config: AcceleratorConfig | None = None, *, layers: int = 3, size: int = 12,
                   raw: bool | None = None) -> QuantizedNetwork:
    """A random chain for `config` (default: :class:`AcceleratorConfig`'s): convolutions and poolings, then sometimes
    a fully connected layer.

    Parameters
    ----------
    seed : int
        Names the network.
    layers : int
        Layers before the possible fully connected one.
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
    for number in range(layers):
        layer = _random_layer(rng, chain[-1].target if chain else source, f"layer{number}", arithmetic,
                              act_bits=config.act_bits)
        chain.append(layer)
    if raw is not None or rng.random() < 0.6 or not chain:
        chain.append(linear(rng, chain[-1].target if chain else source, "fc", features=int(rng.integers(2, 12)),
                            arithmetic=arithmetic, entries=int(rng.integers(2, 17)), terms=int(rng.integers(1, 4)),
                            raw=bool(rng.integers(2)) if raw is None else raw, bits=config.act_bits, signed=True))
    parameters = sum(layer.indices.size + layer.bias.size for layer in chain if layer.indices is not None)
    return QuantizedNetwork(input=source, layers=tuple(chain), max_shift=arithmetic.max_shift,
                            guard_bits=arithmetic.guard_bits, acc_bits=arithmetic.acc_bits, parameters=parameters,
                            metadata={"seed": seed})


def random_images(network: QuantizedNetwork, count: int, seed: int = 0) -> np.ndarray:
    """Input integers over the whole range, int64 (count, C, H, W); the first image holds only the extremes."""
    rng = np.random.default_rng(seed)
    low, high = network.input.range
    images = rng.integers(low, high + 1, size=(count, *network.input.shape))
    images[0] = rng.choice([low, high], size=network.input.shape)
    return images
