"""The boards: the registry, the tops with their pins, and whole builds."""

import json
import re
from pathlib import Path

import pytest

from shiftwright.boards import registry
from shiftwright.boards.build import build
from shiftwright.boards.fit import fits
from shiftwright.boards.platforms import load, scan
from shiftwright.boards.registry import Board, Uart
from shiftwright.boards.top import prepare
from shiftwright.boards.verilog import generate_board
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError, ConfigError
from shiftwright.sw.tools import using_tools

TINY = {"lanes_y": 1, "lanes_x": 1, "weight_depth": 1024, "act_depth": 64, "row_depth": 64, "positions": 16,
        "interleave": 2}


def _tiny(board: Board) -> AcceleratorConfig:
    return AcceleratorConfig.from_dict({**TINY, "weight_memory": board.config.weight_memory})


@pytest.mark.parametrize("name", registry.names())
def test_each_tuned_board_is_complete(name: str) -> None:
    board = registry.get(name)
    assert board.name == name and len(name.encode("ascii")) <= 16
    assert board.title and board.serial and board.program("x.bit").startswith("openFPGALoader -b ")
    platform = board.make_platform()
    port = platform.request("uart", board.uart.number, dir="-")
    assert len(port.rx) == len(port.tx) == 1
    # At least as many clock cycles a bit as the link needs.
    assert board.clock_hz / board.baud >= 4
    if board.device is not None:
        assert fits(board.config, board.device) is None


def test_icebreaker_holds_lenet() -> None:
    config = registry.get("icebreaker").config
    assert config.lanes >= 4 and config.weight_memory == "spram" and config.weight_depth == 65536


@pytest.mark.parametrize("name, pins, clock", [
    ("icebreaker", {"uart_0__rx__io 6", "uart_0__tx__io 9"}, "SB_PLL40_PAD"),
    ("hx8k-b-evn", {"uart_0__rx__io B10", "uart_0__tx__io B12"}, "SB_PLL40_CORE"),
    ("ulx3s-25f", {'"uart_0__rx__io" SITE "M1"', '"uart_0__tx__io" SITE "L4"'}, "EHXPLLL"),
    ("tang-nano-9k", {'"uart_0__rx__io" 18', '"uart_0__tx__io" 17'}, "rPLL"),
    ("arty-a7", {'LOC A9 [get_ports "uart_0__rx__io"]', 'LOC D10 [get_ports "uart_0__tx__io"]'}, "BUFGCTRL"),
    ("de10-nano", {'"uart_0__rx__io" PIN_AG13', '"uart_0__tx__io" PIN_AF13'}, ""),
])
def test_the_top_has_the_boards_pins_and_clock(name: str, pins: set[str], clock: str) -> None:
    board = registry.get(name)
    prepared = prepare(board, _tiny(board), name="board")
    text = "".join(prepared.constraints.values())
    assert all(pin in text for pin in pins), text
    used = set(re.findall(r"cell \\(EHXPLLL|SB_PLL40_\w+|rPLL)", prepared.rtlil))
    assert used == ({clock} if board.pll() else set())
    assert "attribute \\src" not in prepared.rtlil and "module \\board.accelerator.link" in prepared.rtlil


def test_every_platform_with_a_uart_is_found_and_the_known_devices_get_an_accelerator() -> None:
    found = {each.name: each for each in scan()}
    assert len(found) > 40 and {"icesugar", "versaecp5", "tangprimer20k", "icestick"} <= set(found)
    assert found["icestick"].device is None and found["icestick"].family == "Lattice iCE40"
    for each in found.values():
        if each.device is not None:
            board = registry.get(each.name)
            assert board.device is not None and fits(board.config, board.device) is None, each.name
            assert board.clock_mhz <= max(board.oscillator_mhz, board.device.clock_mhz) or board.serial


def test_a_platform_is_named_in_three_ways() -> None:
    by_class = registry.get("amaranth_boards.icesugar:ICESugarPlatform")
    assert by_class == registry.get("icesugar") == registry.get("ICE-Sugar")
    assert registry.get("amaranth_boards.icebreaker:ICEBreakerPlatform") is registry.get("icebreaker")
    assert registry.get("ulx3s_85f") is registry.get("ulx3s-85f")
    prepare(by_class, _tiny(by_class))


