"""The network as it is trained: float tensors that hold exactly the values of the integer arithmetic.

All scales are powers of two, so a float32 product or sum is exact as long as the integer behind it has at most 24 bits.
"""

from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from ..frontend.graph import FloatLayer, Graph
from ..network import Term
from .bqnet import BQNet
from .quantizers import ActivationQuantizer, FixedPoint, PowerOfTwo, straight_through

__all__ = ["ConvLayer", "FakeQuantized", "PoolLayer", "reciprocal"]

PIXEL_EXPONENT = -8
"""Networks are fed pixels divided by 256."""
MAX_CHANNEL_SPREAD = 6
"""Binary orders of magnitude by which the scales of a batch-normalized layer's channels may differ."""


def reciprocal(divisor: int, most_terms: int = 4, precision: int = 16) -> tuple[tuple[Term, ...], int]:
    """``1 / divisor`` as a short sum of signed powers of two over a power of two.

    Parameters
    ----------
    divisor : int
        At least 1.
    most_terms : int
        Most terms of the sum.
    precision : int
        Bits of the sum.

    Returns
    -------
    terms : tuple of Term
        Rising exponents, the first 0.
    shift : int
        ``sum(terms) / 2**shift`` is the closest to ``1 / divisor`` with the fewest terms, within 0.4 % with four;
        greater than the terms' largest exponent when there is more than one.
    """
    best: tuple[Fraction, int, tuple[Term, ...], int] | None = None
    for shift in range((divisor - 1).bit_length() + precision):
        terms = _signed_digits(round(Fraction(1 << shift, divisor)))
        if not terms or terms[0].shift or len(terms) > most_terms or (len(terms) > 1 and terms[-1].shift >= shift):
            continue
        total = sum(-(1 << term.shift) if term.neg else 1 << term.shift for term in terms)
        candidate = (abs(Fraction(total, 1 << shift) - Fraction(1, divisor)), len(terms), terms, shift)
        best = candidate if best is None or candidate[:2] < best[:2] else best
    assert best is not None  # one term always fits
    return best[2], best[3]


def _signed_digits(value: int) -> tuple[Term, ...]:
    """Canonical signed digits of a positive integer, rising."""
    terms, shift = [], 0
    while value:
        if value & 1:
            digit = 2 - (value & 3)
            terms.append(Term(digit < 0, shift))
            value -= digit
        value >>= 1
        shift += 1
    return tuple(terms)


