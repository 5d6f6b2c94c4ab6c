"""The boards: the registry, the platforms' pins, and whole builds."""

import json
from pathlib import Path

import pytest

from shiftwright.boards import registry
from shiftwright.boards.build import build
from shiftwright.hw.arch.errors import CapacityError, ConfigError
from shiftwright.sw.tools import using_tools


@pytest.mark.parametrize("name", registry.names())
def test_each_board_has_a_serial_port_and_a_clock(name: str) -> None:
    board = registry.get(name)
    platform = board.platform()
    assert platform.default_clk_frequency == board.clock_mhz * 1e6
    port = platform.request("shiftwright", 0, dir="-")
    assert {len(getattr(port, pin)) for pin in ("sclk", "mosi", "cs", "miso")} == {1}


def test_unknown_board_is_named() -> None:
    with pytest.raises(ConfigError, match="the board must be one of ulx3s-85f, icebreaker, not 'de0'"):
        registry.get("de0")


def test_a_clock_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the clock must be greater than 0 MHz, not -1"):
        build("icebreaker", tmp_path, mhz=-1)


@pytest.mark.regress
@pytest.mark.parametrize("name", registry.names())
def test_build(name: str, tmp_path: Path) -> None:
    with using_tools():
        result = build(name, tmp_path)
    assert result.routed.met, f"{result.routed.mhz} MHz"
    assert result.bitstream.stat().st_size > 10_000
    report = json.loads(result.report.read_text())
    assert report["netlist"]["dsp"] == 0
    assert report["clock"]["met"] and report["clock"]["critical_path"]
    assert report["fingerprint"] == f"{registry.get(name).config.fingerprint:08x}"
    memories = report["memories"]
    assert sum(".banks.bank" in memory for memory in memories) == result.config.lanes
    assert str(tmp_path) not in result.report.read_text()


def test_what_does_not_fit_is_refused_before_synthesis(tmp_path: Path) -> None:
    config = registry.get("icebreaker").config.replace(lanes_y=4, lanes_x=4, act_depth=256, acc_width=32, max_shift=15)
    with pytest.raises(CapacityError, match=r"does not fit Lattice iCE40UP5K.*LUT4 of 5,280"):
        build("icebreaker", tmp_path, config=config)
    assert not list(tmp_path.iterdir())
