"""Radiona ULX3S with the LFE5U-85F: 4 x 4 lanes."""

from typing import Any

from ..hw.arch.config import AcceleratorConfig
from .devices import DEVICES
from .registry import Board

__all__ = ["BOARD"]


def _platform() -> Any:
    from amaranth.build import Attrs, Pins, PinsN, Resource, Subsignal
    from amaranth_boards.ulx3s import ULX3S_85F_Platform

    platform = ULX3S_85F_Platform()
    connector = ("gpio", 0)
    platform.add_resources([Resource(
        "shiftwright", 0, Subsignal("sclk", Pins("0+", dir="i", conn=connector)),
        Subsignal("mosi", Pins("1+", dir="i", conn=connector)), Subsignal("cs", PinsN("2+", dir="i", conn=connector)),
        Subsignal("miso", Pins("3+", dir="o", conn=connector)), Attrs(IO_TYPE="LVCMOS33"))])
    return platform


BOARD = Board(
    name="ulx3s-85f", title="Radiona ULX3S (LFE5U-85F)", device=DEVICES["ecp5-85f"],
    config=AcceleratorConfig(lanes_y=4, lanes_x=4), clock_mhz=25.0, platform=_platform,
    pins="GP0 sclk, GP1 mosi, GP2 cs (active low), GP3 miso")
