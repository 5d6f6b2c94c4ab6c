"""1BitSquared iCEBreaker with the iCE40UP5K: 2 x 2 lanes, the model in single-port RAM."""

from typing import Any

from ..hw.arch.config import AcceleratorConfig
from .devices import DEVICES
from .registry import Board

__all__ = ["BOARD"]


def _platform() -> Any:
    from amaranth.build import Attrs, Pins, PinsN, Resource, Subsignal
    from amaranth_boards.icebreaker import ICEBreakerPlatform

    platform = ICEBreakerPlatform()
    connector = ("pmod", 0)
    platform.add_resources([Resource(
        "shiftwright", 0, Subsignal("cs", PinsN("1", dir="i", conn=connector)),
        Subsignal("mosi", Pins("2", dir="i", conn=connector)), Subsignal("miso", Pins("3", dir="o", conn=connector)),
        Subsignal("sclk", Pins("4", dir="i", conn=connector)), Attrs(IO_STANDARD="SB_LVCMOS"))])
    return platform


BOARD = Board(
    name="icebreaker", title="1BitSquared iCEBreaker (iCE40UP5K)", device=DEVICES["up5k"],
    # Narrower than the default wherever that saves logic cells: the device has 5,280.
    config=AcceleratorConfig(lanes_y=2, lanes_x=2, weight_depth=65536, weight_memory="spram", act_depth=1024,
                             acc_width=20, max_code_bits=9, map_bits=6, kernel_max=16),
    clock_mhz=12.0, platform=_platform, pins="PMOD1A: 1 cs (active low), 2 mosi, 3 miso, 4 sclk")
