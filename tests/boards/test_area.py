"""The estimate of an accelerator's area, and what fits a device."""

import dataclasses
import json
import time
from importlib import resources
from pathlib import Path

import pytest
from amaranth.hdl import Elaboratable

from shiftwright.boards import registry
from shiftwright.boards.area import LOGIC, UNITS, Memory, estimate, features, memories, ram_blocks, rams
from shiftwright.boards.devices import DEVICES
from shiftwright.boards.fit import check_fit, exceeded, fits
from shiftwright.boards.flow import synthesize_rtlil
from shiftwright.boards.netlist import Counts
from shiftwright.boards.serial import AcceleratorOverSerial
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError
from shiftwright.hw.generate import design_memories, rtlil_text
from shiftwright.hw.top import AcceleratorOverUart
from shiftwright.sw.tools import using_tools

SMALL = AcceleratorConfig(lanes_y=1, lanes_x=1, interleave=1, shadow_chain=True, counters=False, row_depth=512,
                          act_depth=512, acc_width=20, max_code_bits=9, map_bits=6, positions=32, weight_depth=16384)


def _behind(port: str, config: AcceleratorConfig) -> Elaboratable:
    return AcceleratorOverUart(config, clock_hz=25_000_000) if port == "uart" else AcceleratorOverSerial(config)


@pytest.mark.parametrize("port, config", [
    pytest.param("serial", AcceleratorConfig(lanes_y=1, lanes_x=2, streams=2), marks=pytest.mark.regress),
    pytest.param("uart", SMALL, marks=pytest.mark.regress),
    ("serial", AcceleratorConfig(lanes_y=2, lanes_x=1, streams=3, act_bits=5, act_depth=300, row_depth=64,
                                 weight_depth=20000, dict_depth=700, positions=100, interleave=2)),
], ids=["1x2x2", "1x1x1", "2x1x3"])
def test_memories_are_those_of_the_design(port: str, config: AcceleratorConfig) -> None:
    expected = sorted((each.depth, each.width) for each in memories(config, port=port) for _ in range(each.count))
    text = rtlil_text(_behind(port, config), name="top")
    assert sorted((each.depth, each.width) for each in design_memories(text)) == expected


@pytest.mark.parametrize("device, shape, blocks", [
    ("ecp5-85f", (2048, 8), 1), ("ecp5-85f", (3000, 8), 2), ("ecp5-85f", (6000, 8), 3), ("ecp5-85f", (16384, 16), 16),
    ("ecp5-85f", (256, 8), 1), ("ecp5-85f", (128, 8), 0), ("ecp5-85f", (512, 18), 1), ("ecp5-85f", (5000, 16), 5),
    ("gw2a-18", (8192, 8), 4), ("gw2a-18", (64, 8), 0), ("gw2a-18", (10000, 16), 10),
    ("hx8k", (16, 8), 1), ("hx8k", (256, 14), 1), ("hx8k", (512, 18), 3), ("hx8k", (2048, 3), 2),
    ("hx8k", (6000, 8), 12), ("hx8k", (600, 16), 3), ("hx8k", (16384, 16), 64),
])
def test_ram_blocks_are_as_yosys_maps_them(device: str, shape: tuple[int, int], blocks: int) -> None:
    """The numbers are those of Yosys 0.70, each memory synthesized alone."""
    memory = Memory(name="m", count=3, depth=shape[0], width=shape[1])
    assert ram_blocks(memory, DEVICES[device]) == (3 * blocks, 0)


def test_large_single_port_memories_are_spram_on_ultraplus_only() -> None:
    config = SMALL.replace(weight_depth=65536, weight_memory="spram")
    assert estimate(config, "up5k").spram == 4
    assert estimate(config, "hx8k").spram == 0
    assert estimate(config, "hx8k").ram == estimate(config, "up5k").ram + 4 * 64
    assert estimate(config.replace(weight_memory="block"), "up5k").spram == 0


def _counts(port: str, config: AcceleratorConfig, device: str, folder: Path) -> Counts:
    with using_tools():
        return synthesize_rtlil(rtlil_text(_behind(port, config), name="top"), DEVICES[device], folder).counts


@pytest.mark.regress
@pytest.mark.parametrize("port, device", [
    ("serial", "ecp5-85f"), ("uart", "up5k"), ("uart", "gw2a-18")])
def test_the_estimate_is_within_a_tenth_of_synthesis(port: str, device: str, tmp_path: Path) -> None:
    config = SMALL.replace(lanes_x=2, acc_width=22)
    counts = _counts(port, config, device, tmp_path)
    area = estimate(config, device, port=port)
    assert (area.ram, area.spram) == (counts.ram, counts.spram)
    for resource in LOGIC:
        assert getattr(area, resource) == pytest.approx(getattr(counts, resource), rel=0.1), resource


