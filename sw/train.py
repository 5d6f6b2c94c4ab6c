"""Float training of the zoo's networks, and their checkpoint file (safetensors, never pickle)."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..hw.arch.errors import ModelError
from ..hw.arch.files import write_atomically
from .data import PIXEL_SCALE, Dataset, load
from .zoo import network_info

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Checkpoint", "Progress", "train", "accuracy", "count_parameters", "save_checkpoint", "load_checkpoint",
           "load_weights"]

FORMAT = "shiftwright.float"
SMALL_NETWORK = 50_000
"""Parameters below which a second thread only waits for the first: on a busy machine, many times as long."""
BATCH_VALUES = 1000 * 3 * 32 * 32
"""Most input values in a batch of :func:`accuracy`: inner maps of larger images would fill the memory."""
Progress = Callable[[int, int, float], None]
"""Called after each epoch with its number from 1, the number of epochs, and the mean training loss."""


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained float network.

    Parameters
    ----------
    module : torch.nn.Module
        The network, in evaluation mode.
    network, dataset : str
        Its name in the zoo, and the data set it was trained on.
    float_accuracy : float
        Accuracy on the test split, 0 to 1.
    epochs, seed : int
        How it was trained.
    parameters : int
        Float32 numbers that the network has: weights, biases, batch-norm parameters and statistics.
    """

    module: "nn.Module"
    network: str
    dataset: str
    float_accuracy: float
    epochs: int
    seed: int
    parameters: int


def count_parameters(module: "nn.Module") -> int:
    """Floating-point numbers in a module's state: parameters and batch-norm statistics."""
    return sum(value.numel() for value in module.state_dict().values() if value.is_floating_point())


def _tensors(dataset: Dataset) -> "tuple[torch.Tensor, torch.Tensor]":
    """Pixels and labels; pixels stay bytes until they are needed."""
    import torch

    return torch.tensor(dataset.images), torch.tensor(dataset.labels)


