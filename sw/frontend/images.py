"""A module from images to class scores around one that takes or returns something else."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["OnImages"]

LEFT_OUT = (torch.ops.aten._softmax.default, torch.ops.aten._log_softmax.default, torch.ops.aten.argmax.default,
            torch.ops.aten.sigmoid.default)
"""What :data:`~.operators.HOST` comes to."""


class OnImages(nn.Module):
    """A module that takes images, and returns class scores as the graph that is captured from it does.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one or more tensors. Returns a tensor, or several in a tuple, list or dictionary. A softmax or argmax may
        only be at its end: it is left out.
    shapes : sequence of tuple of int
        Of what it takes, without the batch: (C, H, W), (C, L) or (features,).
    ends : bool
        Whether there may be something to leave out.

    Attributes
    ----------
    notes : tuple of str
        What the module says of itself that is left to the host.
    """

    module: nn.Module
    shapes: tuple[tuple[int, ...], ...]

    def __init__(self, module: nn.Module, shapes: Sequence[Sequence[int]], *, ends: bool = True) -> None:
        super().__init__()
        self.module, self.shapes, self.ends = module, tuple(tuple(shape) for shape in shapes), ends
        self.notes: tuple[str, ...] = getattr(module, "notes", ())

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, values), or a map (N, C, H, W), of images (N, C, H, W)."""
        parts = images.split([shape[0] for shape in self.shapes], dim=1)
        inputs = (part.reshape(-1, *shape).contiguous() for part, shape in zip(parts, self.shapes, strict=True))
        with contextlib.ExitStack() as without:
            if self.ends:  # what is left out has no gradient
                without.enter_context(torch.no_grad())
                without.enter_context(_LeftOut())
            made = self.module(*inputs)
        scores = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        if len(scores) == 1:
            return scores[0]
        return torch.cat([each.reshape(len(images), each.shape[1], -1) for each in scores], 1).flatten(1)


class _LeftOut(TorchDispatchMode):
    """Makes each softmax and argmax return what it is given."""

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        return args[0].clone() if func in LEFT_OUT else func(*args, **(kwargs or {}))
