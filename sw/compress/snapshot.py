"""The state of modules and plain objects as a tree of JSON and a list of tensors, and back into equal objects.

Nothing is unpickled: what is restored is written into objects that a program has made anew. Only objects of
Shiftwright's own plain classes are made where they are missing.
"""

import enum
import functools
import importlib
import types
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["restore", "take"]

PACKAGE = __name__.split(".")[0]
MODULE_INTERNALS = frozenset(vars(nn.Module()))
OPTIMIZER_INTERNALS = frozenset({*vars(torch.optim.SGD([torch.zeros(1)], lr=1.0)), "defaults", "step"})
PLAIN = (bool, int, float, str, type(None))
FIXED = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, enum.Enum,
         torch.device, torch.dtype)
"""Not changed by training: left as it is."""
Node = Any


def take(state: object) -> tuple[Node, dict[str, Tensor]]:
    """A tree for JSON, and the tensors that it names.

    Parameters
    ----------
    state : object
        Modules, optimizers, generators, tensors, plain objects of the package, and dictionaries, lists and tuples of
        such. An object that stands in several places is kept once. Frozen dataclasses, named tuples, functions and
        types are taken for fixed.

    Raises
    ------
    TypeError
        If there is something else, by its place.
    """
    tensors: dict[str, Tensor] = {}
    return _Taker(tensors).node(state, "state"), tensors


def restore(state: object, tree: Node, tensors: dict[str, Tensor]) -> Any:
    """Write what :func:`take` has taken into objects of the same structure; tensors and plain values are returned."""
    return _Restorer(tensors).value(state, tree)


def _attributes(thing: object) -> dict[str, Any]:
    """What of an object is state, but for the parts of a module and what an optimizer tells by itself."""
    internals = (MODULE_INTERNALS if isinstance(thing, nn.Module) else
                 OPTIMIZER_INTERNALS if isinstance(thing, torch.optim.Optimizer) else frozenset())
    return {name: value for name, value in vars(thing).items() if name not in internals}


def _is_fixed(thing: object) -> bool:
    parameters = getattr(type(thing), "__dataclass_params__", None)
    named = isinstance(thing, tuple) and type(thing) is not tuple
    return named or isinstance(thing, FIXED) or (parameters is not None and parameters.frozen)


class _Taker:
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.seen: dict[int, int] = {}
        self.held: list[object] = []  # so that no number is given twice

    def tensor(self, value: Tensor) -> str:
        name = str(len(self.tensors))
        self.tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return name

    def parts(self, values: dict[str, Any], where: str) -> Node:
        return {name: self.node(value, f"{where}.{name}") for name, value in values.items()}

    def node(self, thing: Any, where: str) -> Node:
        if isinstance(thing, PLAIN):
            return {"is": thing}
        if id(thing) in self.seen:
            return {"same": self.seen[id(thing)]}
        if _is_fixed(thing):
            return {"fixed": type(thing).__name__}
        self.seen[id(thing)] = len(self.held)
        self.held.append(thing)
        if isinstance(thing, Tensor):
            return {"tensor": self.tensor(thing)}
        if isinstance(thing, np.ndarray):
            return {"array": self.tensor(torch.from_numpy(np.ascontiguousarray(thing)))}
        if isinstance(thing, torch.Generator):
            return {"generator": self.tensor(thing.get_state())}
        if isinstance(thing, np.random.Generator):
            return {"random": thing.bit_generator.state}
        if isinstance(thing, (list, tuple)):
            return {"tuple" if isinstance(thing, tuple) else "list":
                    [self.node(value, f"{where}[{number}]") for number, value in enumerate(thing)]}
        if isinstance(thing, (set, frozenset)) and all(isinstance(value, str) for value in thing):
            return {"set": sorted(thing)}
        if isinstance(thing, dict):
            return {"dict": [[self.node(key, f"{where}'s keys"), self.node(value, f"{where}[{key!r}]")]
                             for key, value in thing.items()]}
        if isinstance(thing, nn.Module):
            parts: dict[str, dict[str, Any]] = {"parameters": thing._parameters, "buffers": thing._buffers,
                                                "modules": thing._modules, "attributes": _attributes(thing)}
            return {"module": {kind: self.parts(values, where) for kind, values in parts.items()}}
        if isinstance(thing, torch.optim.Optimizer):
            return {"optimizer": self.node(thing.state_dict(), where),
                    "attributes": self.parts(_attributes(thing), where)}
        if isinstance(thing, torch.optim.lr_scheduler.LRScheduler):
            return {"schedule": self.node(thing.state_dict(), where)}
        if type(thing).__module__.split(".")[0] == PACKAGE and hasattr(thing, "__dict__"):
            return {"object": f"{type(thing).__module__}:{type(thing).__qualname__}",
                    "attributes": self.parts(vars(thing), where)}
        raise TypeError(f"{where} is a {type(thing).__name__}, whose state is not known")


