"""The one verb: compress."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ...hw.arch.errors import DataError, ModelError
from .recipe import Progress, Recipe, load_recipe

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from ..frontend.capture import InputShape
    from ..network import QuantizedNetwork

__all__ = ["compress"]


def compress(model: "torch.nn.Module", recipe: Recipe | str, train_data: "Dataset", *,
             input_shape: "InputShape | None" = None, seed: int = 0,
             progress: Progress | None = None, device: str = "cpu",
             checkpoint: str | Path | None = None) -> "QuantizedNetwork":
    """Compress a trained network.

    Parameters
    ----------
    model : torch.nn.Module
        Trained network that takes images / 256, (N, C, H, W), or (N, C, L) of data whose height is 1, and returns
        logits, or a softmax or argmax of them, which is left to the host. Of several inputs, give `input_shape`;
        several outputs become one. It is not changed.
    recipe : Recipe or str
        How; a name means the recipe with its default options.
    train_data : Dataset
        Images for calibration and training.
    input_shape : (C, H, W) or (C, L), or a sequence of such, optional
        See :func:`~..frontend.capture.capture`; by default that of the images. Several inputs take the channels of the
        images one after the other.
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
        Its metadata holds the recipe, its options, the data set and the seed; what is ``left_to_host``; and of several
        ``outputs`` the name and the channels of each.

    Raises
    ------
    ModelError
        If the network can't be captured, the recipe's options don't fit it, or the checkpoint is another run's.
    DataError
        If the images or labels don't fit the network.
    ToolError
        If there is no such device.
    """
    from ..frontend.capture import capture, image_shape, on_images
    from .session import Checkpoint, Session, fingerprint, torch_device

    if input_shape is not None:
        train_data.check_shape(image_shape(input_shape))
    if isinstance(recipe, str):
        recipe = load_recipe(recipe)
    graph = capture(model, input_shape or train_data.shape)
    notes, model = (*getattr(model, "notes", ()), *graph.left_to_host), on_images(model, graph)
    if len(graph.outputs) > 1:
        _check_training(recipe, train_data, [output.name for output in graph.outputs])
    _check_labels(train_data, math.prod(graph.layers[-1].out_shape))
    where = torch_device(device)
    file = None if checkpoint is None else Checkpoint(checkpoint, fingerprint(graph, recipe, train_data, seed, where))
    with Session(where, file).active():
        network = recipe.run(model, graph, train_data, seed=seed, progress=progress)
    outputs = [output.to_dict() for output in graph.outputs] if len(graph.outputs) > 1 else []
    found = {"left_to_host": list(notes), "outputs": outputs}
    return dataclasses.replace(network, metadata={**network.metadata, **{
        name: value for name, value in found.items() if value}})


def _check_training(recipe: Recipe, data: "Dataset", outputs: list[str]) -> None:
    """Refuse to train several outputs on labels, which are those of one."""
    from .options import QuantizedRecipe

    if (isinstance(recipe, QuantizedRecipe) and recipe.trains and recipe.distill < 1
            and recipe.epochs_for(len(data.images))):
        raise ModelError(f"recipe {recipe.name}: the network has the outputs {', '.join(outputs)}, but labels are of "
                         f"one; set distill=1, so that it is compared with the float network alone, or epochs=0")


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
