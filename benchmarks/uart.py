"""The link between host and board, with the host's own code against the simulated hardware.

Each case writes ``benchmarks/results/uart.<case>.json``:

- ``load.<clock>.<baud>``, ``damaged.<clock>.<baud>``: ``efficiency`` of loading 64 KiB into a board, which is payload
  bytes x 10 / (baud x seconds), from the first byte to the verified end; on a clean line, and with one frame in 200
  damaged (loads one after the other). Time is the board's: that of the host's program is not in it. No goal is set for
  1 Mbaud at 12 MHz, where 3 % of the time goes into the check of what was written;
- ``pins``, ``terminal``: trials in which something goes wrong (``faults``), over simulated pins and over a
  pseudo-terminal; how many ``wrong_results`` a host took for right ones, and how many times host or board would not go
  on (``hangs``), crashes of the host among them;
- ``lenet5``: test images of MNIST that the virtual iCEBreaker classified over its pseudo-terminal, and those of them
  whose every output is the golden model's (``right``).

Exit code 1 when a figure misses its goal.
"""

import argparse
import collections
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from compression import BUILD, float_network, recipe_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the random networks of the tests

from shiftwright.boards.registry import get
from shiftwright.hw.arch.link import PAYLOAD_MAX
from shiftwright.sim import golden
from shiftwright.sim.emulator.faults import Trouble
from shiftwright.sim.emulator.model import FAST_CLOCK_HZ, LEAST_CLOCK_HZ, board_model
from shiftwright.sim.emulator.pins import PinsTransport, SimulatedBoard
from shiftwright.sim.emulator.terminals import TERMINAL_KINDS, terminal_trial
from shiftwright.sim.emulator.trials import Outcome, kinds_in_turn, trial
from shiftwright.sim.emulator.virtual import VirtualBoard
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compress import compress
from shiftwright.sw.data import PIXEL_SCALE, load
from shiftwright.sw.device.device import Device
from shiftwright.sw.image import Image
from shiftwright.sw.network import QuantizedNetwork
from shiftwright.sw.tools import require
from tests.workloads import OTHER, SMALL, workload

