"""LambdaConcept ECPIX-5, with either of its devices."""

from ...hw.arch.config import AcceleratorConfig
from ..registry import Board

BOARDS = [Board(
    name=f"ecpix5-{size}", title=f"LambdaConcept ECPIX-5 (LFE5UM5G-{size}F)",
    platform=f"amaranth_boards.ecpix5:ECPIX5{size}Platform",
    config=AcceleratorConfig(act_depth=act_depth), clock_mhz=100.0, programmer=("-b", "ecpix5"),
    serial="FT2232H (USB 0403:6010), the second of its two ports", baud=3_000_000,
    notes="boards from revision 3 on have an FT4232H: -b ecpix5_r03")
    for size, act_depth in ((45, 2048), (85, 4096))]
