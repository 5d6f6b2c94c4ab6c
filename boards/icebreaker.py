"""1BitSquared iCEBreaker with the iCE40UP5K: 4 x 2 lanes, the model in single-port RAM."""

from typing import Any

from ..hw.arch.config import AcceleratorConfig
from .devices import DEVICES
from .pins import with_serial_port
from .registry import Board

__all__ = ["BOARD"]


def _platform() -> Any:
    from amaranth_boards.icebreaker import ICEBreakerPlatform

    return with_serial_port(ICEBreakerPlatform(), ("pmod", 0), {"cs": "1", "mosi": "2", "miso": "3", "sclk": "4"},
                            IO_STANDARD="SB_LVCMOS")


BOARD = Board(
    name="icebreaker", title="1BitSquared iCEBreaker (iCE40UP5K)", device=DEVICES["up5k"],
    # Narrower than the default wherever that saves logic cells or block RAM: the device has 5,280 and 30.
    config=AcceleratorConfig(lanes_y=4, lanes_x=2, interleave=2, row_depth=512, weight_depth=65536,
                             weight_memory="spram", act_depth=1024, acc_width=20, max_code_bits=10, map_bits=6,
                             counters=False, shadow_chain=True),
    clock_mhz=12.0, platform=_platform, pins="PMOD1A: 1 cs (active low), 2 mosi, 3 miso, 4 sclk")
