"""Cycles of compressed networks on the simulated accelerator of a board, every layer compared with the golden model.

Each case writes ``benchmarks/results/run.<network>.<recipe>.<lanes_y>x<lanes_x>x<streams>.json`` with the figures

- ``cycles``: clock cycles of one image, from start to done; ``predicted_cycles``: what the compiler says;
- ``utilization``: terms that lanes added for a pixel of an output map, over cycles x lanes of the whole run;
- ``codewords_per_cycle``: decoded codewords, those that are decoded again for every pixel block included;
- ``images_checked``, ``layers_checked``, ``bit_exact``; ``wall_seconds`` of the simulation without the model's build.

The compressed network is taken from ``build/compression``, or trained and compressed as ``compression.py`` does.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import record
import torch
from compression import BUILD, PACKAGES, compressed

from shiftwright.boards.registry import get
from shiftwright.hw.arch.errors import ShiftwrightError
from shiftwright.sim import golden
from shiftwright.sim.interpreter import read_image
from shiftwright.sim.simulate import simulate
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.data import load
from shiftwright.sw.network import QuantizedNetwork
from shiftwright.sw.tools import require

NETWORKS = ("digits", "lenet300", "lenet5")
RECIPE = "bqnet"
BOARD = "ulx3s-85f"
MOST_SECONDS = 60
"""Wall-clock seconds that a simulation may take on an idle machine."""


def quantized(name: str, options: argparse.Namespace) -> QuantizedNetwork:
    """The compressed network of an earlier run, or a new one."""
    path = BUILD / f"{name}.{RECIPE}.swc"
    return QuantizedNetwork.load(path) if path.exists() else compressed(name, RECIPE, options)


def work(image: bytes) -> tuple[int, int]:
    """What one inference does: terms over all output pixels, and decoded codewords."""
    program = read_image(image)
    config, terms, codewords = program.config, 0, 0
    for layer in program.layers:
        # All output channels replay the one row of a pooling layer.
        times = layer.rows // layer.terms.rows
        blocks = math.ceil(layer.out[0] / config.lanes_y) * math.ceil(layer.out[1] / config.lanes_x)
        terms += len(layer.terms.tap) * times * math.prod(layer.out)
        codewords += layer.terms.codewords * times * blocks
    return terms, codewords


def measure(name: str, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Run a case: its key and its full result."""
    network = quantized(name, options)
    compilation = compile_detailed(network, get(BOARD).config)
    image, lanes = compilation.image, compilation.image.config.lanes
    test = load(network.metadata["dataset"], split="test", data_dir=options.data_dir).take(options.images)
    inputs = network.quantize_input(test.images / 256.0)
    expected = golden.run(network, inputs, layers=True)
    found = simulate(image, inputs, expected=expected, seed=options.seed)
    if len(set(found.cycles)) != 1:
        raise SystemExit(f"{name}: the cycles depend on the image: {found.cycles}")
    cycles, (terms, codewords) = found.cycles[0], work(image.to_bytes())
    return f"run.{name}.{RECIPE}.{image.config.name}", {
        **record.provenance(options.seed, (*PACKAGES, "amaranth", "cocotb"),
                            {"verilator": require("verilator").version}),
        "board": BOARD,
        "config": image.config.to_dict(),
        "dataset": network.metadata["dataset"],
        "network_accuracy": network.metadata.get("accuracy"),
        "image_bytes": compilation.size,
        "build_seconds": round(found.build_seconds, 1),
        "values_compared": found.values,
        "layers": {layer.name: {"cycles": simulated, "predicted_cycles": layer.cycles.total}
                   for layer, simulated in zip(compilation.layers, found.layer_cycles[0], strict=True)},
        "figures": {
            "cycles": cycles, "predicted_cycles": compilation.cycles,
            "utilization": round(terms / (cycles * lanes), 4), "codewords_per_cycle": round(codewords / cycles, 4),
            "images_checked": found.images, "layers_checked": len(found.layers), "bit_exact": True,
            "wall_seconds": round(found.seconds, 1)},
    }


def main(argv: list[str] | None = None) -> int:
    """Measure all networks, or one. Exit code 1 at the first difference, or when a simulation took too long."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, help="only this network")
    parser.add_argument("--images", type=int, default=10, help="test images (default 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", help="folder that is searched first for data sets")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--results", type=Path, default=record.RESULTS, help="folder to write to")
    options = parser.parse_args(argv)
    options.fresh, options.trained = False, set()
    torch.set_num_threads(options.threads)
    late = False
    for name in NETWORKS:
        if options.network not in (None, name):
            continue
        try:
            key, result = measure(name, options)
        except ShiftwrightError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return error.exit_code
        record.write(key, result, options.results)
        figures = result["figures"]
        print(f"{key}: {figures['cycles']} cycles (predicted {figures['predicted_cycles']}), utilization "
              f"{figures['utilization']:.1%}, {figures['codewords_per_cycle']:.3f} codewords a cycle, bit-exact: "
              f"{figures['images_checked']} images, {figures['layers_checked']} layers, {figures['wall_seconds']} s",
              flush=True)
        late |= figures["wall_seconds"] > MOST_SECONDS
    if late:
        print(f"a simulation took more than {MOST_SECONDS} s", file=sys.stderr)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
