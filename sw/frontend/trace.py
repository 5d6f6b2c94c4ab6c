"""From a module to bound operators, by torch.export."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...hw.arch.errors import ModelError
from .operators import BY_TARGET, HOST, REWRITES, Operator, unsupported

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

__all__ = ["BATCH", "Bound", "Trace", "count_parameters", "trace"]

BATCH = 2
"""Images in the example input: more than one, so that an operation over the batch shows in the shapes."""
MODULES = ("torch.nn.", f"{__package__}.onnx_network.")
"""Where modules come from that are named by their path alone."""
VIEWS = ("drop", "identity", "reshape", "slice")
"""Kinds of operators whose result may be the same memory as their operand."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """One operator of a network with its arguments.

    Parameters
    ----------
    name : str
        Unique; other operators name it in ``sources``.
    path : str
        Path of the module that called it; the operator's own name when the network's forward called it itself.
    operator : Operator
        Its row in the table.
    target : str
        The overload, as torch.export names it.
    sources : tuple of str
        The activations it takes: names of operators before it, or of the network's input.
    tensors : dict
        Constant operands: float64 arrays, or None where optional and left out.
    attributes : dict
        All other arguments by schema name, defaults filled in.
    in_shape, out_shape : tuple of int
        Shape of the first activation and of the result, batch dimension left out; the operator keeps the batch.
    users : int
        How often the result is read, by operators or as the network's output.
    where : str
        The path and the class of the module, for messages.
    """

    name: str
    path: str
    operator: Operator
    target: str
    sources: tuple[str, ...]
    tensors: dict[str, np.ndarray | None]
    attributes: dict[str, Any]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    users: int
    where: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """What a module's forward does.

    Parameters
    ----------
    inputs : dict
        Shape of each tensor that it takes, batch dimension left out, by name.
    outputs : tuple of (str, str)
        Key or position of each tensor that it returns, and the operator or input that makes it. The key of one that is
        returned alone is empty.
    operators : tuple of Bound
        In execution order; only those that the outputs depend on.
    left_to_host : tuple of str
        What it ends in besides, in words.
    """

    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[tuple[str, str], ...]
    operators: tuple[Bound, ...]
    left_to_host: tuple[str, ...] = ()


def count_parameters(model: "torch.nn.Module") -> int:
    """Stored floating-point numbers of a module, batch-norm statistics among them; a shared tensor counts once."""
    tensors = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    return sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point())


def trace(model: "torch.nn.Module", shapes: Sequence[tuple[int, ...]]) -> Trace:
    """Export a module in evaluation mode and bind every operator.

    Parameters
    ----------
    model : torch.nn.Module
        Its training mode is restored.
    shapes : sequence of tuple of int
        Of each tensor that it takes, without the batch: channels, height, width, or channels and length, or features.
        One of height 1 may also be one that the module takes without the height, one of a single pixel a vector.

    Raises
    ------
    ModelError
        If it can't be exported with this input, or a parameter is not finite.
    UnsupportedError
        If an operator or argument is not supported.
    """
    import torch

    check_finite(model)
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    training, disabled = model.training, logging.root.manager.disable
    candidates = [tuple(shapes)]
    if len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][1] == 1:
        candidates.append(((shapes[0][0], shapes[0][2]),))
        candidates += [((shapes[0][0],),)] * (shapes[0][2] == 1)
    failed: dict[str, Exception] = {}
    logging.disable(logging.CRITICAL)  # torch logs a traceback of what is raised anyway
    try:
        for taken in candidates:
            inputs = tuple(torch.zeros(BATCH, *shape, dtype=dtype) for shape in taken)
            try:
                program = torch.export.export(model.eval(), inputs, strict=False)
                break
            except Exception as error:  # whatever the module's own forward raises
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                failed[f"{' and '.join(str(tuple(each.shape)) for each in inputs)}: {reason}"] = error
    finally:
        logging.disable(disabled)
        model.train(training)
    if len(failed) < len(candidates):
        return _walk(program, taken)
    raise ModelError(f"{type(model).__name__}: can't be traced with {'an input' if len(shapes) == 1 else 'inputs'} of "
                     f"shape {', nor of shape '.join(failed)}; check the input shape, and that forward takes "
                     f"{'one tensor' if len(shapes) == 1 else f'{len(shapes)} tensors'} (of several, give the shape of "
                     f"each) and has no data-dependent branch") from next(iter(failed.values()))


def check_finite(model: "torch.nn.Module") -> None:
    """Refuse NaN and infinity in parameters and buffers, and parameters without values."""
    for name, parameter in model.named_parameters():
        if not parameter.numel():
            raise ModelError(f"parameter {name} has no values: its shape is {tuple(parameter.shape)}; take its layer "
                             f"out of the network")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        bad = int((~tensor.detach().isfinite()).sum()) if tensor.is_floating_point() else 0
        if bad:
            raise ModelError(f"parameter {name} has {bad} of {tensor.numel()} values that are NaN or infinite; "
                             f"train the network again")


def _walk(program: "torch.export.ExportedProgram", shapes: Sequence[tuple[int, ...]]) -> Trace:
    from torch.fx import Node

    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers,
             **signature.inputs_to_lifted_tensor_constants}
    values = {**program.state_dict, **program.constants}
    constants = {node: values[names[node.name]].detach() for node in program.graph.nodes if node.name in names}
    inputs = [node for node in program.graph.nodes if node.op == "placeholder" and node not in constants]
    if len(inputs) != len(shapes):
        raise ModelError(f"the network must take {len(shapes)} tensors, not {len(inputs)}")
    returned = [(key, value) for key, value in zip(_keys(program), program.graph.output_node().args[0], strict=True)
                if value is not None]
    refused = ModelError("the network must return tensors that are computed from its input, and nothing else")
    if not returned or not all(isinstance(value, Node) for _, value in returned):
        raise refused
    order, host, results = list(program.graph.nodes), dict[Node, None](), list[Node]()
    for _, value in returned:
        scores, left = _tail(value)
        results.append(scores)
        host |= dict.fromkeys(left)
    live = set(results)
    for node in reversed(order):
        if node in live:
            live.update(node.all_input_nodes)
    bounds = []
    for node in order:
        if node.op != "call_function":
            continue
        if _is_constant(node, constants):
            constants[node] = _evaluate(node, constants)
            continue
        _check_in_place(node, order)
        if node not in live:
            continue
        users = sum(_uses(user, node) for user in node.users if user in live) + results.count(node)
        bounds.append(_bind(node, constants, users))
    if any(node in constants for node in results):
        raise refused
    for node in constants:
        if host and str(node.target) in {target for row in HOST for target in row.targets}:
            # OnImages could not tell the two apart.
            raise unsupported(_where(node), "is of constants, in a network that ends in one",
                              "compute it beforehand, or return the logits")
    return Trace(inputs={node.name: shape for node, shape in zip(inputs, shapes, strict=True)}, operators=tuple(bounds),
                 outputs=tuple((key, node.name) for (key, _), node in zip(returned, results, strict=True)),
                 left_to_host=tuple(f"{_where(node)} is left to the host: the class with the highest score is the same "
                                    f"without it" for node in host))


def _keys(program: "torch.export.ExportedProgram") -> list[str]:
    """Keys or positions of what a program returns; of a tensor that is returned alone, nothing."""
    from torch.utils import _pytree

    spec = program.call_spec.out_spec
    leaves, _ = _pytree.tree_flatten_with_path(_pytree.tree_unflatten([0] * spec.num_leaves, spec))
    return [".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path)
            for path, _ in leaves]


def _tail(result: "Node") -> "tuple[Node, list[Node]]":
    """The node that makes the scores, and those after it that don't change which is the highest."""
    node, scores = result, result
    host: list[Node] = []
    while (operator := BY_TARGET.get(str(node.target))) and operator.kind in ("host", "identity", "reshape"):
        if operator.kind == "host":
            _check_host(node, operator)
            host.append(node)
            scores = node.all_input_nodes[0]
        node = node.all_input_nodes[0]
    return scores, host[::-1]


