"""Speed of the Huffman codec on one core, next to zlib on the same symbols.

Writes ``benchmarks/results/codec.<case>.json`` for each case. A symbol is one byte for zlib. Every time is the least of
a few runs, in this one process and thread, in seconds of its processor time, so that other programs on the machine
disturb it little. What was decoded is compared with what was encoded.
"""

import argparse
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record

from shiftwright.sw.codec.bitstream import decode, encode
from shiftwright.sw.codec.huffman import CanonicalCode, code_lengths

CASES = {
    # Probabilities fall like those of the levels of a trained power-of-two layer, or of a pruned ternary one.
    "pow2_16": (0.7 ** np.arange(16), 12),
    "ternary_4": (np.array([0.5, 0.3, 0.1, 0.1]), 12),
    "wide_256": (0.97 ** np.arange(256), 12),
}
"""Relative frequencies of the symbols, most frequent first, and the longest codeword in bits."""
ZLIB_LEVEL = 6


def least_time(work: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Processor seconds of the fastest of some runs, and what the work returned."""
    times = []
    for _ in range(runs):
        begin = time.process_time()
        result = work()
        times.append(time.process_time() - begin)
    return min(times), result


def measure(case: str, count: int, seed: int, runs: int) -> dict[str, float]:
    """Figures of one case."""
    frequencies, max_len = CASES[case]
    rng = np.random.default_rng(seed)
    symbols = rng.choice(frequencies.size, size=count, p=frequencies / frequencies.sum()).astype(np.uint8)
    lengths = np.sort(code_lengths(np.maximum(np.bincount(symbols, minlength=frequencies.size), 1), max_len))
    code = CanonicalCode(lengths)
    raw = symbols.tobytes()

    encode_s, words = least_time(lambda: encode(symbols, code), runs)
    decode_s, decoded = least_time(lambda: decode(words, code, count), runs)
    zlib_encode_s, packed = least_time(lambda: zlib.compress(raw, ZLIB_LEVEL), 1)
    zlib_decode_s, unpacked = least_time(lambda: zlib.decompress(packed), runs)
    if not np.array_equal(decoded, symbols) or unpacked != raw:
        raise SystemExit(f"codec.{case}: the decoded symbols differ from the encoded ones")
    rate = count / 1e6
    return {
        "encode_msymbols_s": round(rate / encode_s, 2),
        "decode_msymbols_s": round(rate / decode_s, 2),
        "zlib_encode_msymbols_s": round(rate / zlib_encode_s, 2),
        "zlib_decode_msymbols_s": round(rate / zlib_decode_s, 2),
        "encode_over_zlib": round(zlib_encode_s / encode_s, 3),
        "decode_over_zlib": round(zlib_decode_s / decode_s, 3),
        "bits_per_symbol": round(16 * words.size / count, 4),
        "zlib_bits_per_symbol": round(8 * len(packed) / count, 4),
        "symbols": count,
    }


def main() -> None:
    """Measure the cases and write their results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--symbols", type=int, default=10_000_000, help="symbols a case (default 10,000,000)")
    parser.add_argument("--runs", type=int, default=5, help="runs, of which the fastest counts (default 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=record.RESULTS, help="folder to write to")
    arguments = parser.parse_args()
    for case in arguments.cases:
        if case not in CASES:
            parser.error(f"unknown case {case!r}; known are {', '.join(CASES)}")
    if arguments.symbols < 1 or arguments.runs < 1:
        parser.error("--symbols and --runs must be at least 1")
    for case in arguments.cases or CASES:
        figures = measure(case, arguments.symbols, arguments.seed, arguments.runs)
        result = {
            "case": f"codec.{case}",
            "figures": figures,
            "baseline": f"zlib {zlib.ZLIB_RUNTIME_VERSION}, level {ZLIB_LEVEL}, one byte a symbol, same process",
            "clock": "processor time of one thread",
            **record.provenance(arguments.seed, ["numpy"], {"zlib": zlib.ZLIB_RUNTIME_VERSION}),
        }
        record.write(f"codec.{case}", result, arguments.results)
        print(f"codec.{case}: encode {figures['encode_msymbols_s']:.1f} M symbols/s, "
              f"decode {figures['decode_msymbols_s']:.1f} M symbols/s, {figures['bits_per_symbol']:.3f} bits a symbol "
              f"(zlib: {figures['zlib_encode_msymbols_s']:.1f}, {figures['zlib_decode_msymbols_s']:.1f}, "
              f"{figures['zlib_bits_per_symbol']:.3f})")


if __name__ == "__main__":
    main()
