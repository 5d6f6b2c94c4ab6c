"""Time and memory to compile and pack networks.

The linear layers of AlexNet, 58.6 million weights, in this process: a tenth of the weights, at random, is not 0, of
six values; that compresses to what the largest weight memory holds. ``benchmarks/results/large.alexnet_fc.json`` has
``compile_s`` (processor seconds of this one thread, from the network in memory to the bytes of the image), ``zlib_s``
(of zlib on the same weights, a byte each), ``gib`` (the process's peak, in GiB, the network included), ``bytes`` and
``ratio``.

ResNet-20 and AlexNet with weights as those of ``plan.py``, by ``shiftwright compile`` from file to file:
``large.<network>.json`` has ``compile_s`` and ``gib`` of the whole command, ``most_gib`` (4 times the float network and
1 GiB, which it may take) and ``bytes``. Exit code 1 where one takes more than it may.
"""

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import record
from plan import HOLDS, captured, quantized

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.frontend.trace import count_parameters
from shiftwright.sw.network import Layer, QuantizedNetwork, TensorSpec, Term
from shiftwright.sw.zoo import network_info

SIZES = (9216, 4096, 4096, 1000)
CODEBOOK = ((), *((Term(negative, shift),) for shift in range(3) for negative in (False, True)))
FREQUENCIES = (0.9, 0.03, 0.03, 0.015, 0.015, 0.005, 0.005)
MOST_SECONDS, MOST_GIB = 60.0, 4.0
COMMANDS = {"resnet20": ((0.35, 0.35), 5.0), "alexnet": ((0.1, 0.04), 60.0)}
"""Networks that the command compiles: shares of weights that are not 0, in convolutions and linear layers, and seconds
that it may take."""
ZLIB_LEVEL = 6


def network(seed: int) -> QuantizedNetwork:
    """The linear layers with random weights."""
    rng = np.random.default_rng(seed)
    last = len(SIZES) - 2
    tensors = [TensorSpec(name=f"t{i}", channels=size, height=1, width=1, bits=32 if i > last else 8, signed=i > last,
                          exponent=-8) for i, size in enumerate(SIZES)]
    layers = []
    for i, (source, target) in enumerate(zip(tensors, tensors[1:], strict=False)):
        shape = (target.channels, source.channels, 1, 1)
        raw = i == last
        layers.append(Layer(
            name=f"fc{i + 6}", op="conv", source=source, target=target, kernel=(1, 1),
            indices=rng.choice(len(CODEBOOK), size=shape, p=FREQUENCIES).astype(np.uint8), codebook=CODEBOOK,
            bias=np.zeros(target.channels, np.int64), scale=((Term(False, 0),),) * target.channels,
            shift=np.full(target.channels, 0 if raw else 8, np.int64), qmin=-(1 << 31) if raw else 0,
            qmax=(1 << 31) - 1 if raw else 255, raw=raw))
    return QuantizedNetwork(input=tensors[0], layers=tuple(layers), max_shift=7, guard_bits=7, acc_bits=24,
                            parameters=sum(layer.indices.size for layer in layers if layer.indices is not None),
                            metadata={})


def save_random(name: str, seed: int, path: Path) -> None:
    """Write a network with random weights."""
    quantized(captured(name), COMMANDS[name][0], seed).save(path)


def by_command(name: str, seed: int) -> bool:
    """Compile one network as a user does; whether that took no more than it may."""
    most_seconds = COMMANDS[name][1]
    with tempfile.TemporaryDirectory() as folder:
        source, config, image = (Path(folder, f"{name}{suffix}") for suffix in (".swc", ".toml", ".swi"))
        # In a process of its own: a command's peak is never below that of the process that starts it.
        maker = multiprocessing.get_context("spawn").Process(target=save_random, args=(name, seed, source))
        maker.start()
        maker.join()
        config.write_text("".join(f"{option} = {value}\n" for option, value in HOLDS.changes.items()))
        process = subprocess.Popen([sys.executable, "-m", "shiftwright.sw.cli", "compile", source, "--config", config,
                                    "-o", image], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            sys.exit(os.waitstatus_to_exitcode(status))
        size, parameters = image.stat().st_size, count_parameters(network_info(name).build())
    seconds, gib = used.ru_utime + used.ru_stime, used.ru_maxrss / (1 << 20)
    most_gib = 1 + 4 * 4 * parameters / (1 << 30)
    record.write(f"large.{name}", {
        **record.provenance(seed, ("shiftwright", "numpy")),
        "figures": {"parameters": parameters, "compile_s": round(seconds, 2), "gib": round(gib, 3),
                    "most_gib": round(most_gib, 3), "bytes": size, "seed": seed}})
    print(f"{name}, {parameters:,} parameters: {seconds:.1f} s of {most_seconds:g}, {gib:.2f} GiB of "
          f"{most_gib:.2f}, {size:,} bytes")
    return seconds <= most_seconds and gib <= most_gib


def linear_layers(seed: int) -> bool:
    """Compile AlexNet's linear layers in this process; whether that took no more than it may."""
    made = network(seed)
    config = AcceleratorConfig(weight_depth=1 << 22, act_depth=1 << 14, row_depth=1 << 14)
    start = time.process_time()
    compilation = compile_detailed(made, config)
    size = len(compilation.image.to_bytes())
    compile_s = time.process_time() - start
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    start = time.process_time()
    for layer in made.layers:
        assert layer.indices is not None
        zlib.compress(layer.indices.tobytes(), ZLIB_LEVEL)
    zlib_s = time.process_time() - start
    record.write("large.alexnet_fc", {
        **record.provenance(seed, ("shiftwright", "numpy")),
        "figures": {"weights": made.parameters, "compile_s": round(compile_s, 2), "zlib_s": round(zlib_s, 2),
                    "compile_to_zlib": round(compile_s / zlib_s, 3), "gib": round(gib, 3), "bytes": size,
                    "ratio": round(compilation.ratio, 3), "seed": seed}})
    print(f"{made.parameters:,} weights: {compile_s:.1f} s, {gib:.2f} GiB, {size:,} bytes; zlib {zlib_s:.1f} s")
    return compile_s <= MOST_SECONDS and gib <= MOST_GIB


def main(argv: list[str] | None = None) -> int:
    """Measure all cases, or one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=("alexnet_fc", *COMMANDS), help="only this case")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    held = [by_command(name, options.seed) for name in COMMANDS if options.case in (None, name)]
    if options.case in (None, "alexnet_fc"):
        held.append(linear_layers(options.seed))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
