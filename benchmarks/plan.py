"""Plans of the zoo's networks for 224 x 224 images on every tuned board, and an image of each for what holds it.

Layers are those of the zoo's networks; of the weights, at random, a tenth is not 0 (of the linear layers of AlexNet and
VGG-16 a twenty-fifth), of six values. Writes
``benchmarks/results/plan.<network>.json`` with what ``shiftwright plan`` tells, as ``<board>.<figure>``; ``plan_s``
(processor seconds for all boards) and ``gib`` (the process's peak, in GiB); and of the image for the accelerator
:data:`HOLDS` ``image.bytes``, ``image.ratio``, ``image.predicted_cycles``,
``image.activation_addresses`` and ``image.compile_s``.
"""

import argparse
import gc
import resource
import sys
import time
from typing import Any

import numpy as np
import record

from shiftwright.boards.registry import get, names
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sw.commands.plan import figures
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compiler.plan import Plan, plans
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.graph import INPUT, FloatLayer, Graph
from shiftwright.sw.network import Concat, Layer, QuantizedNetwork, Residual, TensorSpec, Term
from shiftwright.sw.zoo import network_info

HOLDS = AcceleratorConfig(lanes_y=8, lanes_x=8, act_depth=1 << 16, weight_depth=1 << 22, row_depth=1 << 13)
"""An accelerator that holds them all."""
CODEBOOK = ((), *((Term(negative, shift),) for shift in range(3) for negative in (False, True)))
SHARES = (0.3, 0.3, 0.15, 0.15, 0.05, 0.05)
"""Of the values that are not 0."""
DENSITY = {"alexnet": (0.1, 0.04), "googlenet": (0.1, 0.1), "mobilenet_v1": (0.1, 0.1), "mobilenet_v2": (0.1, 0.1),
           "resnet18": (0.1, 0.1), "resnet50": (0.1, 0.1), "vgg16": (0.1, 0.04)}
"""Share of the weights that are not 0, in convolutions and in linear layers."""
ONE, SHIFT = (Term(False, 0),), 8


def captured(name: str) -> Graph:
    """The zoo's network as a graph; its weights are not used."""
    info = network_info(name)
    return capture(info.build().eval(), info.input_shape)


def quantized(graph: Graph, density: tuple[float, float], seed: int) -> QuantizedNetwork:
    """The graph's layers with random weights."""
    rng = np.random.default_rng(seed)
    signed, raw = graph.signed, graph.layers[-1].name
    tensors = {name: TensorSpec(
        name=name or "input", channels=shape[0], height=shape[1], width=shape[2], bits=32 if name == raw else 8,
        signed=signed[name] or name == raw, exponent=0) for name, shape in graph.shapes.items()}
    layers = [_layer(rng, layer, tensors, density[layer.covers_map], layer.name == raw) for layer in graph.layers]
    concats = [Concat(target=tensors[each.name], parts=tuple(tensors[part] for part in each.parts))
               for each in graph.concats]
    return QuantizedNetwork(input=tensors[INPUT], layers=tuple(layers), concats=tuple(concats),
                            parameters=graph.parameters, metadata={"seed": seed})


def _layer(rng: np.random.Generator, layer: FloatLayer, tensors: dict[str, TensorSpec], density: float,
           raw: bool) -> Layer:
    target, rows = tensors[layer.name], layer.out_shape[0]
    fields: dict[str, Any] = {}
    if layer.weight is not None:
        frequencies = np.cumsum([1 - density, *(density * share for share in SHARES)]).astype(np.float32)
        indices = np.empty(layer.weight.shape, np.uint8)
        for row in indices:
            row[...] = np.searchsorted(frequencies[:-1], rng.random(row.shape, np.float32), side="right")
        fields = {"indices": indices, "codebook": CODEBOOK}
    low, high = target.range
    return Layer(name=layer.name, op=layer.op, source=tensors[layer.source], target=target, kernel=layer.kernel,
                 stride=layer.stride, padding=layer.padding, dilation=layer.dilation, groups=layer.groups,
                 residuals=tuple(Residual(source=tensors[each.source], terms=ONE, stride=each.stride,
                                          channel_offset=each.channel_offset) for each in layer.residuals),
                 bias=np.zeros(rows, np.int64), scale=(ONE,) * rows, shift=np.full(rows, 0 if raw else SHIFT, np.int64),
                 qmin=low, qmax=high, raw=raw, **fields)


def image_figures(network: QuantizedNetwork) -> dict[str, float]:
    """Of the image for the accelerator that holds it."""
    start = time.process_time()
    compilation = compile_detailed(network, HOLDS)
    return {"image.bytes": compilation.size, "image.ratio": round(compilation.ratio, 3),
            "image.predicted_cycles": compilation.cycles, "image.activation_addresses": compilation.peak,
            "image.compile_s": round(time.process_time() - start, 2)}


def measure(name: str, seed: int) -> None:
    """Plan and compile one network."""
    graph = captured(name)
    network = quantized(graph, DENSITY[name], seed)
    weights = graph.weights
    del graph
    gc.collect()
    start = time.process_time()
    found = plans(network, {board: get(board).config for board in names()})
    plan_s = time.process_time() - start
    result: dict[str, Any] = {"weights": weights, "plan_s": round(plan_s, 2)}
    for board, plan in found.items():
        if isinstance(plan, Plan):
            told = figures(get(board), plan)
            result |= {f"{board}.{figure}": value for figure, value in told.items() if figure != "needs"}
            result |= {f"{board}.needs.{figure}": value for figure, value in plan.needs.items()}
            print(f"{name} on {board}: {told}")
        else:
            print(f"{name} on {board}: {plan}")
    del found
    result |= image_figures(network)
    result |= {"gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20), 3), "seed": seed}
    record.write(f"plan.{name}", {**record.provenance(seed, ("shiftwright", "numpy", "torch")), "figures": result})


def main(argv: list[str] | None = None) -> int:
    """Measure the networks named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(DENSITY), metavar="NETWORK", help=", ".join(DENSITY))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    for name in options.networks:
        measure(name, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