def test_what_is_no_board_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the board must be one of arty-a7, .*, or one of 'shiftwright boards --all'"
                                          r", not 'de00'"):
        registry.get("de00")
    with pytest.raises(ConfigError, match="no_such_module:Platform: can't import the board"):
        registry.get("no_such_module:Platform")
    with pytest.raises(ConfigError, match="json:loads: must be an Amaranth platform or a Board"):
        registry.get("json:loads")
    with pytest.raises(ConfigError, match="there are no open tools for Digilent Arty A7-35T .*'shiftwright generate "
                                          "--board arty-a7' writes"):
        build("arty-a7", tmp_path)
    nameless = Board(name="x", title="x", platform="amaranth_boards.upduino_v3:UpduinoV3Platform",
                     config=AcceleratorConfig(), clock_mhz=12.0)
    with pytest.raises(ConfigError, match=r"x: the platform .* must have a resource \('uart', 0\); name pins"):
        nameless.make_platform()


def test_pins_of_a_connector_can_be_the_uart() -> None:
    board = Board(name="upduino", title="UPduino", platform="amaranth_boards.icebreaker:ICEBreakerPlatform",
                  config=_tiny(registry.get("icebreaker")), clock_mhz=12.0,
                  uart=Uart(number=1, connector=("pmod", 0), rx="1", tx="2", attributes={"IO_STANDARD": "SB_LVCMOS"}))
    constraints = "".join(prepare(board, board.config).constraints.values())
    assert "set_io uart_1__rx__io 4" in constraints and "set_io uart_1__tx__io 2" in constraints


def test_the_clock_of_a_board_can_be_changed() -> None:
    board = registry.get("ulx3s-85f").at(60)
    assert board.clock_mhz == 60 and board.pll() is not None and board.clock_hz == 60_000_000
    assert registry.get("ulx3s-85f").at(25).pll() is None
    with pytest.raises(ConfigError, match="the clock must be greater than 0 MHz, not -1"):
        build("icebreaker", Path("unused"), mhz=-1)
    with pytest.raises(ConfigError, match="the clock of arty-a7 must be that of its oscillator, 100 MHz, not 90"):
        registry.get("arty-a7").at(90)


def test_verilog_with_constraints_for_a_vendors_tool(tmp_path: Path) -> None:
    board = registry.get("arty-a7")
    with using_tools():
        manifest = generate_board(board, tmp_path, config=_tiny(board))
        again = generate_board(board, tmp_path / "again", config=_tiny(board))
    assert manifest == again
    assert manifest["files"] == again["files"] and set(manifest["files"]) == {"arty_a7.v", "arty_a7.xdc"}
    assert (manifest["clock_hz"], manifest["first_baud"]) == (100_000_000, 115_200)
    assert "module arty_a7(" in (tmp_path / "arty_a7.v").read_text()
    assert json.loads((tmp_path / "arty_a7.json").read_text()) == manifest
    with pytest.raises(ConfigError, match="the name of the top module must be a Verilog identifier, not 'a b'"):
        generate_board(board, tmp_path, name="a b")


def test_what_does_not_fit_is_refused_before_synthesis(tmp_path: Path) -> None:
    config = registry.get("icebreaker").config.replace(lanes_y=4, lanes_x=4, act_depth=256, acc_width=32, max_shift=15)
    with pytest.raises(CapacityError, match=r"does not fit Lattice iCE40UP5K.*LUT4 of 5,280"):
        build("icebreaker", tmp_path, config=config)
    assert not list(tmp_path.iterdir())


@pytest.mark.regress
@pytest.mark.parametrize("name", ["icebreaker", "ulx3s-25f"])
def test_build(name: str, tmp_path: Path) -> None:
    with using_tools():
        result = build(name, tmp_path)
    assert result.routed.met, f"{result.routed.mhz} MHz"
    assert result.bitstream.stat().st_size > 10_000
    report = json.loads(result.report.read_text())
    assert result.program.endswith(f" {result.bitstream}") and report["program"].endswith(f" {result.bitstream.name}")
    assert report["netlist"]["dsp"] == 0
    assert report["clock"]["met"] and report["clock"]["critical_path"]
    assert report["fingerprint"] == f"{registry.get(name).config.fingerprint:08x}"
    memories = report["memories"]
    assert sum(".banks.bank" in memory for memory in memories) == result.config.lanes
    assert str(tmp_path) not in result.report.read_text()


def test_the_class_of_a_platform_is_loaded() -> None:
    assert load("amaranth_boards.ulx3s:ULX3S_12F_Platform").device == "LFE5U-12F"
