"""Activations of an ONNX network, and the views of them that Reshape, Transpose and their like make.

The array has no views: a map is flattened or it is not. So views are kept as orders of a tensor's elements until
something reads them. Shapes that come back cost nothing then, flattening is one module, and another order of what is
flattened (networks that were made for N, H, W, C) is an order of the weights that read it.
"""

import dataclasses
import math

import numpy as np

from ...hw.arch.errors import UnsupportedError
from .onnx_file import OnnxNode
from .operators import unsupported

__all__ = ["FREE", "Activation", "refuse", "view", "words"]

FREE = 9973
"""Stands for a free number of images in shapes that the graph computes with."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Activation:
    """A tensor that depends on the network's input.

    Parameters
    ----------
    key : str
        Its name in the :class:`~.onnx_network.OnnxNetwork`.
    shape : tuple of int
        Its shape there, for one image.
    order : integer array or None
        The view: in each place the element's position in the flattened tensor; None for the tensor itself.
    by : OnnxNode or None
        The node that made the view.
    """

    key: str
    shape: tuple[int, ...]
    order: np.ndarray | None = None
    by: OnnxNode | None = None

    @property
    def logical(self) -> tuple[int, ...]:
        """Shape of one image, as the ONNX graph has it."""
        return self.shape if self.order is None else self.order.shape

    @property
    def elements(self) -> np.ndarray:
        """The order, also of a tensor that is no view."""
        return np.arange(math.prod(self.shape)).reshape(self.shape) if self.order is None else self.order

    @property
    def in_order(self) -> bool:
        """Whether the elements lie as in the tensor."""
        return self.order is None or bool(np.array_equal(self.order.ravel(), np.arange(self.order.size)))


def words(shape: tuple[int, ...]) -> str:
    """A shape for messages."""
    return f"(N, {', '.join(map(str, shape))})"


def view(node: OnnxNode, x: Activation, constant: np.ndarray | None, batch: int) -> Activation:
    """What Flatten, Reshape, Squeeze, Unsqueeze or Transpose makes.

    Parameters
    ----------
    node : OnnxNode
    x : Activation
    constant : integer array or None
        The node's second input.
    batch : int
        What stands for the number of images.

    Raises
    ------
    UnsupportedError
        If the shapes don't fit, or images get mixed.
    """
    before = (batch, *x.logical)
    rank, elements = len(before), x.elements
    given = None if constant is None else [int(value) for value in constant.ravel()]
    if node.op == "Transpose":
        permutation = node.attributes["perm"] or list(range(rank))[::-1]
        if permutation[0] != 0:
            raise unsupported(node.where, f"perm={permutation} is not supported, only one that begins with 0",
                              "keep the images first")
        return dataclasses.replace(x, order=elements.transpose([axis - 1 for axis in permutation[1:]]), by=node)
    if node.op == "Flatten":
        axis = node.attributes["axis"]
        axis += rank if axis < 0 else 0
        after = [math.prod(before[:axis]), math.prod(before[axis:])]
    elif node.op == "Reshape":
        after = _reshaped(node, before, given or [])
    elif node.op == "Squeeze":
        axes = [axis for axis, size in enumerate(before) if size == 1] if given is None else given
        axes = [axis % rank for axis in axes]
        after = [size for axis, size in enumerate(before) if axis not in axes]
    else:
        axes = [axis % (rank + len(given or [])) for axis in given or []]
        rest = list(before)
        after = [1 if axis in axes else rest.pop(0) for axis in range(rank + len(axes))]
    if math.prod(after) != math.prod(before) or after[:1] != [batch]:
        shown = ", ".join(_size(size, batch) for size in after)
        raise unsupported(node.where, f"changes {words(x.logical)} to ({shown})",
                          "keep one row an image: export with a free batch dimension")
    return dataclasses.replace(x, order=elements.reshape(after[1:]), by=node)


def _size(size: int, batch: int) -> str:
    """A size for messages, where one that is computed from a free number of images shows it."""
    if size % batch or batch != FREE or not size:
        return str(size)
    return "N" if size == batch else f"{size // batch}*N"


def _reshaped(node: OnnxNode, before: tuple[int, ...], given: list[int]) -> list[int]:
    keep = not node.attributes.get("allowzero")
    after = [before[axis] if size == 0 and keep and axis < len(before) else size for axis, size in enumerate(given)]
    known = math.prod(size for size in after if size != -1)
    rest, left = divmod(math.prod(before), known or 1)
    return [rest if size == -1 and known and not left else size for size in after]


def refuse(x: Activation) -> UnsupportedError:
    """The error for a view that nothing can read."""
    assert x.by is not None
    if x.in_order and x.by.op != "Transpose":
        return unsupported(x.by.where, f"makes {words(x.logical)} of {words(x.shape)}",
                           "only flattening to (N, C*H*W) is supported, and shapes that come back")
    return unsupported(x.by.where, f"changes the order of {words(x.shape)}; only a Gemm or MatMul can read it so, "
                       "after it is flattened", "keep the layout N, C, H, W (tf2onnx: --inputs-as-nchw)")
