"""Damaged models in the simulated accelerator: no hang, a status, and afterwards everything as before."""

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ModelError
from shiftwright.hw.arch.image import DESCRIPTOR, HEADER_WORDS, WATCHDOG_UNIT
from shiftwright.sim.corruption import DAMAGE, CorruptionResult, corrupt, corruption, cycle_bound
from shiftwright.sw.compiler.compile import compile_
from tests.networks import random_images, random_network

CONFIG = AcceleratorConfig(lanes_y=4, lanes_x=2, streams=2, weight_depth=4096, act_depth=512,
                           rounding="half_even")


def _run(cases: int, seed: int) -> CorruptionResult:
    networks = [random_network(seed + n, CONFIG, size=7) for n in range(4)]
    inputs = [random_images(network, 1, seed)[0] for network in networks]
    return corruption(CONFIG, networks, inputs, cases=cases, seed=seed)


def _check(result: CorruptionResult) -> None:
    assert result.hangs == 0 and result.failures == (), "\n".join(result.failures)
    assert result.recovered == result.passed == result.run == result.ended + result.aborted
    # Damage that is always noticed, or never, is no test.
    assert 0 < result.unchanged < result.run
    wanted = {"OK", "BAD_DESCRIPTOR", "BAD_CODEWORD", "STREAM_OVERRUN", "TAP_OVERRUN"}
    assert wanted <= set(result.status), result.status


@pytest.mark.slow
def test_no_hang_in_60_corruptions(seed: int) -> None:
    _check(_run(60, seed))


@pytest.mark.regress
def test_no_hang_in_1000_corruptions(seed: int) -> None:
    result = _run(1000, seed + 1)
    _check(result)
    assert {"BAD_MODEL", "WATCHDOG"} <= set(result.status), result.status


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_changes_words_and_is_repeatable(kind: str, seed: int) -> None:
    words = compile_(random_network(seed, CONFIG, size=7), CONFIG).words
    first, second = (corrupt(words, kind, np.random.default_rng(seed)) for _ in range(2))
    assert first.shape == words.shape and first.dtype == words.dtype
    assert not np.array_equal(first, words) and np.array_equal(first, second)


def test_the_bound_follows_the_watchdog(seed: int) -> None:
    words = compile_(random_network(seed, CONFIG, size=7), CONFIG).words
    memory = np.zeros(CONFIG.weight_depth, np.uint16)
    memory[:len(words)] = words
    bound = cycle_bound(memory, CONFIG)
    memory[HEADER_WORDS + DESCRIPTOR.index("watchdog")] += 1
    assert cycle_bound(memory, CONFIG) == bound + WATCHDOG_UNIT
    memory[0] ^= 1
    assert cycle_bound(memory, CONFIG) < 1000


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(ModelError, match="the kind of damage must be one of one bit, .*, not 'rust'"):
        corrupt(np.zeros(8, np.uint16), "rust", np.random.default_rng(0))
    with pytest.raises(ModelError, match="corruption needs networks with an input each"):
        corruption(CONFIG, [], [], cases=1, seed=0)
