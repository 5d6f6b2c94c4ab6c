"""Images with their channels last, as TensorFlow and Keras have them."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

__all__ = ["put_channels_first"]


def put_channels_first(graph: "onnx.GraphProto") -> tuple[str, ...]:
    """Let inputs that are only read through a Transpose to (N, C, H, W) or (N, C, L) have that shape, in place.

    Where there is one channel, exporters write a Reshape, which does the same.

    Returns
    -------
    tuple of str
        Names of the inputs.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for value in graph.input:
        shape = value.type.tensor_type.shape.dim
        readers = [node for node in graph.node if value.name in node.input]
        if value.name in constants or len(shape) not in (3, 4) or not readers:
            continue
        batch, *maps, channels = shape
        sizes = [size.dim_value for size in (channels, *maps)]

        def turns(node: "onnx.NodeProto", rank: int = len(shape), sizes: list[int] = sizes) -> bool:
            if node.op_type == "Transpose":
                given = [list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"]
                return given == [[0, rank - 1, *range(1, rank - 1)]]
            wanted = constants.get(node.input[1]) if node.op_type == "Reshape" else None
            return sizes[0] == 1 and wanted is not None and np.array_equal(numpy_helper.to_array(wanted)[1:], sizes)

        if not all(turns(node) for node in readers):
            continue
        found.append(value.name)
        turned = [type(size).FromString(size.SerializeToString()) for size in (batch, channels, *maps)]
        del shape[:]
        shape.extend(turned)
        for node in readers:
            node.op_type = "Identity"
            del node.attribute[:], node.input[1:]
    return tuple(found)
