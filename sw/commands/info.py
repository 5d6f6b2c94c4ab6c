"""``shiftwright info``: what a file is and what is in it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._describe import emit_with_layers

if TYPE_CHECKING:
    from ..compiler.placement import TensorPlacement
    from ..image import Image


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
def command(file: Path) -> None:
    """Describe any Shiftwright file.

    \b
    FILE is one of
        .swi          an image: its accelerator, tensors, layers, predicted cycles and memory maps
        .swc          a compressed network: arithmetic, layers, recipe
        .safetensors  a float checkpoint: network, accuracy, tensors
        .onnx         a network: inputs, outputs, layers as the accelerator would run them, parameters
        .toml         an accelerator configuration: parameters and fingerprint

    An image's maps tell where the input and each layer's output lie in the activation memory (first address, addresses,
    layout; 'shiftwright compile --map' also tells names and how long each is needed), and which words of the model
    memory hold each section of a layer.

    The kind is found from the contents (a configuration by its suffix). A damaged file is refused with what is wrong
    and where.

    \b
    Examples:
        shiftwright info digits.swi
        shiftwright info digits.swc --json
    """
    from ...hw.arch.errors import ModelError
    from ..image import Image
    from ._maps import MAPS, image_rows, model_rows

    try:
        with open(file, "rb") as handle:
            head = handle.read(4)
    except OSError as error:
        raise ModelError(f"{file}: can't read: {error.strerror}; give an existing file") from None
    more = None
    if file.suffix == ".toml":
        result, layers = _configuration(file)
    elif head == b"SWI1" or file.suffix == ".swi":
        image = Image.load(file)
        result, layers = _image(file, image)
        rows = {"activation_map": image_rows(image), "model_map": model_rows(image)}
        more = {key: (heading, rows[key]) for key, heading in MAPS.items()}
    elif file.suffix == ".onnx":
        result, layers = _onnx(file)
    else:
        result, layers = _tensors(file)
    emit_with_layers({"file": str(file), **result}, layers, title=file.name, more=more,
                     layers_title="Tensors" if result["kind"] == "float checkpoint" else "Layers")


def _configuration(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from ...hw.arch.config import AcceleratorConfig

    config = AcceleratorConfig.from_toml(file)
    return {"kind": "accelerator configuration", "lanes": config.name, "fingerprint": f"0x{config.fingerprint:08x}",
            **config.to_dict()}, []


def _image(file: Path, image: "Image") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from ..compiler.cycles import predict, run_cycles

    cycles = predict(image)
    layers = [{
        "layer": number, "positions": layer.positions,
        "taps": layer.positions * layer.fields["channels"], "output": "x".join(map(str, place.shape)),
        "flags": " ".join(str(flag.name) for flag in layer.flags) or "-",
        "bytes": 2 * layer.words, "cycles": predicted.total,
    } for number, (layer, place, predicted) in enumerate(zip(image.layers, image.placements, cycles, strict=True))]

    def tensor(place: "TensorPlacement") -> str:
        return (f"{'x'.join(map(str, place.shape))}, {place.bits} bits {'signed' if place.signed else 'unsigned'}, "
                f"integer x 2^{place.exponent}")

    return {"kind": "image", "lanes": image.config.name, "fingerprint": f"0x{image.config.fingerprint:08x}",
            "configuration": image.config.changes or "default", "input": tensor(image.input),
            "output": tensor(image.output), "bytes": file.stat().st_size,
            "model_words": int(image.words.size), "predicted_cycles": run_cycles(cycles)}, layers


def _onnx(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from ..frontend.capture import capture
    from ..frontend.onnx_lower import load_onnx

    found = load_onnx(file)
    graph = capture(found.module, tuple(found.file.inputs.values()))
    layers = [{
        "layer": layer.name, "op": layer.op, "kernel": "x".join(map(str, layer.kernel)),
        "stride": "x".join(map(str, layer.stride)), "output": "x".join(map(str, layer.out_shape)),
        "weights": 0 if layer.weight is None else int(layer.weight.size),
        "adds": ", ".join(residual.source or "input" for residual in layer.residuals) or "-",
    } for layer in graph.layers]
    return {"kind": "ONNX network", "graph": found.file.graph, "producer": found.file.producer,
            "opset": found.file.opset, "nodes": len(found.file.nodes),
            "input": ", ".join(f"{name}: {'x'.join(map(str, shape))}" for name, shape in found.file.inputs.items()),
            **({"outputs": [output.to_dict() for output in graph.outputs]} if graph.outputs else {}),
            "parameters": graph.parameters, "weights": graph.weights, "left_to_host": list(found.notes),
            "bytes": file.stat().st_size}, layers


def _tensors(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    import json

    from safetensors import SafetensorError, safe_open

    from ...hw.arch.errors import ModelError
    from ..swc import FORMAT

    try:
        with safe_open(str(file), framework="numpy") as handle:
            structure = json.loads((handle.metadata() or {}).get("shiftwright", "{}"))
            slices = {name: handle.get_slice(name) for name in handle.keys()}
            tensors = [{"tensor": name, "type": part.get_dtype(), "shape": "x".join(map(str, part.get_shape())) or "1"}
                       for name, part in slices.items()]
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{file}: neither an image, a compressed network, a checkpoint nor a configuration, or "
                         f"damaged: {error}; give a .swi, .swc, .safetensors, .onnx or .toml file") from None
    if isinstance(structure, dict) and structure.get("format") == FORMAT:
        return _network(file)
    known = structure if isinstance(structure, dict) else {}
    return {"kind": "float checkpoint", **known, "bytes": file.stat().st_size}, tensors


def _network(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from ..network import QuantizedNetwork

    network = QuantizedNetwork.load(file)
    rest = dict(network.metadata)
    noise = rest.pop("signal_to_noise", {})
    layers = [{
        "layer": layer.name, "op": layer.op, "kernel": "x".join(map(str, layer.kernel)),
        "stride": "x".join(map(str, layer.stride)), "output": "x".join(map(str, layer.target.shape)),
        "bits": layer.target.bits, "weights": 0 if layer.indices is None else int(layer.indices.size),
        "levels": len(layer.codebook), "terms": max((len(terms) for terms in layer.codebook), default=1),
        "snr_db": noise.get(layer.name),
    } for layer in network.layers]
    shape = "x".join(map(str, network.input.shape))
    return {"kind": "compressed network", "input": f"{shape}, {network.input.bits} bits, integer x "
            f"2^{network.input.exponent}", "parameters": network.parameters, "max_shift": network.max_shift,
            "guard_bits": network.guard_bits, "rounding": network.rounding, "acc_bits": network.acc_bits,
            **rest}, layers
