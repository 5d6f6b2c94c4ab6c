"""Lattice iCE40HX8K Breakout Board: no single-port RAM, so models of up to 8 KiB in block RAM."""

from ...hw.arch.config import AcceleratorConfig
from ..registry import Board

BOARDS = [Board(
    name="hx8k-b-evn", title="Lattice iCE40HX8K-B-EVN",
    platform="amaranth_boards.ice40_hx8k_b_evn:ICE40HX8KBEVNPlatform",
    config=AcceleratorConfig(lanes_y=4, lanes_x=2, interleave=2, row_depth=512, weight_depth=4096, dict_depth=256,
                             act_depth=512, acc_width=20, max_code_bits=10, map_bits=6, counters=False,
                             shadow_chain=True),
    clock_mhz=48.0, programmer=("-b", "ice40_generic"),
    serial="FT2232H (USB 0403:6010), the second of its two ports", baud=2_000_000,
    notes="openFPGALoader writes the flash: set the jumpers as for that")]