PAYLOAD_BYTES = 65536
LOADS = 8
EVERY = 200
"""One frame of so many is damaged."""
CLEAN, DAMAGED = 0.93, 0.90
"""What efficiencies must be at least."""
NETWORKS = 24
NARROW = "icebreaker-4bit"
"""The iCEBreaker that has the activations for LeNet-5."""
TRAINING_IMAGES = 20_000
LOADED = SMALL.replace(weight_depth=PAYLOAD_BYTES // 2)

Result = tuple[dict[str, Any], dict[str, Any], bool]
"""Figures, other members, and whether the goal is reached."""


def large_image(seed: int) -> Image:
    """A model of 64 KiB: behind a small network's words come random ones."""
    small = workload(seed, LOADED, inputs=1).image
    rest = np.random.default_rng(seed).integers(0, 1 << 16, PAYLOAD_BYTES // 2 - len(small.words))
    return dataclasses.replace(small, words=np.concatenate([small.words, rest.astype(np.uint16)]))


def efficiency(options: argparse.Namespace, *, clock_hz: int, baud: int, loads: int = 1, damaged: bool = False,
               goal: float = 0.0) -> Result:
    """Load one board after the other."""
    image, model = large_image(options.seed), board_model(LOADED, clock_hz=clock_hz, board="bench")
    frames = PAYLOAD_BYTES // PAYLOAD_MAX
    found = []
    for number in range(loads):
        with SimulatedBoard(model, clock_hz=clock_hz, seed=options.seed + number) as board:
            transport = PinsTransport(board)
            device = Device(transport, baud=baud)
            device.identify()
            started = transport.now()
            for frame in range(number * frames, (number + 1) * frames):
                if damaged and frame % EVERY == EVERY // 2:
                    # A byte in the middle of the frame is held low, stop bit and all.
                    after = int((frame % frames + 0.5) * image.words.nbytes * 1.03 / frames)
                    board.trouble(Trouble.LOW, after=after, seconds=11 / baud)
            result = device.load(image)
            found.append((started + result.seconds, result))
    seconds = sum(each for each, _ in found)
    share = loads * PAYLOAD_BYTES * 10 / (baud * seconds)
    figures = {"efficiency": round(share, 4), "baud": baud, "clock_hz": clock_hz, "bytes": loads * PAYLOAD_BYTES,
               "seconds": round(seconds, 4), "retries": sum(result.retries for _, result in found),
               "damaged_frames": sum(result.damaged for _, result in found)}
    return figures, {"config": LOADED.to_dict()}, share >= goal


def summed(outcomes: list[Outcome]) -> Result:
    """The figures of many trials."""
    wrong, failures = sum(outcome.wrong for outcome in outcomes), sum(len(outcome.failures) for outcome in outcomes)
    errors: dict[str, int] = collections.Counter()
    for outcome in outcomes:
        errors.update(error.partition(":")[0] for error in outcome.errors)
    kinds = {kind: {"faults": len(of), "loads": sum(outcome.loads for outcome in of),
                    "results": sum(outcome.results for outcome in of),
                    "errors": sum(len(outcome.errors) for outcome in of)}
             for kind in dict.fromkeys(outcome.kind for outcome in outcomes)
             if (of := [outcome for outcome in outcomes if outcome.kind == kind])}
    figures = {"faults": len(outcomes), "loads": sum(outcome.loads for outcome in outcomes),
               "results": sum(outcome.results for outcome in outcomes),
               "errors": sum(len(outcome.errors) for outcome in outcomes), "wrong_results": wrong, "hangs": failures}
    said = {"kinds": kinds, "errors": dict(errors),
            "failures": [f"{outcome.kind}: {failure}" for outcome in outcomes for failure in outcome.failures],
            "notes": "loads: verified; results: right ones, of hosts that met the trouble; errors: hosts that ended in "
                     "a clear error; after each trial over pins, a new host got right results from the same board"}
    return figures, said, not wrong and not failures


def pins(options: argparse.Namespace) -> Result:
    """Trials over simulated pins."""
    model = board_model(SMALL, clock_hz=LEAST_CLOCK_HZ, board="bench")
    mine = [workload(options.seed + number) for number in range(NETWORKS)]
    foreign = workload(options.seed, OTHER)
    outcomes = []
    for number, kind in enumerate(kinds_in_turn(options.cases)):
        outcomes.append(trial(kind, model, mine[number % NETWORKS], mine[(number + 7) % NETWORKS], foreign,
                              seed=options.seed + number))
        show(number, outcomes[-1])
    return summed(outcomes)


def terminal(options: argparse.Namespace) -> Result:
    """Trials over the pseudo-terminal."""
    model = board_model(SMALL, clock_hz=FAST_CLOCK_HZ, board="bench")
    mine = [workload(options.seed + number) for number in range(NETWORKS)]
    foreign = workload(options.seed, OTHER)
    kinds = list(TERMINAL_KINDS)
    outcomes = []
    for number in range(options.terminal_cases):
        outcomes.append(terminal_trial(kinds[number % len(kinds)], model, mine[number % NETWORKS], foreign,
                                       seed=options.seed + number))
        show(number, outcomes[-1])
    return summed(outcomes)


def show(number: int, outcome: Outcome) -> None:
    """Tell what went wrong, and now and then how far it is."""
    if outcome.wrong or outcome.failures:
        print(f"trial {number}, {outcome.kind}: wrong {outcome.wrong}, {outcome.failures}", flush=True)
    if number % 100 == 99:
        print(f"{number + 1} trials", flush=True)


def narrow_lenet5(options: argparse.Namespace) -> QuantizedNetwork:
    """LeNet-5 with activations of 4 bits, that of an earlier run or a new one."""
    path = BUILD / "lenet5.bqnet-narrow.swc"
    if not path.exists():
        torch.set_num_threads(options.threads)
        module = float_network("lenet5", options).module
        images = load("mnist", split="train", data_dir=options.data_dir).take(TRAINING_IMAGES)
        recipe = recipe_of("bqnet").replace(act_bits=get(NARROW).config.act_bits, raw_output=False, epochs=2)
        compress(module, recipe, images, seed=options.seed).save(path)
    return QuantizedNetwork.load(path)


def lenet5(options: argparse.Namespace) -> Result:
    """LeNet-5 on the virtual iCEBreaker, through the host's serial port."""
    board = get(NARROW)
    config = board.config
    network = narrow_lenet5(options)
    compilation = compile_detailed(network, config)
    test = load("mnist", split="test", data_dir=options.data_dir).take(options.images)
    inputs = network.quantize_input(test.images / PIXEL_SCALE)
    expected = golden.run(compilation.network, inputs)
    started = time.monotonic()
    right = hits = 0
    with VirtualBoard(config, clock_hz=round(board.clock_mhz * 1e6), board=board.name, fast=True) as virtual, \
            Device.open(virtual.port) as device:
        loaded = device.load(compilation.image)
        for found, wanted, label in zip(device.infer(compilation.image, inputs), expected, test.labels, strict=True):
            right += bool(np.array_equal(found, wanted))
            hits += int(found.argmax()) == int(label)
        cycles = device.cycles()
    seconds = time.monotonic() - started
    assert virtual.usage is not None
    figures = {"images": len(inputs), "right": right, "wrong_results": len(inputs) - right,
               "accuracy": round(hits / len(inputs), 4), "bytes": loaded.bytes, "cycles": cycles,
               "wall_seconds": round(seconds, 1), "simulated_cycles": virtual.usage.simulated,
               "cycles_per_second": round(virtual.usage.simulated / virtual.usage.seconds)}
    members = {"config": config.to_dict(), "options": network.metadata["options"],
               "notes": "LeNet-5's first map has 11,520 activations: with 4 bits each they fit the device's block RAM"}
    return figures, members, right == len(inputs)


CASES: dict[str, Callable[[argparse.Namespace], Result]] = {
    "load.12mhz.115200": lambda options: efficiency(options, clock_hz=12_000_000, baud=115_200, goal=CLEAN),
    "load.12mhz.500000": lambda options: efficiency(options, clock_hz=12_000_000, baud=500_000, goal=CLEAN),
    "load.12mhz.1000000": lambda options: efficiency(options, clock_hz=12_000_000, baud=1_000_000),
    "load.48mhz.1000000": lambda options: efficiency(options, clock_hz=48_000_000, baud=1_000_000, goal=CLEAN),
    "damaged.12mhz.500000": lambda options: efficiency(options, clock_hz=12_000_000, baud=500_000, loads=LOADS,
                                                       damaged=True, goal=DAMAGED),
    "lenet5": lenet5,
    "terminal": terminal,
    "pins": pins,
}


def main(argv: list[str] | None = None) -> int:
    """Measure all cases, or some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="measure only cases whose name holds one of these")
    parser.add_argument("--cases", type=int, default=2002, help="trials over simulated pins (default 2002)")
    parser.add_argument("--terminal-cases", type=int, default=56, help="trials over a pseudo-terminal (default 56)")
    parser.add_argument("--images", type=int, default=100, help="images of LeNet-5 (default 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", help="folder that is searched first for data sets")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--results", type=Path, default=record.RESULTS, help="folder to write to")
    options = parser.parse_args(argv)
    options.fresh, options.trained = False, set()
    missed = False
    for name, measure in CASES.items():
        if options.only and not any(part in name for part in options.only):
            continue
        figures, members, reached = measure(options)
        record.write(f"uart.{name}", {
            "case": f"uart.{name}", "figures": figures, **members,
            **record.provenance(options.seed, ["numpy", "amaranth"], {"verilator": require("verilator").version})},
            options.results)
        print(f"uart.{name}: {figures}{'' if reached else ' MISSED'}", flush=True)
        missed |= not reached
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
