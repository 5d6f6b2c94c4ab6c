"""Checks of an ONNX file, each of which raises a :class:`~shiftwright.hw.arch.errors.ModelError` that names it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...hw.arch.errors import ModelError
from .onnx_operators import OPSET, QUANT_DOMAINS

if TYPE_CHECKING:
    import onnx

__all__ = ["check_finite", "check_meaning", "check_order", "check_versions", "renewed"]

DOMAINS = ("", "ai.onnx", *QUANT_DOMAINS)


def check_versions(path: str | Path, model: "onnx.ModelProto") -> int:
    """The version of the set of operators, if it and the file's are known."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    found = {entry.domain: entry.version for entry in model.opset_import}
    opset = found.get("", found.get("ai.onnx", 0))
    if opset < 1:
        raise ModelError(f"{path}: names no opset of ONNX's own operators; export the network again")
    if opset > newest:
        raise ModelError(f"{path}: opset must be at most {newest}, not {opset}; get a newer onnx package, or export "
                         f"with an older opset")
    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(f"{path}: IR version must be at most {onnx.IR_VERSION}, not {model.ir_version}; get a newer "
                         f"onnx package")
    return opset


def renewed(path: str | Path, model: "onnx.ModelProto", opset: int) -> "onnx.ModelProto":
    """A model of an opset that is older than :data:`~.onnx_operators.OPSET`, as one of that."""
    from onnx import shape_inference, version_converter

    try:
        return version_converter.convert_version(model, OPSET)
    except (RuntimeError, ValueError, shape_inference.InferenceError) as error:
        # Without the place in onnx's own source.
        reason = re.sub(r"^\S+:\d+: \w+: |\[\w+Error\] *", "", (str(error).strip().splitlines() or ["no reason"])[0])
        raise ModelError(f"{path}: has opset {opset}, and onnx.version_converter can't make {OPSET} of it: {reason}; "
                         f"export with opset_version={OPSET} or later") from None


def check_order(path: str | Path, graph: "onnx.GraphProto", known: set[str]) -> None:
    """Refuse what is read before it is made, and operators that are not ONNX's."""
    for node in graph.node:
        if node.domain not in DOMAINS:
            raise ModelError(f"{path}: {node.name or node.output[0]} ({node.op_type}) is of the domain {node.domain!r}"
                             "; only operators of ONNX itself and QONNX's Quant are read: export without it")
        for name in node.input:
            if name and name not in known:
                raise ModelError(f"{path}: {node.name or node.output[0]} ({node.op_type}) reads {name!r}, which no "
                                 f"initializer, input or node before it makes; export the network again")
        known.update(node.output)
    for value in graph.output:
        if value.name not in known:
            raise ModelError(f"{path}: nothing makes the output {value.name!r}; export the network again")


def check_meaning(path: str | Path, model: "onnx.ModelProto") -> None:
    """ONNX's own check of nodes and types.

    Shapes are found when the network is built. ONNX's inference knows less of them: before opset 22 it has windows of
    poolings that no runtime has, and exporters write what runtimes do.
    """
    import onnx

    try:
        checked = onnx.ModelProto()
        checked.CopyFrom(model)
        for value in checked.graph.output:  # the check wants shapes, which some files leave out
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.shape.SetInParent()
        onnx.checker.check_model(checked)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        shapes = isinstance(error, onnx.shape_inference.InferenceError)
        if shapes and not re.search("(inconsistent|unsupported) type", str(error)):
            return
        reason = re.sub(r"\[\w+Error\]|Inference error\(s\):|\s+", " ", str(error))
        raise ModelError(f"{path}: breaks a rule of ONNX: {' '.join(reason.split())[:300]}; export the network again"
                         ) from None


def check_finite(path: str | Path, constants: dict[str, np.ndarray]) -> None:
    """Refuse NaN and infinity in initializers."""
    for name, values in constants.items():
        # Numbers that stand alone are limits, where infinity has a meaning.
        if values.ndim and values.dtype.kind not in "iubOSU":
            bad = int((~np.isfinite(values.astype(np.float64))).sum())
            if bad:
                raise ModelError(f"{path}: initializer {name!r} has {bad} of {values.size} values that are NaN or "
                                 f"infinite; train the network again")
