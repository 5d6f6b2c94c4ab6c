"""Every component against its bench's model, on both simulators from one body.

All components of a configuration are one build (:mod:`shiftwright.sim.yard`).
"""

import shutil

import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ToolError
from shiftwright.sim.components import COMPONENTS, check_component

SMALL = {"weight_depth": 4096, "act_depth": 256}

CONFIGS = {
    "4x2": AcceleratorConfig(lanes_y=4, lanes_x=2, row_depth=64, **SMALL),
    "2x4, truncating": AcceleratorConfig(lanes_y=2, lanes_x=4, streams=2, interleave=2, guard_bits=0, max_code_bits=8,
                                         dict_depth=256, act_bits=5, rounding="half_even", **SMALL),
    "1x1": AcceleratorConfig(lanes_y=1, lanes_x=1, interleave=1, shadow_chain=True, counters=False, **SMALL),
    "2x8": AcceleratorConfig(lanes_y=2, lanes_x=8, streams=3, guard_bits=3, max_code_bits=15, act_depth=256,
                             weight_depth=16384),
    "8x8": AcceleratorConfig(lanes_y=8, lanes_x=8, acc_width=32, max_shift=15, rounding="half_even", **SMALL),
    "1x8": AcceleratorConfig(lanes_y=1, lanes_x=8, shadow_chain=True, acc_width=16, max_shift=0, positions=16,
                             rounding="half_even", **SMALL),
    "4x4, deep": AcceleratorConfig(act_depth=4096, weight_depth=1 << 16, max_code_bits=4, act_bits=2, map_bits=12,
                                   streams=4),
}
QUICK_ON_ICARUS = "activations", "blocks", "codetable", "lanes"
"""Benches that take Icarus a few seconds: the others are among the long tests."""
LONG = ("icarus", "front"), ("icarus", "rowbuffer"), ("icarus", "sequencer")
"""Benches that take longest: only among the long tests, and in LONG_CONFIGS."""
LONG_CONFIGS = "2x4, truncating", "1x8"
QUICK = [("2x4, truncating", "icarus", component) for component in QUICK_ON_ICARUS] + [
    ("4x2", "verilator", component) for component in COMPONENTS]
PAIRS = [(config, simulator) for simulator in ("verilator", "icarus") for config in CONFIGS]

needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog (iverilog) is not installed")


def _cases(*, quick: bool) -> list[object]:
    return [pytest.param(component, config, simulator, id=f"{component}-{config} on {simulator}",
                         marks=[needs_icarus] if simulator == "icarus" else [])
            for config, simulator in PAIRS for component in COMPONENTS
            if ((simulator, component) in LONG) <= (config in LONG_CONFIGS)
            and quick == ((config, simulator, component) in QUICK)]


@pytest.mark.parametrize(("component", "config", "simulator"), _cases(quick=True))
def test_component(component: str, config: str, simulator: str, seed: int) -> None:
    result = check_component(component, CONFIGS[config], simulator=simulator, seed=seed)
    assert result.tests


@pytest.mark.regress
@pytest.mark.parametrize(("component", "config", "simulator"), _cases(quick=False))
def test_component_in_other_configurations(component: str, config: str, simulator: str, seed: int) -> None:
    # Three rounds of the front's words do not fit these model memories, and Icarus is slow: what it is for is another
    # reading of the same Verilog.
    rounds = 1 if component == "front" or simulator == "icarus" else 3
    result = check_component(component, CONFIGS[config], simulator=simulator, seed=seed + 1, rounds=rounds)
    assert result.tests


def test_an_unknown_component_is_an_error() -> None:
    with pytest.raises(ToolError, match="a component bench must be one of memory, .*, not 'multiplier'"):
        check_component("multiplier", CONFIGS["4x2"])
