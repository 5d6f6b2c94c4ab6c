"""From a graph whose weights and activations are on grids to the same integers.

A layer's accumulator counts multiples of ``source's step * weights' step``; the output is that times their quotient
with the output's step, rounded. Where all steps are powers of two everything is exact. Other quotients become sums of
up to four powers of two, as far as they are none.
"""

import dataclasses
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ...hw.arch.errors import ModelError
from ..frontend.graph import INPUT, FloatConcat, FloatLayer, Graph, Grid
from ..network import ACTIVATION_BITS, Concat, Layer, QuantizedNetwork, Residual, TensorSpec, Term
from ..terms import power_terms, signed_digits, term_sum
from .lower import RAW_BITS, codebook_of, prove
from .scales import power_sum

if TYPE_CHECKING:
    from .keep import Keep

__all__ = ["Kept", "keep", "step_of"]

TOLERANCE = 1e-4
"""How far from a whole number a weight may lie in units of its step: float32 multiples of a step are not exact."""
PIXELS = Grid(scale=2.0**-8, low=0, high=255)
"""What images are where the file does not say it."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """The integer network.

    Parameters
    ----------
    network : QuantizedNetwork
    differences : tuple of str
        Layers that may differ from the file by a unit, and why.
    """

    network: QuantizedNetwork
    differences: tuple[str, ...]


def keep(graph: Graph, recipe: "Keep", rounding: str) -> Kept:
    """Take over the integers of a quantized network.

    Parameters
    ----------
    graph : Graph
        With weights on grids and quantizers.
    recipe : Keep
        The options.
    rounding : str
        How the device rounds halves.

    Raises
    ------
    ModelError
        If weights are no multiples of a step, or what a layer reads is not quantized.
    OverflowProofError
        If an accumulator could leave ``acc_bits``.
    """
    grids, differences, given = _grids(graph), list[str](), graph.input_grid
    if given is not None and grids[INPUT] != given:
        differences.append(f"input: images are rounded to multiples of {grids[INPUT].scale:g}, where the file rounds "
                           f"them to multiples of {given.scale:g}")
    elif given is not None and given.scale > PIXELS.scale and given.rounding != rounding:
        differences.append(f"input: halves are rounded {_words(rounding)}")
    specs = _specs(graph, grids)
    layers, concats = [], []
    for step in graph.steps:
        if isinstance(step, FloatConcat):
            concats.append(Concat(target=specs[step.name], parts=tuple(specs[part] for part in step.parts)))
            continue
        made, difference = _Lowering(step, graph, grids, specs, recipe, rounding).layer()
        prove(made, recipe)
        layers.append(made)
        differences += [f"layer {step.name}: {difference}"] if difference else []
    return Kept(QuantizedNetwork(input=specs[INPUT], layers=tuple(layers), concats=tuple(concats),
                                 max_shift=recipe.max_shift, guard_bits=recipe.max_shift, acc_bits=recipe.acc_bits,
                                 rounding=rounding, parameters=graph.parameters), tuple(differences))


def step_of(weights: np.ndarray, most: int) -> Fraction | None:
    """The greatest step that all weights are whole multiples of, at most `most` times it; a power of two if one is.

    None where there is no such step. Zeros alone have the step 1.
    """
    values = np.unique(np.abs(weights))
    values = values[values > 0]
    if not len(values):
        return Fraction(1)
    if len(values) > most:
        return None
    fractions = [Fraction(value) for value in values.tolist()]
    power = Fraction(1, max(each.denominator for each in fractions))
    while all((each / power).numerator % 2 == 0 for each in fractions):
        power *= 2
    if fractions[-1] <= most * power:
        return power
    for least in range(1, most + 1):
        multiples = values * (least / values[0])
        if multiples[-1] > most + TOLERANCE:
            return None
        if np.all(np.abs(multiples - np.round(multiples)) < TOLERANCE):
            # All weights tell the step: the greatest most exactly.
            return fractions[-1] / round(multiples[-1])
    return None


def _grids(graph: Graph) -> dict[str, Grid]:
    """What each tensor is rounded to; the last layer's may be missing."""
    given = graph.input_grid or PIXELS
    if _exponent(Fraction(given.scale)) is None:  # pixels from 0 to 1, in the same bits
        given = dataclasses.replace(given, scale=2.0**-given.high.bit_length())
    grids = {INPUT: given}
    for step in graph.steps:
        if isinstance(step, FloatConcat):
            scales = {grids[part].scale: part for part in step.parts if part in grids}
            if len(scales) > 1 or any(part not in grids for part in step.parts):
                raise ModelError(f"concatenation {step.name}: what it joins is rounded to multiples of "
                                 f"{' and '.join(f'{scale:g}' for scale in scales)}; quantize all of it alike, by one "
                                 f"quantizer")
            first = grids[step.parts[0]]
            grids[step.name] = dataclasses.replace(first, low=min(grids[part].low for part in step.parts),
                                                   high=max(grids[part].high for part in step.parts))
        elif step.grid is not None:
            grids[step.name] = step.grid
        elif step.op in ("maxpool", "leaky"):
            grids[step.name] = grids[step.source]
        elif step is not graph.layers[-1]:
            raise ModelError(f"layer {step.name}: what it makes is not quantized, but {_reader(graph, step.name)} "
                             f"reads it; the recipe keep takes networks whose activations are quantized, another "
                             f"recipe quantizes them")
    return grids


