"""Radiona ULX3S with the LFE5U-85F: 4 x 4 lanes."""

from typing import Any

from ..hw.arch.config import AcceleratorConfig
from .devices import DEVICES
from .pins import with_serial_port
from .registry import Board

__all__ = ["BOARD"]


def _platform() -> Any:
    from amaranth_boards.ulx3s import ULX3S_85F_Platform

    return with_serial_port(ULX3S_85F_Platform(), ("gpio", 0), {"sclk": "0+", "mosi": "1+", "cs": "2+", "miso": "3+"},
                            IO_TYPE="LVCMOS33")


BOARD = Board(
    name="ulx3s-85f", title="Radiona ULX3S (LFE5U-85F)", device=DEVICES["ecp5-85f"],
    config=AcceleratorConfig(lanes_y=4, lanes_x=4, act_depth=4096), clock_mhz=25.0, platform=_platform,
    pins="GP0 sclk, GP1 mosi, GP2 cs (active low), GP3 miso")
