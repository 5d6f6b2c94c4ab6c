"""1BitSquared iCEBreaker: the model in single-port RAM, 128 KiB of it."""

from ...hw.arch.config import AcceleratorConfig
from ..registry import Board

BOARDS = [Board(
    name="icebreaker", title="1BitSquared iCEBreaker", platform="amaranth_boards.icebreaker:ICEBreakerPlatform",
    # Narrower than the default wherever that saves logic cells or block RAM: the device has 5,280 and 30.
    config=AcceleratorConfig(lanes_y=4, lanes_x=2, interleave=2, row_depth=512, weight_depth=65536,
                             weight_memory="spram", act_depth=1024, acc_width=20, max_code_bits=10, map_bits=6,
                             counters=False, shadow_chain=True),
    clock_mhz=12.0, programmer=("-b", "ice40_generic"),
    serial="FT2232H (USB 0403:6010), the second of its two ports", baud=1_000_000)]