def _reader(graph: Graph, tensor: str) -> str:
    return next((f"layer {step.name}" for step in graph.readers(tensor)), "nothing")


def _specs(graph: Graph, grids: dict[str, Grid]) -> dict[str, TensorSpec]:
    """Formats; those of joined tensors have equal bits."""
    signed, bits = graph.signed, dict[str, int]()
    for name, grid in grids.items():
        bits[name] = grid.bits(signed[name])
        if bits[name] > ACTIVATION_BITS:
            raise ModelError(f"layer {name or 'input'}: integers from {grid.low} to {grid.high} are read together with "
                             f"ones that may be negative, which takes {bits[name]} bits, more than {ACTIVATION_BITS}; "
                             f"quantize it to a bit less, or with sign")
    for concat in reversed(graph.concats):
        most = max(bits[name] for name in (concat.name, *concat.parts))
        bits |= dict.fromkeys((concat.name, *concat.parts), most)
    for concat in graph.concats:  # a joined tensor may be part of another
        bits |= dict.fromkeys(concat.parts, bits[concat.name])
    names, shapes = {step.name for step in graph.steps}, graph.shapes
    title = "input" if "input" not in names else "input@0"
    return {name: TensorSpec(name=name or title, channels=shapes[name][0], height=shapes[name][1],
                             width=shapes[name][2], bits=bits[name], signed=signed[name],
                             exponent=math.floor(math.log2(grid.scale)))
            for name, grid in grids.items()}


def _exponent(value: Fraction) -> int | None:
    """The power of two that a positive number is, if it is one."""
    power = value.numerator.bit_length() - value.denominator.bit_length()
    return power if value == Fraction(2) ** power else None


@dataclasses.dataclass
class _Row:
    """Requantization of one channel: ``(levels + bias) * term_sum(terms) >> shift``, before levels are raised."""

    bias: Fraction
    terms: tuple[Term, ...]
    shift: int
    exact: bool

    @property
    def least_raise(self) -> int:
        """By how many places levels must be raised so that the shift is one to the right."""
        return max(0, (self.terms[-1].shift + 1 if len(self.terms) > 1 else 0) - self.shift)

    def biased(self, raised: int, wanted: str, device: str) -> tuple[int, bool]:
        """The bias with levels raised by so many places, and whether the result is what is wanted."""
        bias, shift = self.bias * 2**raised, self.shift + raised
        if wanted in ("floor", "ceil"):
            if shift == 0:
                return (math.floor(bias) if wanted == "floor" else math.ceil(bias)), self.exact
            half = Fraction(2) ** (shift - 1)
            bias, wanted = (bias - half, "half_up") if wanted == "floor" else (bias + half, "half_down")
        if not self.exact or len(self.terms) > 1:
            return math.floor(bias + Fraction(1, 2)), self.exact and bias.denominator == 1 and wanted == device
        if shift == 0:
            return math.floor(bias + Fraction(1, 2)), bias.denominator != 2 or wanted == device
        # Sums of levels are multiples of 2**raised. So the result changes where the bias passes one of these:
        first, apart = 2 ** (shift - 1), 2 ** min(raised, shift)
        below = first + math.floor((bias - first) / apart) * apart
        if below == bias:
            if wanted in (device, "half_even"):
                return below, wanted == device
            below -= apart if wanted == "half_down" else 0
        if apart > 1:
            return min(max(math.floor(bias), below + 1), below + apart - 1), True
        return below, device == "half_up"


