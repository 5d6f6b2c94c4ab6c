"""The layers of a network as it is trained: float tensors that hold exactly the values of the integer arithmetic.

All scales are powers of two, so a float32 product or sum is exact as long as the integer behind it has at most 24 bits.
"""

from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from ...hw.arch.errors import ModelError
from ..frontend.graph import FloatLayer, FloatResidual
from ..terms import Term, term_sum
from .coarse import Geometry, coarse_convolution
from .options import QuantizedRecipe
from .quantizers import ActivationQuantizer, FixedPoint, round_half_up, straight_through
from .scales import power_sum, reciprocal
from .weights import FreeWeights, WeightQuantizer, digit_planes

__all__ = ["AffineLayer", "ConvLayer", "PoolLayer"]

MAX_CHANNEL_SPREAD = 6
"""Binary orders of magnitude by which the scales of a batch-normalized layer's channels may differ."""
JOINED_SPREAD = 3
"""The same where a residual joins: each more doubles the residual's weight, and terms beyond the largest shift."""
FINE_BITS = 4
"""Fractional bits of an input that an affine layer keeps for its offsets and for scales of several terms."""
MOST_EQUAL_TERMS = 64
"""Terms that a power of two beyond the largest shift may take."""


class _Joining(nn.Module):
    """A layer whose accumulators take a tensor and residuals.

    Attributes
    ----------
    in_exponent : int
        Exponent of the input activations.
    residual_exponents : tuple of int
        Exponents of the residuals.
    """

    def __init__(self, layer: FloatLayer, recipe: QuantizedRecipe, signed: bool) -> None:
        super().__init__()
        self.layer, self.max_shift, self.guard = layer, recipe.max_shift, recipe.guard
        self.output = ActivationQuantizer(recipe.act_bits, signed, layer.clamp.low, layer.clamp.high)
        self.in_exponent = 0
        self.residual_exponents: tuple[int, ...] = (0,) * len(layer.residuals)

    @property
    def settled(self) -> bool:
        """Whether the arithmetic is the device's already."""
        return True

    @property
    def truncates(self) -> bool:
        """Whether products lose low bits."""
        return self.guard < self.max_shift

    def residual_power(self, acc_exponent: int, exponent: int, source: str) -> int:
        """The power of two by which activations with an exponent are multiplied, checked."""
        power = exponent - acc_exponent
        if not self.settled:
            return power
        if power < 0:
            raise ModelError(f"layer {self.layer.name}: adding {source} would round it: its values are multiples of "
                             f"2^{exponent}, the accumulators' of 2^{acc_exponent}; raise max_shift or guard_bits, or "
                             f"lower levels")
        if power > self.guard + MOST_EQUAL_TERMS.bit_length() - 1:
            raise ModelError(f"layer {self.layer.name}: adding {source} takes 2^{power - self.guard} terms, more than "
                             f"{MOST_EQUAL_TERMS}; raise max_shift or guard_bits")
        return power

    def joined(self, acc: Tensor, residuals: tuple[Tensor, ...]) -> Tensor:
        """Accumulators and residuals, added in real values."""
        for values in self.aligned(residuals):
            acc = acc + values
        return acc

    def aligned(self, residuals: tuple[Tensor, ...]) -> list[Tensor]:
        """Residuals in the output's shape."""
        return [_aligned(values, residual, self.layer.out_shape)
                for residual, values in zip(self.layer.residuals, residuals, strict=True)]


def _aligned(values: Tensor, residual: FloatResidual, shape: tuple[int, int, int]) -> Tensor:
    """A residual's values where they join, zeros elsewhere."""
    rows, height, width = shape
    (sy, sx), offset = residual.stride, residual.channel_offset
    values = values[:, max(0, -offset):, :(height - 1) * sy + 1:sy, :(width - 1) * sx + 1:sx]
    before = max(0, offset)
    values = values[:, :rows - before]
    after = rows - before - values.shape[1]
    return functional.pad(values, (0, 0, 0, 0, before, after)) if before or after else values


