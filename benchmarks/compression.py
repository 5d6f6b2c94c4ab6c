"""Accuracy and size of compressed networks: train in float, compress, compile, evaluate the integer golden model.

Each case writes ``benchmarks/results/compression.<network>.<recipe>.json`` with the figures ``float_accuracy``,
``accuracy`` (both on the whole test split), ``bytes`` (of the whole image file), ``ratio`` (float32 bytes of the
original parameters over ``bytes``), ``bits_per_weight`` and ``seed``. A case of several seeds trains and compresses so
many float networks, from ``seed`` on; its figures are means, and ``runs`` has those of each. Checkpoints, compressed
networks and images stay in ``build/compression``; a float checkpoint there is taken again unless ``--fresh`` is given.
Exit code 1 when a case misses its least accuracy or ratio.
"""

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any

import record
import torch

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ShiftwrightError
from shiftwright.sim import golden
from shiftwright.sw import train
from shiftwright.sw.compiler.compile import compile_
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.recipe import Recipe, load_recipe
from shiftwright.sw.data import load
from shiftwright.sw.network import QuantizedNetwork
from shiftwright.sw.zoo import network_info

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "compression"
PACKAGES = ("shiftwright", "torch", "numpy", "scikit-learn")


@dataclasses.dataclass(frozen=True)
class Case:
    """One network with one recipe file of ``examples/``, and what it must reach in the mean of its seeds."""

    network: str
    recipe: str
    accuracy: float
    ratio: float
    seeds: int = 1


CASES = (
    Case("digits", "bqnet", 0.97, 1.0),  # 3,890 parameters: the headers weigh a third of the image
    Case("lenet300", "bqnet", 0.98, 10.0),
    Case("lenet5", "bqnet", 0.994, 14.0, seeds=3),
    Case("lenet300", "bqnet-literal", 0.98, 10.0),
    Case("lenet5", "bqnet-ternary", 0.99, 10.0),
    Case("lenet300", "bqnet-pruned", 0.984, 40.0),
    Case("lenet300", "best-lenet300", 0.984, 80.0, seeds=3),
    Case("lenet300", "best-lenet300-small", 0.98, 115.0, seeds=3),
    Case("lenet5", "best-lenet5", 0.992, 130.0, seeds=3),
    Case("resnet20", "bqnet-cifar", 0.85, 7.0),
    Case("resnet20", "bqnet-cifar-pruned", 0.8, 12.0),
    Case("lenet300", "ptq-mnist", 0.984, 24.0),
    Case("lenet5", "ptq-mnist", 0.99, 39.0),
    Case("resnet20", "ptq", 0.9123, 9.0),
    Case("resnet20", "best-resnet20", 0.9073, 20.0),
    Case("resnet32", "best-resnet32", 0.921, 24.0),
    Case("lenet300", "deepcompression-lenet300", 0.9842, 40.0),
    Case("lenet5", "deepcompression-lenet5", 0.9926, 39.0),
    Case("lenet300", "pq-lenet300", 0.9842, 38.0),
    Case("lenet300", "som-lenet300", 0.9842, 38.0),
    Case("lenet300", "inq-lenet300", 0.984, 9.5),
    Case("lenet300", "slq-lenet300", 0.984, 8.5),
    Case("lenet300", "mlq-lenet300", 0.97, 20.0),
    Case("lenet300", "seq-lenet300", 0.98, 14.0),
    Case("lenet300", "lowbit-lenet300", 0.96, 10.0),
    Case("lenet5", "ecsq-lenet5", 0.9928, 51.0),
    Case("lenet5", "universal-lenet5", 0.99, 125.0),
    Case("lenet300", "soft2hard-lenet300", 0.984, 19.2),
)
PRETRAINED = {"resnet20": "resnet20-12fca82f.th", "resnet32": "resnet32-d509ac18.th"}
"""Float networks that are not trained here: their checkpoints, in a folder ``pretrained`` beside the data sets."""


def show(epoch: int, epochs: int, loss: float) -> None:
    """Progress of a training, on standard error."""
    print(f"  epoch {epoch}/{epochs}: loss {loss:.4f}", file=sys.stderr, flush=True)


def float_network(name: str, options: argparse.Namespace, seed: int | None = None) -> train.Checkpoint:
    """The trained float network: the checkpoint of an earlier case or run, or a new one."""
    seed = options.seed if seed is None or name in PRETRAINED else seed
    path = BUILD / f"{name}.seed{seed}.safetensors"
    if path.exists() and (not options.fresh or (name, seed) in options.trained):
        return train.load_checkpoint(path)
    info = network_info(name)
    images, test = (load(info.dataset, split=split, data_dir=options.data_dir) for split in ("train", "test"))
    if name in PRETRAINED:
        folder = options.data_dir or os.environ.get("SHIFTWRIGHT_DATA", ".")
        module = train.load_weights(name, Path(folder) / "pretrained" / PRETRAINED[name])
        accuracy = train.accuracy(module, test)
    else:
        print(f"train {name}", file=sys.stderr)
        module, accuracy = train.train(name, images, test=test, seed=seed, progress=show)
    checkpoint = train.Checkpoint(module, name, info.dataset, accuracy, info.epochs, seed,
                                  train.count_parameters(module))
    train.save_checkpoint(path, checkpoint)
    options.trained.add((name, seed))
    return checkpoint