class _Lowering:
    """One layer.

    Parameters
    ----------
    step : FloatLayer
    graph, grids, specs
        Of all tensors.
    recipe : Keep
    rounding : str
        How the device rounds.
    """

    def __init__(self, step: FloatLayer, graph: Graph, grids: dict[str, Grid], specs: dict[str, TensorSpec],
                 recipe: "Keep", rounding: str) -> None:
        self.step, self.specs, self.recipe, self.rounding = step, specs, recipe, rounding
        self.grid = grids.get(step.name)
        self.source = Fraction(grids[step.source].scale)
        self.residuals = [Fraction(grids[residual.source].scale) for residual in step.residuals]
        if self.grid is None and (step is not graph.layers[-1] or step.op != "conv" or step.clamp.active):
            raise ModelError(f"layer {step.name}: its output is clamped or averaged, but not quantized; quantize it, "
                             f"or take the clamp out")

    def layer(self) -> tuple[Layer, str]:
        """The layer, and how it may differ."""
        step = self.step
        given: dict[str, Any] = {
            "name": step.name, "op": step.op, "source": self.specs[step.source], "kernel": step.kernel,
            "stride": step.stride, "padding": step.padding, "dilation": step.dilation, "groups": step.groups,
            "leak": step.leak}
        if step.op == "conv":
            return self._conv(given)
        row = self._row(self.source / Fraction(2) ** step.leak / step.divisor, Fraction(0))
        if row.least_raise:
            raise ModelError(f"layer {step.name}: its output has finer steps than its input; quantize it less finely")
        bias, exact = row.biased(0, self._wanted, self.rounding)
        rows = step.out_shape[0]
        return Layer(**given, target=self.specs[step.name], bias=np.full(rows, bias), scale=(row.terms,) * rows,
                     shift=np.full(rows, row.shift), **self._limits()), self._difference([row], [exact])

    @property
    def _wanted(self) -> str:
        return "half_even" if self.grid is None else self.grid.rounding

    def _limits(self) -> dict[str, Any]:
        """The clamp in units of the output."""
        assert self.grid is not None
        rounded = round if self._wanted == "half_even" else lambda value: math.floor(value + Fraction(1, 2))
        clamp, scale = self.step.clamp, Fraction(self.grid.scale)
        (least, most), stored = (self.grid.low, self.grid.high), self.specs[self.step.name].range
        least, most = max(least, stored[0]), min(most, stored[1])
        low = least if math.isinf(clamp.low) else max(least, rounded(Fraction(clamp.low) / scale))
        high = most if math.isinf(clamp.high) else min(most, rounded(Fraction(clamp.high) / scale))
        return {"qmin": min(low, 0), "qmax": max(high, 0)}

    def _row(self, unit: Fraction, bias: Fraction) -> _Row:
        """A channel whose accumulator counts units, with a bias in units."""
        assert self.grid is not None
        factor = unit / Fraction(self.grid.scale)
        terms, shift = power_sum(factor)
        return _Row(bias, terms, shift, term_sum(terms) == factor * Fraction(2) ** shift)

    def _levels(self) -> tuple[list[Fraction], np.ndarray]:
        """The step of each channel's weights, and how many of them each weight is."""
        step, weight = self.step, self.step.weight
        assert weight is not None
        most = sum(1 << shift for shift in range(self.recipe.max_shift, -1, -2))  # the greatest with no longer shift
        joint = step_of(weight, most)
        if joint is None and (self.grid is None or step.residuals):
            why = "a residual joins it" if step.residuals else "it is the last one, whose classes are compared"
            raise ModelError(f"layer {step.name}: its weights are no whole multiples of one step, at most {most} times "
                             f"it, as they must be because {why}; quantize them to 8 bits at most with one scale for "
                             f"the whole layer, or quantize the layer's output")
        steps = [joint or step_of(row, most) for row in weight]
        for channel, found in enumerate(steps):
            if found is None:
                raise ModelError(f"layer {step.name}: the weights of channel {channel} are no whole multiples of a "
                                 f"step, at most {most} times it; the recipe keep takes quantized weights, another "
                                 f"recipe quantizes them")
        known = [found for found in steps if found is not None]
        scale = np.array([float(found) for found in known]).reshape(-1, 1, 1, 1)
        return known, np.round(weight / scale).astype(np.int64)

    def _conv(self, given: dict[str, Any]) -> tuple[Layer, str]:
        step = self.step
        assert step.bias is not None
        steps, levels = self._levels()
        units = [self.source * found for found in steps]
        room = self.recipe.max_shift - max((term.shift for value in np.unique(levels).tolist()
                                            for term in signed_digits(value)), default=0)
        powers = [self._power(scale / units[0]) for scale in self.residuals]
        least = max(0, *(-power for power in powers), 0)
        biases = [Fraction(value) / unit for value, unit in zip(step.bias.tolist(), units, strict=True)]
        rows = self.step.out_shape[0]
        if self.grid is None:
            raised = self._raised(least, room)
            exact = [bias.denominator == 1 or _near(bias) for bias in biases]
            target = TensorSpec(name=step.name, channels=rows, height=step.out_shape[1], width=step.out_shape[2],
                                bits=RAW_BITS, signed=True, exponent=math.floor(math.log2(units[0])) - raised)
            low, high = target.range
            numbers: dict[str, Any] = {
                "bias": np.array([round(bias * 2**raised) for bias in biases], np.int64), "qmin": low, "qmax": high,
                "scale": ((Term(False, 0),),) * rows, "shift": np.zeros(rows, np.int64), "raw": True}
            difference = "" if all(exact) else "biases are rounded to units of the accumulator"
        else:
            made = [self._row(unit, Fraction(round(bias)) if _near(bias) else bias)
                    for unit, bias in zip(units, biases, strict=True)]
            raised = self._raised(max(least, *(row.least_raise for row in made)), room)
            tries = {more: [row.biased(more, self._wanted, self.rounding) for row in made]
                     for more in range(raised, max(room, raised) + 1)}
            raised = max(tries, key=lambda more: (sum(exact for _, exact in tries[more]), -more))
            found = tries[raised]
            target = self.specs[step.name]
            numbers = {"bias": np.array([bias for bias, _ in found], np.int64), **self._limits(),
                       "scale": tuple(row.terms for row in made),
                       "shift": np.array([row.shift + raised for row in made], np.int64)}
            difference = self._difference(made, [exact for _, exact in found])
        indices, codebook = codebook_of(levels << raised, step.name, self.recipe.max_shift)
        residuals = tuple(Residual(source=self.specs[joined.source], stride=joined.stride,
                                   channel_offset=joined.channel_offset,
                                   terms=power_terms(power + raised, self.recipe.max_shift))
                          for joined, power in zip(step.residuals, powers, strict=True))
        return Layer(**given, **numbers, target=target, indices=indices, codebook=codebook,
                     residuals=residuals), difference

    def _raised(self, least: int, room: int) -> int:
        if least > room:
            raise ModelError(f"layer {self.step.name}: its output's steps are so fine that weights would have to shift "
                             f"left by {least - room} more than max_shift = {self.recipe.max_shift}; raise max_shift, "
                             f"or quantize the output less finely")
        return least

    def _power(self, factor: Fraction) -> int:
        """The power of two by which a residual is multiplied."""
        power = _exponent(factor)
        nearest = round(math.log2(factor))
        if power is None and not math.isclose(factor, 2.0**nearest, rel_tol=1e-6):
            raise ModelError(f"layer {self.step.name}: the steps of what it adds have the quotient "
                             f"{float(factor):.4g}, which is no power of two; quantize both with the same scale")
        return nearest

    def _difference(self, rows: list[_Row], exact: list[bool]) -> str:
        """Why channels may differ from the file."""
        off = [row for row in rows if not row.exact]
        if off:
            assert self.grid is not None
            return f"scales of {len(off)} of {len(rows)} channels are sums of powers of two near the file's"
        if not all(exact):
            return f"in {exact.count(False)} of {len(rows)} channels halves are rounded {_words(self.rounding)}"
        return ""


def _near(bias: Fraction) -> bool:
    """Whether a bias is a whole number but for float32's precision."""
    return bool(abs(bias - round(bias)) <= max(abs(bias), Fraction(1)) * Fraction(1, 1 << 20))


def _words(rounding: str) -> str:
    return "up" if rounding == "half_up" else "to even integers"