def _check_host(node: "Node", operator: Operator) -> None:
    """What is left to the host must be about the classes."""
    arguments = _arguments(node)
    for rule in operator.attributes:
        value = arguments[rule.name]
        classes = rule.name != "dim" or value is None or value % node.all_input_nodes[0].meta["val"].dim() == 1
        if not rule.accepts(value) or not classes:
            raise unsupported(_where(node), f"{rule.name}={value!r} is not supported, only {rule.rule}", rule.rewrite)


def _uses(user: "Node", node: "Node") -> int:
    import torch

    found: list[Any] = []
    torch.fx.map_arg((user.args, user.kwargs), found.append)
    return sum(other is node for other in found)


def _is_constant(node: "Node", constants: "dict[Node, torch.Tensor]") -> bool:
    import torch

    return (all(source in constants for source in node.all_input_nodes)
            and torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()))


def _evaluate(node: "Node", constants: "dict[Node, torch.Tensor]") -> "torch.Tensor":
    """What an operator makes of constants alone."""
    import torch

    arguments, keywords = torch.fx.map_arg((node.args, node.kwargs), constants.__getitem__)
    with torch.no_grad():
        result: torch.Tensor = node.target(*arguments, **keywords)  # type: ignore[operator]
    return result


def _check_in_place(node: "Node", order: "list[Node]") -> None:
    """Refuse a change in place through a view: what reads the viewed tensor later is not told by the graph."""
    if not str(node.target).split(".")[1].endswith("_"):
        return
    base = node.all_input_nodes[0]
    while (operator := BY_TARGET.get(str(base.target))) is not None and operator.kind in VIEWS:
        base = base.all_input_nodes[0]
        late = [user for user in base.users if order.index(user) > order.index(node)]
        if late:
            raise unsupported(_where(node), f"changes in place what {_where(late[0])} reads later",
                              "use the operator that is not in place")


