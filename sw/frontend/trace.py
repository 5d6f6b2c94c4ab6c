"""From a module to a list of bound operators, by torch.export."""

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ...hw.arch.errors import ModelError
from .operators import BY_TARGET, REWRITES, Operator, unsupported

if TYPE_CHECKING:
    import torch

__all__ = ["Bound", "count_parameters", "trace"]

BATCH = 2
"""Images in the example input: more than one, so that an operation over the batch shows in the shapes."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """One operator of a chain with its arguments.

    Parameters
    ----------
    path : str
        Path of the module that called it; the operator's own name when the network's forward called it itself.
    operator : Operator
        Its row in the table.
    target : str
        The overload, as torch.export names it.
    tensors : dict
        Operands but the activation: float64 arrays, or None where optional and left out.
    attributes : dict
        All other arguments by schema name, defaults filled in.
    in_shape, out_shape : tuple of int
        Shape of the activation before and after, batch dimension left out; the operator keeps the batch.
    where : str
        The path and the class of the module, for messages.
    """

    path: str
    operator: Operator
    target: str
    tensors: dict[str, np.ndarray | None]
    attributes: dict[str, Any]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    where: str


def count_parameters(model: "torch.nn.Module") -> int:
    """Parameters and batch-norm statistics of a module; a shared tensor counts once, a step counter not at all."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point())


def trace(model: "torch.nn.Module", input_shape: tuple[int, int, int]) -> list[Bound]:
    """Export a module in evaluation mode and bind every operator of its chain.

    Parameters
    ----------
    model : torch.nn.Module
        Its training mode is restored.
    input_shape : (int, int, int)
        Channels, height, width.

    Raises
    ------
    ModelError
        If it can't be exported with this input, or a parameter is not finite.
    UnsupportedError
        If it is not a chain of supported operators.
    """
    import torch

    check_finite(model)
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    training, disabled = model.training, logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # torch logs a traceback of what is raised anyway
    try:
        program = torch.export.export(model.eval(), (torch.zeros(BATCH, *input_shape, dtype=dtype),), strict=False)
    except Exception as error:  # whatever the module's own forward raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{type(model).__name__}: can't be traced with an input of shape {(BATCH, *input_shape)}: "
                         f"{reason}; check the input shape, and that forward takes one tensor and has no "
                         f"data-dependent branch") from error
    finally:
        logging.disable(disabled)
        model.train(training)
    return _walk(program)


def check_finite(model: "torch.nn.Module") -> None:
    """Refuse NaN and infinity in parameters and buffers."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        bad = int((~tensor.detach().isfinite()).sum()) if tensor.is_floating_point() else 0
        if bad:
            raise ModelError(f"parameter {name} has {bad} of {tensor.numel()} values that are NaN or infinite; "
                             f"train the network again")


def _walk(program: "torch.export.ExportedProgram") -> list[Bound]:
    signature = program.graph_signature
    constants = {**signature.inputs_to_parameters, **signature.inputs_to_buffers,
                 **signature.inputs_to_lifted_tensor_constants}
    values = {**program.state_dict, **program.constants}
    inputs = [node for node in program.graph.nodes if node.op == "placeholder" and node.name not in constants]
    if len(inputs) != 1:
        raise ModelError(f"the network must take one tensor, not {len(inputs)}")
    current, chain = inputs[0], []
    while True:
        users = list(current.users)
        if len(users) != 1:
            names = ", ".join(_where(user) for user in users) or "nothing"
            raise unsupported(_where(current), f"its output goes to {names}",
                              "only a plain chain of layers is supported yet, without branches")
        if users[0].op == "output":
            break
        chain.append(_bind(users[0], current, constants, values))
        current = users[0]
    results = [value for value in program.graph.output_node().args[0] if value is not None]
    if results != [current]:
        raise ModelError(f"the network must return one tensor, not {len(results)}")
    return chain


def _module(node: Any) -> tuple[str, str]:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    return path, str(kind)


def _where(node: Any) -> str:
    kind = _module(node)[1].rpartition(".")[2]
    return f"{_path(node)} ({kind})" if kind else _path(node)


def _path(node: Any) -> str:
    path, kind = _module(node)
    # Only a module without submodules is named by its path alone; a function gets its own name besides.
    builtin = kind.startswith("torch.nn.") and not kind.startswith("torch.nn.modules.container")
    return path if path and builtin else ".".join(part for part in (path, node.name) if part)


def _bind(node: Any, source: Any, constants: dict[str, str], values: dict[str, Any]) -> Bound:
    path, where, target = _path(node), _where(node), str(node.target)
    operator = BY_TARGET.get(target)
    if operator is None:
        name = target.removeprefix("aten.").split(".")[0].removesuffix("_")
        raise unsupported(where, f"operator {target} is not supported",
                          REWRITES.get(name.lstrip("_"), "see the table of supported operators in the documentation"))
    schema = node.target._schema.arguments
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | dict(node.kwargs)
    arguments = {argument.name: given.get(argument.name, argument.default_value) for argument in schema}
    first = schema[0].name
    if arguments[first] is not source:
        raise unsupported(where, f"the activation is not the {first!r} argument of {target}",
                          "only a plain chain of layers is supported yet")
    tensors = {name: _constant(where, name, arguments[name], constants, values)
               for name in operator.operands if name in arguments and name != first}
    rules = {attribute.name: attribute for attribute in operator.attributes}
    attributes = {}
    for name, value in arguments.items():
        if name == first or name in tensors:
            continue
        rule = rules.get(name)
        if rule is None or not rule.accepts(value):
            raise unsupported(where, f"{name}={value!r} is not supported, "
                              f"only {rule.rule if rule else 'its default'}",
                              rule.rewrite if rule else "leave it out")
        attributes[name] = list(value) if isinstance(value, (list, tuple)) else value
    before, after = tuple(source.meta["val"].shape), tuple(node.meta["val"].shape)
    if not after or after[0] != before[0]:
        raise unsupported(where, f"{target} changes the batch dimension from {before} to {after}",
                          "keep one row an image")
    return Bound(path=path, operator=operator, target=target, tensors=tensors, attributes=attributes,
                 in_shape=before[1:], out_shape=after[1:], where=_where(node))


def _constant(where: str, name: str, value: Any, constants: dict[str, str],
              values: dict[str, Any]) -> np.ndarray | None:
    if value is None:
        return None
    if value.name not in constants:
        raise unsupported(where, f"its {name} is computed in forward", "store it as a parameter (a parametrization: "
                          "torch.nn.utils.parametrize.remove_parametrizations)")
    array: np.ndarray = values[constants[value.name]].detach().double().cpu().numpy()
    return array
