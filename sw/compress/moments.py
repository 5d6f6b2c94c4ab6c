"""What a layer's error costs: second moments of its input, and the curvature of the loss at its output."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..frontend.capture import capture
from ..frontend.graph import FloatLayer, Graph
from .bqnet import BQNet
from .calibrate import calibrate
from .fakequant import ConvLayer, FakeQuantized
from .options import QuantizedRecipe
from .weights import FreeWeights

__all__ = ["Moments", "Reference", "curvature", "input_moments", "restored"]

CHUNK = 1 << 24
"""Unfolded values at a time."""
COLUMNS_TIMES = 32
LEAST_POSITIONS = 1 << 15
"""A layer with n taps is measured at 32 n positions of its maps, but at no fewer than this, if there are as many."""
IMAGES = 32
"""Images a backward pass."""
EVENED = 0.1
"""Share of the mean curvature of a layer that is added to each channel's: few samples see what rare classes need."""


def float_twin(graph: Graph, recipe: QuantizedRecipe, images: Tensor) -> FakeQuantized:
    """The float network in a quantized one's layers: no weight and no activation is rounded.

    Biases are, to units of accumulators that sample images, float tensor (N, C, H, W), are chosen by.
    """
    network = FakeQuantized(graph, recipe, free=True)
    calibrate(network, images, recipe)
    for layer in network.chain:
        layer.output.rounding = False
    network.input.rounding = False
    return network


def coarse_twin(model: nn.Module, images: Tensor) -> FakeQuantized:
    """A network of PyTorch in layers with :mod:`~.coarse` convolutions, without a gradient.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    images : float tensor (N, C, H, W)
        Sample images.
    """
    shape = images.shape[1:]
    twin = float_twin(capture(model, (shape[0], shape[1], shape[2])), BQNet(), images)
    twin.coarse = True
    return twin.requires_grad_(False)


class Reference:
    """The float network in the same layers: no weight and no activation is rounded.

    Parameters
    ----------
    graph : Graph
        The float network.
    recipe : QuantizedRecipe
        Its arithmetic.
    images : float tensor (N, C, H, W)
        Sample images.

    Attributes
    ----------
    network : FakeQuantized
        The layers.
    sums : dict of Tensor
        What each layer with weights made last, before its clamp and residuals included, by module path. A caller takes
        out what it needs no more.
    """

    def __init__(self, graph: Graph, recipe: QuantizedRecipe, images: Tensor) -> None:
        self.network, self.images = float_twin(graph, recipe, images), images
        self.sums: dict[str, Tensor] = {}
        for layer in self.network.chain:
            if not isinstance(layer, ConvLayer):
                continue
            name = layer.layer.name
            if layer.raw:
                layer.register_forward_hook(lambda _, __, made, name=name: self.sums.__setitem__(name, made))
            else:
                layer.output.register_forward_pre_hook(
                    lambda _, given, name=name: self.sums.__setitem__(name, given[0]))
        self.network.plain()

    def walk(self) -> Iterator[object]:
        """Run the layers on the sample images; each one before it runs."""
        return self.network.walk(self.images)


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Second moments about the mean, which the bias takes care of.

    Parameters
    ----------
    inputs : float tensor (groups, taps, taps)
        Of the inputs of the receptive fields.
    cross : float tensor (groups, channels out / groups, taps)
        Of what the output lacks, with the inputs.
    positions : int
        Receptive fields that were measured.
    """

    inputs: Tensor
    cross: Tensor
    positions: int


def input_moments(layer: FloatLayer, x: Tensor, lacking: Tensor, generator: torch.Generator) -> Moments:
    """Measure a layer at random positions of its output.

    Parameters
    ----------
    layer : FloatLayer
        A convolution or linear layer.
    x : float tensor (N, C, H, W)
        What it reads.
    lacking : float tensor (N, channels out, H, W)
        The wanted output less the one that it makes.
    generator : torch.Generator
        Chooses the positions, the same in all images.
    """
    assert layer.weight is not None
    (_, height, width), groups, taps = layer.out_shape, layer.groups, layer.weight[0].size
    area = height * width
    wanted = -(-max(LEAST_POSITIONS, COLUMNS_TIMES * taps) // len(x))
    chosen = torch.randperm(area, generator=generator)[:wanted]
    top, left, bottom, right = layer.padding
    inputs = torch.zeros(groups, taps, taps)
    cross = torch.zeros(groups, layer.out_shape[0] // groups, taps)
    sum_x, sum_y = torch.zeros(groups, taps, 1), torch.zeros(groups, cross.shape[1], 1)
    for part, target in zip(*(tensor.split(max(1, CHUNK // (groups * taps * area))) for tensor in (x, lacking)),
                            strict=True):
        if layer.covers_map:
            fields = part.reshape(len(part), groups, taps, 1)
        else:
            part = functional.pad(part, (left, right, top, bottom))
            fields = functional.unfold(part, layer.kernel, layer.dilation, 0, layer.stride)
            fields = fields[:, :, chosen].reshape(len(part), groups, taps, -1)
        fields = fields.permute(1, 2, 0, 3).reshape(groups, taps, -1)
        values = target.flatten(2)[:, :, chosen].reshape(len(target), groups, -1, len(chosen))
        values = values.permute(1, 2, 0, 3).reshape(groups, -1, fields.shape[2])
        inputs.baddbmm_(fields, fields.mT)
        cross.baddbmm_(values, fields.mT)
        sum_x += fields.sum(2, keepdim=True)
        sum_y += values.sum(2, keepdim=True)
    count = len(x) * len(chosen)
    return Moments(inputs.sub_(sum_x @ sum_x.mT / count).div_(count), cross.sub_(sum_y @ sum_x.mT / count).div_(count),
                   count)


def curvature(reference: Reference, temperature: float, generator: torch.Generator) -> dict[str, Tensor]:
    """How much loss a squared error at the outputs of each layer costs, by module path.

    Half the mean squared gradient of ``-log p(y)`` at a channel's sums, times the number of its pixels, with `y` drawn
    from the network's own prediction: the Fisher information's diagonal (Martens, arXiv:1412.1193), which
    takes no labels. Logits are divided by `temperature`, so that images of which the network is sure count, too.

    Returns
    -------
    dict of float tensor (channels out)
        Nats of an image's loss for a mean squared error of 1 at each of the channel's pixels.
    """
    network = reference.network
    totals = {name: torch.zeros(layer.layer.out_shape[0]) for name, layer in network.weighted.items()}
    for images in reference.images.split(IMAGES):
        with torch.enable_grad():
            logits = network(images) / temperature
            loss = torch.zeros(())
            for scores in logits.split(network.graph.output_sizes, 1):
                drawn = torch.multinomial(scores.detach().softmax(1), 1, generator=generator)
                loss = loss - scores.log_softmax(1).gather(1, drawn).sum() * temperature
            sums = [reference.sums[name] for name in totals]
            gradients = torch.autograd.grad(loss, sums)
        for total, gradient in zip(totals.values(), gradients, strict=True):
            total += gradient.square().sum((0, 2, 3))
    reference.sums.clear()
    for total in totals.values():
        total.mul_(0.5 / len(reference.images))
        total += EVENED * total.mean()
    return totals


def restored(layer: ConvLayer, reference: ConvLayer) -> None:
    """Give a layer float weights and biases again."""
    layer.use(FreeWeights())
    for name in ("weight", "bias"):
        layer.original(name).data.copy_(reference.original(name))
    layer.refit()
