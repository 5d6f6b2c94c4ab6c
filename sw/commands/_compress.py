"""What the commands that compress have in common: their input, their progress, and what they measure."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...hw.arch.errors import DataError, ModelError

if TYPE_CHECKING:
    from ...hw.arch.config import AcceleratorConfig
    from ..compress.recipe import Recipe
    from ..data import Dataset
    from ..frontend.load import Loaded
    from ..network import QuantizedNetwork

__all__ = ["common_options", "hold_out", "image_of", "inputs", "progress_bar"]

VALIDATION_SHARE = 0.1
VALIDATION_MOST = 5000
VALIDATION_LEAST = 20


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of all commands that compress: data, its folder, device and threads."""
    for option in (
            click.option("--threads", type=click.IntRange(1), help="CPU threads. Default: PyTorch's choice."),
            click.option("--data-dir", type=click.Path(path_type=Path),
                         help="Folder that is searched first for the data set."),
            click.option("--data", "data", metavar="SET", help="Data set for training and calibration, or a file of "
                         "one's own (.npz). Default: the one that the checkpoint was trained on.")):
        command = option(command)
    return command


def inputs(source: str, data: str | None, data_dir: Path | None, threads: int | None, *splits: str,
           several: bool = False) -> "tuple[Loaded, str, list[Dataset]]":
    """The network that a person names, its data set's name, and the splits of that.

    Parameters
    ----------
    several : bool
        The network may have several outputs.
    """
    from ..data import load
    from ..frontend.load import load_model

    loaded = load_model(source)
    name = data or loaded.metadata.get("dataset")
    if name is None:
        raise ModelError(f"{source}: does not say which data set it was trained on; give it with --data")
    sets = [load(name, split="train" if split == "train" else "test", data_dir=data_dir) for split in splits]
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    loaded = loaded.on_images(sets[0].shape)
    if loaded.outputs and not several:
        raise ModelError(f"{source}: has the outputs {', '.join(loaded.outputs)}, but accuracy is that of one; only "
                         f"'compress' without a target takes such a network")
    for note in loaded.notes:
        click.echo(f"shiftwright: {source}: {note}", err=True)
    return loaded, name, sets


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, float], None]]:
    """A bar on standard error, where that is a terminal; what is given is called after each epoch."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    quiet = bool((click.get_current_context().find_root().obj or {}).get("json")) or not sys.stderr.isatty()
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task(title, total=None, loss="")

        def show(epoch: int, epochs: int, loss: float) -> None:
            bar.update(task, completed=epoch, total=epochs, loss=f"epoch {epoch}/{epochs}, loss {loss:.4f}")

        yield show


def hold_out(data: "Dataset", seed: int) -> "tuple[Dataset, Dataset]":
    """The training images in two parts: for training, and for validation (a tenth, at most 5,000)."""
    import dataclasses

    import numpy as np

    count = min(round(VALIDATION_SHARE * len(data)), VALIDATION_MOST)
    if count < VALIDATION_LEAST:
        raise DataError(f"data set {data.name} has {len(data)} training images; a validation part of a tenth would be "
                        f"too small: at least {10 * VALIDATION_LEAST} are needed")
    order = np.random.default_rng(seed).permutation(len(data))
    parts = (dataclasses.replace(data, images=data.images[index], labels=data.labels[index])
             for index in (np.sort(order[count:]), np.sort(order[:count])))
    train, validation = parts
    return train, validation


def image_of(network: "QuantizedNetwork", recipe: "Recipe", config: "AcceleratorConfig | None" = None
             ) -> tuple[int, int]:
    """Bytes of the whole image and predicted cycles of one inference, on `config` or an accelerator that holds any."""
    from ..compiler.compile import compile_detailed
    from ..compress.measure import roomy

    made = compile_detailed(network, config or roomy(recipe).replace(rounding=network.rounding))
    return made.size, made.cycles
