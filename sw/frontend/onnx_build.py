"""The PyTorch module of an ONNX network in the making."""

import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ...hw.arch.errors import ModelError
from .onnx_file import OnnxFile, OnnxNode
from .onnx_network import OnnxNetwork, Operation, operation
from .onnx_views import FREE, Activation, refuse, words
from .operators import unsupported

if TYPE_CHECKING:
    from .onnx_quantize import Integers

__all__ = ["Builder", "Inputs", "float_tensor"]

Inputs = list[Activation | np.ndarray | None]
"""What a node reads; None where an input is optional and left out."""


def float_tensor(values: np.ndarray) -> Tensor:
    """A copy in PyTorch's usual type."""
    return torch.from_numpy(np.array(values, np.float32))


class Builder:
    """Modules so far, and what they make of two images of zeros.

    Parameters
    ----------
    file : OnnxFile
    readers : Counter
        How often each tensor of the file is read, by nodes or as an output.

    Attributes
    ----------
    batch : int
        The number of images in shapes that the graph computes with.
    network : OnnxNetwork
    integers : dict of Integers
        What QuantizeLinear makes, by tensor.
    """

    def __init__(self, file: OnnxFile, readers: Counter[str]) -> None:
        self.network = OnnxNetwork(tuple(file.inputs))
        self.batch = file.batch or FREE
        self.readers = readers
        self._samples = {name: torch.zeros(2, *shape) for name, shape in file.inputs.items()}
        self.integers: dict[str, Integers] = {}
        self._parameters: dict[tuple[str, str], nn.Parameter] = {}
        self._views: dict[str, Activation] = {}

    def parameter(self, name: str, values: np.ndarray, form: str = "") -> nn.Parameter:
        """A parameter; nodes that read one initializer in the same form share it."""
        if (name, form) not in self._parameters:
            self._parameters[name, form] = nn.Parameter(float_tensor(values))
        return self._parameters[name, form]

    def emit(self, node: OnnxNode, function: Callable[..., Tensor], sources: tuple[Activation, ...],
             tensors: dict[str, Tensor] | None = None, target: str = "") -> Activation:
        """Add a module.

        Parameters
        ----------
        node : OnnxNode
            Gives it its name and class.
        function : callable
            See :class:`~.onnx_network.Operation`.
        sources : tuple of Activation
            What it takes; views become tensors first.
        tensors : dict, optional
            Its parameters and buffers.
        target : str
            Name of what it makes; by default the node's first output.
        """
        read = [self.plain(source) for source in sources]
        target = target or node.outputs[0]
        module = operation(node.op, function, tensors or {}).eval()
        try:
            with torch.no_grad():
                sample = module(*(self._samples[source.key] for source in read))
        except (RuntimeError, ValueError, IndexError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{node.where}: can't be computed on {' and '.join(words(x.shape) for x in read)}: "
                             f"{reason}; export the network again") from error
        self.network.append(node.name, module, tuple(source.key for source in read), target)
        self._samples[target] = sample
        return Activation(key=target, shape=tuple(sample.shape[1:]))

    def plain(self, x: Activation) -> Activation:
        """The tensor that equals a view: flattening makes one, or a height of 1; everything else is refused."""
        if x.order is None:
            return x
        if x.in_order and x.logical == x.shape:
            return Activation(key=x.key, shape=x.shape)
        if not x.in_order:
            raise refuse(x)
        if x.logical == (math.prod(x.shape),):
            change = _flatten
        elif x.logical == (x.shape[0], 1, *x.shape[1:]) and len(x.shape) == 2:
            change = _with_height
        elif x.shape == (x.logical[0], 1, *x.logical[1:]) and len(x.shape) == 3:
            change = _without_height
        else:
            raise refuse(x)
        assert x.by is not None
        target = x.by.outputs[0]
        if target not in self._views:
            source = Activation(key=x.key, shape=x.shape)
            self._views[target] = self.emit(x.by, change, (source,), target=f"{target}!view")
        return self._views[target]

    def module_before(self, node: OnnxNode, x: Activation) -> Operation | None:
        """The module that makes what the node reads, when nothing else reads that."""
        if x.order is not None or x.key not in node.inputs or self.readers[x.key] != 1 or x.key in self.network.inputs:
            return None
        return self.network.module_of(x.key)

    def constant(self, node: OnnxNode, inputs: Inputs, position: int, name: str) -> np.ndarray | None:
        """A constant input; None when it is left out."""
        value = inputs[position] if position < len(inputs) else None
        if isinstance(value, Activation):
            raise unsupported(node.where, f"its {name} is computed from the network's input", "use a constant one")
        return value

    def activation(self, node: OnnxNode, inputs: Inputs) -> Activation:
        """The first input, which must not be constant."""
        value = inputs[0]
        if not isinstance(value, Activation):
            raise unsupported(node.where, "its first input is constant, and another one is not",
                              "exchange them: constants can only be its other inputs")
        return value

    def image(self, node: OnnxNode, x: Activation) -> Activation:
        """A map of channels, height and width, or channels and length."""
        x = self.plain(x)
        if len(x.shape) not in (2, 3):
            raise unsupported(node.where, f"input has shape {words(x.shape)}", "it needs (N, C, H, W) or (N, C, L)")
        return x


def _flatten(images: Tensor) -> Tensor:
    return images.flatten(1)


def _with_height(images: Tensor) -> Tensor:
    return images.unsqueeze(2)


def _without_height(images: Tensor) -> Tensor:
    return images.squeeze(2)
