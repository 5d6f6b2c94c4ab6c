"""The one verb: compress."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ...hw.arch.errors import DataError
from .recipe import Progress, Recipe, load_recipe

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from ..network import QuantizedNetwork

__all__ = ["compress"]


def compress(model: "torch.nn.Module", recipe: Recipe | str, train_data: "Dataset", *,
             input_shape: tuple[int, int, int] | None = None, seed: int = 0,
             progress: Progress | None = None, device: str = "cpu",
             checkpoint: str | Path | None = None) -> "QuantizedNetwork":
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
    device : str
        Where trainings compute: ``"cpu"``, ``"cuda"``, or ``"auto"``, a GPU if there is one. The integers are made on
        the CPU.
    checkpoint : path, optional
        File that holds the state after each epoch. When it is there, the run goes on from it, with the result that it
        would have had without the interruption.

    Returns
    -------
    QuantizedNetwork
        Its metadata holds the recipe, its options, the data set and the seed.

    Raises
    ------
    ModelError
        If the network can't be captured, the recipe's options don't fit it, or the checkpoint is another run's.
    DataError
        If the images or labels don't fit the network.
    ToolError
        If there is no such device.
    """
    from ..frontend.capture import capture
    from .session import Checkpoint, Session, fingerprint, torch_device

    shape = tuple(train_data.images.shape[1:])
    if input_shape is not None and shape != tuple(input_shape):
        raise DataError(f"data set {train_data.name} has images of shape {shape}, but the network takes "
                        f"{tuple(input_shape)}; give the data set that it was trained on")
    if isinstance(recipe, str):
        recipe = load_recipe(recipe)
    graph = capture(model, (shape[0], shape[1], shape[2]))
    _check_labels(train_data, math.prod(graph.layers[-1].out_shape))
    where = torch_device(device)
    file = None if checkpoint is None else Checkpoint(checkpoint, fingerprint(graph, recipe, train_data, seed, where))
    with Session(where, file).active():
        return recipe.run(model, graph, train_data, seed=seed, progress=progress)


def _check_labels(data: "Dataset", classes: int) -> None:
    """Refuse images without labels of the network's classes."""
    remedy = "give the data set that the network was trained on"
    if len(data.images) != len(data.labels):
        raise DataError(f"data set {data.name} has {len(data.images)} images but {len(data.labels)} labels; {remedy}")
    if not len(data):
        raise DataError(f"data set {data.name} has 0 images; {remedy}")
    least, most = int(data.labels.min()), int(data.labels.max())
    if least < 0 or most >= classes:
        raise DataError(f"data set {data.name} has labels from {least} to {most}, but the network tells {classes} "
                        f"classes apart; {remedy}")
