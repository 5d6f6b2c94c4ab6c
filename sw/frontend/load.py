"""Find the network that a person names: a checkpoint, a zoo network's weights, an ONNX file, or a Python name."""

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hw.arch.errors import ModelError
from ..train import load_checkpoint, load_weights
from ..zoo import NETWORKS
from .capture import InputShape, capture, image_shape, on_images

if TYPE_CHECKING:
    import torch

__all__ = ["Loaded", "load_model"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """A float network and what is known of it.

    Parameters
    ----------
    model : torch.nn.Module
        The network with its trained parameters.
    input_shape : (int, int, int) or None
        Channels, height, width; ``None`` when only the data set can tell.
    metadata : dict
        A checkpoint's ``network``, ``dataset``, ``float_accuracy`` and ``seed``; of a zoo network's weights ``network``
        and ``dataset``; of a Python name or an ONNX file only ``network``.
    notes : tuple of str
        What of the network is left to the host, what becomes of several outputs, how it takes its inputs.
    outputs : tuple of str
        Names of its outputs, where it has several.
    """

    model: "torch.nn.Module"
    input_shape: tuple[int, int, int] | None
    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def on_images(self, shape: InputShape) -> "Loaded":
        """With a model that takes images of this shape and returns class scores, and notes on what it differs in."""
        if self.input_shape is not None:
            return self
        graph = capture(self.model, shape)
        notes, outputs = (*self.notes, *graph.left_to_host), tuple(output.name for output in graph.outputs)
        if len(outputs) > 1:
            notes += ("its outputs are one tensor's channels: " + ", ".join(
                f"{output.name} from {output.start} to {output.stop - 1}" for output in graph.outputs),)
        return dataclasses.replace(self, model=on_images(self.model, graph), notes=notes,
                                   outputs=outputs if len(outputs) > 1 else ())


def load_model(source: str) -> Loaded:
    """Load a network.

    Parameters
    ----------
    source : str
        A ``.safetensors`` checkpoint made by ``shiftwright train``; or ``NETWORK:FILE``, a network of the zoo and a
        PyTorch checkpoint of its weights; or an ONNX file (``.onnx``); or ``package.module:Name``, where ``Name`` is an
        ``nn.Module`` or something that returns one when it is called without arguments. The current folder is searched
        too.

    Raises
    ------
    ModelError
        If there is no such thing, or it is not a network.
    ToolError
        If the package ``onnx`` is missing.
    """
    if source.endswith(".onnx"):
        from .onnx_lower import load_onnx

        found = load_onnx(source)
        shapes = tuple(found.file.inputs.values())
        loaded = Loaded(model=found.module, input_shape=None, metadata={"network": Path(source).stem},
                        notes=(*(f"input {name!r} takes images with their channels first, which the file has last"
                                 for name in found.file.channels_last), *found.notes))
        if shapes != (image_shape(shapes),) or len(found.file.outputs) > 1:
            loaded = loaded.on_images(shapes)
        return dataclasses.replace(loaded, input_shape=image_shape(shapes))
    if source.endswith((".swc", ".swi")):
        raise ModelError(f"{source}: is compressed already; 'compress' takes a float checkpoint (.safetensors) or "
                         f"package.module:Name")
    network, _, weights = source.partition(":")
    if network in NETWORKS and weights:
        info = NETWORKS[network]
        return Loaded(model=load_weights(network, weights), input_shape=info.input_shape,
                      metadata={"network": network, "dataset": info.dataset})
    if not Path(source).exists() and ":" in source:
        return _import(source)
    return _checkpoint(Path(source))


def _import(source: str) -> Loaded:
    from torch import nn

    module_name, _, name = source.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        thing = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"{source}: can't import the network: {error}; write package.module:Name, with the package in "
                         f"the current folder or installed") from error
    if not isinstance(thing, nn.Module) and callable(thing):
        try:
            thing = thing()
        except Exception as error:
            raise ModelError(f"{source}: can't make the network by calling it without arguments: {error!r}; name a "
                             f"function that needs none and returns the trained module") from error
    if not isinstance(thing, nn.Module):
        raise ModelError(f"{source}: is a {type(thing).__name__}, not an nn.Module")
    return Loaded(model=thing, input_shape=None, metadata={"network": name})


def _checkpoint(path: Path) -> Loaded:
    checkpoint = load_checkpoint(path)
    metadata = {name: getattr(checkpoint, name) for name in ("network", "dataset", "float_accuracy", "seed")}
    return Loaded(model=checkpoint.module, input_shape=NETWORKS[checkpoint.network].input_shape, metadata=metadata)
