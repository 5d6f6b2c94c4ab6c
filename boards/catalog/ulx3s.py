"""Radiona ULX3S, with each of its four devices."""

from ...hw.arch.config import AcceleratorConfig
from ..registry import Board

_CONFIGS = {
    # Counted by the data sheet: 12,000 LUTs and 32 RAM blocks.
    "12F": AcceleratorConfig(lanes_y=2, lanes_x=4, weight_depth=8192),
    "25F": AcceleratorConfig(weight_depth=16384, act_depth=2048),
    "45F": AcceleratorConfig(weight_depth=65536, act_depth=2048),
    "85F": AcceleratorConfig(act_depth=4096),
}
BOARDS = [Board(
    name=f"ulx3s-{size.lower()}", title=f"Radiona ULX3S (LFE5U-{size})",
    platform=f"amaranth_boards.ulx3s:ULX3S_{size}_Platform", config=config, clock_mhz=75.0, programmer=("-b", "ulx3s"),
    serial="FT231X (USB 0403:6015)", baud=3_000_000) for size, config in _CONFIGS.items()]