class _Restorer:
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.made: list[Any] = []

    def keep(self, thing: Any) -> Any:
        self.made.append(thing)
        return thing

    @torch.no_grad()
    def value(self, thing: Any, node: Node) -> Any:
        """What stands where `thing` stood: itself, changed, or another one."""
        kind = next(iter(node))
        found = node[kind]
        if kind == "is":
            return found
        if kind == "same":
            return self.made[found]
        if kind == "fixed":
            return thing
        if kind == "tensor":
            return self.tensor(thing, self.tensors[found])
        if kind == "array":
            return self.keep(self.tensors[found].numpy().copy())
        if kind == "generator":
            thing = thing if isinstance(thing, torch.Generator) else torch.Generator()
            return self.keep(thing.set_state(self.tensors[found]))
        if kind == "random":
            thing = thing if isinstance(thing, np.random.Generator) else np.random.default_rng()
            thing.bit_generator.state = found
            return self.keep(thing)
        if kind in ("list", "tuple"):
            return self.sequence(thing, found, kind)
        if kind == "set":
            return self.keep(frozenset(found) if isinstance(thing, frozenset) else set(found))
        if kind == "dict":
            return self.mapping(thing, found)
        if kind == "module":
            return self.module(thing, found)
        if kind == "object":
            if f"{type(thing).__module__}:{type(thing).__qualname__}" != found:
                thing = _made(found)
            self.keep(thing)
            self.attributes(thing, node["attributes"])
            return thing
        self.keep(thing)
        thing.load_state_dict(self.value({}, found))
        if kind == "optimizer":
            self.attributes(thing, node["attributes"])
        return thing

    def tensor(self, thing: Any, value: Tensor) -> Tensor:
        if isinstance(thing, nn.Parameter):
            thing.data = value.to(thing.device, copy=True)
            return self.keep(thing)
        device = thing.device if isinstance(thing, Tensor) else "cpu"
        result: Tensor = self.keep(value.to(device, copy=True))
        if isinstance(thing, Tensor):
            result.requires_grad_(thing.requires_grad)
        return result

    def sequence(self, thing: Any, found: list[Node], kind: str) -> Any:
        place = len(self.made)
        self.keep(None)
        before = list(thing) if isinstance(thing, (list, tuple)) else []
        before += [None] * (len(found) - len(before))
        values: Any = [self.value(old, node) for old, node in zip(before, found, strict=False)]
        if kind == "tuple":
            values = tuple(values)
        elif isinstance(thing, list):
            thing[:] = values
            values = thing
        self.made[place] = values
        return values

    def mapping(self, thing: Any, found: list[list[Node]]) -> Any:
        thing = thing if isinstance(thing, dict) else {}
        self.keep(thing)
        values = []
        for key_node, node in found:
            key = self.value(None, key_node)
            values.append((key, self.value(thing.get(key), node)))
        thing.clear()
        thing.update(values)
        return thing

    def module(self, thing: nn.Module, found: dict[str, dict[str, Node]]) -> nn.Module:
        self.keep(thing)
        parts: dict[str, dict[str, Any]] = {"parameters": thing._parameters, "buffers": thing._buffers,
                                            "modules": thing._modules}
        for kind, known in parts.items():
            for name, node in found[kind].items():
                known[name] = self.value(known.get(name), node)
        self.attributes(thing, found["attributes"])
        return thing

    def attributes(self, thing: Any, found: dict[str, Node]) -> None:
        for name, node in found.items():
            value = self.value(vars(thing).get(name), node)
            if "fixed" not in node:
                object.__setattr__(thing, name, value)


def _made(name: str) -> Any:
    """An object of one of the package's own plain classes, still without attributes."""
    module, _, path = name.partition(":")
    if module.split(".")[0] != PACKAGE:
        raise TypeError(f"{name} is no class of {PACKAGE}")
    kind: Any = importlib.import_module(module)
    for part in path.split("."):
        kind = getattr(kind, part)
    return kind.__new__(kind)
