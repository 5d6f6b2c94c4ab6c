"""Bits of weights, by estimate and by the compiler's own code, and the search for a target."""

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sw.compress.rate import code_lengths, entropy_bits, estimated_bits, layer_bits, turn_until


def test_lengths_are_those_of_the_entropy() -> None:
    counts = torch.tensor([8, 4, 2, 2])
    assert code_lengths(counts).tolist() == [1, 2, 3, 3]
    assert entropy_bits(counts) == 8 + 8 + 6 + 6
    assert code_lengths(torch.tensor([2]), 16).tolist() == [3]
    assert code_lengths(torch.tensor([0, 8]))[0] > 3, "a value without weights has a long codeword"


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_the_estimate_is_near_the_code(rng: np.random.Generator, share: float) -> None:
    values = rng.choice([-4, -2, -1, 1, 2, 6], (64, 32, 3, 3), p=[0.05, 0.15, 0.3, 0.3, 0.15, 0.05])
    numbers = torch.tensor(values * (rng.random(values.shape) < share))
    assert layer_bits(numbers) == pytest.approx(estimated_bits(numbers), rel=0.12)


def test_a_knob_is_turned_until_the_target_is_met() -> None:
    tried = []

    def size(knob: float) -> float:
        tried.append(knob)
        return 100 / knob

    knob = turn_until(size, 20, 0.1, 100, where="here", what="{} bytes")
    assert 0.98 * 20 <= 100 / knob <= 20 and len(tried) < 16
    with pytest.raises(ModelError, match=r"here: the smallest network that was found takes 1 bytes, more than 0\.5; "
                                         r"raise the target, or prune more"):
        turn_until(size, 0.5, 0.1, 100, where="here", what="{} bytes")
