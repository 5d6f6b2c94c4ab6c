"""The PyTorch module that an ONNX file becomes: one module a node, named like it."""

import re
from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["Operation", "OnnxNetwork", "operation"]


class Operation(nn.Module):
    """What one node computes. Each operator type has a class of its own, whose name messages tell.

    Parameters
    ----------
    function : callable
        Takes the node's activations and, by name, its tensors.
    tensors : dict
        A ``Parameter`` is trained, any other tensor is a buffer; ``level`` is not stored with the network's state.
    """

    def __init__(self, function: Callable[..., Tensor], tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.function, self.names = function, list[str]()
        for name, tensor in tensors.items():
            self.attach(name, tensor)

    def attach(self, name: str, tensor: Tensor) -> None:
        """Add a tensor."""
        self.names.append(name)
        if isinstance(tensor, nn.Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor, persistent=name != "level")

    def forward(self, *activations: Tensor) -> Tensor:
        """The node's output."""
        return self.function(*activations, **{name: getattr(self, name) for name in self.names})


_CLASSES: dict[str, type[Operation]] = {}


def operation(op: str, function: Callable[..., Tensor], tensors: dict[str, Tensor]) -> Operation:
    """An operation of the class that is named like an operator type."""
    if op not in _CLASSES:
        _CLASSES[op] = type(op, (Operation,), {"__module__": __name__})
    return _CLASSES[op](function, tensors)


class OnnxNetwork(nn.Module):
    """A network that was read from an ONNX file.

    Parameters
    ----------
    inputs : tuple of str
        Names of the tensors that it takes.

    Attributes
    ----------
    outputs : dict of str
        The tensors that it returns, by the file's names of its outputs; one that comes again gets a number.
    notes : tuple of str
        What of the file is left to the host.
    """

    def __init__(self, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, dict[str, str]()
        self.notes: tuple[str, ...] = ()
        self._steps: list[tuple[str, tuple[str, ...], str]] = []

    def append(self, name: str, module: Operation, sources: tuple[str, ...], target: str) -> None:
        """Add a step.

        Parameters
        ----------
        name : str
            Of the node; in the module's path, what is not a letter, digit or ``_`` becomes ``_``.
        module : Operation
        sources : tuple of str
            Tensors that it takes.
        target : str
            The tensor that it makes.
        """
        plain = path = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "node"
        number = 1
        while hasattr(self, path):
            number += 1
            path = f"{plain}_{number}"
        self.add_module(path, module)
        self._steps.append((path, sources, target))

    def append_output(self, name: str, tensor: str) -> None:
        """Add an output."""
        number, found = 1, name
        while found in self.outputs:
            number += 1
            found = f"{name}@{number}"
        self.outputs[found] = tensor

    def module_of(self, tensor: str) -> Operation:
        """The module that makes a tensor."""
        (path,) = (path for path, _, target in self._steps if target == tensor)
        found: Operation = getattr(self, path)
        return found

    def forward(self, *images: Tensor) -> Tensor | dict[str, Tensor]:
        """Class scores of images (N, C, H, W) or signals (N, C, L); of several outputs each by its name."""
        last = {source: number for number, (_, sources, _) in enumerate(self._steps) for source in sources}
        values, kept = dict(zip(self.inputs, images, strict=True)), {*self.outputs.values()}
        for number, (path, sources, target) in enumerate(self._steps):
            values[target] = getattr(self, path)(*(values[source] for source in sources))
            for source in {*sources, target} - kept:  # a batch's activations may be large
                if last.get(source, number) <= number:
                    del values[source]
        made = {name: values[tensor] for name, tensor in self.outputs.items()}
        return made if len(made) > 1 else made.popitem()[1]
