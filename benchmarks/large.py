"""Time and memory to compile and pack a network of 58.6 million weights: the linear layers of AlexNet.

A tenth of the weights, at random, are not 0, of six values; that compresses to what the largest weight memory holds.
Writes ``benchmarks/results/large.<case>.json`` with ``compile_s`` (processor seconds of this one thread, from the
network in memory to the bytes of the image), ``zlib_s`` (of zlib on the same weights, a byte each), ``gib`` (the
process's peak, in GiB, the network included), ``bytes`` and ``ratio``. Exit code 1 beyond 60 s or 4 GiB.
"""

import argparse
import resource
import sys
import time
import zlib

import numpy as np
import record

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.network import Layer, QuantizedNetwork, TensorSpec, Term

SIZES = (9216, 4096, 4096, 1000)
CODEBOOK = ((), *((Term(negative, shift),) for shift in range(3) for negative in (False, True)))
FREQUENCIES = (0.9, 0.03, 0.03, 0.015, 0.015, 0.005, 0.005)
MOST_SECONDS, MOST_GIB = 60.0, 4.0
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


def main(argv: list[str] | None = None) -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    made = network(options.seed)
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
        **record.provenance(options.seed, ("shiftwright", "numpy")),
        "figures": {"weights": made.parameters, "compile_s": round(compile_s, 2), "zlib_s": round(zlib_s, 2),
                    "compile_to_zlib": round(compile_s / zlib_s, 3), "gib": round(gib, 3), "bytes": size,
                    "ratio": round(compilation.ratio, 3), "seed": options.seed}})
    print(f"{made.parameters:,} weights: {compile_s:.1f} s, {gib:.2f} GiB, {size:,} bytes; zlib {zlib_s:.1f} s")
    return 1 if compile_s > MOST_SECONDS or gib > MOST_GIB else 0


if __name__ == "__main__":
    sys.exit(main())