@pytest.mark.regress
def test_the_default_accelerator_stays_small(tmp_path: Path) -> None:
    counts = _counts("serial", AcceleratorConfig(), "ecp5-85f", tmp_path)
    assert counts.dsp == 0 and counts.lut_equivalents <= 4000


@pytest.mark.parametrize("device", DEVICES)
def test_more_of_anything_is_no_smaller(device: str) -> None:
    before = estimate(SMALL, device)
    for changes in ({"lanes_y": 2}, {"lanes_x": 2}, {"streams": 2}, {"acc_width": 32}, {"counters": True},
                    {"max_code_bits": 15}, {"act_depth": 4096}, {"interleave": 4}, {"weight_depth": 131072}):
        after = estimate(SMALL.replace(**changes), device)
        assert all(getattr(after, name) >= getattr(before, name) for name in (*LOGIC, "ram")), changes
        assert after != before, changes


def test_an_estimate_takes_milliseconds() -> None:
    estimate(SMALL, "up5k")
    started = time.perf_counter()
    for streams in range(1, 9):
        estimate(SMALL.replace(streams=streams), "ecp5-85f")
    assert time.perf_counter() - started < 0.5


def test_the_table_has_a_coefficient_for_each_feature() -> None:
    table = json.loads(resources.files("shiftwright.boards").joinpath("area.json").read_text())
    assert set(table["families"]) == {device.family for device in DEVICES.values()}
    assert table["versions"]["yosys"]
    for units in table["families"].values():
        assert tuple(units) == UNITS
    assert all(set(table["uart"][family]) == set(LOGIC) for family in table["families"])
    for units in table["families"].values():
        for unit, values in features(SMALL).items():
            assert all(len(units[unit][resource]) == len(values) for resource in LOGIC)
            assert min(min(units[unit][resource]) for resource in LOGIC) >= 0


@pytest.mark.parametrize("name", registry.names())
def test_each_boards_own_configuration_fits(name: str) -> None:
    board = registry.get(name)
    if board.device is not None:
        assert check_fit(board.config, board.device) is None


def test_what_does_not_fit_is_told_with_numbers_and_a_way_out() -> None:
    misfit = fits(AcceleratorConfig(), "ecp5-25f")
    assert misfit is not None
    needed = rams(AcceleratorConfig(), DEVICES["ecp5-25f"])[0]
    assert (misfit.resource, misfit.needed, misfit.available) == ("RAM blocks", needed, 56)
    assert misfit.changes == {"weight_depth": 32768}
    assert misfit.nearest == AcceleratorConfig(weight_depth=32768)
    with pytest.raises(CapacityError, match=rf"does not fit Lattice LFE5U-25F.* needs {needed} RAM blocks of 56 "
                                            r"\(estimated\); the nearest configuration that fits has half the model "
                                            r"memory: weight_depth = 32768"):
        check_fit(AcceleratorConfig(), "ecp5-25f")


@pytest.mark.parametrize("device", DEVICES)
def test_the_nearest_configuration_fits(device: str) -> None:
    chosen = DEVICES[device]
    misfit = fits(AcceleratorConfig(lanes_y=8, lanes_x=8, streams=4, act_depth=4096), chosen)
    assert misfit is not None
    if misfit.nearest is not None:
        assert misfit.changes
        assert exceeded(estimate(misfit.nearest, chosen), chosen) is None
    else:
        assert "use a larger device" in str(misfit)


def test_logic_over_by_less_than_the_margin_is_left_to_synthesis() -> None:
    device = DEVICES["ecp5-25f"]
    config = AcceleratorConfig(lanes_y=8, lanes_x=8, acc_width=32, act_depth=16, weight_depth=4096)
    luts = estimate(config, device).lut_equivalents
    smaller = dataclasses.replace(device, capacity={**device.capacity, "lut4": luts - 1})
    misfit = check_fit(config, smaller)
    assert misfit is not None and not misfit.sure
    assert f"may not fit {device.title}: it needs {luts:,} LUT4 of {luts - 1:,}" in str(misfit)
    tiny = dataclasses.replace(device, capacity={**device.capacity, "lut4": luts // 2})
    with pytest.raises(CapacityError, match="the accelerator does not fit"):
        check_fit(config, tiny)


def test_ice40_has_no_distributed_ram_for_four_contexts() -> None:
    misfit = fits(SMALL.replace(interleave=4), "hx8k")
    assert misfit is not None and misfit.resource.startswith("distributed RAM")
    assert misfit.nearest is not None and misfit.nearest.interleave == 2
