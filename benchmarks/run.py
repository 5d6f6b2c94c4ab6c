"""Cycles of compressed networks on the simulated accelerator, every layer compared with the golden model.

Each case writes ``benchmarks/results/run.<network>.<recipe>.<lanes_y>x<lanes_x>x<streams>[.batch].json`` with the
figures

- ``cycles``: clock cycles of one image, from start to done (of a batch that fills the lanes, for ``.batch``: the heads
  one after another, then the tail); ``predicted_cycles``: what the compiler says; ``images``: of the batch;
- ``utilization``: terms that lanes added for a pixel of an output map, over cycles x lanes x streams of the whole run;
  ``conv_utilization``: the same over the convolutions' cycles; ``issued``: terms over cycles x streams of convolutions;
- ``codewords_per_cycle``: codewords a cycle and stream in the fully connected layers, loading of tables left out;
- ``macs_per_cycle``: multiply-accumulates of the dense network that a cycle stands for;
- ``mhz``, ``inferences_per_second``, ``per_1000_lut``: with the routed clock and the LUT equivalents of
  ``rtl.ecp5-85f.<lanes_y>x<lanes_x>x<streams>``, when that result is there;
- ``images_checked``, ``layers_checked``, ``bit_exact``; ``wall_seconds`` of the simulation without the model's build.

The compressed network is taken from ``build/compression``, or trained and compressed as ``compression.py`` does.
"""

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from compression import BUILD, PACKAGES, compressed

from shiftwright.hw.arch.bus import Counter
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ShiftwrightError
from shiftwright.hw.arch.image import Flag
from shiftwright.sim import golden
from shiftwright.sim.interpreter import read_image, statistics
from shiftwright.sim.simulate import SimulationResult, simulate
from shiftwright.sw.compiler.compile import Compilation, compile_detailed
from shiftwright.sw.compiler.cycles import batch_cycles, batch_runs, predict
from shiftwright.sw.data import PIXEL_SCALE, load
from shiftwright.sw.network import QuantizedNetwork
from shiftwright.sw.tools import require

DEVICE = "ecp5-85f"
JITTER = 8
"""Cycles a layer by which equal runs may differ."""
MOST_SECONDS = 60
"""Wall-clock seconds that a simulation of one of the small networks may take on an idle machine."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A network on an accelerator."""

    network: str
    recipe: str
    lanes: tuple[int, int] = (4, 4)
    streams: int = 1
    batch: bool = False
    images: int = 10
    guard_bits: int | None = None

    @property
    def config(self) -> AcceleratorConfig:
        """Of the accelerator: that of the routed results, with memory for the network."""
        return AcceleratorConfig(lanes_y=self.lanes[0], lanes_x=self.lanes[1], streams=self.streams, act_depth=4096,
                                 guard_bits=self.guard_bits)

    @property
    def key(self) -> str:
        """Name of the result."""
        return f"run.{self.network}.{self.recipe}.{self.config.name}{'.batch' * self.batch}"


CASES = (
    Case("digits", "bqnet"),
    Case("lenet300", "bqnet"),
    Case("lenet5", "bqnet"),
    Case("lenet5", "bqnet-ternary", images=4),
    Case("lenet300", "bqnet-pruned"),
    Case("lenet300", "bqnet-pruned", batch=True, images=32),
    Case("lenet300", "bqnet-pruned", lanes=(8, 8), batch=True, images=64),
    Case("lenet5", "bqnet", batch=True, images=16),
    Case("resnet20", "ptq", images=2),
    Case("resnet20", "bqnet-cifar", images=2),
    Case("resnet20", "bqnet-cifar", lanes=(8, 8), images=2),
    Case("resnet20", "bqnet-cifar", streams=2, images=1),
    Case("resnet20", "bqnet-cifar", streams=4, images=1),
    Case("resnet20", "bqnet-cifar-pruned", images=2),
    Case("resnet20", "bqnet-cifar-pruned", lanes=(8, 8), images=2),
    Case("resnet20", "bqnet-cifar-pruned", streams=4, images=1),
)


def quantized(case: Case, options: argparse.Namespace) -> QuantizedNetwork:
    """The compressed network of an earlier run, or a new one."""
    path = BUILD / f"{case.network}.{case.recipe}.swc"
    return QuantizedNetwork.load(path) if path.exists() else compressed(case.network, case.recipe, options)


def dense_macs(network: QuantizedNetwork) -> int:
    """Multiply-accumulates of one inference of the uncompressed network."""
    return sum(layer.indices.size * math.prod(layer.target.shape[1:])
               for layer in network.layers if layer.indices is not None)


