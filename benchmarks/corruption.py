"""Random damage to model memories of the simulated accelerator: what became of each, and that none hangs.

Writes ``benchmarks/results/verify.corruption.json``. Exit code 1 when a run did not end, or the sound model did not run
bit-exactly afterwards.
"""

import argparse
import sys
from pathlib import Path

import record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the random networks of the tests

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sim.corruption import DAMAGE, PATIENCE, corruption
from shiftwright.sw.tools import require
from tests.networks import random_images, random_network

CONFIG = AcceleratorConfig(lanes_y=4, lanes_x=2, streams=2, weight_depth=4096, act_depth=512)


def main() -> int:
    """Run the cases and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="damaged models (default 1000)")
    parser.add_argument("--networks", type=int, default=6, help="random networks that are damaged in turn (default 6)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=record.RESULTS, help="folder to write to")
    arguments = parser.parse_args()
    if arguments.cases < 1 or arguments.networks < 1:
        parser.error("--cases and --networks must be at least 1")
    networks = [random_network(arguments.seed + n, CONFIG, size=7) for n in range(arguments.networks)]
    inputs = [random_images(network, 1, arguments.seed)[0] for network in networks]
    found = corruption(CONFIG, networks, inputs, cases=arguments.cases, seed=arguments.seed)
    figures = {
        "run": found.run, "passed": found.passed, "hangs": found.hangs, "ended": found.ended, "aborted": found.aborted,
        "recovered": found.recovered, "unchanged": found.unchanged, "longest_run_cycles": found.cycles,
        "status": {name.lower(): count for name, count in found.status.items()},
    }
    result = {
        "case": "verify.corruption",
        "figures": figures,
        "kinds": list(DAMAGE),
        "notes": "ended: by itself within the damaged model's own watchdog bound; aborted: allowed more than "
                 f"{PATIENCE} cycles by a damaged watchdog word, and ended by the host; recovered: the sound model ran "
                 "bit-exactly afterwards, without a reset; unchanged: ended OK with the sound model's output",
        "failures": list(found.failures),
        "config": CONFIG.to_dict(),
        **record.provenance(arguments.seed, ["numpy"], {"verilator": require("verilator").version}),
    }
    record.write("verify.corruption", result, arguments.results)
    print(f"verify.corruption: {found.passed} of {found.run} passed, {found.hangs} hangs, statuses {found.status}, "
          f"longest run {found.cycles} cycles, {found.seconds:.0f} s")
    for failure in found.failures:
        print(failure)
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
