"""How far each layer's outputs are from the float network's."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .fakequant import FakeQuantized
from .moments import float_twin
from .options import QuantizedRecipe

__all__ = ["signal_to_noise"]


@torch.no_grad()
def signal_to_noise(network: FakeQuantized, recipe: QuantizedRecipe, images: Tensor) -> dict[str, float | None]:
    """Signal-to-noise ratio of each layer's output in dB, by module path: the float network's energy over that of the
    difference, which the layers before have added to. None where there is no difference.

    Parameters
    ----------
    network : FakeQuantized
        As it will be lowered.
    recipe : QuantizedRecipe
        Its recipe.
    images : float tensor (N, C, H, W)
        Sample images.
    """
    network.plain()
    reference = float_twin(network.graph, recipe, images)
    reference.plain()
    found = {}
    for (name, exact), (_, made) in zip(_outputs(reference, images), _outputs(network, images), strict=True):
        noise = float((made - exact).square().sum(dtype=torch.float64))
        signal = float(exact.square().sum(dtype=torch.float64))
        found[name] = round(10 * math.log10(signal / noise), 2) if signal and noise else None
    return found


def _outputs(network: FakeQuantized, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each layer's name and output, in order."""
    made: list[tuple[str, Tensor]] = []
    hooks = [layer.register_forward_hook(lambda layer, _, output: made.append((layer.layer.name, output)))
             for layer in network.chain]
    try:
        for _ in network.walk(images):
            yield from made
            made.clear()
        yield from made
    finally:
        for hook in hooks:
            hook.remove()