def configuration(recipe: Recipe) -> AcceleratorConfig:
    """The default accelerator, with memory for the largest image and the recipe's arithmetic."""
    return AcceleratorConfig(weight_depth=1 << 17, act_depth=8192, guard_bits=getattr(recipe, "guard_bits", None))


def kept_path(name: str, recipe_name: str, options: argparse.Namespace, seed: int) -> Path:
    """Where a compressed network is kept."""
    return BUILD / f"{name}.{recipe_name}{'' if seed == options.seed else f'.seed{seed}'}.swc"


def compressed(name: str, recipe_name: str, options: argparse.Namespace, seed: int | None = None) -> QuantizedNetwork:
    """Compress a trained network by a recipe of ``examples/``, measure its accuracy, keep it in the build folder."""
    seed = options.seed if seed is None else seed
    checkpoint = float_network(name, options, seed)
    images, test = (load(checkpoint.dataset, split=split, data_dir=options.data_dir) for split in ("train", "test"))
    print(f"compress {name} by {recipe_name}, seed {seed}", file=sys.stderr)
    network = compress(checkpoint.module, recipe_of(recipe_name), images, seed=seed, progress=show)
    network = dataclasses.replace(network, metadata={
        **network.metadata, "network": name, "dataset": checkpoint.dataset, "test_images": len(test),
        "float_accuracy": checkpoint.float_accuracy, "accuracy": golden.accuracy(network, test)})
    network.save(kept_path(name, recipe_name, options, seed))
    return network


def recipe_of(name: str) -> Recipe:
    """A recipe of ``examples/``."""
    return load_recipe(file=ROOT / "examples" / f"{name}.toml")


def run(case: Case, seed: int, options: argparse.Namespace) -> tuple[QuantizedNetwork, dict[str, Any], bool]:
    """One seed of a case: the network, its figures, and whether it is one of an earlier run."""
    path = kept_path(case.network, case.recipe, options, seed)
    kept = options.kept and path.exists()
    network = QuantizedNetwork.load(path) if kept else compressed(case.network, case.recipe, options, seed)
    if kept:
        test = load(network.metadata["dataset"], split="test", data_dir=options.data_dir)
        found = {"accuracy": golden.accuracy(network, test), "test_images": len(test), **(
            {} if "float_accuracy" in network.metadata else
            {"float_accuracy": float_network(case.network, options, seed).float_accuracy})}
        network = dataclasses.replace(network, metadata={**network.metadata, **found})
    image = compile_(network, configuration(recipe_of(case.recipe)))
    image.save(path.with_suffix(".swi"))
    size = len(image.to_bytes())
    return network, {
        "float_accuracy": network.metadata["float_accuracy"], "accuracy": network.metadata["accuracy"],
        "bytes": size, "ratio": round(4 * network.parameters / size, 4),
        "bits_per_weight": round(8 * size / network.parameters, 4), "seed": seed}, kept


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Run a case; the full result."""
    start, cpu = time.perf_counter(), time.process_time()
    found = [run(case, options.seed + number, options) for number in range(case.seeds)]
    network, figures, kept = found[0]
    runs = [each for _, each, _ in found]
    if len(runs) > 1:
        figures = {name: round(sum(each[name] for each in runs) / len(runs), 4) for name in figures}
        figures |= {"bytes": round(figures["bytes"]), "seed": options.seed}
    return {
        **record.provenance(options.seed, PACKAGES),
        "threads": torch.get_num_threads(),
        "wall_seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "kept": kept,
        "options": network.metadata["options"],
        "dataset": network.metadata["dataset"],
        "test_images": network.metadata["test_images"],
        "parameters": network.parameters,
        **{name: network.metadata[name] for name in ("published_form",) if name in network.metadata},
        **({"runs": runs} if len(runs) > 1 else {}),
        "figures": figures,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure all cases, or those of one network or recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", help="only this network")
    parser.add_argument("--recipe", help="only this recipe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", help="folder that is searched first for data sets")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--kept", action="store_true",
                        help="measure the compressed networks of an earlier run, as the results then tell")
    parser.add_argument("--fresh", action="store_true", help="train the float networks anew")
    options = parser.parse_args(argv)
    options.trained = set()
    torch.set_num_threads(options.threads)
    missed = []
    for case in CASES:
        if options.network not in (None, case.network) or options.recipe not in (None, case.recipe):
            continue
        try:
            result = measure(case, options)
        except ShiftwrightError as error:
            print(f"{case.network}, {case.recipe}: {error}", file=sys.stderr)
            return error.exit_code
        name = f"compression.{case.network}.{case.recipe}"
        record.write(name, result)
        figures = result["figures"]
        print(f"{name}: float {figures['float_accuracy']:.4f}, integer {figures['accuracy']:.4f}, "
              f"{figures['bytes']} bytes, {figures['ratio']:.2f}x, {figures['bits_per_weight']:.3f} bits a weight, "
              f"{result['wall_seconds']} s", flush=True)
        if figures["accuracy"] < case.accuracy or figures["ratio"] < case.ratio:
            missed.append(f"{name}: needs an accuracy of {case.accuracy} and a ratio of {case.ratio}")
    print("\n".join(missed), file=sys.stderr, end="\n" if missed else "")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
