"""The file of a compressed network (``.swc``): safetensors with the structure as JSON metadata."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..hw.arch.errors import ModelError
from ..hw.arch.files import write_atomically
from .network import Concat, Layer, QuantizedNetwork, Residual, TensorSpec, Term

__all__ = ["read", "write"]

FORMAT = "shiftwright.swc"
VERSION = 2
ARRAYS = {"indices": np.uint8, "bias": np.int64, "shift": np.int64}
"""Fields of a layer that are stored as tensors, named by the layer's number and the field."""
PLAIN = ("max_shift", "guard_bits", "acc_bits", "parameters", "metadata")
"""Fields of the network that are stored as they are."""
ROUNDING = "half_up"
"""Of files that do not tell it: it came later."""


def write(network: QuantizedNetwork, path: str | Path) -> None:
    """Write a network, never half."""
    from safetensors.numpy import save

    arrays = {f"{number}.{name}": np.ascontiguousarray(getattr(layer, name), dtype)
              for number, layer in enumerate(network.layers)
              for name, dtype in ARRAYS.items() if getattr(layer, name) is not None}
    structure = {
        "format": FORMAT, "version": VERSION, "input": dataclasses.asdict(network.input),
        "layers": [_plain_layer(layer) for layer in network.layers],
        "concats": [{"target": dataclasses.asdict(concat.target), "parts": [part.name for part in concat.parts]}
                    for concat in network.concats],
        "rounding": network.rounding, **{name: getattr(network, name) for name in PLAIN},
    }
    write_atomically(path, save(arrays, metadata={"shiftwright": json.dumps(structure)}), ModelError)


def _plain_layer(layer: Layer) -> dict[str, Any]:
    entry = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer) if field.name not in ARRAYS}
    entry["source"], entry["target"] = layer.source.name, dataclasses.asdict(layer.target)
    for name in ("codebook", "scale"):
        entry[name] = [_plain_terms(terms) for terms in entry[name]]
    entry["residuals"] = [{"source": residual.source.name, "terms": _plain_terms(residual.terms),
                           "stride": residual.stride, "channel_offset": residual.channel_offset}
                          for residual in layer.residuals]
    return entry


def _plain_terms(terms: tuple[Term, ...]) -> list[list[int]]:
    return [[int(term.neg), term.shift] for term in terms]


def read(path: str | Path) -> QuantizedNetwork:
    """Read a network.

    Raises
    ------
    ModelError
        If the file can't be read, or is something else, of another version or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            structure = json.loads((file.metadata() or {}).get("shiftwright", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        raise ModelError(f"{path}: can't read the compressed network: {error.strerror or error}") from None
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not a compressed network (.swc), or damaged: {error}; "
                         f"make one with 'shiftwright compress'") from None
    if not isinstance(structure, dict) or structure.get("format") != FORMAT:
        raise ModelError(f"{path}: is a safetensors file but not a compressed network (.swc); "
                         f"make one with 'shiftwright compress'")
    if structure.get("version") != VERSION:
        raise ModelError(f"{path}: .swc version {structure.get('version')!r} is not supported, only {VERSION}; "
                         f"compress the network again with this version of Shiftwright")
    try:
        return _network(structure, arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: damaged compressed network (.swc): {error!r}; compress it again") from None


def _network(structure: dict[str, Any], arrays: dict[str, np.ndarray]) -> QuantizedNetwork:
    made = (structure["input"], *(entry["target"] for entry in (*structure["layers"], *structure["concats"])))
    tensors = {entry["name"]: TensorSpec(**entry) for entry in made}
    layers = []
    for number, entry in enumerate(structure["layers"]):
        entry = {**entry, **{name: arrays.get(f"{number}.{name}") for name in ARRAYS},
                 "source": tensors[entry["source"]], "target": TensorSpec(**entry["target"])}
        for name in ("codebook", "scale"):
            entry[name] = tuple(_terms(terms) for terms in entry[name])
        for name in ("kernel", "stride", "padding", "dilation"):
            entry[name] = tuple(entry[name])
        entry["residuals"] = tuple(
            Residual(source=tensors[found["source"]], terms=_terms(found["terms"]), stride=tuple(found["stride"]),
                     channel_offset=found["channel_offset"]) for found in entry["residuals"])
        layers.append(Layer(**entry))
    concats = (Concat(target=TensorSpec(**entry["target"]), parts=tuple(tensors[name] for name in entry["parts"]))
               for entry in structure["concats"])
    return QuantizedNetwork(input=TensorSpec(**structure["input"]), layers=tuple(layers), concats=tuple(concats),
                            rounding=structure.get("rounding", ROUNDING),
                            **{name: structure[name] for name in PLAIN})


def _terms(plain: list[list[int]]) -> tuple[Term, ...]:
    return tuple(Term(bool(neg), shift) for neg, shift in plain)
