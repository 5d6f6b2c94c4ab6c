"""Read and check an ONNX file: images or signals in, tensors out, nodes in order, constants finite."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...hw.arch.errors import ModelError, ToolError
from .onnx_checks import check_finite, check_meaning, check_order, check_versions, renewed
from .onnx_layout import put_channels_first
from .onnx_operators import OPSET

if TYPE_CHECKING:
    import onnx

__all__ = ["OnnxFile", "OnnxNode", "read"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OnnxNode:
    """A node as the file has it.

    Parameters
    ----------
    name : str
        Its name, or that of its first output when it has none.
    op : str
        Operator type.
    inputs, outputs : tuple of str
        Names of tensors; empty where optional and left out.
    attributes : dict
        Values by name, those that are left out with the schema's default (None when it has none).
    given : tuple of str
        Names of the attributes that the file has.
    proto : NodeProto
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    given: tuple[str, ...]
    proto: "onnx.NodeProto"

    @property
    def where(self) -> str:
        """Name and type, for messages."""
        return f"{self.name} ({self.op})"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OnnxFile:
    """What an ONNX file holds.

    Parameters
    ----------
    graph : str
        Name of the graph.
    producer : str
        What wrote the file.
    opset : int
        Version of the set of operators that the nodes are of: the file's, or a newer one that it was converted to.
    inputs : dict of tuple of int
        Shape of each tensor that it takes, by name, without the batch: (C, H, W), (C, L) or (features,).
    outputs : tuple of str
        Names of the tensors that it returns.
    batch : int or None
        Images that the file is fixed to, if it is.
    channels_last : tuple of str
        Inputs that are (N, H, W, C) or (N, L, C) in the file; here they are not, and nothing turns them.
    nodes : tuple of OnnxNode
        In execution order.
    constants : dict of arrays
        Initializers.
    """

    graph: str
    producer: str
    opset: int
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    batch: int | None
    channels_last: tuple[str, ...]
    nodes: tuple[OnnxNode, ...]
    constants: dict[str, np.ndarray]


def read(path: str | Path) -> OnnxFile:
    """Read an ONNX file.

    Parameters
    ----------
    path : path
        Tensors that are kept in files of their own are looked for beside it.

    Raises
    ------
    ToolError
        If the package ``onnx`` is missing.
    ModelError
        If the file can't be read, is damaged, or is not a network of images or signals.
    """
    data = _bytes(Path(path))
    try:
        import onnx
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "onnx":
            raise
        raise ToolError(f"{path}: the Python package 'onnx' reads ONNX files, and is missing; get it with: "
                        f"pip install 'shiftwright[onnx]'") from None

    model = _parse(path, data)
    opset = check_versions(path, model)
    _load_external(Path(path), model)
    if opset < OPSET:
        model, opset = renewed(path, model, opset), OPSET
    if model.functions:
        import onnx.inliner

        model = onnx.inliner.inline_local_functions(model)
    channels_last = put_channels_first(model.graph)
    graph = model.graph
    if graph.sparse_initializer:
        raise ModelError(f"{path}: initializer {graph.sparse_initializer[0].values.name!r} is sparse; store it densely")
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    check_order(path, graph, {*constants, *(value.name for value in inputs)})
    outputs = tuple(value.name for value in graph.output)
    if not inputs or not outputs:
        raise ModelError(f"{path}: the network must take and return tensors, not take "
                         f"{_listed(value.name for value in inputs)} and return {_listed(outputs)}; export it with "
                         f"images as inputs and class scores as outputs")
    shapes, batch = _images(path, inputs)
    check_meaning(path, model)
    check_finite(path, constants)
    return OnnxFile(graph=graph.name, producer=f"{model.producer_name} {model.producer_version}".strip(), opset=opset,
                    inputs=shapes, outputs=outputs, batch=batch, channels_last=channels_last,
                    nodes=tuple(_node(node, opset) for node in graph.node), constants=constants)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: can't read the network: {error.strerror or error}; give an existing file") from None


