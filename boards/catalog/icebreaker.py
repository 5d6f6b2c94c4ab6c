"""1BitSquared iCEBreaker: the model in single-port RAM, 128 KiB of it; twice, as 15 KiB of block RAM are few."""

from ...hw.arch.config import AcceleratorConfig
from ..registry import Board

# Narrower than the default wherever that saves logic cells or block RAM: the device has 5,280 and 30.
_CONFIG = AcceleratorConfig(lanes_y=2, lanes_x=2, interleave=2, row_depth=512, weight_depth=65536,
                            weight_memory="spram", act_depth=2048, acc_width=20, max_code_bits=10, map_bits=6,
                            counters=False, shadow_chain=True)
BOARDS = [Board(
    name=name, title=title, platform="amaranth_boards.icebreaker:ICEBreakerPlatform", config=config, clock_mhz=24.0,
    programmer=("-b", "ice40_generic"), serial="FT2232H (USB 0403:6010), the second of its two ports", baud=2_000_000)
    for name, title, config in (
        ("icebreaker", "1BitSquared iCEBreaker", _CONFIG),
        # LeNet-5's first two maps are 14,400 activations.
        ("icebreaker-4bit", "1BitSquared iCEBreaker, activations of 4 bits, twice as many",
         _CONFIG.replace(act_bits=4, act_depth=4096)))]