class ConvLayer(nn.Module):
    """A convolution (or linear layer) with quantized weights, bias and output.

    Parameters
    ----------
    layer : FloatLayer
        Its float form; master weights and biases start there.
    recipe : BQNet
        The options.
    raw : bool
        The output is the accumulator.

    Attributes
    ----------
    channel_exponents : float tensor (channels out)
        Whole numbers p; a channel's real value is its accumulator's times ``2**p``. Zeros but for batch-normalized
        layers.
    in_exponent : int
        Exponent of the input activations.
    """

    channel_exponents: Tensor

    def __init__(self, layer: FloatLayer, recipe: BQNet, raw: bool) -> None:
        super().__init__()
        assert layer.weight is not None and layer.bias is not None
        self.layer, self.raw = layer, raw
        self.max_shift, self.guard = recipe.max_shift, recipe.guard
        weight, bias = torch.tensor(layer.weight).float(), torch.tensor(layer.bias).float()
        exponents = torch.zeros(len(bias))
        if layer.normalized and not raw:
            exponents = _channel_exponents(weight)
        self.register_buffer("channel_exponents", exponents)
        factor = 2.0**-exponents
        self.weight = nn.Parameter(weight * factor[:, None, None, None])
        self.bias = nn.Parameter(bias * factor)
        self.weight_quantizer, self.bias_quantizer = PowerOfTwo(recipe.level_set(layer.name)), FixedPoint()
        self.weight_quantizer.fit(self.weight.detach())
        parametrize.register_parametrization(self, "weight", self.weight_quantizer)
        parametrize.register_parametrization(self, "bias", self.bias_quantizer)
        clamp = layer.clamp
        self.output = ActivationQuantizer(recipe.act_bits, clamp.low < 0, clamp.low, clamp.high)
        self.in_exponent = 0

    @property
    def truncates(self) -> bool:
        """Whether products lose low bits."""
        return self.guard < self.max_shift

    @property
    def base_shift(self) -> int:
        """Left shift of the largest level: truncation is relative to ``max_shift``, exact terms shift little."""
        return self.max_shift if self.truncates else self.weight_quantizer.level_set.levels - 1

    @property
    def acc_exponent(self) -> int:
        """Real value of an accumulator (before the channel's exponent) = integer * 2**this."""
        return self.in_exponent - self.weight_quantizer.k_top - self.base_shift + self.max_shift - self.guard

    @property
    def master_weight(self) -> Tensor:
        """The full-precision weights, detached."""
        weight: Tensor = self.parametrizations["weight"].original  # type: ignore[index, union-attr]
        return weight.detach()

    def refit(self) -> None:
        """Choose the weights' scale anew from the master weights."""
        self.weight_quantizer.fit(self.master_weight)

    def accumulate(self, x: Tensor) -> Tensor:
        """Accumulators plus bias in real values, before requantization, (N, channels out, H, W)."""
        self.bias_quantizer.exponent = self.acc_exponent
        acc = self._product(x, self.weight)
        if self.truncates:
            acc = straight_through(acc, self._truncated(x.detach()))
        return (acc + self.bias[:, None, None]) * (2.0**self.channel_exponents)[:, None, None]

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        layer = self.layer
        if layer.covers_map:
            return functional.linear(x.flatten(1), weight.flatten(1))[:, :, None, None]
        top, left, bottom, right = layer.padding
        if (top, left) == (bottom, right):
            return functional.conv2d(x, weight, None, layer.stride, (top, left), layer.dilation)
        padded = functional.pad(x, (left, right, top, bottom))
        return functional.conv2d(padded, weight, None, layer.stride, 0, layer.dilation)

    @torch.no_grad()
    def _truncated(self, x: Tensor) -> Tensor:
        """The same product with each term truncated: one product for each level that loses bits."""
        sign, level = self.weight_quantizer.codes(self.master_weight)
        count, k_top = self.weight_quantizer.level_set.levels, self.weight_quantizer.k_top
        acc: Tensor | float = 0.0
        kept = self.guard + 1  # levels 0 to guard_bits lose nothing
        exact = torch.where(level < kept, sign * 2.0 ** -(level + k_top), 0.0)
        acc = self._product(x, exact.to(x))
        for index in range(kept, count):
            unit = 2.0 ** (self.in_exponent + index - self.guard)
            mask = torch.where(level == index, sign, 0).to(x) * 2.0 ** -(index + k_top)
            acc = acc + self._product(torch.floor(x / unit) * unit, mask)
        return acc

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output in real values."""
        acc = self.accumulate(x)
        return acc if self.raw else self.output(acc)


def _channel_exponents(weight: Tensor) -> Tensor:
    """Power-of-two factors that make the channels of a folded batch norm alike in root mean square."""
    size = weight.flatten(1).square().mean(1).sqrt()
    logarithm = torch.log2(size.clamp_min(float(size.max()) * 2.0**-MAX_CHANNEL_SPREAD).clamp_min(1e-30))
    return torch.round(logarithm - logarithm.median())


class PoolLayer(nn.Module):
    """Max or average pooling with the input's format."""

    def __init__(self, layer: FloatLayer, source: ActivationQuantizer) -> None:
        super().__init__()
        self.layer, self.source = layer, source
        self.output = ActivationQuantizer(source.bits, source.signed, layer.clamp.low, layer.clamp.high)
        self.terms, self.shift = reciprocal(layer.divisor) if layer.op == "avgpool" else ((Term(False, 0),), 0)

    @property
    def keeps_order(self) -> bool:
        """Whether it only takes the maximum."""
        return self.layer.op == "maxpool" and not self.layer.clamp.active

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output in real values."""
        layer = self.layer
        self.output.exponent = self.source.exponent
        top, left, bottom, right = layer.padding
        if layer.op == "maxpool":
            padded = functional.pad(x, (left, right, top, bottom), value=float("-inf")) if any(layer.padding) else x
            result = functional.max_pool2d(padded, layer.kernel, layer.stride, 0, layer.dilation)
            return self.output(result) if layer.clamp.active else result
        padded = functional.pad(x, (left, right, top, bottom)).double()  # sum times scale may need more than 24 bits
        scale = sum(-(1 << term.shift) if term.neg else 1 << term.shift for term in self.terms) * 2.0**-self.shift
        total = functional.avg_pool2d(padded, layer.kernel, layer.stride, divisor_override=1)
        result = self.output(total * scale).to(x)
        return result


class FakeQuantized(nn.Module):
    """A chain of quantized layers.

    Parameters
    ----------
    graph : Graph
        The float network.
    recipe : BQNet
        The options.
    """

    def __init__(self, graph: Graph, recipe: BQNet) -> None:
        super().__init__()
        self.input_shape = graph.input_shape
        bits = recipe.act_bits
        self.input = ActivationQuantizer(bits, signed=False)
        self.input.exponent = PIXEL_EXPONENT + 8 - bits
        layers: list[ConvLayer | PoolLayer] = []
        source = self.input
        for layer in graph.layers:
            raw = recipe.raw_output and layer is graph.layers[-1] and not layer.clamp.active
            made = ConvLayer(layer, recipe, raw) if layer.op == "conv" else PoolLayer(layer, source)
            layers.append(made)
            source = made.output
        self.layers = nn.ModuleList(layers)

    @property
    def chain(self) -> list[ConvLayer | PoolLayer]:
        """The layers in order."""
        return list(self.layers)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Real-valued outputs (N, values) of real-valued images (N, C, H, W)."""
        x: Tensor = self.input(images).reshape(-1, *self.input_shape)
        source, pending = self.input, None
        for layer, following in zip(self.chain, (*self.chain[1:], None), strict=True):
            x = self.reshape(layer, x)
            if isinstance(layer, ConvLayer):
                layer.in_exponent = source.exponent
                x = layer.accumulate(x)
                pending = None if layer.raw else layer.output
            else:
                x = layer(x)
            source = layer.output
            # Rounding and clamping are monotone, so they commute with the maximum: after it they have less to do.
            if pending is not None and not (isinstance(following, PoolLayer) and following.keeps_order):
                x, pending = pending(x), None
        return x.flatten(1)

    @staticmethod
    def reshape(layer: ConvLayer | PoolLayer, x: Tensor) -> Tensor:
        """The shape that a layer takes: linear layers after pooling to 1 x 1 may see it either way."""
        return x.reshape(-1, *layer.layer.in_shape)