def _module(node: "Node") -> tuple[str, str]:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    return path, str(kind)


def _where(node: "Node") -> str:
    kind = _module(node)[1].rpartition(".")[2]
    return f"{_path(node)} ({kind})" if kind else _path(node)


def _path(node: "Node") -> str:
    path, kind = _module(node)
    # Only a module without submodules is named by its path alone; a function gets its own name besides.
    builtin = kind.startswith(MODULES) and not kind.startswith("torch.nn.modules.container")
    return path if path and builtin else ".".join(part for part in (path, node.name) if part)


def _bind(node: "Node", constants: "dict[Node, torch.Tensor]", users: int) -> Bound:
    where, target = _where(node), str(node.target)
    operator = BY_TARGET.get(target)
    if operator is None or operator.kind == "host":
        name = target.removeprefix("aten.").split(".")[0].removesuffix("_")
        raise unsupported(where, f"operator {target} is not supported",
                          REWRITES.get(name.lstrip("_"), "see the table of supported operators in the documentation"))
    arguments = _arguments(node)
    first, *rest = (name for name in arguments if name in operator.operands)
    if operator.commutes and not _activations(arguments[first], constants):
        arguments[first], arguments[rest[0]] = arguments[rest[0]], arguments[first]
    sources = _activations(arguments[first], constants)
    if not sources or len(sources) < (len(arguments[first]) if isinstance(arguments[first], list | tuple) else 1):
        raise unsupported(where, f"the activation is not the {first!r} argument of {target}",
                          "constants can only be its other arguments")
    tensors: dict[str, np.ndarray | None] = {}
    for name in rest:
        if found := _activations(arguments[name], constants):
            if not operator.joins:
                raise unsupported(where, f"its {name} is computed from the network's input", "use a constant one")
            sources += found
        else:
            tensors[name] = _array(arguments[name], constants)
    rules = {attribute.name: attribute for attribute in operator.attributes}
    attributes = {}
    for name, value in arguments.items():
        if name == first or name in rest:
            continue
        rule = rules.get(name)
        if rule is None or not rule.accepts(value):
            raise unsupported(where, f"{name}={value!r} is not supported, "
                              f"only {rule.rule if rule else 'its default'}",
                              rule.rewrite if rule else "leave it out")
        attributes[name] = list(value) if isinstance(value, (list, tuple)) else value
    before, after = tuple(sources[0].meta["val"].shape), tuple(node.meta["val"].shape)
    if not after or after[0] != before[0]:
        raise unsupported(where, f"{target} changes the batch dimension from {before} to {after}",
                          "keep one row an image")
    return Bound(name=node.name, path=_path(node), operator=operator, target=target,
                 sources=tuple(source.name for source in sources), tensors=tensors, attributes=attributes,
                 in_shape=before[1:], out_shape=after[1:], users=users, where=where)


def _arguments(node: "Node") -> dict[str, Any]:
    """All arguments by schema name, defaults filled in."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | dict(node.kwargs)
    return {argument.name: given.get(argument.name, argument.default_value) for argument in schema}


def _activations(value: Any, constants: "dict[Node, torch.Tensor]") -> "list[Node]":
    """The nodes of an argument that depend on the network's input."""
    from torch.fx import Node

    values = value if isinstance(value, list | tuple) else [value]
    return [item for item in values if isinstance(item, Node) and item not in constants]


def _array(value: Any, constants: "dict[Node, torch.Tensor]") -> np.ndarray | None:
    if value is None:
        return None
    array: np.ndarray = constants[value].double().cpu().numpy() if value in constants else np.array(value, np.float64)
    return array