def _parse(path: str | Path, data: bytes) -> "onnx.ModelProto":
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX file, or damaged; export the network again") from None
    if not model.ir_version or not model.graph.node:
        raise ModelError(f"{path}: holds no nodes: not an ONNX file, or damaged; export the network again")
    return model


def _load_external(path: Path, model: "onnx.ModelProto") -> None:
    """Fill in the tensors that lie in files of their own."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor, uses_external_data

    for tensor in model.graph.initializer:
        if not uses_external_data(tensor):
            continue
        location = ExternalDataInfo(tensor).location
        try:
            load_external_data_for_tensor(tensor, str(path.parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            missing = not (path.parent / location).exists()
            reason = "is not there" if missing else (str(error).strip().splitlines() or ["can't be read"])[0]
            raise ModelError(f"{path}: initializer {tensor.name!r} lies in {location!r} beside it, which {reason}; "
                             f"copy both files, or export into one") from None
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _images(path: str | Path, values: "list[onnx.ValueInfoProto]") -> tuple[dict[str, tuple[int, ...]], int | None]:
    """Shapes of the inputs, and the number of images that they are fixed to."""
    found = {value.name: _image(path, value) for value in values}
    (first, (_, shape)), *rest = found.items()
    for name, (_, other) in rest:
        if other[1:] != shape[1:]:
            raise ModelError(f"{path}: inputs {first!r} and {name!r} must have one height and width, because they "
                             f"become one image's channels, not the shapes {shape} and {other} of one image; export "
                             f"the network with inputs of one size")
    fixed = sorted({batch for batch, _ in found.values() if batch is not None})
    if len(fixed) > 1:
        raise ModelError(f"{path}: inputs {_listed(found)} must be fixed to one number of images, not to "
                         f"{' and '.join(map(str, fixed))}; export with a free batch dimension")
    return {name: shape for name, (_, shape) in found.items()}, fixed[0] if fixed else None


def _image(path: str | Path, value: "onnx.ValueInfoProto") -> tuple[int | None, tuple[int, ...]]:
    """Batch size and shape of one image of an input."""
    import onnx

    tensor = value.type.tensor_type
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    if tensor.elem_type not in kinds:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type) if value.type.HasField("tensor_type") else "no tensor"
        raise ModelError(f"{path}: input {value.name!r} must be floating point, not {kind}; export the network without "
                         f"the conversion of its images")
    sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    words = f"({', '.join(map(str, sizes))})" if tensor.HasField("shape") else "unknown"
    if len(sizes) not in (2, 3, 4):
        raise ModelError(f"{path}: input {value.name!r} must have the shape (N, C, H, W), (N, C, L) or (N, features), "
                         f"not {words}; let the network take images, signals or vectors")
    batch, *shape = (size if isinstance(size, int) and size > 0 else None for size in sizes)
    fixed = tuple(size for size in shape if size is not None)
    if len(fixed) < len(shape):
        fix = {1: "a fixed number of features", 2: "fixed channels and length", 3: "fixed channels, height and width"}
        raise ModelError(f"{path}: input {value.name!r} has the shape {words}; only the first size may be free: export "
                         f"with {fix[len(shape)]}")
    return batch, fixed


def _node(proto: "onnx.NodeProto", opset: int) -> OnnxNode:
    import onnx

    name = proto.name or next(output for output in proto.output if output)
    attributes: dict[str, Any] = {}
    if proto.domain in ("", "ai.onnx"):
        for key, attribute in onnx.defs.get_schema(proto.op_type, opset, "").attributes.items():
            attributes[key] = _value(attribute.default_value) if attribute.default_value.name else None
    given = {attribute.name: _value(attribute) for attribute in proto.attribute}
    return OnnxNode(name=name, op=proto.op_type, inputs=tuple(proto.input), outputs=tuple(proto.output),
                    attributes={**attributes, **given}, given=tuple(given), proto=proto)


def _value(attribute: "onnx.AttributeProto") -> Any:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "extend") else value