def shares(compilation: Compilation, found: SimulationResult, images: int) -> dict[str, float]:
    """Utilization figures of the first run."""
    config, cycles = compilation.image.config, np.array(found.layer_cycles[0])
    program = read_image(compilation.image.to_bytes())
    predicted = predict(compilation.image, images)
    conv_cycles = conv_products = conv_terms = dense_cycles = dense_codewords = products = 0
    for number, (layer, streams) in enumerate(zip(program.layers, statistics(program), strict=True)):
        done = sum(stream.products for stream in streams) * images
        products += done
        if Flag.BATCH in layer.flags:
            dense_codewords += sum(stream.codewords for stream in streams)
            dense_cycles += int(cycles[number]) - predicted[number].load
        elif Flag.SHARED_ROW not in layer.flags and layer.channels > 1:
            conv_products += done
            conv_terms += images * sum(stream.terms for stream in streams)
            conv_cycles += int(cycles[number])
    result = {"utilization": round(products / (int(cycles.sum()) * config.lanes * config.streams), 4)}
    if conv_cycles:
        result["conv_utilization"] = round(conv_products / (conv_cycles * config.lanes * config.streams), 4)
        result["issued"] = round(conv_terms / (conv_cycles * config.streams), 4)
    if dense_cycles:
        result["codewords_per_cycle"] = round(dense_codewords / (dense_cycles * config.streams), 4)
    return result


def speed(case: Case, cycles: float, folder: Path) -> dict[str, float]:
    """Inferences a second with the routed clock, if there is one."""
    path = folder / f"rtl.{DEVICE}.{case.config.name}.json"
    routed = json.loads(path.read_text())["figures"] if path.exists() else {}
    if "mhz" not in routed:
        return {}
    rate = routed["mhz"] * 1e6 / cycles
    return {"mhz": routed["mhz"], "inferences_per_second": round(rate, 1),
            "per_1000_lut": round(1000 * rate / routed["lut_equivalents"], 2)}


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Run a case: its full result."""
    network = quantized(case, options)
    compilation = compile_detailed(network, case.config)
    image, batch = compilation.image, case.config.lanes if case.batch else 1
    test = load(network.metadata["dataset"], split="test", data_dir=options.data_dir).take(
        options.images or case.images)
    inputs = network.quantize_input(test.images / PIXEL_SCALE)
    expected = golden.run(compilation.network, inputs, layers=True)
    found = simulate(image, inputs, expected=expected, seed=options.seed, batch=batch, timeout=3 * 3600)
    full = found.cycles[:len(inputs) // batch]
    # Only the writing of the counters at the end of a layer waits up to some cycles, depending on when it comes.
    if max(full) - min(full) > JITTER * len(image.layers):
        raise SystemExit(f"{case.key}: the cycles depend on the image: {found.cycles}")
    cycles = full[0]
    expectation = compilation.cycles if batch == 1 else batch_cycles(image, batch)
    counted = found.counters[0]
    return {
        **record.provenance(options.seed, (*PACKAGES, "amaranth", "cocotb"),
                            {"verilator": require("verilator").version}),
        "config": image.config.to_dict(),
        "dataset": network.metadata["dataset"],
        "network_accuracy": network.metadata.get("accuracy"),
        "image_bytes": compilation.size,
        "build_seconds": round(found.build_seconds, 1),
        "values_compared": found.values,
        "layers": {name: {"cycles": simulated, "predicted_cycles": predicted.total * batch_runs(layer, batch),
                          **{counter.name.lower(): int(counted[number, counter]) for counter in Counter}}
                   for number, (name, layer, predicted, simulated) in enumerate(zip(
                       found.layers, image.layers, predict(image, batch), found.layer_cycles[0], strict=True))},
        "figures": {
            "cycles": cycles, "predicted_cycles": expectation, **({"images": batch} if case.batch else {}),
            **shares(compilation, found, batch), "macs_per_cycle": round(dense_macs(network) * batch / cycles, 2),
            **speed(case, cycles / batch, options.results),
            "images_checked": found.images, "layers_checked": len(found.layers), "bit_exact": True,
            "wall_seconds": round(found.seconds, 1)},
    }


def main(argv: list[str] | None = None) -> int:
    """Measure all cases, or some. Exit code 1 at the first difference, or when a simulation took too long."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="measure only cases whose key holds one of these")
    parser.add_argument("--images", type=int, help="test images (default: the case's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", help="folder that is searched first for data sets")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--results", type=Path, default=record.RESULTS, help="folder to write to")
    options = parser.parse_args(argv)
    options.fresh, options.trained = False, set()
    torch.set_num_threads(options.threads)
    late = False
    for case in CASES:
        if options.only and not any(part in case.key for part in options.only):
            continue
        try:
            result = measure(case, options)
        except ShiftwrightError as error:
            print(f"{case.key}: {error}", file=sys.stderr)
            return error.exit_code
        record.write(case.key, result, options.results)
        print(f"{case.key}: {result['figures']}", flush=True)
        late |= case.network != "resnet20" and not case.batch and result["figures"]["wall_seconds"] > MOST_SECONDS
    if late:
        print(f"a simulation took more than {MOST_SECONDS} s", file=sys.stderr)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
