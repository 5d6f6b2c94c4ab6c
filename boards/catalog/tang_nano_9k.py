"""Sipeed Tang Nano 9K."""

from ...hw.arch.config import AcceleratorConfig
from ..registry import Board

BOARDS = [Board(
    name="tang-nano-9k", title="Sipeed Tang Nano 9K", platform="amaranth_boards.tang_nano_9k:TangNano9kPlatform",
    config=AcceleratorConfig(lanes_y=2, lanes_x=2, interleave=2, weight_depth=12288, act_depth=2048, row_depth=1024),
    clock_mhz=40.5, programmer=("-b", "tangnano9k"),
    serial="BL702 (USB 0403:6010), the second of its two ports", baud=2_000_000)]
