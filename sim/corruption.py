"""Damage the model memory at random and see that the accelerator never hangs, and is as good as new afterwards.

A case is a compiled network's words with some damage. Whatever the damage is, a run must end by itself within the bound
that the damaged descriptors state (:func:`cycle_bound`), with a status; then the sound model must run bit-exactly,
without a reset in between.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ..hw.arch.bus import Status
from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import ModelError
from ..hw.arch.image import (
    DESCRIPTOR,
    DESCRIPTOR_TAG,
    DESCRIPTOR_WORDS,
    HEADER_WORDS,
    KEPT_AT,
    LENGTH_WORDS,
    MODEL_MAGIC,
    POSITION_WORDS,
    WATCHDOG_UNIT,
    Flag,
)
from ..sw.compiler.compile import compile_
from ..sw.image import Image
from ..sw.network import QuantizedNetwork
from .runner import build, run
from .simulate import accelerator_model_spec

__all__ = ["DAMAGE", "CorruptionResult", "corrupt", "corruption", "cycle_bound"]

PATIENCE = 200_000
"""Cycles after which a run is aborted by the host although its damaged descriptors allow it more."""
OVERHEAD = 256
"""Cycles of a layer beside loading and running: state changes, memory latency, the drain's last writes."""


def _flip(rng: np.random.Generator, words: np.ndarray, count: int) -> None:
    for at in rng.integers(len(words), size=count):
        words[at] ^= np.uint16(1 << int(rng.integers(16)))


