"""What surrounds a run of a recipe: the device that trains, and the file from which an interrupted run goes on.

A recipe may train several times. The checkpoint holds the state at the end of each training that is over, and after the
last epoch of the one that is not. What a recipe does in between depends on nothing else, so that is done again.
"""

import contextlib
import contextvars
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...hw.arch.errors import ModelError, ToolError
from ...hw.arch.files import write_atomically
from . import snapshot

if TYPE_CHECKING:
    from ..data import Dataset
    from ..frontend.graph import Graph
    from .recipe import Recipe

__all__ = ["Checkpoint", "Session", "current", "fingerprint", "torch_device"]

FORMAT = "shiftwright.compress"
VERSION = 1
DEVICES = ("auto", "cpu", "cuda")


def torch_device(name: str) -> torch.device:
    """The device of that name; ``"auto"`` is a GPU if PyTorch sees one.

    Raises
    ------
    ToolError
        If there is no GPU.
    """
    if name not in DEVICES:
        raise ModelError(f"device must be one of {', '.join(DEVICES)}, not {name!r}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ToolError("device cuda: PyTorch sees no GPU; install a PyTorch with CUDA and its driver, or take "
                        "--device cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def fingerprint(graph: "Graph", recipe: "Recipe", data: "Dataset", seed: int, device: torch.device) -> dict[str, str]:
    """What a run depends on, in words and sums."""
    def digest(*arrays: np.ndarray | None) -> str:
        made = hashlib.sha256()
        for array in arrays:
            made.update(b"-" if array is None else f"{array.dtype}{array.shape}".encode())
            made.update(b"" if array is None else np.ascontiguousarray(array).data)
        return made.hexdigest()[:16]

    weights = digest(*(array for layer in graph.layers for array in (layer.weight, layer.bias)))
    names = ", ".join(f"{layer.name} {layer.op}" for layer in graph.layers)
    return {"network": hashlib.sha256(f"{names} {weights}".encode()).hexdigest()[:16], "recipe": recipe.name,
            "options": json.dumps(recipe.to_dict(), sort_keys=True, default=str), "seed": str(seed),
            "images": digest(data.images, data.labels), "device": device.type}


@dataclasses.dataclass
class _Training:
    """One training's entry in the checkpoint."""

    plan: str
    epoch: int
    tree: Any
    tensors: dict[str, torch.Tensor]


class Checkpoint:
    """The file of a run.

    Parameters
    ----------
    path : path
        Read if it is there, and written after each epoch, never half.
    made_for : mapping of str to str
        :func:`fingerprint` of the run.

    Raises
    ------
    ModelError
        If the file is something else, damaged, or of a run with another network, recipe, seed or data.
    """

    def __init__(self, path: str | Path, made_for: Mapping[str, str]) -> None:
        self.path, self.made_for = Path(path), dict(made_for)
        self.trainings: list[_Training] = []
        self.number = -1
        if self.path.exists():
            self._read()

    @property
    def epochs(self) -> int:
        """Epochs that the file holds, of all trainings."""
        return sum(training.epoch for training in self.trainings)

    def begin(self, plan: str, state: object) -> int:
        """The next training begins: restore what the file holds of it, and tell its epochs."""
        self.number += 1
        if self.number == len(self.trainings):
            return 0
        training = self.trainings[self.number]
        if training.plan != plan:
            raise ModelError(f"{self.path}: was written by another version of Shiftwright; delete it and begin anew")
        try:
            snapshot.restore(state, training.tree, training.tensors)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise ModelError(f"{self.path}: damaged checkpoint: {error!r}; delete it and begin anew") from None
        return training.epoch

    def save(self, plan: str, epoch: int, state: object) -> None:
        """Write the file with the present training's state."""
        try:
            training = _Training(plan, epoch, *snapshot.take(state))
        except TypeError as error:
            raise ModelError(f"recipe {self.made_for['recipe']}: can't be interrupted: {error}; leave --checkpoint "
                             f"out") from None
        self.trainings[self.number:] = [training]
        self._write()

    def _write(self) -> None:
        from safetensors.torch import save

        tensors = {f"{number}.{name}": value for number, training in enumerate(self.trainings)
                   for name, value in training.tensors.items()}
        described = [{"plan": training.plan, "epoch": training.epoch, "tree": training.tree}
                     for training in self.trainings]
        structure = {"format": FORMAT, "version": VERSION, "made_for": self.made_for, "trainings": described}
        write_atomically(self.path, save(tensors, metadata={"shiftwright": json.dumps(structure)}), ModelError)

    def _read(self) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.path), framework="pt") as file:
                structure = json.loads((file.metadata() or {}).get("shiftwright", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except OSError as error:
            raise ModelError(f"{self.path}: can't read the checkpoint: {error.strerror or error}") from None
        except (SafetensorError, ValueError) as error:
            raise ModelError(f"{self.path}: not a checkpoint of 'shiftwright compress', or damaged: {error}; name "
                             f"another file, or delete this one") from None
        if not isinstance(structure, dict) or structure.get("format") != FORMAT or structure.get("version") != VERSION:
            raise ModelError(f"{self.path}: is a safetensors file but no checkpoint of this version's 'shiftwright "
                             f"compress'; name another file, or delete this one")
        made_for = structure["made_for"]
        for what, wanted in self.made_for.items():
            if made_for.get(what) != wanted:
                told = f"{what} {made_for.get(what)}, not {wanted}" if what in TOLD else f"other {what}"
                raise ModelError(f"{self.path}: is the checkpoint of a run with {told}; name another file, or delete "
                                 f"this one")
        for number, entry in enumerate(structure["trainings"]):
            prefix = f"{number}."
            own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            self.trainings.append(_Training(entry["plan"], entry["epoch"], entry["tree"], own))


TOLD = ("recipe", "seed", "device")
"""What a refusal tells with its value."""


@dataclasses.dataclass
class Session:
    """What a training asks for.

    Parameters
    ----------
    device : torch.device
        Where it computes.
    checkpoint : Checkpoint or None
        Where it writes its state.
    """

    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    checkpoint: Checkpoint | None = None

    def begin(self, plan: str, state: object) -> int:
        """Epochs of the next training that are over; `state` is then that after them."""
        return 0 if self.checkpoint is None else self.checkpoint.begin(plan, state)

    def save(self, plan: str, epoch: int, state: object) -> None:
        """An epoch is over."""
        if self.checkpoint is not None:
            self.checkpoint.save(plan, epoch, state)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Within it, :func:`current` is this one."""
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)


_ACTIVE: contextvars.ContextVar[Session | None] = contextvars.ContextVar("session", default=None)


def current() -> Session:
    """The session of the run that calls; one on the CPU without a file outside of any."""
    return _ACTIVE.get() or Session()
