"""The passes of the recipe ``ptq`` over a network."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...hw.arch.errors import CapacityError, ModelError
from ..data import PIXEL_SCALE
from .calibrate import calibrate, choose_exponent
from .fakequant import ConvLayer, FakeQuantized, PoolLayer
from .measure import compiled
from .moments import Reference, curvature, input_moments, restored
from .ptq import PTQ
from .recipe import Progress
from .sweep import Choice, Problem, Rate
from .weights import NearestValue, TermGrid

if TYPE_CHECKING:
    from ..data import Dataset

__all__ = ["PostTraining"]

UNITS = (-1, 0, 1)
"""Places by which units are tried that differ from the one that theory tells."""
FIRST_SWEEPS = 2
"""Sweeps after which units are compared."""
COARSER = 16
"""Places by which units may grow where accumulators have no room."""
MOST_PASSES = 8
NEAR = 0.01
"""A target is met by what is smaller by at most this share."""
FARTHER = 1.5
"""By how much steps grow that stay on one side of a target."""
STEP = 3.0
"""Most by which the logarithm of the slopes changes from a pass to the next, as long as one side is not known."""


class NothingLeft(ModelError):
    """A layer in which no weight is worth its bits."""


class PostTraining:
    """Quantizes a network's layers in order, each on what the quantized ones before make of the sample images.

    Parameters
    ----------
    network : FakeQuantized
        Changed in place.
    recipe : PTQ
        The options.
    data : Dataset
        Training images; labels are not used.
    seed : int
        Chooses the sample.
    progress : callable or None
        Called after each layer.
    """

    def __init__(self, network: FakeQuantized, recipe: PTQ, data: "Dataset", *, seed: int,
                 progress: Progress | None) -> None:
        self.network, self.recipe, self.seed, self.progress = network, recipe, seed, progress
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(data), generator=generator)[:recipe.calibration_images]
        self.images = torch.tensor(data.images[chosen.numpy()]).float() / PIXEL_SCALE
        with torch.no_grad():
            self.reference = Reference(network.graph, recipe, self.images)
        self.curvature = curvature(self.reference, recipe.temperature, generator)
        self.weights = sum(layer.master_weight.numel() for layer in network.weighted.values())
        self.passes = 0
        self.bits, self.error = 0.0, 0.0
        self.slope = 0.0
        """Nats of loss that a bit of a weight is worth."""

    @torch.no_grad()
    def run(self) -> None:
        """One pass; for a target as many as it takes, with slopes between the two that came nearest on either side."""
        recipe, measure = self.recipe, self._size if self.recipe.target_size else lambda: self.bits / self.weights
        target = recipe.target
        if target is None:
            self._pass(1.0)
            return
        small: tuple[float, float] | None = None  # logarithms of factor and size
        large: tuple[float, float] | None = None
        tried, position, goal = math.nan, 0.0, math.log(target * (1 - NEAR / 2))
        for number in range(MOST_PASSES):
            tried = position
            try:
                self._pass(math.exp(position))
            except NothingLeft:
                if number == MOST_PASSES - 1:
                    raise
                position = (position + large[0]) / 2 if large else position - STEP
                continue
            size = measure()
            if target * (1 - NEAR) <= size <= target:
                return
            if size <= target:
                small = position, math.log(size)
            else:
                large = position, math.log(size)
            if small and large:
                share = (large[1] - goal) / max(large[1] - small[1], 1e-9)
                position = large[0] + (small[0] - large[0]) * min(max(share, 0.1), 0.9)
            else:  # at rates that are not low, a bit less is four times the error; at low ones it is more
                bits = 8 * self._size() / self.weights if recipe.target_size else size
                step = 2 * math.log(2) * bits * (1 - math.exp(goal) / size) * FARTHER**number
                position += max(-STEP, min(STEP, step))
        if small is None:
            raise ModelError(f"recipe {recipe.name}: {recipe.target_text} is not reached: with slopes "
                             f"{math.exp(tried):.3g} times as great it is {size:.6g} still; ask for more")
        if small[0] != tried:
            self._pass(math.exp(small[0]))

    def _size(self) -> int:
        """Bytes of the image that the present network makes."""
        try:
            return compiled(self.network, self.recipe).size
        except CapacityError as error:
            raise ModelError(f"recipe {self.recipe.name}: target_size can't be measured, as the network fits no "
                             f"accelerator ({error}); give target_bits instead") from None

    def _pass(self, factor: float) -> None:
        """Quantize all layers, with the recipe's slopes times a factor."""
        network, recipe = self.network, self.recipe
        self.passes += 1
        self.slope = factor * recipe.slope / self.weights
        self.bits, self.error = 0.0, 0.0
        generator = torch.Generator().manual_seed(self.seed)
        for float_layer, free in zip(network.weighted.values(), self.reference.network.weighted.values(), strict=True):
            restored(float_layer, free)
        if joined := {layer for group in network.alike for layer in group}:
            calibrate(network, self.images, recipe)
        done, all_layers = 0, len(network.weighted)
        reference = self.reference.walk()
        next(reference)
        for layer, inputs in network.walk(self.images):
            next(reference, None)  # this layer of the reference has run
            if isinstance(layer, PoolLayer):
                continue
            if isinstance(layer, ConvLayer):
                name = layer.layer.name
                self._quantize(layer, inputs, self.reference.sums.pop(name), factor, generator)
                done += 1
                if self.progress is not None:
                    passes = 1 if recipe.target is None else MOST_PASSES
                    self.progress(done + (self.passes - 1) * all_layers, passes * all_layers, self.error)
            if layer.raw:
                continue
            least = layer.least_exponent
            if layer in joined:
                layer.output.exponent = max(layer.output.exponent, least)
            else:
                layer.output.exponent = choose_exponent(layer.accumulate(*inputs), layer.output, recipe.calibration,
                                                        recipe.percentile, least)
        if joined:
            calibrate(network, self.images, recipe)

    def _quantize(self, layer: ConvLayer, inputs: list[Tensor], wanted: Tensor, factor: float,
                  generator: torch.Generator) -> None:
        """Give a layer its weights and bias."""
        name, recipe = layer.layer.name, self.recipe
        options = recipe.options_of(name)
        slope = factor * options["slope"] / self.weights
        powers = 2.0 ** (layer.row_exponents + layer.channel_exponents)
        moments = input_moments(layer.layer, inputs[0], wanted - layer.accumulate(*inputs), generator)
        groups, rows, taps = moments.cross.shape
        importance = (self.curvature[name] * powers**2).reshape(groups, rows)
        strength = recipe.correction * max(0.0, 1 - taps / moments.positions)
        problem = Problem(layer.master_weight.reshape(groups, rows, taps), moments.inputs, importance,
                          cross=strength * moments.cross / powers.reshape(groups, rows, 1) if strength else None,
                          damping=recipe.damping, ordered=recipe.ordered)
        del moments
        grid = TermGrid(options["terms"], options["span"])
        choice, exponent = self._best(problem, grid, slope, layer)
        for coarser in range(COARSER + 1):
            if coarser:
                choice = problem.solve(grid, 2.0 ** (exponent + coarser), slope, Rate(grid, recipe.term_bits),
                                       recipe.sweeps)
            if not choice.numbers.any():
                raise NothingLeft(f"layer {name}: none of its weights is worth its bits at slope = "
                                 f"{factor * options['slope']:.3g}; lower slope, or ask for a larger target")
            _install(layer, choice.numbers, grid, exponent + coarser)
            if _has_room(layer, recipe):
                break
        self.bits, self.error = self.bits + choice.bits, self.error + choice.error
        lacking = (wanted - layer.accumulate(*inputs)).mean((0, 2, 3))
        layer.original("bias").data.add_(lacking * 2.0**-layer.channel_exponents)

    def _best(self, problem: Problem, grid: TermGrid, slope: float, layer: ConvLayer) -> tuple[Choice, int]:
        """The cheapest choice among some units, powers of two, and its unit's exponent."""
        largest = float(problem.weight.abs().max())
        if not largest > 0:
            raise ModelError(f"layer {layer.layer.name}: all of its weights are 0; a layer without weights can't be "
                             f"compressed; take it out of the network")
        least = math.ceil(math.log2(largest / float(grid.numbers.max()))) - 1
        step = problem.step(slope)
        middle = max(least + 1, round(math.log2(step))) if step > 0 else least + 1
        most = 1024
        if layer.residual_exponents:  # the accumulators' unit must not be greater than those of what joins
            reach = layer.guard - grid.span + 1 - int(layer.row_exponents.max())
            most = min(layer.residual_exponents) - layer.in_exponent + reach
        rate = Rate(grid, self.recipe.term_bits)
        sweeps = self.recipe.sweeps
        tried = [(problem.solve(grid, 2.0**exponent, slope, rate, min(sweeps, FIRST_SWEEPS)), exponent)
                 for exponent in sorted({min(middle + away, most) for away in UNITS})]
        choice, exponent = min(tried, key=lambda each: each[0].cost)
        if sweeps > FIRST_SWEEPS:
            choice = problem.solve(grid, 2.0**exponent, slope, rate, sweeps - FIRST_SWEEPS, choice.counts)
        return choice, exponent


def _install(layer: ConvLayer, numbers: Tensor, grid: TermGrid, exponent: int) -> None:
    """Make a layer's weights these numbers times a power of two, for good."""
    quantizer = NearestValue()
    quantizer.values = numbers.unique()
    quantizer.span, quantizer.k_top = grid.span, -exponent - grid.span + 1
    layer.use(quantizer)
    master = layer.original("weight").data
    master.copy_(numbers.reshape(master.shape) * 2.0**exponent)


def _has_room(layer: ConvLayer, recipe: PTQ) -> bool:
    """Whether accumulators hold every sum of products, with half of their range for bias and residuals."""
    reach = layer.numbers().abs().flatten(1).sum(1).max() << recipe.act_bits
    return int(reach) >> recipe.max_shift - recipe.guard < 1 << recipe.acc_bits - 2