def accuracy(module: "nn.Module", dataset: Dataset, *, batch: int = 1000) -> float:
    """Share of a data set's images that a float network classifies rightly, 0 to 1.

    ``batch`` images at a time, or as many as have :data:`BATCH_VALUES` values.
    """
    import torch

    images, labels = _tensors(dataset)
    batch = min(batch, max(1, BATCH_VALUES // math.prod(dataset.shape)))
    was_training = module.training
    module.eval()
    with torch.no_grad():
        shape = module(images[:1].float() / PIXEL_SCALE).shape[1:]
        if len(shape) != 1:
            raise ModelError(f"the network gives {' x '.join(map(str, shape))} values an image, where its accuracy "
                             f"needs one score a class; end it with nn.Flatten and nn.Linear")
        right = sum(int((module(x.float() / PIXEL_SCALE).argmax(1) == y).sum())
                    for x, y in zip(images.split(batch), labels.split(batch), strict=True))
    module.train(was_training)
    return right / len(labels)


def shift_randomly(images: "torch.Tensor", shift: int, generator: "torch.Generator") -> "torch.Tensor":
    """Move each image (N, C, H, W) by up to ``shift`` pixels each way, independently; zeros come in at the borders.

    Signals, which are one pixel high, move along only; vectors, of one pixel, do not move.
    """
    import torch

    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (shift, shift, shift, shift))
    y, x = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator)
    if height == 1:
        y = torch.full_like(y, shift)
    if width == 1:
        x = torch.full_like(x, shift)
    rows, columns = y + torch.arange(height), x + torch.arange(width)
    number = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def train(network: str, dataset: Dataset, *, test: Dataset | None = None, epochs: int | None = None, seed: int = 0,
          progress: Progress | None = None, data_dir: str | Path | None = None) -> "tuple[nn.Module, float]":
    """Train a network of the zoo in float.

    AdamW with a one-cycle cosine schedule, and random shifts of the images where the zoo says so. Equal arguments give
    equal weights on one machine with one number of threads.

    Parameters
    ----------
    network : str
        Name in the zoo.
    dataset : Dataset
        Training images.
    test : Dataset, optional
        Images that the accuracy is measured on; by default the test split of the same data set.
    epochs : int, optional
        Passes over the training images; the zoo's number by default.
    seed : int
        Decides the initial weights, the order of the images and their shifts.
    progress : callable, optional
        See :data:`Progress`.
    data_dir : path, optional
        Where the test split is searched first.

    Returns
    -------
    module : torch.nn.Module
        In evaluation mode.
    accuracy : float
        On ``test``, 0 to 1.

    Raises
    ------
    ModelError, DataError
        If the network is unknown, the images don't fit it, or ``epochs`` is not positive.
    """
    import torch

    info = network_info(network)
    epochs = info.epochs if epochs is None else epochs
    if epochs < 1:
        raise ModelError(f"epochs must be at least 1, not {epochs}")
    test = load(dataset.name, split="test", data_dir=data_dir) if test is None else test
    for given in dataset, test:
        given.check_shape(info.input_shape, way=f"give {info.dataset}, the default of {info.name}")
    images, labels = _tensors(dataset)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = info.build()
    steps = -(-len(labels) // info.batch)
    optimizer = torch.optim.AdamW(module.parameters(), lr=info.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, info.learning_rate, total_steps=epochs * steps, pct_start=0.2)
    module.train()
    with _fitting_threads(module):
        for epoch in range(1, epochs + 1):
            total = 0.0
            for index in torch.randperm(len(labels), generator=generator).split(info.batch):
                x, y = images[index].float() / PIXEL_SCALE, labels[index]
                if info.shift:
                    x = shift_randomly(x, info.shift, generator)
                loss = torch.nn.functional.cross_entropy(module(x), y)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(y)
            if progress is not None:
                progress(epoch, epochs, total / len(labels))
        module.eval()
        return module, accuracy(module, test)


@contextmanager
def _fitting_threads(module: "nn.Module") -> Iterator[None]:
    """One thread for a small network, as many as before for others."""
    import torch

    before = torch.get_num_threads()
    if count_parameters(module) < SMALL_NETWORK:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as safetensors with the key ``shiftwright`` of JSON metadata, never half-written."""
    from safetensors.torch import save

    fields = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)
              if field.name != "module"}
    tensors = {name: value.contiguous() for name, value in checkpoint.module.state_dict().items()}
    payload = save(tensors, metadata={"shiftwright": json.dumps({"format": FORMAT, **fields})})
    write_atomically(path, payload, ModelError)


def _fill(module: "nn.Module", state: "dict[str, torch.Tensor]") -> str:
    """Load a state dict; what doesn't fit, in one line, or nothing."""
    shapes = [f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
              for name, value in module.state_dict().items() if name in state and state[name].shape != value.shape]
    missing, unexpected = ([], []) if shapes else module.load_state_dict(state, strict=False)
    parts = (("", shapes), ("it lacks ", missing), ("it has the unknown ", unexpected))
    return " and ".join(f"{words}{names[0]}" + (f" ({len(names) - 1} more)" if len(names) > 1 else "")
                        for words, names in parts if names)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of :func:`save_checkpoint`.

    Raises
    ------
    ModelError
        If the file can't be read, is something else, or its tensors don't fit the network that it names.
    """
    from safetensors import SafetensorError, safe_open

    remedy = "make one with 'shiftwright train'"
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("shiftwright", "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        raise ModelError(f"{path}: can't read the checkpoint: {error.strerror or error}") from None
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{path}: not a safetensors checkpoint, or damaged: {error}; {remedy}") from None
    found = metadata.get("format") if isinstance(metadata, dict) else None
    if found != FORMAT:
        kind = f"a file of format {found!r}" if found else "a safetensors file of another program"
        raise ModelError(f"{path}: is {kind}, not a float checkpoint ({FORMAT!r}); {remedy}")
    try:
        network, dataset = str(metadata["network"]), str(metadata["dataset"])
        measured = float(metadata["float_accuracy"])
        epochs, seed, parameters = (int(metadata[name]) for name in ("epochs", "seed", "parameters"))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: damaged checkpoint metadata: {error!r}; {remedy}") from None
    module = network_info(network).build()
    misfit = _fill(module, state)
    if misfit:
        raise ModelError(f"{path}: its tensors don't fit network {network!r}: {misfit}; {remedy}")
    module.eval()
    return Checkpoint(module, network, dataset, measured, epochs, seed, parameters)


def load_weights(network: str, path: str | Path) -> "nn.Module":
    """A network of the zoo, in evaluation mode, with the weights of a PyTorch checkpoint.

    Parameters
    ----------
    network : str
        Name in the zoo.
    path : path
        What ``torch.save`` wrote of a state dict, bare or under the key ``state_dict``; a prefix ``module.`` of its
        names is dropped. Only tensors and plain containers are unpickled, never code.

    Raises
    ------
    ModelError
        If the network is unknown, the file can't be read, or its tensors don't fit.
    """
    import pickle

    import torch

    module = network_info(network).build()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: can't read the weights: {error.strerror or error}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path}: not a PyTorch checkpoint of tensors, or damaged: {reason}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path}: holds no state dict; save the module's state_dict()")
    misfit = _fill(module, {name.removeprefix("module."): value.float() if value.is_floating_point() else value
                            for name, value in state.items()})
    if misfit:
        raise ModelError(f"{path}: its tensors don't fit network {network!r}: {misfit}; name the network that they "
                         f"were saved from")
    return module.eval()