def _block(rng: np.random.Generator, words: np.ndarray) -> slice:
    size = int(rng.integers(1, max(2, len(words) // 4)))
    start = int(rng.integers(len(words) - size + 1))
    return slice(start, start + size)


def _swap(rng: np.random.Generator, words: np.ndarray) -> None:
    half = len(words) // 2
    size = int(rng.integers(1, half))
    first, second = int(rng.integers(half - size + 1)), int(rng.integers(half, len(words) - size + 1))
    words[first:first + size], words[second:second + size] = (
        words[second:second + size].copy(), words[first:first + size].copy())


def _fill(rng: np.random.Generator, words: np.ndarray, values: Callable[[int], np.ndarray]) -> None:
    block = _block(rng, words)
    words[block] = values(block.stop - block.start)


def _truncate(rng: np.random.Generator, words: np.ndarray, *, told: bool) -> None:
    size = int(rng.integers(HEADER_WORDS, len(words)))
    words[size:] = rng.choice([0, 0xFFFF])
    if told:
        words[2:4] = size & 0xFFFF, size >> 16


def _shift(rng: np.random.Generator, words: np.ndarray) -> None:
    at = int(rng.integers(HEADER_WORDS, len(words)))
    words[at:] = np.roll(words[at:], int(rng.choice([-1, 1])))


DAMAGE: dict[str, Callable[[np.random.Generator, np.ndarray], None]] = {
    "one bit": lambda rng, words: _flip(rng, words, 1),
    "one bit of the descriptors": lambda rng, words: _flip(rng, words[:HEADER_WORDS + DESCRIPTOR_WORDS], 1),
    "several bits": lambda rng, words: _flip(rng, words, int(rng.integers(2, 33))),
    "one word": lambda rng, words: words.__setitem__(int(rng.integers(len(words))), rng.integers(1 << 16)),
    "random block": lambda rng, words: _fill(rng, words, lambda size: rng.integers(1 << 16, size=size)),
    "zero block": lambda rng, words: _fill(rng, words, lambda size: np.zeros(size)),
    "block of ones": lambda rng, words: _fill(rng, words, lambda size: np.full(size, 0xFFFF)),
    "swapped blocks": _swap,
    "lost or doubled word": _shift,
    "truncated": lambda rng, words: _truncate(rng, words, told=False),
    "truncated, header tells": lambda rng, words: _truncate(rng, words, told=True),
}
"""Kinds of damage, each a function that changes words in place."""


def corrupt(words: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A damaged copy of ``words``, different from them."""
    if kind not in DAMAGE:
        raise ModelError(f"the kind of damage must be one of {', '.join(DAMAGE)}, not {kind!r}")
    while True:
        damaged = words.copy()
        DAMAGE[kind](rng, damaged)
        if not np.array_equal(damaged, words):
            return damaged


def cycle_bound(memory: np.ndarray, config: AcceleratorConfig) -> int:
    """Cycles within which any run of a model memory must end, by its own watchdog words.

    Parameters
    ----------
    memory : integer array (depth,)
        The whole model memory; its size is a power of two.
    config : AcceleratorConfig
        Of the accelerator.
    """
    depth = len(memory)
    bound, at = OVERHEAD, HEADER_WORDS
    total = int(memory[2]) | int(memory[3]) << 16
    if int(memory[0]) != MODEL_MAGIC:
        return bound
    for _ in range(int(memory[1])):
        if at + DESCRIPTOR_WORDS > total:
            return bound
        fields = dict(zip(DESCRIPTOR, (int(memory[(at + n) % depth]) for n in range(DESCRIPTOR_WORDS)), strict=True))
        bound += DESCRIPTOR_WORDS + OVERHEAD
        if fields["tag_flags"] >> 12 != DESCRIPTOR_TAG:
            return bound
        at += DESCRIPTOR_WORDS
        lengths = [int(memory[(at + n) % depth]) for n in range(LENGTH_WORDS * config.streams)]
        positions = fields["positions"] & (1 << KEPT_AT) - 1
        codes = 0 if fields["tag_flags"] & Flag.SAME_CODE else config.max_code_bits
        loaded = len(lengths) + POSITION_WORDS * positions + codes + fields["dict_words"]
        bound += min(loaded, total) + (fields["watchdog"] + 1) * WATCHDOG_UNIT
        at += loaded + sum(low | high << 16 for low, high in zip(lengths[::2], lengths[1::2], strict=True))
        if at > total:
            return bound
    return bound


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptionResult:
    """What became of the cases.

    Parameters
    ----------
    run, ended, aborted, hangs : int
        Cases; those whose run ended by itself within its bound; those with so generous a watchdog that the host ended
        them after :data:`PATIENCE` cycles, successfully; those that did neither.
    recovered : int
        Cases after which the sound model ran bit-exactly.
    status : dict of str to int
        Cases by the status of their end (:class:`~shiftwright.hw.arch.bus.Status`).
    unchanged : int
        Cases that ended with status OK and the sound model's output: the damage did not matter.
    cycles : int
        Longest run, in cycles.
    failures : tuple of str
        What each hanging or unrecovered case was.
    seconds : float
        Wall-clock time of the simulation.
    """

    run: int
    ended: int
    aborted: int
    hangs: int
    recovered: int
    status: dict[str, int]
    unchanged: int
    cycles: int
    failures: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> int:
        """Cases without a failure."""
        return self.run - len(self.failures)


def corruption(config: AcceleratorConfig, networks: Sequence[QuantizedNetwork], inputs: Sequence[np.ndarray], *,
               cases: int, seed: int, timeout: float = 3600.0) -> CorruptionResult:
    """Run damaged models on the simulated accelerator (Verilator), each followed by the sound one.

    Parameters
    ----------
    config : AcceleratorConfig
        ``weight_depth`` must be a power of two.
    networks : sequence of QuantizedNetwork
        Small networks; the cases take turns among them and among the kinds of :data:`DAMAGE`.
    inputs : sequence of integer array (C, H, W)
        An image for each.
    cases : int
        Number of damaged models.
    seed : int
        Names all random choices.
    timeout : float
        Seconds of wall-clock time.

    Raises
    ------
    ModelError
        If an argument breaks its rule, or a network does not fit ``config``.
    ToolError
        If a tool is missing or fails.
    """
    from . import golden

    depth = config.weight_depth
    if not networks or len(networks) != len(inputs) or cases < 1 or depth & (depth - 1):
        raise ModelError(f"corruption needs networks with an input each, at least one case and a weight_depth that is "
                         f"a power of two, not {len(networks)} networks, {len(inputs)} inputs, {cases} cases and "
                         f"{depth}")
    rng = np.random.default_rng(seed)
    images: list[Image] = [compile_(network, config) for network in networks]
    data: dict[str, object] = {"images": len(images), "patience": PATIENCE}
    for number, (network, image, x) in enumerate(zip(networks, images, inputs, strict=True)):
        data[f"image_{number}"] = np.frombuffer(image.to_bytes(), np.uint8)
        data[f"input_{number}"] = x.astype(np.int64)
        data[f"expected_{number}"] = golden.run(network, x[np.newaxis])[0].astype(np.int64)
    kinds = [list(DAMAGE)[number % len(DAMAGE)] for number in range(cases)]
    owners = np.array([number // len(DAMAGE) % len(images) for number in range(cases)])
    # Behind the model lies whatever was there.
    memory = rng.integers(1 << 16, size=(cases, depth)).astype(np.uint16)
    for number, (kind, owner) in enumerate(zip(kinds, owners, strict=True)):
        words = images[owner].words
        memory[number, :len(words)] = corrupt(words, kind, rng)
    bounds = np.array([cycle_bound(words, config) for words in memory], np.int64)
    data |= {"memory": memory, "owners": owners, "bounds": bounds}
    result = run(build(accelerator_model_spec(images[0])), "shiftwright.sim.benches.corruption", data=data, seed=seed,
                 timeout=timeout)
    found = result.data
    ends = np.array(found["ends"])
    failures = [f"case {n} (seed {seed}, network {owners[n]}, {kinds[n]}): " + (
                    f"no end within {min(int(bounds[n]), PATIENCE)} cycles" if ends[n] == 2
                    else f"the sound model does not run afterwards: {found['trouble'][n]}")
                for n in range(cases) if ends[n] == 2 or found["trouble"][n]]
    return CorruptionResult(
        run=cases, ended=int((ends == 0).sum()), aborted=int((ends == 1).sum()), hangs=int((ends == 2).sum()),
        recovered=sum(not trouble for trouble in found["trouble"]),
        status=dict(sorted(collections.Counter(Status(code).name for code in found["status"]).items())),
        unchanged=int(np.sum(found["unchanged"])), cycles=int(np.max(found["cycles"])), failures=tuple(failures),
        seconds=result.seconds)
