"""Memory maps as tables: what ``compile --map`` and ``info`` print of a compiled network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..compiler.compilation import Compilation
    from ..compiler.placement import TensorPlacement
    from ..image import Image

__all__ = ["MAPS", "image_rows", "model_rows", "tensor_rows"]

MAPS = {"activation_map": "Activation memory, addresses in every bank", "model_map": "Model memory, words"}
"""Titles of the tables by their keys in JSON."""


def tensor_rows(compilation: "Compilation") -> list[dict[str, Any]]:
    """A row for each tensor of the network as it was compiled."""
    from ..compiler.memorymap import memory_map

    return [{"tensor": tensor.name, **_place(tensor.place, tensor.addresses), "first": tensor.first,
             "last": tensor.last, "within": tensor.within, "copy_of": tensor.copy_of}
            for tensor in memory_map(compilation.network, compilation.memory, compilation.image.config)]


def image_rows(image: "Image") -> list[dict[str, Any]]:
    """A row for the input and for the output of each layer: an image has no names, and no lifetimes."""
    places = {"input": image.input, **{str(number): place for number, place in enumerate(image.placements)}}
    return [{"output_of": name, **_place(place, place.steps(image.config).size)} for name, place in places.items()]


def model_rows(image: "Image") -> list[dict[str, Any]]:
    """A row for each layer: first and last word of each of its sections; ``None`` for an empty one."""
    from ..compiler.memorymap import model_map

    return [{"layer": number, **{name: [words.start, words.stop - 1] if words else None
                                 for name, words in sections.items()}}
            for number, sections in enumerate(model_map(image.layers))]


def _place(place: "TensorPlacement", addresses: int) -> dict[str, Any]:
    from ..compiler.memorymap import layout_name

    return {"shape": "x".join(map(str, place.shape)), "bits": place.bits, "base": place.base, "size": addresses,
            "layout": layout_name(place)}