class ConvLayer(_Joining):
    """A convolution (or linear layer) with quantized weights, bias and output.

    Parameters
    ----------
    layer : FloatLayer
        Its float form; master weights and biases start there.
    recipe : QuantizedRecipe
        The options.
    raw : bool
        The output is the accumulator.
    signed : bool
        The output is stored signed.
    free : bool
        Weights stay as they are.

    Attributes
    ----------
    coarse : bool
        Convolutions are :mod:`~.coarse`, where they can be; :meth:`accumulate` is exact.
    channel_exponents : float tensor (channels out)
        Whole numbers p; a channel's real value is its accumulator's times ``2**p``. Zeros but for batch-normalized
        layers.
    row_exponents : float tensor (channels out)
        Whole numbers p by which a channel's weights are ``2**p`` times the quantizer's values: in place of
        ``channel_exponents`` where a residual joins, which has one weight for all channels.
    """

    channel_exponents: Tensor
    row_exponents: Tensor

    def __init__(self, layer: FloatLayer, recipe: QuantizedRecipe, raw: bool, signed: bool, free: bool) -> None:
        super().__init__(layer, recipe, signed)
        assert layer.weight is not None and layer.bias is not None
        self.raw = raw
        weight, bias = torch.tensor(layer.weight).float(), torch.tensor(layer.bias).float()
        quantizer = recipe.quantizer(layer.name)
        self.coarse = False
        exponents, zeros = torch.zeros(len(bias)), torch.zeros(len(bias))
        if layer.normalized and not raw:
            exponents = _channel_exponents(weight, self._spread(recipe, quantizer.span) if layer.residuals else
                                           MAX_CHANNEL_SPREAD)
        factor = 2.0**-exponents
        self.register_buffer("channel_exponents", zeros if layer.residuals else exponents)
        self.register_buffer("row_exponents", exponents if layer.residuals else zeros)
        self.weight = nn.Parameter(weight * factor[:, None, None, None])
        self.bias = nn.Parameter(bias * 2.0**-self.channel_exponents)
        self.bias_quantizer = FixedPoint()
        parametrize.register_parametrization(self, "bias", self.bias_quantizer)
        self.use(FreeWeights() if free else quantizer)

    def use(self, quantizer: WeightQuantizer) -> None:
        """Take another quantizer; what is trained from now on starts at the present master weights."""
        if parametrize.is_parametrized(self, "weight"):
            weight = self.weight.detach() if self.master_weight.shape != self.weight.shape else self.master_weight
            parametrize.remove_parametrizations(self, "weight", leave_parametrized=True)
            self.weight = nn.Parameter(weight.clone())
        self.weight_quantizer = quantizer
        quantizer.fit(quantizer.right_inverse(self.weight.detach()))
        parametrize.register_parametrization(self, "weight", quantizer, unsafe=True)

    def _spread(self, recipe: QuantizedRecipe, span: int) -> int:
        """Row exponents may differ so much that shifts and, with full weights, accumulators have the bits for it."""
        assert self.layer.weight is not None
        bits = (self.layer.weight[0].size << recipe.act_bits).bit_length() + span
        return max(0, min(JOINED_SPREAD, self.max_shift - span + 1, recipe.acc_bits - bits))

    @property
    def settled(self) -> bool:
        """Whether the weights have their values."""
        return self.weight_quantizer.quantized

    @property
    def row_drops(self) -> Tensor:
        """Places by which a channel's weights lie below those of the channel with the greatest, int64."""
        return (self.row_exponents.max() - self.row_exponents).long()

    @property
    def _top(self) -> int:
        """The greatest term of a weight is ``2**-top``."""
        return self.weight_quantizer.k_top - int(self.row_exponents.max())

    @property
    def base_shift(self) -> int:
        """Left shift of the greatest term: truncation is relative to ``max_shift``, exact terms shift little, but so
        much that no residual would have to shift right."""
        if self.truncates:
            return self.max_shift
        least = self.weight_quantizer.span - 1 + int(self.row_drops.max())
        wanted = max((self.in_exponent - self._top - exponent for exponent in self.residual_exponents), default=0)
        return max(least, min(wanted, self.max_shift))

    @property
    def acc_exponent(self) -> int:
        """Real value of an accumulator (before the channel's exponent) = integer * 2**this."""
        return self.in_exponent - self._top - self.base_shift + self.max_shift - self.guard

    @property
    def least_exponent(self) -> int:
        """Least exponent of the output, as requantization only shifts right."""
        return self.acc_exponent + int(self.channel_exponents.max())

    @property
    def master_weight(self) -> Tensor:
        """The full-precision weights, detached."""
        return self.original("weight").detach()

    def original(self, name: str) -> nn.Parameter:
        """What is trained behind ``"weight"`` or ``"bias"``."""
        parameter: nn.Parameter = self.parametrizations[name].original  # type: ignore[index, union-attr]
        return parameter

    def numbers(self) -> Tensor:
        """Weights as the sums of terms that the device shifts by, int64: 1 is a left shift by 0."""
        places = self.base_shift - (self.weight_quantizer.span - 1) - self.row_drops[:, None, None, None]
        if int(places.min()) < 0:
            raise ModelError(f"layer {self.layer.name}: its weights take {self.weight_quantizer.span} places, and its "
                             f"channels differ by {int(self.row_drops.max())}, more than shifts up to "
                             f"{self.max_shift} have; raise max_shift")
        return self.weight_quantizer.numbers(self.master_weight) << places

    def refit(self) -> None:
        """Choose the weights' scale anew from the master weights."""
        self.weight_quantizer.fit(self.master_weight)

    def accumulate(self, x: Tensor, *residuals: Tensor) -> Tensor:
        """Accumulators plus bias in real values, before requantization, (N, channels out, H, W)."""
        x = x.float()
        weight, bias = self._real_parameters()
        acc = self._product(x, weight, bias)
        if self.truncates and self.settled:
            channels = (2.0**self.channel_exponents)[:, None, None]
            acc = straight_through(acc, self._truncated(x.detach()) * channels + bias.detach()[:, None, None])
        return self.joined(acc, residuals)

    def _real_parameters(self) -> tuple[Tensor, Tensor]:
        """Weights and biases in real values."""
        exponent = self.acc_exponent
        for residual, given in zip(self.layer.residuals, self.residual_exponents, strict=True):
            self.residual_power(exponent, given, residual.source)
        self.bias_quantizer.exponent = exponent
        # Powers of two change no digit, so they and the bias go into the product: fewer passes over the map.
        powers = 2.0 ** (self.row_exponents + self.channel_exponents)
        return self.weight * powers[:, None, None, None], self.bias * 2.0**self.channel_exponents

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        layer = self.layer
        if self._is_linear:
            return functional.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
        x, padding = self._padded(x)
        return functional.conv2d(x, weight, bias, layer.stride, padding, layer.dilation, layer.groups)

    @property
    def _is_linear(self) -> bool:
        return self.layer.covers_map and self.layer.groups == 1

    def _padded(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """What a convolution takes, and the padding on both sides that is left for it to do."""
        top, left, bottom, right = self.layer.padding
        if (top, left) == (bottom, right):
            return x, (top, left)
        return functional.pad(x, (left, right, top, bottom)), (0, 0)

    @torch.no_grad()
    def _truncated(self, x: Tensor) -> Tensor:
        """The same product with each term truncated: one product for each shift that loses bits."""
        truncate, exact, acc = self.max_shift - self.guard, torch.zeros_like(self.weight), torch.zeros(())
        for place, digits in digit_planes(self.numbers()):
            terms = digits.to(x) * 2.0 ** (place - truncate + self.acc_exponent - self.in_exponent)
            if place >= truncate:
                exact += terms
            else:
                unit = 2.0 ** (self.in_exponent + truncate - place)
                acc = acc + self._product(torch.floor(x / unit) * unit, terms)
        return acc + self._product(x, exact)

    def forward(self, x: Tensor, *residuals: Tensor) -> Tensor:
        """The layer's output in real values."""
        if self.coarse and not (self.raw or self.truncates or self._is_linear or self.output.width):
            x, padding = self._padded(x)
            geometry = Geometry(self.layer.stride, padding, self.layer.dilation, self.layer.groups)
            return coarse_convolution(x, *self._real_parameters(), geometry, self.output.limits,
                                      *self.aligned(residuals))
        acc = self.accumulate(x, *residuals)
        return acc if self.raw else self.output(acc)


def _channel_exponents(weight: Tensor, spread: int) -> Tensor:
    """Power-of-two factors that make the channels of a folded batch norm alike in root mean square."""
    size = weight.flatten(1).square().mean(1).sqrt()
    logarithm = torch.log2(size.clamp_min(float(size.max()) * 2.0**-spread).clamp_min(1e-30))
    exponents = torch.round(logarithm - logarithm.median())
    return exponents.clamp_min(float(exponents.max()) - spread)


class AffineLayer(_Joining):
    """``x * factor + offset`` plus residuals; factors are requantization scales of up to four terms, never trained.

    Parameters
    ----------
    layer : FloatLayer
        With one weight a channel.
    recipe : QuantizedRecipe
        Its arithmetic.
    signed : bool
        The output is stored signed.

    Attributes
    ----------
    signs : float tensor (channels)
        Signs of the factors, 0 where a factor is 0.
    scales : list of (tuple of Term, int)
        Sum of terms and right shift that make each factor's magnitude.
    """

    signs: Tensor
    scale_values: Tensor
    offsets: Tensor
    raw = False

    def __init__(self, layer: FloatLayer, recipe: QuantizedRecipe, signed: bool) -> None:
        super().__init__(layer, recipe, signed)
        assert layer.weight is not None and layer.bias is not None
        factors = layer.weight.reshape(-1)
        self.register_buffer("signs", torch.tensor(factors).sign().float())
        self.scales = [power_sum(abs(Fraction(factor))) if factor else ((Term(False, 0),), 0)
                       for factor in factors.tolist()]
        values = [term_sum(terms) * 2.0**-shift for terms, shift in self.scales]
        self.register_buffer("scale_values", torch.tensor(values, dtype=torch.float64))
        self.register_buffer("offsets", torch.tensor(layer.bias) / self.scale_values)

    @property
    def acc_exponent(self) -> int:
        """Real value of an accumulator (before the channel's scale) = integer * 2**this."""
        plain = not self.offsets.any() and all(len(terms) == 1 for terms, _ in self.scales)
        fine = 0 if plain else FINE_BITS
        return min(self.in_exponent - fine, *self.residual_exponents, self.in_exponent)

    @property
    def least_exponent(self) -> int:
        """Least exponent of the output, as requantization only shifts right, by more than a scale of several terms."""
        return self.acc_exponent + max((terms[-1].shift + 1 if len(terms) > 1 else 0) - shift
                                       for terms, shift in self.scales)

    @property
    def bias(self) -> Tensor:
        """Offsets in units of the accumulator, int64."""
        return round_half_up(self.offsets, self.acc_exponent).long()

    def accumulate(self, x: Tensor, *residuals: Tensor) -> Tensor:
        """The output in real values before it is rounded, (N, channels, H, W)."""
        exponent = self.acc_exponent
        for given in (self.in_exponent, *self.residual_exponents):
            self.residual_power(exponent, given, self.layer.source)
        acc = self.joined(x * self.signs[:, None, None], residuals)
        if all(len(terms) == 1 for terms, _ in self.scales):
            return ((acc + (self.bias * 2.0**exponent).to(x)[:, None, None])
                    * self.scale_values.to(x)[:, None, None])
        # A sum times a scale may need more than 24 bits.
        return (acc.double() + (self.bias * 2.0**exponent)[:, None, None]) * self.scale_values[:, None, None]

    def forward(self, x: Tensor, *residuals: Tensor) -> Tensor:
        """The layer's output in real values."""
        result: Tensor = self.output(self.accumulate(x, *residuals)).to(x)
        return result


class PoolLayer(nn.Module):
    """Max or average pooling, or a leaky ReLU, with the input's format.

    Parameters
    ----------
    layer : FloatLayer
        The pooling.
    source : ActivationQuantizer
        Of what it reads.
    rounds : bool
        It applies the source's quantizer to its result: rounding and clamping are monotone, so they commute with the
        maximum, and after it they have less to do.
    """

    def __init__(self, layer: FloatLayer, source: ActivationQuantizer, rounds: bool) -> None:
        super().__init__()
        self.layer, self.source, self.rounds = layer, source, rounds
        self.output = ActivationQuantizer(source.bits, source.signed, layer.clamp.low, layer.clamp.high)
        self.terms, self.shift = reciprocal(layer.divisor) if layer.op == "avgpool" else ((Term(False, 0),), layer.leak)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output in real values."""
        layer = self.layer
        self.output.exponent = self.source.exponent
        if layer.op == "leaky":
            return self.output(torch.maximum(x, x * 2.0**-layer.leak))
        top, left, bottom, right = layer.padding
        if layer.op == "maxpool":
            padded = functional.pad(x, (left, right, top, bottom), value=float("-inf")) if any(layer.padding) else x
            result: Tensor = functional.max_pool2d(padded, layer.kernel, layer.stride, 0, layer.dilation)
            if self.rounds:
                result = self.source(result)
            return self.output(result) if layer.clamp.active else result
        padded = functional.pad(x, (left, right, top, bottom)).double()  # sum times scale may need more than 24 bits
        scale = term_sum(self.terms) * 2.0**-self.shift
        total = functional.avg_pool2d(padded, layer.kernel, layer.stride, divisor_override=1)
        return self.output(total * scale).to(x)
