"""The one verb: compress."""

import math
from typing import TYPE_CHECKING

from ...hw.arch.errors import DataError
from ..network import QuantizedNetwork
from .recipe import Progress, Recipe, load_recipe

if TYPE_CHECKING:
    import torch

    from ..data import Dataset

__all__ = ["compress"]


def compress(model: "torch.nn.Module", recipe: Recipe | str, train_data: "Dataset", *,
             input_shape: tuple[int, int, int] | None = None, seed: int = 0,
             progress: Progress | None = None) -> QuantizedNetwork:
    """Compress a trained network.

    Parameters
    ----------
    model : torch.nn.Module
        Trained network that takes images / 256, (N, C, H, W), and returns logits. It is not changed.
    recipe : Recipe or str
        How; a name means the recipe with its default options.
    train_data : Dataset
        Images for calibration and training.
    input_shape : (int, int, int), optional
        Channels, height, width; by default that of the images.
    seed : int
        Decides the order of the images and their shifts. Equal arguments give equal networks on one machine with one
        number of threads.
    progress : callable, optional
        See :data:`~.recipe.Progress`.

    Returns
    -------
    QuantizedNetwork
        Its metadata holds the recipe, its options, the data set and the seed.

    Raises
    ------
    ModelError
        If the network can't be captured, or the recipe's options don't fit it.
    DataError
        If the images or labels don't fit the network.
    """
    from ..frontend.capture import capture

    shape = tuple(train_data.images.shape[1:])
    if input_shape is not None and shape != tuple(input_shape):
        raise DataError(f"data set {train_data.name} has images of shape {shape}, but the network takes "
                        f"{tuple(input_shape)}; give the data set that it was trained on")
    if isinstance(recipe, str):
        recipe = load_recipe(recipe)
    graph = capture(model, (shape[0], shape[1], shape[2]))
    classes = math.prod(graph.layers[-1].out_shape)
    if not len(train_data) or int(train_data.labels.max()) >= classes:
        most = int(train_data.labels.max()) if len(train_data) else None
        raise DataError(f"data set {train_data.name} has {len(train_data)} images with labels up to {most}, but the "
                        f"network tells {classes} classes apart; give the data set that it was trained on")
    return recipe.run(model, graph, train_data, seed=seed, progress=progress)
